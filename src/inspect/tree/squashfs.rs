//! squashfs.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use backhand::{FilesystemReader, InnerNode};

use super::catalogue::Catalogue;
use super::{Entry, EntryKind, Tree};
use crate::inspect::Window;

/// A squashfs file system (version 4).
pub struct Squashfs {
    inner: FilesystemReader<'static>,
    nodes: Catalogue<Option<usize>>,
}

/// Whether these bytes begin like such a file system.
pub(in crate::inspect) fn is_squashfs(bytes: &Window) -> bool {
    bytes.has(0, b"hsqs")
}

impl Squashfs {
    /// Reads its list of files.
    pub fn open(bytes: Window) -> Result<Self> {
        let inner = FilesystemReader::from_reader(BufReader::new(bytes)).context("reading the squashfs file system")?;
        let mut nodes = Catalogue::new();
        for (index, node) in inner.files().enumerate() {
            let path: PathBuf = node.fullpath.strip_prefix("/").unwrap_or(&node.fullpath).into();
            let kind = match &node.inner {
                InnerNode::File(_) => EntryKind::File,
                InnerNode::Symlink(link) => EntryKind::Link(link.link.clone()),
                InnerNode::Dir(_) => EntryKind::Directory,
                InnerNode::CharacterDevice(_) => EntryKind::CharacterDevice,
                InnerNode::BlockDevice(_) => EntryKind::BlockDevice,
                InnerNode::NamedPipe => EntryKind::Pipe,
                InnerNode::Socket => EntryKind::Socket,
            };
            let size = if let InnerNode::File(file) = &node.inner { file.file_len() as u64 } else { 0 };
            let owner = Some((node.header.uid, node.header.gid));
            let mode = u32::from(node.header.permissions) & 0o7777;
            nodes.add(Entry { path, kind, mode, owner, size }, Some(index));
        }
        Ok(Self { inner, nodes })
    }
}

impl Tree for Squashfs {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        Ok(self.nodes.list(directory))
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let node = self.nodes.get(file).and_then(|(_, index)| self.inner.root.nodes.get((*index)?));
        match node.map(|node| &node.inner) {
            Some(InnerNode::File(inner)) => Ok(Box::new(self.inner.file(inner).reader())),
            _ => bail!("{} is no file of the squashfs file system", file.display()),
        }
    }
}
