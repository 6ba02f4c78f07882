//! What is in a tree: its files in an order that no host decides, and what they come to.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use rayon::prelude::*;
use walkdir::WalkDir;

use super::Tree;
use crate::image::sparse::{SMALLEST_SWAP, data_ranges, is_swap};

/// Files below this size are taken to have no holes.
const SMALLEST_SPARSE: u64 = 1 << 20;
/// Zeros are looked for in blocks of this size.
const BLOCK: usize = 4096;

/// Something in a tree.
#[derive(Debug)]
pub(super) struct Entry {
    /// Relative to the top; empty for the top itself.
    pub path: PathBuf,
    /// Where its contents are read from.
    pub source: PathBuf,
    /// Of the file itself, links not followed; of the file that stands in for a replaced one.
    pub meta: Metadata,
}

impl Entry {
    /// As messages name it: absolute, as the target knows it.
    pub fn shown(&self) -> String {
        Path::new("/").join(&self.path).display().to_string()
    }
}

/// The entries of a tree, parents first, names in the order of their bytes.
pub(super) fn entries(tree: &Tree) -> Result<Vec<Entry>> {
    let Some(top) = &tree.top else { return Ok(Vec::new()) };
    let hidden: HashSet<&Path> = tree.hidden.iter().map(PathBuf::as_path).collect();
    let below = |path: &Path| path.strip_prefix(top).unwrap_or(Path::new("")).to_path_buf();
    let mut all = Vec::new();
    let mut walk = WalkDir::new(top).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.context("reading the tree")?;
        let path = below(entry.path());
        if hidden.contains(path.as_path()) && entry.file_type().is_dir() {
            walk.skip_current_dir();
        }
        let source = match tree.replaced.iter().find(|(replaced, _)| *replaced == path) {
            Some((_, instead)) => instead.clone(),
            None => entry.path().to_path_buf(),
        };
        let meta = source.symlink_metadata().with_context(|| format!("looking at {}", source.display()))?;
        all.push(Entry { path, source, meta });
    }
    Ok(all)
}

/// What a tree comes to, whatever file system it lies on now.
#[derive(Debug, Clone, Default)]
pub(super) struct Census {
    /// Files of all kinds, hard links counted once, the top among them.
    pub inodes: u64,
    /// Regular files.
    pub files: Vec<FileSize>,
    /// For each directory the lengths of the names in it.
    pub directories: Vec<Vec<usize>>,
    /// Lengths of the targets of symbolic links.
    pub links: Vec<u64>,
    /// For each file that has extended attributes: their (name's and value's length).
    pub attributes: Vec<Vec<(usize, usize)>>,
}

/// How much room a file wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSize {
    /// Its length.
    pub length: u64,
    /// Without its holes.
    pub data: u64,
    /// Runs of data.
    pub runs: u64,
}

/// Of one file: its size where it is a regular one, and the lengths of its attributes.
type Measured = (Option<FileSize>, Vec<(usize, usize)>);

impl Census {
    /// Counts a tree. Only what files hold decides, not how the host stores it, because the sizes of
    /// images follow from this.
    pub fn of(tree: &Tree) -> Result<Self> {
        Self::count(tree, |entry| {
            let size = entry.meta.is_file().then(|| FileSize::of(entry)).transpose()?;
            let attributes = attributes(&entry.source)?;
            Ok((size, attributes.iter().map(|(name, value)| (name.len(), value.len())).collect()))
        })
    }

    /// Counts a tree without reading its files: as if they had no holes and no attributes.
    pub fn rough(tree: &Tree) -> Result<Self> {
        Self::count(tree, |entry| {
            let length = entry.meta.len();
            Ok((entry.meta.is_file().then_some(FileSize { length, data: length, runs: 1 }), Vec::new()))
        })
    }

    fn count(tree: &Tree, measure: impl Fn(&Entry) -> Result<Measured> + Sync + Send) -> Result<Self> {
        let entries = entries(tree)?;
        let measured: Vec<Measured> = entries.par_iter().map(measure).collect::<Result<_>>()?;
        let mut census = Self { inodes: 1, ..Self::default() };
        let mut seen = HashSet::new();
        let mut open: Vec<(PathBuf, usize)> = Vec::new();
        for (entry, (size, attributes)) in entries.iter().zip(measured) {
            let kind = entry.meta.file_type();
            if let (Some(parent), Some(name)) = (entry.path.parent(), entry.path.file_name()) {
                while open.last().is_some_and(|(path, _)| path != parent) {
                    open.pop();
                }
                if let Some((_, index)) = open.last() {
                    census.directories[*index].push(name.as_bytes().len());
                }
            }
            if kind.is_dir() {
                open.push((entry.path.clone(), census.directories.len()));
                census.directories.push(Vec::new());
            } else if entry.meta.nlink() > 1 && !seen.insert((entry.meta.dev(), entry.meta.ino())) {
                continue;
            }
            if entry.path.components().next().is_some() {
                census.inodes += 1;
            }
            census.files.extend(size);
            if kind.is_symlink() {
                census.links.push(entry.meta.len());
            }
            if !attributes.is_empty() {
                census.attributes.push(attributes);
            }
        }
        Ok(census)
    }
}

impl FileSize {
    /// Of a regular file; large ones are read.
    pub fn of(entry: &Entry) -> Result<Self> {
        let length = entry.meta.len();
        let whole = Self { length, data: length, runs: 1 };
        if length < SMALLEST_SPARSE {
            return Ok(whole);
        }
        Self::without_zeros(&entry.source, length).with_context(|| format!("reading {}", entry.source.display()))
    }

    fn without_zeros(path: &Path, length: u64) -> std::io::Result<Self> {
        let file = File::open(path)?;
        if is_swap(&file, length)? {
            return Ok(Self { length, data: length, runs: 1 });
        }
        let mut buffer = vec![0; 1 << 18];
        let (mut data, mut runs, mut end_of_run, mut at) = (0, 0, u64::MAX, 0);
        for (start, end) in data_ranges(&file, length)? {
            // What is counted must not depend on where the host's blocks begin and end.
            at = at.max(start / BLOCK as u64 * BLOCK as u64);
            let end = end.next_multiple_of(BLOCK as u64).min(length);
            while at < end {
                let want = usize::try_from((end - at).min(buffer.len() as u64)).map_err(std::io::Error::other)?;
                file.read_exact_at(&mut buffer[..want], at)?;
                for block in buffer[..want].chunks(BLOCK) {
                    if block.iter().any(|byte| *byte != 0) {
                        data += block.len() as u64;
                        runs += u64::from(end_of_run != at);
                        end_of_run = at + block.len() as u64;
                    }
                    at += block.len() as u64;
                }
            }
        }
        Ok(Self { length, data, runs })
    }
}

/// Files of a tree that are swap space, one name of each.
pub(super) fn swap_files(entries: &[Entry]) -> Result<Vec<&Entry>> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for entry in entries.iter().filter(|entry| entry.meta.is_file() && entry.meta.len() >= SMALLEST_SWAP) {
        let found = File::open(&entry.source).and_then(|file| is_swap(&file, entry.meta.len()));
        let found = found.with_context(|| format!("reading {}", entry.source.display()))?;
        if found && seen.insert((entry.meta.dev(), entry.meta.ino())) {
            all.push(entry);
        }
    }
    Ok(all)
}

/// Whether any file of a tree has several extended attributes, so that there is an order of them.
pub(super) fn has_several_attributes(entries: &[Entry]) -> Result<bool> {
    let several = |entry: &Entry| Ok(attributes(&entry.source)?.len() > 1);
    entries.par_iter().map(several).try_reduce(|| false, |one, other| Ok(one || other))
}

/// Extended attributes of a file, links not followed, sorted by name; none where the file system has
/// none. Overlayfs's own marks are not the file's, nor is a label that the host's kernel gave it.
pub(super) fn attributes(path: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
    let doing = || format!("reading the attributes of {}", path.display());
    let names = match xattr::list(path) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(Vec::new()),
        other => other.with_context(doing)?,
    };
    let mut all = Vec::new();
    for name in names {
        let bytes = name.as_bytes();
        let mark = bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.");
        if mark || crate::sys::label::is_hosts(&name) {
            continue;
        }
        if let Some(value) = xattr::get(path, &name).with_context(doing)? {
            all.push((name, value));
        }
    }
    all.sort();
    Ok(all)
}
