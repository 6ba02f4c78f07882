//! Trees: moved, emptied, looked through.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::Preparation;
use crate::build::inside::Inside;
use crate::diagnostics::Fault;

/// How many faults of a kind are named.
const SHOWN: usize = 5;

/// Moves all that is in a directory into another, and says how many names that were. What is there already is
/// replaced. Directories of an overlay cannot be renamed, so they are made anew.
pub(super) fn move_contents(from: &Path, to: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        move_one(&entry.path(), &to.join(entry.file_name()))?;
        count += 1;
    }
    Ok(count)
}

/// Moves a file, link or directory to another name.
pub(super) fn move_one(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("moving {} to {}", from.display(), to.display());
    if !from.symlink_metadata().with_context(doing)?.is_dir() {
        return fs::rename(from, to).with_context(doing);
    }
    let attributes = slot(from)?.attributes()?;
    if to.symlink_metadata().is_err() {
        fs::create_dir(to).with_context(doing)?;
    }
    move_contents(from, to)?;
    slot(to)?.apply(&attributes)?;
    fs::remove_dir(from).with_context(doing)
}

/// A place in the directory that it is in.
pub(super) fn slot(path: &Path) -> Result<crate::build::inside::Slot> {
    let parent = path.parent().context("a directory without a parent")?;
    Inside::open(parent)?.slot(Path::new(path.file_name().context("a directory without a name")?))
}

/// Removes all that is in a directory.
pub(super) fn remove_contents(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let entry = entry?;
        let removed = match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.with_context(|| format!("removing {}", entry.path().display()))?;
    }
    Ok(())
}

/// Looks for what a commit cannot hold: devices, pipes, sockets, names that are not UTF-8.
pub(super) fn check(it: &Preparation<'_>) -> Result<String> {
    let (mut special, mut unnamed, mut files) = (Vec::new(), Vec::new(), 0_u64);
    for entry in WalkDir::new(it.root).min_depth(1) {
        let entry = entry.context("reading the root")?;
        let shown = || format!("/{}", entry.path().strip_prefix(it.root).unwrap_or(entry.path()).display());
        let kind = entry.file_type();
        files += u64::from(kind.is_file());
        if kind.is_socket() {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", shown()))?;
        } else if !kind.is_file() && !kind.is_dir() && !kind.is_symlink() {
            special.push(shown());
        }
        if entry.file_name().to_str().is_none() {
            unnamed.push(shown());
        }
    }
    for (found, what) in [(special, "a device or pipe"), (unnamed, "a name that is not UTF-8")] {
        if !found.is_empty() {
            let more = found.len().saturating_sub(SHOWN);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let names = found[..found.len().min(SHOWN)].join(", ");
            return Err(Fault::failed(format!("OSTree keeps no file of this kind, {what}: {names}{more}"))
                .hint("remove it, or have tmpfiles.d make it on the running system")
                .into());
        }
    }
    Ok(format!("{files} files"))
}
