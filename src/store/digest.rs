//! Digests of what steps read from the host, remembered by the files' stat data.

use std::path::Path;

use anyhow::Result;

use super::Store;

/// One entry of a tree that was digested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the tree's top; empty for the top itself.
    pub path: std::path::PathBuf,
    /// BLAKE3 over kind, mode, link target, xattrs and contents; not over times, owners or inode numbers.
    pub digest: String,
}

impl Store {
    /// The entries of a file or directory, sorted by path. Contents of files whose device, inode,
    /// size, mtime and ctime are as remembered are not read again.
    pub fn digest_tree(&self, _path: &Path) -> Result<Vec<Entry>> {
        anyhow::bail!("digests are not there yet")
    }
}
