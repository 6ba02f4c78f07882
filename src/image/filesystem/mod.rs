//! File systems made and filled from a tree without being mounted: a file per mkfs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{Contents, FilesystemKind, Tools};

/// What a file system is filled with.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Its top directory; `None` leaves the file system empty.
    pub top: Option<PathBuf>,
    /// Directories in it, relative to the top, whose contents lie on other file systems. They
    /// themselves are in the tree.
    pub hidden: Vec<PathBuf>,
    /// Files with other contents than the tree's: (relative path, file to read instead).
    pub replaced: Vec<(PathBuf, PathBuf)>,
    /// Subvolumes and where their contents lie in the tree, relative to the top (btrfs).
    pub subvolumes: Vec<(String, PathBuf)>,
}

/// A file system to be made.
pub struct Request<'a> {
    /// What it is called in messages: the partition's name.
    pub name: &'a str,
    /// What it is.
    pub contents: &'a Contents,
    /// What is in it.
    pub tree: &'a Tree,
    /// The image, of its full size, zeros where the file system goes.
    pub image: &'a Path,
    /// Where in the image, in bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
    /// Bytes of a sector of the disk.
    pub sector_size: u32,
    /// Date of what has no date of its own, seconds since 1970; nothing in it is younger.
    pub epoch: i64,
    /// An empty directory on a real file system.
    pub scratch: &'a Path,
    /// Runs programs.
    pub tools: &'a dyn Tools,
}

/// Makes a file system and fills it. The same request gives the same bytes.
pub fn make(_request: &Request<'_>) -> Result<()> {
    bail!("file systems are not there yet")
}

/// Bytes that a file system of this kind wants at least for a tree, without free space.
pub fn minimum(_contents: &Contents, _tree: &Tree) -> Result<u64> {
    bail!("file systems are not there yet")
}

/// The host's programs (name, Debian package) that make and fill such a file system.
pub fn programs(_kind: FilesystemKind) -> &'static [(&'static str, &'static str)] {
    &[]
}
