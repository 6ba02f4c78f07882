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

/// `LOOP_SET_STATUS64` and `LOOP_GET_STATUS64`.
const SET_STATUS: u32 = 0x4c04;
const GET_STATUS: u32 = 0x4c05;
/// `LO_FLAGS_PARTSCAN`.
const PARTSCAN: u32 = 8;
/// `BLKPG` of linux/blkpg.h, and its operations.
const BLKPG: u32 = 0x1269;
const ADD_PARTITION: libc::c_int = 1;
const DELETE_PARTITION: libc::c_int = 2;

/// `struct loop_info64`; all but the flags is handed back as it came.
#[repr(C)]
struct Status {
    file_and_range: [u64; 5],
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_key: [u8; 160],
    init: [u64; 2],
}

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct PartitionRequest {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    partition: *mut Partition,
}

/// Sets the size of an attached device's sectors in bytes.
pub fn set_sector_size(device: &impl AsRawFd, size: u32) -> Result<()> {
    // SAFETY: an open descriptor and an integer argument.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_BLOCK_SIZE.into(), libc::c_ulong::from(size)) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel look for partitions of an attached device, and forget them when it is detached.
pub fn scan_partitions(device: &impl AsRawFd) -> Result<()> {
    let mut status = Status {
        file_and_range: [0; 5],
        number_and_encryption: [0; 3],
        flags: 0,
        names_and_key: [0; 160],
        init: [0; 2],
    };
    // SAFETY: an open descriptor, and a structure of the size that the kernel fills.
    if unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS.into(), &raw mut status) } < 0 {
        return Err(Error::last_os_error());
    }
    status.flags |= PARTSCAN;
    // SAFETY: the same, which the kernel reads.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_STATUS.into(), &raw const status) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Tells the kernel of a partition, in place of one of the same number; `start` and `length` in bytes.
pub fn add_partition(device: &impl AsRawFd, number: u32, start: u64, length: u64) -> Result<()> {
    let invalid = |_| Error::from_raw_os_error(libc::EINVAL);
    let mut partition = Partition {
        start: start.try_into().map_err(invalid)?,
        length: length.try_into().map_err(invalid)?,
        number: number.try_into().map_err(invalid)?,
        names: [0; 128],
    };
    let mut request = |operation| {
        let length = size_of::<Partition>() as libc::c_int;
        let mut request = PartitionRequest { operation, flags: 0, length, partition: &raw mut partition };
        // SAFETY: an open descriptor, and structures that live until the call is over.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKPG.into(), &raw mut request) };
        if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    };
    // There is none most often.
    let _ = request(DELETE_PARTITION);
    request(ADD_PARTITION)
}
