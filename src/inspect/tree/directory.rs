//! Trees that a program has taken out of a file system into a directory.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Entry, EntryKind, Tree};

/// A directory of this machine.
pub struct Directory {
    top: PathBuf,
    /// Whether the owners are those of the tree, rather than whoever took it out.
    owners: bool,
}

impl Directory {
    /// With its top.
    pub fn new(top: PathBuf, owners: bool) -> Self {
        Self { top, owners }
    }
}

impl Tree for Directory {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        for found in fs::read_dir(self.top.join(directory)).into_iter().flatten() {
            let found = found?;
            let path = directory.join(found.file_name());
            let stat = found.path().symlink_metadata().with_context(|| format!("reading /{}", path.display()))?;
            let is = stat.file_type();
            let kind = match () {
                () if is.is_file() => EntryKind::File,
                () if is.is_dir() => EntryKind::Directory,
                () if is.is_symlink() => EntryKind::Link(fs::read_link(found.path())?),
                () if is.is_char_device() => EntryKind::CharacterDevice,
                () if is.is_block_device() => EntryKind::BlockDevice,
                () if is.is_fifo() => EntryKind::Pipe,
                () => EntryKind::Socket,
            };
            let size = if kind == EntryKind::File { stat.len() } else { 0 };
            let owner = self.owners.then(|| (stat.uid(), stat.gid()));
            all.push(Entry { path, kind, mode: stat.mode() & 0o7777, owner, size });
        }
        Ok(all)
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(self.top.join(file)).with_context(|| format!("reading /{}", file.display()))?))
    }
}
