//! FAT12, FAT16 and FAT32.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use fatfs::{FileSystem, FsOptions};

use super::{Entry, EntryKind, Tree};
use crate::inspect::Window;

/// A FAT file system.
pub struct Fat(FileSystem<Window>);

impl Fat {
    /// Opens it.
    pub fn open(bytes: Window) -> Result<Self> {
        Ok(Self(FileSystem::new(bytes, FsOptions::new()).context("reading the FAT file system")?))
    }
}

impl Tree for Fat {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        let top = self.0.root_dir();
        let opened = if directory == Path::new("") { Ok(top) } else { top.open_dir(&directory.to_string_lossy()) };
        let Ok(opened) = opened else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for entry in opened.iter() {
            let entry = entry.with_context(|| format!("reading /{}", directory.display()))?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let kind = if entry.is_dir() { EntryKind::Directory } else { EntryKind::File };
            let mode = if entry.is_dir() { 0o755 } else { 0o644 };
            let size = if entry.is_dir() { 0 } else { entry.len() };
            all.push(Entry { path: directory.join(name), kind, mode, owner: None, size });
        }
        Ok(all)
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let opened = self.0.root_dir().open_file(&file.to_string_lossy());
        Ok(Box::new(opened.with_context(|| format!("reading /{}", file.display()))?))
    }
}

/// Whether these bytes begin like such a file system.
pub(in crate::inspect) fn is_fat(bytes: &Window) -> bool {
    bytes.has(510, b"\x55\xaa")
        && (bytes.has(54, b"FAT12   ") || bytes.has(54, b"FAT16   ") || bytes.has(82, b"FAT32   "))
}
