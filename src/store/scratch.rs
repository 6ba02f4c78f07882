//! Directories for the work of one build, gone with it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lock::MakeLock;
use super::{Store, birthplace, random_name};
use crate::sys::remove::remove_tree;

/// A directory for one build's work, on the store's file system, which hands nothing of its place down to what
/// is made in it; see [`Store::scratch`].
#[derive(Debug)]
pub struct Scratch {
    /// The directory.
    pub path: PathBuf,
    /// Taken before the directory is made and let go after it is removed: a directory whose lock
    /// is free has lost its owner.
    _lock: MakeLock,
}

impl Store {
    /// A directory for one build's work, on the store's file system; removed when dropped, and by
    /// the next [`Store::open`] where its owner was killed.
    pub fn scratch(&self) -> Result<Scratch> {
        loop {
            let path = self.dir("scratch").join(random_name());
            // A sweep may take and remove a lock file in the moment before it is locked.
            let Some(lock) = MakeLock::try_take(lock_path(&path))? else { continue };
            birthplace::make(&path)?;
            return Ok(Scratch { path, _lock: lock });
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!("{error:#}");
        }
    }
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Removes what killed builds left.
pub(super) fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "lock") {
            if !path.with_extension("").exists() {
                drop(MakeLock::try_take(path));
            }
            continue;
        }
        let Ok(Some(lock)) = MakeLock::try_take(lock_path(&path)) else { continue };
        end_processes_in(&path);
        if let Err(error) = remove_tree(&path) {
            tracing::warn!("{error:#}");
        }
        drop(lock);
    }
}

/// Kills the processes whose root is below a directory: where a build's commands have no pid namespace, those that
/// outlive it when it is killed together with all that watches over them.
fn end_processes_in(dir: &Path) {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|pid| pid.parse().ok()) else { continue };
        if std::fs::read_link(process.path().join("root")).is_ok_and(|root| root.starts_with(dir) && root != dir) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
