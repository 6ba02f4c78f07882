//! Trees: moved and emptied.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::build::inside::Inside;
use crate::diagnostics::Fault;
use crate::sys::remove::remove_wholly;

/// Moves all that is in a directory into another, and says how many names that were. Directories of an overlay cannot
/// be renamed, so they are made anew.
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
    if let Ok(there) = to.symlink_metadata()
        && !(there.is_dir() && from.symlink_metadata().is_ok_and(|from| from.is_dir()))
    {
        return Err(anyhow::Error::from(Fault::failed("there is something of that name already")).context(doing()));
    }
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

/// Removes all that is in a directory; what a link at its place leads to may be anybody's.
pub(super) fn remove_contents(path: &Path) -> Result<()> {
    if path.is_symlink() {
        return Err(Fault::failed(format!("{} is a link, and a directory is wanted", path.display()))
            .hint("have the root's own directory there, before this step")
            .into());
    }
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let entry = entry?;
        remove_wholly(&entry.path())?;
    }
    Ok(())
}
