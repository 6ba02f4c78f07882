//! What the paths of a process name.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nix::errno::Errno;

use crate::sandbox::supervisor::memory;

/// An open file of a process, as a path of ours that leads to the very file.
fn descriptor(pid: i32, fd: i32) -> PathBuf {
    match fd {
        libc::AT_FDCWD => format!("/proc/{pid}/cwd").into(),
        fd => format!("/proc/{pid}/fd/{fd}").into(),
    }
}

/// Makes sure that a process's memory and files can be reached.
pub(super) fn reach(pid: i32) -> anyhow::Result<()> {
    let doing = "reaching into its memory";
    memory(pid).context(doing)?;
    let root = std::fs::read_link(format!("/proc/{pid}/root")).context(doing)?;
    ensure!(root == Path::new("/"), "it has another root");
    Ok(())
}

/// What a path of a process is: `named` for people to read and to compare, `reached` for our own calls.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) named: PathBuf,
    pub(super) reached: PathBuf,
    /// Whether it is an open file, to which `reached` is a link.
    pub(super) open: bool,
}

/// An open file of a process.
pub(super) fn open(pid: i32, fd: i32) -> Result<Place, Errno> {
    place(pid, fd, Path::new(""))
}

/// A path that is relative to a directory of the process. We have the same root as the process.
pub(super) fn place(pid: i32, directory: i32, path: &Path) -> Result<Place, Errno> {
    if path.is_absolute() {
        return Ok(Place { named: path.into(), reached: path.into(), open: false });
    }
    let base = descriptor(pid, directory);
    let named = std::fs::read_link(&base).map_err(|_| Errno::EBADF)?;
    if path.as_os_str().is_empty() {
        return Ok(Place { named, reached: base, open: true });
    }
    Ok(Place { named: named.join(path), reached: base.join(path), open: false })
}
