//! Mounting devices that /dev does not have: a container's is no devtmpfs. mountinfo is to say
//! `/dev/loop0p1` all the same, for grub-probe and findmnt look devices up by that.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};

use crate::sys;

/// Mounts by `mounting`, which is given the device's node: in a mount namespace where it is in /dev, if it is
/// not there already.
pub(super) fn under_its_name<E: From<nix::Error> + Send>(
    device: &Path,
    at: &Path,
    mounting: impl Fn(&Path) -> std::result::Result<(), E> + Sync,
) -> std::result::Result<(), E> {
    if device.starts_with("/dev") {
        return mounting(device);
    }
    // A thread's namespace ends with it; the file system is held by a descriptor until it stands in ours.
    let held = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<std::result::Result<OwnedFd, E>> {
            let node = own_dev(device)?;
            if let Err(error) = mounting(&node) {
                return Ok(Err(error));
            }
            Ok(Ok(sys::mount::clone_tree(at)?))
        });
        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread ended")))
    });
    let placed = held.and_then(|held| {
        let tree = match held {
            Ok(tree) => tree,
            Err(error) => return Ok(Err(error)),
        };
        let target = open(at, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        sys::mount::attach(&tree, &target)?;
        Ok(Ok(()))
    });
    placed.unwrap_or_else(|error| {
        tracing::debug!("mounting {} under its name: {error:#}", device.display());
        mounting(device)
    })
}

/// Gives this thread a /dev with nothing but the device; its node there.
fn own_dev(device: &Path) -> Result<PathBuf> {
    let name = device.file_name().context("a device without a name")?;
    let number = device.metadata()?.rdev();
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))?;
    let node = Path::new("/dev").join(name);
    mknod(&node, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), number)?;
    Ok(node)
}
