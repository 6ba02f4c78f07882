//! Files written by a step are dated by the plan, not by the clock.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use filetime::FileTime;
use walkdir::WalkDir;

use crate::diagnostics::Fault;
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
        let entry = entry.map_err(|error| unreadable(top, error))?;
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

/// Why what a step wrote cannot be looked at.
fn unreadable(top: &Path, error: walkdir::Error) -> anyhow::Error {
    let too_long = error.io_error().is_some_and(|error| error.kind() == ErrorKind::InvalidFilename);
    let Some(path) = error.path().and_then(|path| path.strip_prefix(top).ok()).filter(|_| too_long) else {
        return anyhow::Error::new(error).context("looking for what the step wrote");
    };
    let start: String = path.display().to_string().chars().take(60).collect();
    Fault::failed(format!("the step has left directories too deep to be read: /{start}…"))
        .hint("a path may have 4096 bytes, those of the directory that the store has the root in among them")
        .hint("have the step remove them, or name a store with a shorter path: DEBFORGE_STORE")
        .into()
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

    #[test]
    fn a_path_too_long_is_said_shortly() {
        use nix::dir::Dir;
        use nix::fcntl::OFlag;
        use nix::sys::stat::{Mode, mkdirat};
        let top = tempfile::tempdir().unwrap();
        let mut at = Dir::open(top.path(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..30 {
            let name = "d".repeat(200);
            mkdirat(&at, name.as_str(), Mode::S_IRWXU).unwrap();
            at = Dir::openat(&at, name.as_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        let error = settle(top.path(), SystemTime::now(), 0).unwrap_err().to_string();
        assert!(error.contains("too deep to be read: /ddd") && error.len() < 200, "{error}");
        crate::sys::remove::remove_wholly(&top.keep()).unwrap();
    }
}
