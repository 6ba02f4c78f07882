//! Files.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes `to` hold the same data as `from` without copying it, where the file system can.
pub fn share_extents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: two open descriptors; the request takes a descriptor as its argument (ioctl_ficlone(2)).
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
