//! What packages copy of the build's own files, as systemd-resolved does of the name servers that it finds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::{Before, Placed, protection_of, read, write};
use crate::build::inside::{Inside, Kind};

/// Copies that packages are known to make, in whatever way they are installed.
const KNOWN: [&str; 2] = ["/etc/.resolv.conf.systemd-resolved.bak", "/etc/resolvconf/resolv.conf.d/original"];

/// Where maintainer scripts keep what they copy.
const PLACES: [&str; 2] = ["etc", "var"];

/// File systems stamp with the clock of the last tick, which can be this much behind.
const TICK: Duration = Duration::from_millis(20);

/// Makes of copies of a file that stood in for another what they would be of that. `scripts` is since when maintainer
/// scripts, who copy for reasons of their own, may have made any.
pub(super) fn take_back(root: &Inside, placed: &Placed, scripts: Option<SystemTime>) -> Result<()> {
    for path in KNOWN {
        let path = Path::new(path);
        if root.link_kind(path)? == Some(Kind::File) {
            one(root, placed, path)?;
        }
    }
    let Some(since) = scripts else { return Ok(()) };
    let since = since.checked_sub(TICK).unwrap_or(since).duration_since(UNIX_EPOCH).unwrap_or_default();
    let top = root.held();
    for place in PLACES.iter().filter(|place| fs::symlink_metadata(top.join(place)).is_ok_and(|meta| meta.is_dir())) {
        for entry in WalkDir::new(top.join(place)).sort_by_file_name() {
            let entry = entry.context("looking for copies of the build's resolv.conf")?;
            if !entry.file_type().is_file() {
                continue;
            }
            let meta = entry.metadata().with_context(|| format!("looking at {}", entry.path().display()))?;
            let changed = Duration::new(meta.ctime().try_into().unwrap_or(0), meta.ctime_nsec() as u32);
            if meta.len() == placed.ours.len() as u64 && changed >= since {
                let below = entry.path().strip_prefix(&top).unwrap_or(entry.path());
                one(root, placed, &Path::new("/").join(below))?;
            }
        }
    }
    Ok(())
}

fn one(root: &Inside, placed: &Placed, path: &Path) -> Result<()> {
    if path == placed.path {
        return Ok(());
    }
    let slot = root.slot(path)?;
    if protection_of(&slot)? != 0 || read(&slot)? != placed.ours {
        return Ok(());
    }
    match &placed.before {
        Before::File { contents, .. } => {
            let attributes = slot.attributes()?;
            write(&slot, contents)?;
            slot.apply(&attributes)
        }
        // A package that finds none, or a link, copies nothing.
        Before::Nothing | Before::Link(_) => slot.remove(),
    }
}
