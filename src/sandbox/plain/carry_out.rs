//! Calls about files that only the kernel has, carried out in the place of their callers.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{AccessFlags, Gid, Uid};

use crate::sandbox::supervisor::{Caller, Verdict};
use crate::sys::file::{Told, statfs, statx};

/// The longest value of an attribute (linux/limits.h, `XATTR_SIZE_MAX`).
const LONGEST_VALUE: usize = 65536;

/// Opens a file as open(2) would with these flags and mode.
pub(super) fn open(here: &Path, flags: i32, mode: u32) -> Result<Verdict, Errno> {
    let close = flags & libc::O_CLOEXEC != 0;
    let mut wanted = OFlag::from_bits_truncate(flags) | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    if wanted.contains(OFlag::O_PATH) {
        // The kernel gives nobody a descriptor that is but a path.
        wanted = wanted & !OFlag::O_PATH | OFlag::O_NONBLOCK;
    }
    // Who waits for the other end of a pipe would keep all others waiting.
    let pipe = here.metadata().is_ok_and(|about| about.file_type().is_fifo());
    let patient = pipe && !wanted.contains(OFlag::O_NONBLOCK);
    if patient {
        wanted |= OFlag::O_NONBLOCK;
    }
    let file = nix::fcntl::open(here, wanted, Mode::from_bits_truncate(mode))?;
    if patient {
        let now = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(now & !OFlag::O_NONBLOCK))?;
    }
    Ok(Verdict::File(file, close))
}

/// What is changed in what stat(2) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    AsIs,
    /// A device as one of the command's own: root's, and for everybody.
    Device,
    /// A namespace, where it is the machine's first, as one that was made for the command: elsewhere it was, and
    /// systemd-detect-virt(1) says so.
    Namespace,
}

/// Inodes of the first namespaces (linux/proc_ns.h): ipc, uts, user, pid, cgroup, time.
const FIRST_NAMESPACES: std::ops::RangeInclusive<u64> = 0xEFFF_FFFA..=0xEFFF_FFFF;
/// That of users, which is its own nowhere where root builds.
const FIRST_USERS: u64 = 0xEFFF_FFFD;
/// What is added to make another, as the kernel would number it.
const LATER: u64 = 0x1_0000;

/// A namespace's inode as it is shown.
pub(super) fn namespace(inode: u64) -> u64 {
    if FIRST_NAMESPACES.contains(&inode) && inode != FIRST_USERS { inode + LATER } else { inode }
}

const DEVICE_MODE: u32 = libc::S_IFCHR | 0o666;

pub(super) fn stat(caller: &Caller<'_>, here: &Path, follow: bool, shown: Shown, to: u64) -> Result<Verdict, Errno> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::AT_SYMLINK_NOFOLLOW };
    let mut told = nix::sys::stat::fstatat(AT_FDCWD, here, flags)?;
    if shown == Shown::Device {
        (told.st_uid, told.st_gid, told.st_mode) = (0, 0, DEVICE_MODE);
    }
    if shown == Shown::Namespace {
        told.st_ino = namespace(told.st_ino);
    }
    caller.write(to, told.bytes())?;
    Ok(Verdict::Value(0))
}

pub(super) fn stat_extended(
    caller: &Caller<'_>,
    here: &Path,
    follow: bool,
    shown: Shown,
    [flags, mask, to]: [u64; 3],
) -> Result<Verdict, Errno> {
    let link = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let flags = link | flags as i32 & libc::AT_STATX_SYNC_TYPE;
    let mut told = statx(here, flags, mask as u32).map_err(code)?;
    if shown == Shown::Device {
        (told.stx_uid, told.stx_gid, told.stx_mode) = (0, 0, DEVICE_MODE as u16);
    }
    if shown == Shown::Namespace {
        told.stx_ino = namespace(told.stx_ino);
    }
    caller.write(to, told.bytes())?;
    Ok(Verdict::Value(0))
}

pub(super) fn file_system(caller: &Caller<'_>, here: &Path, to: u64) -> Result<Verdict, Errno> {
    caller.write(to, statfs(here).map_err(code)?.bytes())?;
    Ok(Verdict::Value(0))
}

pub(super) fn access(here: &Path, mode: u64) -> Result<Verdict, Errno> {
    nix::unistd::access(here, AccessFlags::from_bits_truncate(mode as i32))?;
    Ok(Verdict::Value(0))
}

/// readlink(2) with this answer.
pub(super) fn link_target(caller: &Caller<'_>, target: &Path, to: u64, room: u64) -> Result<Verdict, Errno> {
    let bytes = target.as_os_str().as_bytes();
    let room = room as i32;
    if room <= 0 {
        return Err(Errno::EINVAL);
    }
    let bytes = &bytes[..bytes.len().min(room as usize)];
    caller.write(to, bytes)?;
    Ok(Verdict::Value(bytes.len() as i64))
}

pub(super) fn mode(here: &Path, mode: u64) -> Result<Verdict, Errno> {
    let mode = Mode::from_bits_truncate(mode as u32);
    nix::sys::stat::fchmodat(AT_FDCWD, here, mode, FchmodatFlags::FollowSymlink)?;
    Ok(Verdict::Value(0))
}

pub(super) fn owner(here: &Path, follow: bool, user: u64, group: u64) -> Result<Verdict, Errno> {
    let [user, group] = [user as u32, group as u32].map(|id| Some(id).filter(|id| *id != u32::MAX));
    let flags = if follow { AtFlags::empty() } else { AtFlags::AT_SYMLINK_NOFOLLOW };
    nix::unistd::fchownat(AT_FDCWD, here, user.map(Uid::from_raw), group.map(Gid::from_raw), flags)?;
    Ok(Verdict::Value(0))
}

/// utimensat(2) with the times at an address; both are now where there is none.
pub(super) fn times(caller: &Caller<'_>, here: &Path, follow: bool, at: u64) -> Result<Verdict, Errno> {
    let mut times = [TimeSpec::UTIME_NOW; 2];
    if at != 0 {
        let mut bytes = [0; 32];
        if caller.read(at, &mut bytes)? < bytes.len() {
            return Err(Errno::EFAULT);
        }
        for (time, bytes) in times.iter_mut().zip(bytes.chunks_exact(16)) {
            let (seconds, nanoseconds) = bytes.split_at(8);
            let number = |bytes: &[u8]| bytes.try_into().map(i64::from_ne_bytes).map_err(|_| Errno::EFAULT);
            *time = TimeSpec::new(number(seconds)?, number(nanoseconds)?);
        }
    }
    let flags = if follow { UtimensatFlags::FollowSymlink } else { UtimensatFlags::NoFollowSymlink };
    nix::sys::stat::utimensat(AT_FDCWD, here, &times[0], &times[1], flags)?;
    Ok(Verdict::Value(0))
}

pub(super) fn length(here: &Path, length: u64) -> Result<Verdict, Errno> {
    nix::unistd::truncate(here, length.cast_signed())?;
    Ok(Verdict::Value(0))
}

pub(super) fn set_attribute(caller: &Caller<'_>, here: &Path, arguments: [u64; 6]) -> Result<Verdict, Errno> {
    let [_, name, value, size, ..] = arguments;
    let size = usize::try_from(size).ok().filter(|size| *size <= LONGEST_VALUE).ok_or(Errno::E2BIG)?;
    let mut bytes = vec![0; size];
    if size > 0 && caller.read(value, &mut bytes)? < size {
        return Err(Errno::EFAULT);
    }
    xattr::set_deref(here, caller.path(name)?, &bytes).map_err(code)?;
    Ok(Verdict::Value(0))
}

pub(super) fn get_attribute(caller: &Caller<'_>, here: &Path, arguments: [u64; 6]) -> Result<Verdict, Errno> {
    let [_, name, to, room, ..] = arguments;
    let value = xattr::get_deref(here, caller.path(name)?).map_err(code)?.ok_or(Errno::ENODATA)?;
    fill(caller, &value, to, room)
}

pub(super) fn list_attributes(caller: &Caller<'_>, here: &Path, arguments: [u64; 6]) -> Result<Verdict, Errno> {
    let [_, to, room, ..] = arguments;
    let names = xattr::list_deref(here).map_err(code)?;
    let bytes: Vec<u8> = names.flat_map(|name| [name.as_bytes(), &[0]].concat()).collect();
    fill(caller, &bytes, to, room)
}

pub(super) fn remove_attribute(caller: &Caller<'_>, here: &Path, name: u64) -> Result<Verdict, Errno> {
    xattr::remove_deref(here, caller.path(name)?).map_err(code)?;
    Ok(Verdict::Value(0))
}

/// Gives bytes as getxattr(2) does: how many where there is no room at all.
fn fill(caller: &Caller<'_>, bytes: &[u8], to: u64, room: u64) -> Result<Verdict, Errno> {
    if room > 0 {
        if bytes.len() as u64 > room {
            return Err(Errno::ERANGE);
        }
        caller.write(to, bytes)?;
    }
    Ok(Verdict::Value(bytes.len() as i64))
}

pub(super) fn code(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
