//! Files written by a step are dated by the plan, not by the clock.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use filetime::FileTime;
use walkdir::WalkDir;

use crate::sys::file::{protection, unprotected};

/// File systems stamp with the clock of the last tick, which can be this much behind.
const TICK: Duration = Duration::from_millis(20);

/// Dates everything below `top` that was written since `started` with `epoch`.
pub(super) fn settle(top: &Path, started: SystemTime, epoch: i64) -> Result<()> {
    let since = started.checked_sub(TICK).unwrap_or(started);
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Programs that copy dates may know them only by the second (tar), or by two (zip).
    let since = Duration::from_secs(since.as_secs() & !1);
    let date = FileTime::from_unix_time(epoch, 0);
    // Contents first: dating a file does not touch its directory.
    for entry in WalkDir::new(top).contents_first(true).same_file_system(true) {
        let entry = entry.context("looking for what the step wrote")?;
        let meta = entry.metadata().context("looking for what the step wrote")?;
        let modified = FileTime::from_last_modification_time(&meta);
        if (modified.unix_seconds(), modified.nanoseconds()) >= (since.as_secs() as i64, since.subsec_nanos()) {
            let date = || filetime::set_symlink_file_times(entry.path(), date, date);
            let dated = match date() {
                // `chattr +i` in a mounted image.
                Err(error) if error.kind() == ErrorKind::PermissionDenied && protection(entry.path())?.is_some() => {
                    unprotected(entry.path(), date)
                }
                other => other,
            };
            dated.with_context(|| format!("dating {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_what_was_written_and_leaves_what_was_unpacked() {
        let top = tempfile::tempdir().unwrap();
        let started = SystemTime::now();
        let (new, old) = (top.path().join("new"), top.path().join("old"));
        std::fs::write(&new, "").unwrap();
        std::fs::write(&old, "").unwrap();
        std::os::unix::fs::symlink("nowhere", top.path().join("link")).unwrap();
        filetime::set_file_mtime(&old, FileTime::from_unix_time(1_000_000, 0)).unwrap();
        settle(top.path(), started, 500).unwrap();
        let seconds = |path: &Path| FileTime::from_last_modification_time(&path.symlink_metadata().unwrap()).seconds();
        assert_eq!(seconds(&new), 500);
        assert_eq!(seconds(&old), 1_000_000);
        assert_eq!(seconds(&top.path().join("link")), 500);
        assert_eq!(seconds(top.path()), 500);
    }
}
