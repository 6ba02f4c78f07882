//! The process whose call is answered: its memory, and what it is.

use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::sys::notify::{Call, Listener};

/// What the kernel lets no path be longer than (linux/limits.h, `PATH_MAX`).
const LONGEST_PATH: usize = 4096;
/// No page is smaller, so that what is read up to its end is there.
const PAGE: u64 = 4096;
/// Most paths are shorter.
const CHUNK: usize = 256;

/// A thread that waits for an answer.
pub(in crate::sandbox) struct Caller<'a> {
    listener: &'a Listener,
    call: &'a Call,
}

impl<'a> Caller<'a> {
    pub(super) fn new(listener: &'a Listener, call: &'a Call) -> Self {
        Self { listener, call }
    }

    /// The thread, as this process counts them.
    pub(in crate::sandbox) fn pid(&self) -> i32 {
        self.call.pid
    }

    /// Whether it still waits, so that its number is no other's.
    pub(in crate::sandbox) fn waits(&self) -> bool {
        self.listener.waits(self.call)
    }

    /// A path that it has at an address, without the zero at its end.
    pub(in crate::sandbox) fn path(&self, mut at: u64) -> Result<PathBuf, Errno> {
        let mut bytes = Vec::with_capacity(CHUNK);
        while bytes.len() < LONGEST_PATH {
            let mut chunk = [0; CHUNK];
            let length = CHUNK.min((PAGE - at % PAGE) as usize);
            let count = self.read(at, &mut chunk[..length])?;
            match memchr::memchr(0, &chunk[..count]) {
                Some(end) => {
                    bytes.extend_from_slice(&chunk[..end]);
                    return Ok(OsStr::from_bytes(&bytes).into());
                }
                None => bytes.extend_from_slice(&chunk[..count]),
            }
            at += count as u64;
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Reads from an address; how much there was, which is more than nothing.
    pub(in crate::sandbox) fn read(&self, at: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let remote = [RemoteIoVec { base: address(at)?, len: into.len() }];
        match process_vm_readv(self.thread(), &mut [IoSliceMut::new(into)], &remote) {
            Ok(count @ 1..) => Ok(count),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Writes all of this to an address.
    pub(in crate::sandbox) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let remote = [RemoteIoVec { base: address(at)?, len: bytes.len() }];
        match process_vm_writev(self.thread(), &[IoSlice::new(bytes)], &remote) {
            Ok(count) if count == bytes.len() => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Number of the process that the thread belongs to.
    pub(in crate::sandbox) fn process(&self) -> Result<i32, Errno> {
        process_of(self.call.pid).ok_or(Errno::EIO)
    }

    fn thread(&self) -> Pid {
        Pid::from_raw(self.call.pid)
    }
}

fn address(at: u64) -> Result<usize, Errno> {
    usize::try_from(at).map_err(|_| Errno::EFAULT)
}

fn process_of(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
