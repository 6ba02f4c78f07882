//! Files.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

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
