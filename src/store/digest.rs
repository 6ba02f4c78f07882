//! Digests of what steps read from the host, remembered by the files' stat data.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::Store;
use super::lock::check_cancelled;
use super::stat_cache::Stamp;
use crate::diagnostics::Fault;
use crate::sys::file::data_ranges;

/// Files are digested in pieces of this size, so that large ones use all processors and holes cost nothing.
const PIECE: u64 = 1 << 20;

/// One entry of a tree that was digested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the tree's top; empty for the top itself.
    pub path: PathBuf,
    /// BLAKE3 over kind, mode, link target, xattrs and contents; not over times, owners or inode numbers.
    pub digest: String,
}

impl Store {
    /// The entries of a file or directory, sorted by path. Contents of files whose device, inode,
    /// size, mtime and ctime are as remembered are not read again.
    ///
    /// Sockets are left out: they stand for a running process, and no copy of one is of use.
    /// Devices and named pipes are refused. A link at `path` itself is followed.
    pub fn digest_tree(&self, path: &Path) -> Result<Vec<Entry>> {
        let path = &path.canonicalize().with_context(|| format!("reading {}", path.display()))?;
        let mut found = Vec::new();
        for item in walkdir::WalkDir::new(path).sort_by_file_name() {
            let item = item.with_context(|| format!("reading {}", path.display()))?;
            let relative = item.path().strip_prefix(path)?.to_owned();
            found.push((item.into_path(), relative));
        }
        let entries: Vec<Option<Entry>> = found
            .into_par_iter()
            .map(|(full, relative)| {
                let digest = self.entry_digest(&full).with_context(|| format!("reading {}", full.display()))?;
                Ok(digest.map(|digest| Entry { path: relative, digest }))
            })
            .collect::<Result<_>>()?;
        let mut entries: Vec<Entry> = entries.into_iter().flatten().collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        self.save_digests();
        Ok(entries)
    }

    fn entry_digest(&self, path: &Path) -> Result<Option<String>> {
        check_cancelled()?;
        let stat = std::fs::symlink_metadata(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        if stat.is_symlink() {
            field(b"link");
            field(std::fs::read_link(path)?.as_os_str().as_bytes());
        } else if stat.is_dir() {
            field(b"directory");
        } else if stat.is_file() {
            field(b"file");
            field(&self.known_digest(path)?);
        } else if std::os::unix::fs::FileTypeExt::is_socket(&stat.file_type()) {
            return Ok(None);
        } else {
            let message = format!("{} is a device or a named pipe, which no step can take in", path.display());
            return Err(Fault::recipe(message).into());
        }
        if !stat.is_symlink() {
            field(&(stat.mode() & 0o7777).to_le_bytes());
            for (name, value) in attributes(path)? {
                field(name.as_bytes());
                field(&value);
            }
        }
        Ok(Some(hasher.finalize().to_hex().to_string()))
    }

    /// [`contents_digest`], remembered by the file's stat data.
    fn known_digest(&self, path: &Path) -> Result<[u8; 32]> {
        for _ in 0..5 {
            let now = SystemTime::now();
            let before = Stamp::of(&std::fs::symlink_metadata(path)?);
            let tells = self.digests(|cache| cache.tells_changes(path, &before));
            if let Some(known) = self.digests(|cache| cache.get(&before)).filter(|_| tells) {
                return Ok(known);
            }
            let digest = contents_digest(path)?;
            // Written to meanwhile, it may be neither what it was nor what it is.
            if Stamp::of(&std::fs::symlink_metadata(path)?) == before {
                if tells {
                    self.digests(|cache| cache.insert(before, digest, now));
                }
                return Ok(digest);
            }
        }
        bail!("the file changes all the time")
    }
}

/// The extended attributes that are part of a file, sorted; not labels, which the running system gives.
fn attributes(path: &Path) -> Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names {
        let text = name.to_string_lossy();
        if text.starts_with("user.") || text.starts_with("system.posix_acl_") || text == "security.capability" {
            let mut value = xattr::get(path, &name)?.unwrap_or_default();
            if text.starts_with("system.posix_acl_") && !*ALL_IDS {
                forget_ids(&mut value);
            }
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether this process and those that it starts see all ids as they are. In a user namespace an ACL's show as
/// others, or as nobody's, so neither there nor before they count: a copy could not have them either.
static ALL_IDS: LazyLock<bool> = LazyLock::new(|| {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    nix::unistd::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
});

/// Leaves of an ACL the tags and permissions: a version, then entries of two, two and four bytes
/// (linux/posix_acl_xattr.h).
fn forget_ids(acl: &mut [u8]) {
    for entry in acl.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
        entry[4..].fill(0);
    }
}

/// BLAKE3 over a file's length and the BLAKE3 digests of its pieces. A hole counts as the zeros
/// that are read from it.
pub(super) fn contents_digest(path: &Path) -> Result<[u8; 32]> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let pieces: Vec<blake3::Hash> = match length {
        0..=PIECE => vec![piece_digest(&file, 0, length)?],
        _ => {
            let data = data_ranges(&file, length)?;
            let pieces = (0..length.div_ceil(PIECE)).into_par_iter().map(|piece| {
                let (start, end) = (piece * PIECE, ((piece + 1) * PIECE).min(length));
                // The first range that ends behind the piece's start.
                let next = data.partition_point(|range| range.1 <= start);
                if end - start == PIECE && data.get(next).is_none_or(|range| range.0 >= end) {
                    return Ok(*ZEROS);
                }
                check_cancelled()?;
                piece_digest(&file, start, end)
            });
            pieces.collect::<Result<_>>()?
        }
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length.to_le_bytes());
    for piece in pieces {
        hasher.update(piece.as_bytes());
    }
    Ok(*hasher.finalize().as_bytes())
}

/// A part of a hole.
static HOLE: [u8; 1 << 16] = [0; 1 << 16];

/// SHA-256 of a file's contents, in lower-case hex; what is a hole is not read, only counted.
pub fn sha256(path: &Path) -> Result<String> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; PIECE.min(length) as usize]);
    let mut at = 0;
    for (start, end) in data_ranges(&file, length)?.into_iter().chain(std::iter::once((length, length))) {
        check_cancelled()?;
        while at < start {
            let part = (start - at).min(HOLE.len() as u64);
            hasher.update(&HOLE[..part as usize]);
            at += part;
        }
        while at < end {
            let part = (end - at).min(PIECE) as usize;
            file.read_exact_at(&mut buffer[..part], at)?;
            hasher.update(&buffer[..part]);
            at += part as u64;
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Digest of a piece of zeros.
static ZEROS: LazyLock<blake3::Hash> = LazyLock::new(|| blake3::hash(&vec![0; PIECE as usize]));

fn piece_digest(file: &File, start: u64, end: u64) -> Result<blake3::Hash> {
    let mut buffer = vec![0; (end - start) as usize];
    match file.read_exact_at(&mut buffer, start) {
        Ok(()) => Ok(blake3::hash(&buffer)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bail!("the file changed while it was read"),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_as_zeros() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut plain = vec![0; (5 << 20) + 123];
        for at in [0, (2 << 20) + 77, plain.len() - 1] {
            plain[at] = 7;
            file.as_file().write_all_at(&[7], at as u64).unwrap();
        }
        assert_eq!(sha256(file.path()).unwrap(), hex::encode(Sha256::digest(&plain)));
        file.as_file().set_len((6 << 20) + 1).unwrap();
        plain.resize((6 << 20) + 1, 0);
        assert_eq!(sha256(file.path()).unwrap(), hex::encode(Sha256::digest(&plain)));
    }
}
