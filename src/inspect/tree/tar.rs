//! tar archives.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};

use super::catalogue::Catalogue;
use super::{Entry, EntryKind, Tree};
use crate::build::archive::{Part, TarMember, TarReader, TarType, is_tar_header};
use crate::inspect::Window;

/// An archive that is not compressed (any more).
pub struct Tar {
    bytes: Window,
    members: Catalogue<Data>,
}

/// Where the contents of a file are.
#[derive(Debug, Clone, Default)]
struct Data {
    start: u64,
    size: u64,
    /// Of a file with holes: what lies from `start` on, one after the other.
    parts: Option<Vec<Part>>,
}

/// Whether these bytes begin like an archive.
pub(in crate::inspect) fn is_tar(bytes: &Window) -> bool {
    bytes.array_at::<512>(0).is_some_and(|block| block[0] != 0 && is_tar_header(&block))
}

impl Tar {
    /// Reads the list of what is in an archive.
    pub fn open(bytes: Window) -> Result<Self> {
        let at = Rc::new(Cell::new(0));
        let mut counting = Counting { from: bytes.clone(), at: at.clone() };
        let mut reader = TarReader::new(&mut counting);
        let mut members = Catalogue::new();
        while let Some(member) = reader.next().context("reading the archive")? {
            let path = relative(&PathBuf::from(&member.path));
            let data = Data { start: at.get(), size: member.size, parts: member.sparse.clone() };
            if let Some((entry, data)) = entry(path, &member, data, &members) {
                members.add(entry, data);
            }
        }
        Ok(Self { bytes, members })
    }
}

fn entry(path: PathBuf, member: &TarMember, data: Data, members: &Catalogue<Data>) -> Option<(Entry, Data)> {
    let kind = match member.kind {
        TarType::File => EntryKind::File,
        TarType::HardLink => {
            // The same file once more.
            let (target, data) = members.get(&relative(Path::new(&member.link)))?.clone();
            return Some((Entry { path, ..target }, data));
        }
        TarType::Link => EntryKind::Link(OsString::from_vec(member.link.clone().into_vec()).into()),
        TarType::Character => EntryKind::CharacterDevice,
        TarType::Block => EntryKind::BlockDevice,
        TarType::Directory => EntryKind::Directory,
        TarType::Pipe => EntryKind::Pipe,
    };
    let id = |id: u64| u32::try_from(id).unwrap_or(u32::MAX);
    let owner = Some((id(member.uid), id(member.gid)));
    let size = if kind == EntryKind::File { member.size } else { 0 };
    Some((Entry { path, kind, mode: member.mode & 0o7777, owner, size }, data))
}

/// Without `./`, `/` and `..`.
fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

impl Tree for Tar {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        Ok(self.members.list(directory))
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let (_, data) = self.members.get(file).with_context(|| format!("{} is not in the archive", file.display()))?;
        let Some(parts) = &data.parts else { return Ok(Box::new(self.bytes.part(data.start, data.size))) };
        // Zeros up to each part, the part, zeros to the end.
        let mut reader: Box<dyn Read> = Box::new(io::empty());
        let (mut at, mut from) = (0, data.start);
        for (offset, length) in parts {
            let hole = io::repeat(0).take(offset.saturating_sub(at));
            reader = Box::new(reader.chain(hole).chain(self.bytes.part(from, *length)));
            (at, from) = (offset + length, from + length);
        }
        Ok(Box::new(reader.chain(io::repeat(0).take(data.size.saturating_sub(at)))))
    }
}

/// Says how far it has been read.
struct Counting {
    from: Window,
    at: Rc<Cell<u64>>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.at.set(self.at.get() + read as u64);
        Ok(read)
    }
}
