//! Files.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Makes `to` hold the same data as `from` without copying it, where the file system can.
pub fn share_extents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: two open descriptors; the request takes a descriptor as its argument (ioctl_ficlone(2)).
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Where a file has data, as (start, end), in order; all of it where the file system cannot say.
pub fn data_ranges(file: &File, length: u64) -> Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match lseek(file, at as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            // No data after this offset.
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(vec![(0, length)]),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(file, start as i64, Whence::SeekHole).map_or(length, |end| end as u64).min(length);
        if start >= length {
            break;
        }
        ranges.push((start, end));
        at = end;
    }
    lseek(file, 0, Whence::SeekSet)?;
    Ok(ranges)
}

/// Flags of a file as chattr(1) sets them (ioctl_iflags(2)); `None` where the file system has none.
pub fn flags(of: BorrowedFd<'_>) -> Result<Option<u32>> {
    let mut flags: libc::c_int = 0;
    // SAFETY: an open descriptor and an integer that the request writes.
    let result = unsafe { libc::ioctl(of.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    match Errno::result(result) {
        Ok(_) => Ok(Some(flags.cast_unsigned())),
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets them.
pub fn set_flags(of: BorrowedFd<'_>, flags: u32) -> Result<()> {
    let flags = flags.cast_signed();
    // SAFETY: an open descriptor and an integer that the request reads.
    let result = unsafe { libc::ioctl(of.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Flags that keep a file from being changed or removed: immutable, and to be appended to alone (linux/fs.h).
pub const PROTECTED: u32 = 0x10 | 0x20;

/// Gives a file these of [`PROTECTED`], and takes the others.
pub fn set_protection(of: BorrowedFd<'_>, protection: u32) -> Result<()> {
    let all = flags(of)?.unwrap_or_default();
    set_flags(of, all & !PROTECTED | protection)
}

/// Letters of chattr(1) for what keeps a file, links not followed, from being changed; `None` for one that can be.
pub fn protection(path: &Path) -> Result<Option<&'static str>> {
    let attributes = statx(path, libc::AT_SYMLINK_NOFOLLOW, 0)?.stx_attributes;
    let has = |flag: libc::c_int| attributes & u64::from(flag.cast_unsigned()) != 0;
    Ok(match (has(libc::STATX_ATTR_IMMUTABLE), has(libc::STATX_ATTR_APPEND)) {
        (true, true) => Some("ai"),
        (true, false) => Some("i"),
        (false, true) => Some("a"),
        (false, false) => None,
    })
}

/// The flags of such letters.
pub fn protection_flags(letters: &str) -> u32 {
    let flag = |letter: char, flag: u32| if letters.contains(letter) { flag } else { 0 };
    flag('i', 0x10) | flag('a', 0x20)
}

/// Does something to a file, links not followed, that chattr(1) protects; it is protected again afterwards.
pub fn unprotected(path: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let no_follow = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(no_follow).open(path)?;
    let all = flags(file.as_fd())?.unwrap_or_default();
    set_flags(file.as_fd(), all & !PROTECTED)?;
    let done = work();
    set_flags(file.as_fd(), all)?;
    done
}

/// What statx(2) says of a path. `flags` are its `AT_…`, `mask` its `STATX_…`.
pub fn statx(path: &Path, flags: i32, mask: u32) -> Result<libc::statx> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: plain integers, for which zeros are right.
    let mut about: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a live C string and a struct of the type that the call writes.
    let result = unsafe { libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), flags, mask, &raw mut about) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(about) }
}

/// What statfs(2) says of a path.
pub fn statfs(path: &Path) -> Result<libc::statfs> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: plain integers, for which zeros are right.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a live C string and a struct of the type that the call writes.
    let result = unsafe { libc::statfs(path.as_ptr(), &raw mut about) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(about) }
}

/// What the kernel tells of a file, as it writes it into a caller's memory.
pub trait Told {
    /// Its bytes.
    fn bytes(&self) -> &[u8];
}

impl Told for libc::stat {
    fn bytes(&self) -> &[u8] {
        told(self)
    }
}

impl Told for libc::statfs {
    fn bytes(&self) -> &[u8] {
        told(self)
    }
}

impl Told for libc::statx {
    fn bytes(&self) -> &[u8] {
        told(self)
    }
}

fn told<T>(about: &T) -> &[u8] {
    // SAFETY: only for the structs above, which are integers without gaps, all of them initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(about).cast(), size_of::<T>()) }
}

/// The next entries of an open directory as getdents(2) has them; how many bytes they are, none at the end.
pub fn entries(directory: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    // SAFETY: the buffer is as long as is said.
    let count = unsafe {
        libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), into.as_mut_ptr(), into.len() as libc::c_uint)
    };
    usize::try_from(count).map_err(|_| Error::last_os_error())
}
