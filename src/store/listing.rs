//! What a sealed tree consists of, so that what stands in the store is known to be what was sealed.
//!
//! A file whose device, inode, size, mtime and ctime are those of its sealing has its contents, too; all
//! others are read again and compared by digest.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Store;
use super::digest::contents_digest;
use super::lock::check_cancelled;

/// Name of the listing, beside an entry's record.
pub(super) const LISTING: &str = "listing.json";

/// All that is in a tree, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing(Vec<Item>);

/// A file, directory, link or node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    /// Below the tree's top, its bytes as hex where they are no text; empty for the top itself.
    path: Name,
    /// Type and permissions, as in `st_mode`.
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of device nodes: an overlay's whiteout is one.
    device: u64,
    /// Of files, in bytes.
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Of links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Name>,
    /// Of files, BLAKE3 as [`contents_digest`] makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Names and values in hex, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<(String, String)>,
    /// The first name, by order, of a file that has several in this tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    linked: Option<Name>,
    /// What tells without reading that a file is as it was: device, inode, ctime. No part of the digest.
    stamp: (u64, u64, i64, i64),
}

/// A path in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes { hex: String },
}

impl Name {
    fn of(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes { hex: hex::encode(path.as_os_str().as_bytes()) },
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes { hex } => OsString::from_vec(hex::decode(hex).unwrap_or_default()).into(),
        }
    }
}

/// How much is read to find out whether a tree is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Files that look untouched are taken for what they were.
    Changed,
    /// Every byte.
    All,
}

impl Listing {
    /// Reads a tree that is about to be sealed.
    pub(super) fn of(top: &Path) -> Result<Self> {
        let found = walk(top)?;
        let links = first_names(found.iter().filter(|(_, stat)| stat.is_file()).map(|(path, stat)| (path, key(stat))));
        let items = found.par_iter().map(|(path, stat)| {
            let item = Item::read(top, path, stat).with_context(|| format!("reading {}", path.display()))?;
            let first = links.get(&key(stat)).filter(|first| stat.is_file() && **first != path);
            Ok(Item { linked: first.map(|first| Name::of(first)), ..item })
        });
        Ok(Self(items.collect::<Result<_>>()?))
    }

    /// Names the tree's bytes, owners, modes, dates and attributes, wherever it stands.
    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("debforge tree 1");
        for item in &self.0 {
            let plain = Item { stamp: Default::default(), ..item.clone() };
            let text = serde_json::to_vec(&plain).unwrap_or_default();
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(&text);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What of the tree at `top` is not as it was sealed; `None` for a whole one. Otherwise also whether
    /// what looks touched turned out to be the same, so that the listing is better written anew.
    pub(super) fn compare(&mut self, top: &Path, depth: Depth) -> Result<Verdict> {
        let found = match walk(top) {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(Verdict::Damaged("the tree is gone".into())),
            Err(error) => return Err(error),
        };
        if found.len() != self.0.len() {
            let sealed: std::collections::BTreeSet<PathBuf> = self.0.iter().map(|item| item.path.path()).collect();
            let there = found.iter().map(|(path, _)| path.clone()).collect();
            let odd = sealed.symmetric_difference(&there).next().map(|path| path.display().to_string());
            let odd = odd.unwrap_or_default();
            let what = if sealed.len() > found.len() { "is gone" } else { "was not there" };
            return Ok(Verdict::Damaged(format!("`{odd}` {what}")));
        }
        let links = first_names(found.iter().filter(|(_, stat)| stat.is_file()).map(|(path, stat)| (path, key(stat))));
        let joined = self.0.iter().zip(&found).find(|(item, (path, stat))| {
            let first = links.get(&key(stat)).filter(|first| stat.is_file() && **first != path);
            item.digest.is_some() && item.linked.as_ref().map(Name::path).as_ref() != first.copied()
        });
        if let Some((_, (path, _))) = joined {
            return Ok(Verdict::Damaged(format!("`{}` has other names", path.display())));
        }
        let items: Vec<Result<Option<Item>, String>> = self
            .0
            .par_iter()
            .zip(found)
            .map(|(item, (path, stat))| {
                check_cancelled()?;
                Ok(item.compare(top, &path, &stat, depth).map_err(|what| format!("`{}` {what}", path.display())))
            })
            .collect::<Result<_>>()?;
        let mut touched = false;
        for (position, item) in items.into_iter().enumerate() {
            match item {
                Ok(None) => {}
                Ok(Some(item)) => {
                    self.0[position] = item;
                    touched = true;
                }
                Err(what) => return Ok(Verdict::Damaged(what)),
            }
        }
        Ok(if touched { Verdict::Touched } else { Verdict::Whole })
    }
}

impl Listing {
    /// The first file that is not there any more with the contents that it was sealed with; for directories that
    /// programs go on working in, which may add to them.
    pub(super) fn lacks(&self, top: &Path, depth: Depth) -> Result<Option<String>> {
        for item in &self.0 {
            let (Some(digest), path) = (&item.digest, top.join(item.path.path())) else { continue };
            check_cancelled()?;
            let stat = path.symlink_metadata().ok();
            let untouched = |stat: &Metadata| self::stamp(stat) == item.stamp && stat.size() == item.size;
            if depth == Depth::Changed && stat.as_ref().is_some_and(untouched) {
                continue;
            }
            if !stat.is_some_and(|stat| stat.is_file()) || hex::encode(contents_digest(&path)?) != *digest {
                return Ok(Some(format!("`{}` has other contents", item.path.path().display())));
            }
        }
        Ok(None)
    }
}

/// What became of a sealed tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it was sealed.
    Whole,
    /// The same bytes, but of files that look otherwise: a store that was moved.
    Touched,
    /// Something else; what first.
    Damaged(String),
}

impl Item {
    fn read(top: &Path, path: &Path, stat: &Metadata) -> Result<Self> {
        check_cancelled()?;
        let full = top.join(path);
        let (digest, size) = match stat.is_file() {
            true => (Some(hex::encode(contents_digest(&full)?)), stat.size()),
            false => (None, 0),
        };
        let target = if stat.is_symlink() { Some(Name::of(&std::fs::read_link(&full)?)) } else { None };
        let device = if is_node(stat) { stat.rdev() } else { 0 };
        Ok(Self {
            path: Name::of(path),
            mode: stat.mode(),
            uid: stat.uid(),
            gid: stat.gid(),
            device,
            size,
            modified: (stat.mtime(), stat.mtime_nsec()),
            target,
            digest,
            attributes: attributes(&full)?,
            linked: None,
            stamp: stamp(stat),
        })
    }

    /// `None` where it is untouched, the item with its new stamp where it is the same all the same, else what
    /// is wrong with it.
    fn compare(&self, top: &Path, path: &Path, stat: &Metadata, depth: Depth) -> Result<Option<Self>, String> {
        if self.path.path() != path {
            return Err("was not there".into());
        }
        // Names, owners and attributes change the ctime.
        let untouched = depth == Depth::Changed
            && self.stamp == stamp(stat)
            && (self.mode, self.uid, self.gid) == (stat.mode(), stat.uid(), stat.gid())
            && self.modified == (stat.mtime(), stat.mtime_nsec())
            && (!stat.is_file() || self.size == stat.size());
        if untouched {
            return Ok(None);
        }
        let now = Self::read(top, path, stat).map_err(|error| format!("cannot be read: {error:#}"))?;
        let now = Self { linked: self.linked.clone(), ..now };
        let plain = |item: &Self| Self { stamp: Default::default(), ..item.clone() };
        match plain(self) == plain(&now) {
            true => Ok((self.stamp != now.stamp).then_some(now)),
            false => Err(self.difference(&now).into()),
        }
    }

    fn difference(&self, now: &Self) -> &'static str {
        if self.digest != now.digest || self.size != now.size {
            "has other contents"
        } else if (self.mode, self.uid, self.gid) != (now.mode, now.uid, now.gid) {
            "has another mode or owner"
        } else if self.attributes != now.attributes {
            "has other attributes"
        } else if self.modified != now.modified {
            "has another date"
        } else {
            "is another file"
        }
    }
}

/// Everything below `top`, and itself, sorted by path.
fn walk(top: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    for item in walkdir::WalkDir::new(top) {
        let item = item.with_context(|| format!("reading {}", top.display()))?;
        let stat = item.metadata().with_context(|| format!("reading {}", item.path().display()))?;
        found.push((item.path().strip_prefix(top)?.to_owned(), stat));
    }
    found.sort_unstable_by(|one, other| one.0.as_os_str().cmp(other.0.as_os_str()));
    Ok(found)
}

/// Of each file, by device and inode, the name that comes first.
fn first_names<'a>(files: impl Iterator<Item = (&'a PathBuf, (u64, u64))>) -> HashMap<(u64, u64), &'a PathBuf> {
    let mut first = HashMap::new();
    for (path, key) in files {
        first.entry(key).or_insert(path);
    }
    first
}

fn key(stat: &Metadata) -> (u64, u64) {
    (stat.dev(), stat.ino())
}

fn attributes(path: &Path) -> Result<Vec<(String, String)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names {
        // Labels are the running system's to give.
        if name == "security.selinux" {
            continue;
        }
        let value = xattr::get(path, &name)?.unwrap_or_default();
        found.push((name.to_string_lossy().into_owned(), hex::encode(value)));
    }
    found.sort();
    Ok(found)
}

fn stamp(stat: &Metadata) -> (u64, u64, i64, i64) {
    (stat.dev(), stat.ino(), stat.ctime(), stat.ctime_nsec())
}

fn is_node(stat: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    stat.file_type().is_char_device() || stat.file_type().is_block_device()
}

fn is_missing(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let walked = cause.downcast_ref::<walkdir::Error>().and_then(walkdir::Error::io_error);
        walked.or_else(|| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
    };
    error.chain().filter_map(kind).any(|kind| kind == std::io::ErrorKind::NotFound)
}

impl Store {
    /// Writes the listing of an entry that is about to be sealed; returns its digest.
    pub(super) fn write_listing(&self, entry: &Path, tree: &Path) -> Result<String> {
        let listing = Listing::of(tree)?;
        self.write_atomically(&entry.join(LISTING), &serde_json::to_vec(&listing)?)?;
        Ok(listing.digest())
    }

    /// Whether the tree of a sealed entry is what was sealed; `digest` is that of its record.
    pub(super) fn compare_listing(&self, entry: &Path, tree: &Path, digest: &str, depth: Depth) -> Result<Verdict> {
        let mut listing = match read(entry, digest)? {
            Ok(listing) => listing,
            Err(damage) => return Ok(Verdict::Damaged(damage.into())),
        };
        let verdict = listing.compare(tree, depth)?;
        if verdict == Verdict::Touched {
            // Best effort: without it, the files are read again next time.
            let _ = self.write_atomically(&entry.join(LISTING), &serde_json::to_vec(&listing)?);
        }
        Ok(verdict)
    }
}

/// The listing of a sealed entry, if it is the one of its record; else what is wrong with it.
pub(super) fn read(entry: &Path, digest: &str) -> Result<Result<Listing, &'static str>> {
    let text = match std::fs::read(entry.join(LISTING)) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {
            return Ok(Err("its listing is gone"));
        }
        Err(error) => return Err(error).with_context(|| format!("reading the listing of {}", entry.display())),
    };
    let Ok(listing) = serde_json::from_slice::<Listing>(&text) else { return Ok(Err("its listing cannot be read")) };
    Ok(if listing.digest() == digest { Ok(listing) } else { Err("its listing is not that of its record") })
}
