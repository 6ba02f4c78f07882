//! Loop devices: what the crate for them cannot ask for without a node in /dev (loop(4)).

use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// `LOOP_CTL_GET_FREE` of linux/loop.h.
const GET_FREE: u32 = 0x4c82;
/// `LOOP_SET_BLOCK_SIZE`.
const SET_BLOCK_SIZE: u32 = 0x4c09;

/// Number of a loop device that nobody uses, made if need be. `control` is /dev/loop-control.
pub fn free(control: &impl AsRawFd) -> Result<u32> {
    // SAFETY: an open descriptor and no argument; gives a number or -1.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE.into()) };
    u32::try_from(number).map_err(|_| Error::last_os_error())
}

/// Sets the size of an attached device's sectors in bytes.
pub fn set_sector_size(device: &impl AsRawFd, size: u32) -> Result<()> {
    // SAFETY: an open descriptor and an integer argument.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_BLOCK_SIZE.into(), libc::c_ulong::from(size)) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
