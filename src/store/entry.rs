//! What all kinds of sealed entries share: a directory with a record, visible once it is whole.

use std::fs::{File, FileTimes};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::lock::{MakeLock, Waiting, check_cancelled, is_lock, seize, share};
use super::{Store, TreeRecord, random_name};
use crate::sys::remove::remove_tree;

/// Name of the record in an entry. Its lock is the entry's lock, its mtime the entry's last use.
pub(super) const RECORD: &str = "record.json";
/// Present once the entry's contents are known to be on the disk.
pub(super) const SYNCED: &str = "synced";

/// This run of the kernel.
pub(super) static BOOT: LazyLock<String> = LazyLock::new(|| {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
});

/// The record of a sealed entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sealed<T> {
    /// The run of the kernel that wrote the entry. Nothing is synced to the disk while a build
    /// runs, so what another one wrote counts only with the mark [`SYNCED`].
    boot: String,
    /// When it was sealed, in seconds since 1970.
    pub made: u64,
    /// Allocated on the disk, in bytes.
    pub size: u64,
    /// What is shown of it.
    pub record: TreeRecord,
    /// What its kind needs.
    pub contents: T,
}

impl<T> Sealed<T> {
    fn new(dir: &Path, record: TreeRecord, contents: T) -> Result<Self> {
        let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Ok(Self { boot: BOOT.clone(), made, size: allocated(dir)?, record, contents })
    }

    /// Whether this run of the kernel wrote it.
    pub(super) fn of_this_boot(&self) -> bool {
        self.boot == *BOOT
    }
}

/// What [`Store::claim`] found.
pub(super) enum Claimed<T> {
    /// Another build made the entry; with its shared lock.
    Sealed(File, Box<Sealed<T>>),
    /// It is not there, and nobody else makes it as long as this lives.
    Ours(MakeLock),
}

impl Store {
    /// Claims the making of the entry at `dir`; see [`Store::begin`]. What stands there unsealed is removed.
    pub(super) fn claim<T: DeserializeOwned>(
        &self,
        lock: &str,
        dir: &Path,
        waiting: Waiting<'_>,
    ) -> Result<Claimed<T>> {
        let claim = MakeLock::take(self.dir("locks").join(lock), waiting)?;
        loop {
            if let Some((lock, sealed)) = self.open_entry(dir)? {
                return Ok(Claimed::Sealed(lock, Box::new(sealed)));
            }
            if !dir.exists() || self.discard(dir)? {
                return Ok(Claimed::Ours(claim));
            }
            // It is being evicted just now.
            check_cancelled()?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes the record of an entry that will stand at `target`: at once, and as the last of its files.
    pub(super) fn write_record<T: Serialize>(
        &self,
        dir: &Path,
        target: &Path,
        record: TreeRecord,
        contents: T,
    ) -> Result<()> {
        let sealed = Sealed::new(dir, record, contents)?;
        self.write_atomically(&dir.join(RECORD), &record_text(target, &serde_json::to_vec(&sealed)?))
    }

    /// The record of a sealed entry, whose shared lock is the file returned, and marks it as used
    /// now. What is not whole is removed and counts as absent.
    pub(super) fn open_entry<T: DeserializeOwned>(&self, dir: &Path) -> Result<Option<(File, Sealed<T>)>> {
        self.open_new_entry(dir, dir)
    }

    /// The same of an entry that does not yet stand at `target`.
    pub(super) fn open_new_entry<T: DeserializeOwned>(
        &self,
        dir: &Path,
        target: &Path,
    ) -> Result<Option<(File, Sealed<T>)>> {
        let path = dir.join(RECORD);
        let Some(mut file) = share(&path).with_context(|| format!("opening {}", path.display()))? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(|| format!("reading {}", path.display()))?;
        match record_of::<Sealed<T>>(target, &text) {
            Some(sealed) if sealed.of_this_boot() || dir.join(SYNCED).exists() => {
                // Failing means a store that can only be read, where nothing is evicted.
                let _ = file.set_times(FileTimes::new().set_modified(self.use_time()));
                Ok(Some((file, sealed)))
            }
            _ => {
                drop(file);
                self.discard(dir)?;
                Ok(None)
            }
        }
    }

    /// Makes an entry invisible at once unless somebody uses it, then removes it. Says whether it is gone.
    pub(super) fn discard(&self, dir: &Path) -> Result<bool> {
        let record = dir.join(RECORD);
        let lock = seize(&record).with_context(|| format!("locking {}", record.display()))?;
        if lock.is_none() && is_lock(&record) {
            return Ok(false);
        }
        let doomed = self.dir("trash").join(random_name());
        match std::fs::rename(dir, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).with_context(|| format!("dropping {}", dir.display())),
        }
        if let Err(error) = remove_tree(&doomed) {
            tracing::warn!("{error:#}");
        }
        Ok(true)
    }
}

/// A record's file: a digest of what follows and of the entry's place, so that neither can be another's; then the
/// record.
pub(super) fn record_text(target: &Path, record: &[u8]) -> Vec<u8> {
    [digest_at(target, record).as_bytes(), b"\n", record].concat()
}

/// What a record's file says; `None` where it is damaged, or of another entry.
pub(super) fn record_of<T: DeserializeOwned>(target: &Path, text: &[u8]) -> Option<T> {
    let (digest, record) = text.split_at_checked(text.iter().position(|byte| *byte == b'\n')?)?;
    let record = &record[1..];
    (digest == digest_at(target, record).as_bytes()).then(|| serde_json::from_slice(record).ok())?
}

/// The same without a look at whether it is so, for those who list entries.
pub(super) fn unproved(text: &[u8]) -> Option<Sealed<serde::de::IgnoredAny>> {
    let newline = text.iter().position(|byte| *byte == b'\n')?;
    serde_json::from_slice(&text[newline..]).ok()
}

fn digest_at(target: &Path, record: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    // By the last two names an entry is found; the store's directory may be moved.
    for place in [target.parent().and_then(Path::file_name), target.file_name()] {
        hasher.update(place.unwrap_or_default().as_encoded_bytes());
        hasher.update(&[0]);
    }
    hasher.update(record);
    hasher.finalize().to_hex().to_string()
}

/// Removes what was dropped by processes that could not remove it, or were killed before.
pub(super) fn empty_trash(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Err(error) = remove_tree(&entry.path()) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Bytes that a file or directory takes on the disk, files with several links counted once.
pub(super) fn allocated(path: &Path) -> Result<u64> {
    let mut total = 0;
    let mut pending: Vec<PathBuf> = vec![path.to_owned()];
    let metadata =
        |path: &Path| std::fs::symlink_metadata(path).with_context(|| format!("measuring {}", path.display()));
    while let Some(path) = pending.pop() {
        let stat = metadata(&path)?;
        total += if stat.is_dir() { stat.blocks() * 512 } else { stat.blocks() * 512 / stat.nlink().max(1) };
        if stat.is_dir() {
            for entry in std::fs::read_dir(&path).with_context(|| format!("measuring {}", path.display()))? {
                pending.push(entry?.path());
            }
        }
    }
    Ok(total)
}
