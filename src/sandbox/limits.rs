//! Limits and groups of a command's processes, whatever those of the user are.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// What processes are limited to, unless the host allows less: as systemd has it for services, and else nothing.
const LIMITS: [(Resource, u64); 8] = [
    (Resource::RLIMIT_AS, RLIM_INFINITY),
    (Resource::RLIMIT_CORE, 0),
    (Resource::RLIMIT_CPU, RLIM_INFINITY),
    (Resource::RLIMIT_DATA, RLIM_INFINITY),
    (Resource::RLIMIT_FSIZE, RLIM_INFINITY),
    (Resource::RLIMIT_NOFILE, 1024),
    (Resource::RLIMIT_NPROC, RLIM_INFINITY),
    (Resource::RLIMIT_STACK, 8 << 20),
];

/// Gives this process the stated limits, and takes the user's further groups from it.
pub(super) fn state() -> Result<()> {
    for (resource, stated) in LIMITS {
        let (_, most) = getrlimit(resource)?;
        setrlimit(resource, stated.min(most), most).with_context(|| format!("limiting {resource:?}"))?;
    }
    match nix::unistd::setgroups(&[]) {
        // A user namespace of one id forbids it, and has no names for them.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(error).context("leaving the user's groups"),
    }
}
