//! Mounts and host names of a command, made for it by the process that waits for it.
//!
//! Who may mount in the sandbox could also take off what covers the host there, have the kernel show the machine's
//! devices and control groups, and open any device. So a command has not the capability, and asks: it gets what it
//! has already in another place, and memory, and nothing else. A process in a mount namespace of its own is left to
//! the kernel.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::Pid;

use super::supervisor::{Caller, Handler, Verdict, Wanted};
use super::view::held;
use super::{Command, Isolation, powers};
use crate::sys::notify::Call;

/// What is mounted already, by file system and where: to a command it makes no difference.
pub(super) const THERE: [(&str, &str); 3] = [("proc", "/proc"), ("devpts", "/dev/pts"), ("tmpfs", "/dev/shm")];

/// Calls by which something is mounted in steps, since Linux 5.2. Without them mount(8) takes mount(2).
pub(super) const STEPS: [libc::c_long; 5] =
    [libc::SYS_fsopen, libc::SYS_fspick, libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_mount_setattr];

/// File systems of the kernel's, and where the command has of them what it may have.
const OWN: [(&str, &str); 4] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("devpts", "/dev/pts")];
/// File systems in memory.
const MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// How events spread between mounts (mount(2)).
const SPREADING: MsFlags =
    MsFlags::MS_SHARED.union(MsFlags::MS_PRIVATE).union(MsFlags::MS_SLAVE).union(MsFlags::MS_UNBINDABLE);
/// What a mount has of its own, beside its file system.
const OF_A_MOUNT: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOATIME)
    .union(MsFlags::MS_NODIRATIME)
    .union(MsFlags::MS_RELATIME);
/// Bytes of the longest host name (linux/utsname.h, `__NEW_UTS_LEN`).
const LONGEST_NAME: u64 = 64;

/// Mounts for a command.
pub(super) struct Mounts {
    /// Numbers of the mounts that were made, and where they are.
    made: HashMap<u64, PathBuf>,
    /// Numbers of those that came along with one and were to go, as they do with that.
    going: HashSet<u64>,
    /// The namespace whose mounts these are.
    namespace: Option<PathBuf>,
}

impl Mounts {
    /// `None` where the command mounts by itself, or nobody can.
    pub(super) fn new(command: &Command, isolation: Isolation) -> Option<Self> {
        let asks = isolation == Isolation::Namespaces && powers::held(command);
        asks.then(|| Self { made: HashMap::new(), going: HashSet::new(), namespace: None })
    }

    fn mount(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let [source, target, kind, flags, data, ..] = call.arguments;
        let text = |at: u64| if at == 0 { Ok(PathBuf::new()) } else { caller.path(at) };
        let flags = MsFlags::from_bits_truncate(flags as libc::c_ulong);
        let target = caller.path(target)?;
        if flags.contains(MsFlags::MS_REMOUNT) {
            let place = find(caller, &target)?;
            // What a file system is like is the same for all who have it.
            if !flags.contains(MsFlags::MS_BIND) {
                return Err(Errno::EPERM);
            }
            let flags = flags & OF_A_MOUNT | kept(&place)? | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
            mount(None::<&str>, &held(&place), None::<&str>, flags, None::<&str>)?;
            return Ok(Verdict::Value(0));
        }
        if flags.intersects(SPREADING) {
            // Nobody sees its mounts, however they spread.
            find(caller, &target)?;
            return Ok(Verdict::Value(0));
        }
        if flags.contains(MsFlags::MS_MOVE) {
            return Err(Errno::EPERM);
        }
        if flags.contains(MsFlags::MS_BIND) {
            let source = find(caller, &text(source)?)?;
            return self.bind(&source, caller, &target);
        }
        let kind = text(kind)?;
        if THERE.iter().any(|(known, at)| kind == Path::new(known) && target == Path::new(at)) {
            return Ok(Verdict::Value(0));
        }
        if let Some((_, own)) = OWN.iter().find(|(known, _)| kind == Path::new(known)) {
            let source = nix::fcntl::open(*own, OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
            return self.bind(&source, caller, &target);
        }
        if !MEMORY.iter().any(|known| kind == Path::new(known)) {
            return Err(Errno::EPERM);
        }
        let options = text(data)?;
        let place = find(caller, &target)?;
        let flags = flags & OF_A_MOUNT | MsFlags::MS_NODEV;
        mount(Some(kind.as_path()), &held(&place), Some(kind.as_path()), flags, Some(options.as_path()))?;
        self.note(caller, &target)
    }

    /// With all that is mounted below: what covers something stays on it.
    fn bind(&mut self, source: &OwnedFd, caller: &Caller<'_>, target: &Path) -> Result<Verdict, Errno> {
        let place = find(caller, target)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&held(source)), &held(&place), None::<&str>, flags, None::<&str>)?;
        self.note(caller, target)
    }

    fn note(&mut self, caller: &Caller<'_>, target: &Path) -> Result<Verdict, Errno> {
        let place = find(caller, target)?;
        self.made.insert(number(&place)?, fs::read_link(held(&place)).map_err(|_| Errno::EIO)?);
        Ok(Verdict::Value(0))
    }

    fn unmount(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let target = caller.path(call.arguments[0])?;
        if THERE.iter().any(|(_, at)| target == Path::new(at)) {
            return Ok(Verdict::Value(0));
        }
        let place = find(caller, &target)?;
        let number = number(&place)?;
        // Held open it would be busy.
        let path = fs::read_link(held(&place)).map_err(|_| Errno::EINVAL)?;
        drop(place);
        if !self.made.contains_key(&number) {
            // What came along with a mount goes with it, and until then covers what it covers: `umount -R` asks for
            // one after the other.
            let came_along = self.made.values().any(|made| path != *made && path.starts_with(made));
            return match (came_along, came_along && self.going.insert(number)) {
                (false, _) => Err(Errno::EPERM),
                (true, true) => Ok(Verdict::Value(0)),
                // So that who unmounts until nothing is mounted comes to an end.
                (true, false) => Err(Errno::EINVAL),
            };
        }
        // With what was bound below it.
        umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        self.made.remove(&number);
        // Their numbers are given to others.
        self.going.clear();
        Ok(Verdict::Value(0))
    }

    fn host_name(call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let [at, length, ..] = call.arguments;
        if length > LONGEST_NAME {
            return Err(Errno::EINVAL);
        }
        let mut name = vec![0; length as usize];
        if length > 0 && caller.read(at, &mut name)? < name.len() {
            return Err(Errno::EFAULT);
        }
        nix::unistd::sethostname(std::ffi::OsStr::new(std::str::from_utf8(&name).map_err(|_| Errno::EINVAL)?))?;
        Ok(Verdict::Value(0))
    }
}

/// Opens what a path of the caller's leads to, without the links to what processes have open: these would be ours.
fn find(caller: &Caller<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let pid = caller.pid();
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    let (from, path, resolve) = match path.strip_prefix("/") {
        Ok(inside) => (format!("/proc/{pid}/root"), inside, ResolveFlag::RESOLVE_IN_ROOT),
        Err(_) => (format!("/proc/{pid}/cwd"), path, ResolveFlag::empty()),
    };
    let from = caller.as_itself(|| File::open(from)).map_err(|_| Errno::EACCES)?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(&from, path, how.resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS))
}

/// What is not taken off a mount: that it cannot be written to, and has no devices.
fn kept(place: &OwnedFd) -> Result<MsFlags, Errno> {
    let now = fstatvfs(place)?.flags();
    let kept = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ];
    Ok(kept.into_iter().filter(|(has, _)| now.contains(*has)).fold(MsFlags::MS_NODEV, |all, (_, flag)| all | flag))
}

/// The number of the mount that an open path is on (proc_pid_fdinfo(5)).
fn number(place: &OwnedFd) -> Result<u64, Errno> {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd())).map_err(|_| Errno::EIO)?;
    let number = about.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or(Errno::EIO)
}

/// Whether a process is root, so that it could mount something if anybody in the sandbox could.
fn is_root(caller: &Caller<'_>) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", caller.pid())).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

impl Handler for Mounts {
    fn calls(&self) -> Vec<Wanted> {
        let calls = [libc::SYS_mount, libc::SYS_umount2, libc::SYS_sethostname];
        calls.into_iter().chain(STEPS).map(Wanted::all).collect()
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        self.namespace = fs::read_link("/proc/self/ns/mnt").ok();
        Ok(())
    }

    fn required(&self) -> bool {
        // Without it the kernel refuses what it would do.
        false
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let own = caller.as_itself(|| fs::read_link(format!("/proc/{}/ns/mnt", caller.pid()))).ok();
        if own.is_none() || own != self.namespace {
            return Ok(Verdict::Pass);
        }
        if STEPS.contains(&call.number) {
            return Err(Errno::ENOSYS);
        }
        if !is_root(caller) || !caller.waits() {
            return Err(Errno::EPERM);
        }
        match call.number {
            libc::SYS_mount => self.mount(call, caller),
            libc::SYS_umount2 => self.unmount(call, caller),
            libc::SYS_sethostname => Self::host_name(call, caller),
            _ => Ok(Verdict::Pass),
        }
    }
}
