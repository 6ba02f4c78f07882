//! Trees of files inside of artifacts.

mod catalogue;
mod commit;
mod directory;
pub(super) mod ext;
pub(super) mod fat;
mod iso;
mod layers;
mod mounted;
pub(super) mod squashfs;
pub(super) mod tar;

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

pub use commit::Commit;
pub use directory::Directory;
pub use ext::Ext;
pub use fat::Fat;
pub use iso::Iso;
pub use layers::Layers;
pub use mounted::Mounted;
pub use squashfs::Squashfs;
pub use tar::Tar;

/// Links that are followed on the way to one file.
const LINKS: usize = 40;

/// A tree that can be read. Paths are relative to its top; the empty one is the top.
pub trait Tree {
    /// What is in a directory (not through links), in any order; nothing where there is no such directory.
    fn list(&self, directory: &Path) -> Result<Vec<Entry>>;

    /// The contents of a regular file that [`Tree::list`] has named.
    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>>;
}

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the top.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with setuid and its kin.
    pub mode: u32,
    /// Owner and group; `None` where the tree has no such thing.
    pub owner: Option<(u32, u32)>,
    /// Of a regular file, in bytes.
    pub size: u64,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryKind {
    File,
    Directory,
    Link(PathBuf),
    CharacterDevice,
    BlockDevice,
    Pipe,
    Socket,
}

impl dyn Tree + '_ {
    /// The file at a path, all links followed inside of the tree.
    pub fn find(&self, path: &Path) -> Result<Option<Entry>> {
        let mut todo: Vec<PathBuf> = parts(path);
        let mut at = PathBuf::new();
        let mut found = None;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == OsStr::new("..") {
                at.pop();
                continue;
            }
            let Some(entry) =
                self.list(&at)?.into_iter().find(|entry| entry.path.file_name() == Some(name.as_os_str()))
            else {
                return Ok(None);
            };
            if let EntryKind::Link(target) = &entry.kind {
                links += 1;
                if links > LINKS {
                    return Ok(None);
                }
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                todo.extend(parts(target));
            } else {
                at.push(name);
                found = Some(entry);
            }
        }
        Ok(found.filter(|entry| entry.path == at))
    }

    /// The contents of a regular file, links followed, at most `limit` bytes of it.
    pub fn read_some(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.find(path)?.filter(|entry| entry.kind == EntryKind::File) else { return Ok(None) };
        let mut bytes = Vec::new();
        self.open(&entry.path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The text of a regular file, links followed.
    pub fn text(&self, path: impl AsRef<Path>) -> Result<Option<String>> {
        let bytes = self.read_some(path.as_ref(), u64::MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// What is in a directory, links followed, in the order of the names.
    pub fn names(&self, directory: impl AsRef<Path>) -> Result<Vec<Entry>> {
        let directory = directory.as_ref();
        let path =
            if directory == Path::new("") { Some(PathBuf::new()) } else { self.find(directory)?.map(|e| e.path) };
        let mut entries = match path {
            Some(path) => self.list(&path)?,
            None => Vec::new(),
        };
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Hands over every file below the top, directories before what is in them, in the order of their names.
    pub fn walk(&self, take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut todo = vec![PathBuf::new()];
        while let Some(directory) = todo.pop() {
            let mut entries = self.list(&directory)?;
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            todo.extend(entries.iter().rev().filter(|e| e.kind == EntryKind::Directory).map(|e| e.path.clone()));
            for entry in entries {
                take(entry)?;
            }
        }
        Ok(())
    }
}

/// The names of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut names: Vec<PathBuf> = names.map(|part| PathBuf::from(part.as_os_str())).collect();
    names.reverse();
    names
}
