//! A private /dev: the devices that programs expect, and nothing of the host's hardware.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fchmodat, mkdirat, mknodat};
use nix::unistd::symlinkat;

use super::view::held;
use crate::sys;

/// Character devices by name, major and minor number (the kernel's Documentation/admin-guide/devices.txt).
pub(super) const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links by name and target.
pub(super) const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Devices of our own, each to be mounted on a file, where they can be made in the empty directory `at`, else the
/// host's. Whoever mounts them needs no other device to open where they are.
pub(super) fn apart(at: &OwnedFd, host: &OwnedFd) -> Result<Vec<(&'static str, OwnedFd)>> {
    let one = |(name, major, minor): (&'static str, u64, u64)| {
        let doing = || format!("making /dev/{name}");
        node(at, host, name, major, minor).with_context(doing)?;
        Ok((name, sys::mount::clone_tree(&held(at).join(name)).with_context(doing)?))
    };
    DEVICES.into_iter().map(one).collect()
}

/// Mounts them in a directory that stands for /dev.
pub(super) fn place(dev: &OwnedFd, devices: &[(&str, OwnedFd)]) -> Result<()> {
    for (name, tree) in devices {
        mount_node(dev, name, tree).with_context(|| format!("making /dev/{name}"))?;
    }
    Ok(())
}

/// Fills an empty directory that stands for /dev. `host` is the host's, which may be covered by now.
pub(super) fn fill(dev: &OwnedFd, host: &OwnedFd) -> Result<()> {
    for (name, major, minor) in DEVICES {
        node(dev, host, name, major, minor).with_context(|| format!("making /dev/{name}"))?;
    }
    furnish(dev)
}

/// Makes what /dev has beside devices.
pub(super) fn furnish(dev: &OwnedFd) -> Result<()> {
    for (name, target) in LINKS {
        symlinkat(target, dev, name).with_context(|| format!("making /dev/{name}"))?;
    }
    for name in ["pts", "shm"] {
        mkdirat(dev, name, Mode::from_bits_truncate(0o755)).with_context(|| format!("making /dev/{name}"))?;
    }
    Ok(())
}

/// A device of our own where that is allowed (so that a changed mode or owner is not the host's), else the host's.
fn node(dev: &OwnedFd, host: &OwnedFd, name: &str, major: u64, minor: u64) -> Result<()> {
    let read_write = Mode::from_bits_truncate(0o666);
    if mknodat(dev, name, SFlag::S_IFCHR, read_write, nix::sys::stat::makedev(major, minor)).is_ok() {
        // On a mount that forbids devices the node is there and opens for nobody.
        let usable = name == "tty" || openat(dev, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).is_ok();
        if usable {
            fchmodat(dev, name, read_write, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
            return Ok(());
        }
        nix::unistd::unlinkat(dev, name, nix::unistd::UnlinkatFlags::NoRemoveDir)?;
    }
    mount_node(dev, name, &sys::mount::clone_tree(&held(host).join(name))?)
}

fn mount_node(dev: &OwnedFd, name: &str, tree: &OwnedFd) -> Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let target = openat(dev, name, flags, Mode::from_bits_truncate(0o644))?;
    sys::mount::attach(tree, &target.as_fd())?;
    Ok(())
}

/// A block device of our own in a private /dev, where that is allowed; whether it was. One that is mounted
/// from the host is a mount point to mount(8), and its file system the host's /dev.
pub(super) fn own_block(dev: &OwnedFd, name: &Path, number: u64) -> bool {
    let mode = Mode::from_bits_truncate(0o660);
    if mknodat(dev, name, SFlag::S_IFBLK, mode, number).is_err() {
        return false;
    }
    let usable = openat(dev, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).is_ok();
    if !usable {
        let _ = nix::unistd::unlinkat(dev, name, nix::unistd::UnlinkatFlags::NoRemoveDir);
    }
    usable
}

/// Pseudo-terminals of the command's own.
pub(super) fn terminals(pts: &OwnedFd) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // Group 5 is Debian's `tty`; a user namespace may not have it.
    let [with_group, without] = ["newinstance,ptmxmode=0666,mode=620,gid=5", "newinstance,ptmxmode=0666,mode=620"];
    mount(Some("devpts"), &held(pts), Some("devpts"), flags, Some(with_group))
        .or_else(|_| mount(Some("devpts"), &held(pts), Some("devpts"), flags, Some(without)))
        .context("mounting /dev/pts")
}
