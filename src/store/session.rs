//! Sessions: what keeps single files of the store from being evicted under a build.
//!
//! A tree has a lock of its own while it lives; there are too many packages for that. So a file is
//! marked as used when it is handed out, and what was used since the oldest living session began is
//! not evicted. A session is a locked file whose mtime is its beginning.

use std::path::Path;
use std::time::SystemTime;

use super::lock::MakeLock;
use super::{Store, random_name};

/// One open store that handed out files.
#[derive(Debug)]
pub(super) struct Session {
    _lock: MakeLock,
}

impl Store {
    /// Keeps whatever is marked as used from now on, as long as the store is open.
    pub(super) fn keep_used(&self) {
        self.inner.session.get_or_init(|| {
            // None in a store that cannot be written, where nothing is evicted.
            let lock = MakeLock::try_take(self.dir("sessions").join(random_name())).ok()??;
            Some(Session { _lock: lock })
        });
    }
}

/// When the oldest living session began.
pub(super) fn oldest(dir: &Path) -> Option<SystemTime> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let began = entry.metadata().ok()?.modified().ok()?;
            match MakeLock::try_take(entry.path()) {
                // Its owner was killed; the file goes with our lock.
                Ok(Some(_)) => None,
                _ => Some(began),
            }
        })
        .min()
}
