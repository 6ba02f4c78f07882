//! The disk that machines keep their own store on: one file, that one build at a time uses.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Store;
use super::lock::check_cancelled;

/// Directory of all that belongs to it.
const DIRECTORY: &str = "machines";

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

    /// Waits for the disk; `waiting` is called once if another build has it.
    pub fn lock_machine_disk(&self, waiting: &mut dyn FnMut()) -> Result<DiskLock> {
        let mut said = false;
        loop {
            if let Some(lock) = self.try_lock_machine_disk()? {
                return Ok(lock);
            }
            if !std::mem::replace(&mut said, true) {
                waiting();
            }
            check_cancelled()?;
            std::thread::sleep(super::lock::POLL);
        }
    }

    fn try_lock_machine_disk(&self) -> Result<Option<DiskLock>> {
        let path = self.dir(DIRECTORY).join("lock");
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
