//! Locks between builds: `flock` on small files, gone with the process that holds them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Holder;
use crate::diagnostics::{Fault, FaultKind};
use crate::sys::remove::make_way;

/// How often a waiting build looks again.
pub(super) const POLL: Duration = Duration::from_millis(40);

static CANCELLED: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets what long work of the store (waiting, fetching, copying) asks whether the user wants it to
/// stop. Only the first call counts; until then nothing is ever stopped.
pub fn set_cancelled(cancelled: fn() -> bool) {
    let _ = CANCELLED.set(cancelled);
}

/// An [`FaultKind::Interrupted`] fault once the user has asked to stop.
pub(super) fn check_cancelled() -> Result<()> {
    if CANCELLED.get().is_some_and(|cancelled| cancelled()) {
        return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
    }
    Ok(())
}

/// The exclusive right to make one entry. Its file is removed with it, so that the directory of
/// locks holds what is being made now and what killed builds left, which [`sweep`] removes.
#[derive(Debug)]
pub(super) struct MakeLock {
    path: PathBuf,
    _file: File,
}

impl MakeLock {
    /// Waits for the lock; `waiting` is called once, with who has it, if another build does.
    pub(super) fn take(path: PathBuf, waiting: Waiting<'_>) -> Result<Self> {
        let file = wait(&path, waiting, || {
            let file = open_lock(&path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => Ok(Tried::Taken(file)),
                // The holder removed the file between our opening and locking it.
                Ok(()) => Ok(Tried::Again),
                Err(TryLockError::WouldBlock) => Ok(Tried::Busy),
                Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
            }
        })?;
        Holder::sign(&file);
        Ok(Self { path, _file: file })
    }

    /// The lock if nobody has it.
    pub(super) fn try_take(path: PathBuf) -> Result<Option<Self>> {
        let file = open_lock(&path)?;
        if file.try_lock().is_ok() && is_at(&file, &path) {
            return Ok(Some(Self { path, _file: file }));
        }
        Ok(None)
    }

    /// Writes into its file who has it.
    pub(super) fn sign(&self) {
        Holder::sign(&self._file);
    }

    /// Lets go of it, and leaves its file for others to find.
    pub(super) fn leave(mut self) {
        self.path = PathBuf::new();
    }
}

/// What is told once, with who has a lock, where that is not free.
pub type Waiting<'a> = &'a mut dyn FnMut(Option<&Holder>);

/// What came of trying to take a lock.
pub(super) enum Tried<T> {
    Taken(T),
    /// Somebody has it.
    Busy,
    /// It was about to be removed.
    Again,
}

/// Tries to take a lock until it is taken.
pub(super) fn wait<T>(path: &Path, waiting: Waiting<'_>, mut attempt: impl FnMut() -> Result<Tried<T>>) -> Result<T> {
    let mut said = false;
    loop {
        match attempt()? {
            Tried::Taken(taken) => return Ok(taken),
            Tried::Again => continue,
            Tried::Busy => {}
        }
        if !std::mem::replace(&mut said, true) {
            waiting(Holder::of(path).as_ref());
        }
        check_cancelled()?;
        std::thread::sleep(POLL);
    }
}

impl Drop for MakeLock {
    fn drop(&mut self) {
        // While it is still locked: whoever waits on the removed file sees that it is gone.
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open_lock(path: &Path) -> Result<File> {
    make_way(path);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("opening the lock {}", path.display()))
}

/// Whether the open file is the one that stands at the path now.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Whether a file can be somebody's lock: what a link leads to is not ours to open.
pub(super) fn is_lock(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file())
}

/// A shared lock on an existing file; `None` where there is none, or it is about to be removed.
pub(super) fn share(path: &Path) -> io::Result<Option<File>> {
    if !is_lock(path) {
        return Ok(None);
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(is_at(&file, path).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// An exclusive lock on an existing file that nobody uses; `None` where somebody does.
pub(super) fn seize(path: &Path) -> io::Result<Option<File>> {
    if !is_lock(path) {
        return Ok(None);
    }
    // Opened for writing because network file systems want that for an exclusive lock.
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(is_at(&file, path).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes lock files that nobody holds.
pub(super) fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        drop(MakeLock::try_take(entry.path()));
    }
}
