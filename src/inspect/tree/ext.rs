//! ext2 to ext4.

use std::ffi::OsStr;
use std::io::{Error, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType, Metadata};

use super::{Entry, EntryKind, Tree};
use crate::inspect::Window;

/// A file system of the ext family.
pub struct Ext(Ext4);

impl Ext {
    /// Opens it; its journal is taken into account, not written back.
    pub fn open(bytes: Window) -> Result<Self> {
        Ok(Self(Ext4::load(Box::new(Reader(bytes))).context("reading the ext4 file system")?))
    }

    fn entry(&self, path: PathBuf, metadata: &Metadata) -> Result<Entry> {
        let kind = match metadata.file_type() {
            FileType::Regular => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => {
                let target = self.0.read_link(absolute(&path).as_slice())?;
                EntryKind::Link(OsStr::from_bytes(target.as_ref()).into())
            }
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::CharacterDevice => EntryKind::CharacterDevice,
            FileType::Fifo => EntryKind::Pipe,
            FileType::Socket => EntryKind::Socket,
        };
        Ok(Entry {
            size: if kind == EntryKind::File { metadata.len() } else { 0 },
            kind,
            mode: u32::from(metadata.mode()) & 0o7777,
            owner: Some((metadata.uid(), metadata.gid())),
            path,
        })
    }
}

fn absolute(path: &Path) -> Vec<u8> {
    [b"/", path.as_os_str().as_bytes()].concat()
}

impl Tree for Ext {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        let directory_bytes = absolute(directory);
        let entries = match self.0.read_dir(directory_bytes.as_slice()) {
            Ok(entries) => entries,
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading /{}", directory.display())),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name: &[u8] = name.as_ref();
            if name == b"." || name == b".." {
                continue;
            }
            all.push(self.entry(directory.join(OsStr::from_bytes(name)), &entry.metadata()?)?);
        }
        Ok(all)
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let opened = self.0.open(absolute(file).as_slice());
        Ok(Box::new(opened.with_context(|| format!("reading /{}", file.display()))?))
    }
}

struct Reader(Window);

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.0.read_exact_at(dst, start_byte).map_err(|error: Error| error.into())
    }
}

/// Whether these bytes begin like such a file system.
pub(in crate::inspect) fn is_ext(bytes: &Window) -> bool {
    bytes.has(1024 + 56, b"\x53\xef")
}
