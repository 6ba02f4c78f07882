//! The disk that machines keep their own store on: one file, that one build at a time uses.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::lock::{Tried, Waiting, wait};
use super::{Holder, Store};

/// Directory of all that belongs to it.
const DIRECTORY: &str = "machines";
/// Its lock's file, below that.
const LOCK: &str = "lock";

/// The right to use the disk, gone with the process that has it.
#[derive(Debug)]
pub struct DiskLock(#[allow(dead_code, reason = "it is held, not read")] File);

impl Store {
    /// Where the disk is, or is to be.
    pub fn machine_disk(&self) -> PathBuf {
        self.machines().join("store.ext4")
    }

    /// The directory of all that machines need.
    pub fn machines(&self) -> PathBuf {
        self.dir(DIRECTORY)
    }

    /// Where it is noted what is on it; see [`super::Elsewhere`].
    pub fn machine_contents(&self) -> PathBuf {
        self.dir(DIRECTORY).join("contents.json")
    }

    /// Waits for the disk; `waiting` is called once, with who has it, if another build does.
    pub fn lock_machine_disk(&self, waiting: Waiting<'_>) -> Result<DiskLock> {
        let lock = wait(&self.dir(DIRECTORY).join(LOCK), waiting, || {
            Ok(self.try_lock_machine_disk()?.map_or(Tried::Busy, Tried::Taken))
        })?;
        Holder::sign(&lock.0);
        Ok(lock)
    }

    fn try_lock_machine_disk(&self) -> Result<Option<DiskLock>> {
        let path = self.dir(DIRECTORY).join(LOCK);
        let doing = || format!("locking {}", path.display());
        let lock = File::options().create(true).truncate(false).write(true).open(&path).with_context(doing)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(DiskLock(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(doing),
        }
    }

    /// Whether the disk is gone: not while a build uses it.
    pub(super) fn remove_machine_disk(&self) -> Result<bool> {
        let Some(_lock) = self.try_lock_machine_disk()? else { return Ok(false) };
        let _ = std::fs::remove_file(self.machine_contents());
        Ok(std::fs::remove_file(self.machine_disk()).is_ok())
    }
}
