//! Single files under the SHA-256 of their contents: downloads and packages.
//!
//! A file that is not yet known to be on the disk may be written by its owner (mode 0644), one that
//! is may not (0444): after a crash the former is read and compared before it counts.

use std::collections::HashMap;
use std::fs::{File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::Store;
use super::copy::copy_file;
use super::lock::is_at;
use super::packages::PACKAGES;
use super::stat_cache::Stamp;
use crate::sys::remove::{make_way, remove_wholly};

const FRESH: u32 = 0o644;
const SYNCED: u32 = 0o444;

/// When this run of the kernel began, by today's clock.
static BOOTED: LazyLock<SystemTime> = LazyLock::new(|| {
    let uptime = std::fs::read_to_string("/proc/uptime").ok();
    let seconds = uptime.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    // Without an answer every file is older and is read again.
    seconds.map_or_else(SystemTime::now, |seconds| SystemTime::now() - Duration::from_secs_f64(seconds))
});

impl Store {
    /// The file of a digest, its bytes compared with that, marked as used; `None` where it is not there or damaged.
    pub(super) fn hand_out(&self, dir: &Path, sha256: &str) -> Option<PathBuf> {
        let path = dir.join(file_name(sha256)?);
        let file = self.proved(&path, sha256).or_else(|| {
            self.borrow(dir, &path, sha256).inspect_err(|error| tracing::debug!("{error:#}")).ok()?;
            self.proved(&path, sha256)
        })?;
        self.keep_used();
        // Failing means a store that can only be read, where nothing is evicted.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        self.is_proved(&path, &file);
        is_at(&file, &path).then_some(path)
    }

    /// The open file, if its bytes are those that its name says: once a process they are read. What is something else
    /// is dropped.
    fn proved(&self, path: &Path, sha256: &str) -> Option<File> {
        let stat = std::fs::symlink_metadata(path).ok()?;
        if !stat.is_file() {
            self.drop_damaged(path);
            return None;
        }
        let file = File::open(path).ok()?;
        let stamp = Stamp::of(&file.metadata().ok()?);
        if self.proofs().get(path) == Some(&stamp) {
            return Some(file);
        }
        if sha256_of(path).ok()? == sha256.to_ascii_lowercase() {
            return Some(file);
        }
        if is_at(&file, path) {
            self.drop_damaged(path);
        }
        None
    }

    fn drop_damaged(&self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = if path.starts_with(self.dir(PACKAGES)) { "package" } else { "download" };
        match remove_wholly(path) {
            Ok(()) => self.note(format!("the {what} {name} in the store was damaged, and is made anew")),
            Err(error) => self.note(format!("the {what} {name} in the store is damaged: {error:#}")),
        }
    }

    /// Remembers that a file is what its name says, as long as it looks as it does.
    fn is_proved(&self, path: &Path, file: &File) {
        if let Ok(stat) = file.metadata() {
            self.proofs().insert(path.to_owned(), Stamp::of(&stat));
        }
    }

    fn proofs(&self) -> MutexGuard<'_, HashMap<PathBuf, Stamp>> {
        self.inner.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a file that the lending store has to its place in this one.
    fn borrow(&self, dir: &Path, path: &Path, sha256: &str) -> Result<()> {
        let lent = self.lent(path.strip_prefix(self.dir(""))?).context("nobody has it")?;
        let scratch = self.scratch()?;
        let fresh = scratch.path.join("borrowed");
        copy_file(&lent, &fresh).with_context(|| format!("copying {}", lent.display()))?;
        ensure!(sha256_of(&fresh)?.eq_ignore_ascii_case(sha256), "{} is damaged", lent.display());
        self.take_in(&fresh, dir, sha256).map(drop)
    }

    /// Moves a file that has just been written, and whose contents are known, to its place.
    pub(super) fn take_in(&self, file: &Path, dir: &Path, sha256: &str) -> Result<PathBuf> {
        let path = dir.join(file_name(sha256).context("a digest that is none")?);
        self.keep_used();
        std::fs::set_permissions(file, Permissions::from_mode(FRESH))
            .and_then(|()| File::open(file)?.set_times(FileTimes::new().set_modified(SystemTime::now())))
            .and_then(|()| {
                make_way(&path);
                std::fs::rename(file, &path)
            })
            .with_context(|| format!("keeping {}", path.display()))?;
        if let Ok(file) = File::open(&path) {
            self.is_proved(&path, &file);
        }
        Ok(path)
    }
}

/// Whether a file of this mode is known to be on the disk.
pub(super) fn is_synced(mode: u32) -> bool {
    mode & 0o222 == 0
}

/// Whether a crash may have damaged a file: another run of the kernel left it unsynced.
pub(super) fn is_doubtful(stat: &Metadata) -> bool {
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(stat.ctime().try_into().unwrap_or(0));
    !is_synced(stat.mode()) && changed < *BOOTED
}

/// Notes that a file is on the disk.
pub(super) fn mark_synced(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(SYNCED))
}

/// The digest of a file's contents, lower-case hex.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn file_name(sha256: &str) -> Option<String> {
    (sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| sha256.to_ascii_lowercase())
}
