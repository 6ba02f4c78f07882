//! The process whose call is answered: its memory, and what it is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};

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
            Err(Errno::EPERM) => self.as_itself(|| memory(self.call.pid)?.read_at(into, at)).map_err(|_| Errno::EFAULT),
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
            Err(Errno::EPERM) => {
                self.as_itself(|| memory(self.call.pid)?.write_all_at(bytes, at)).map_err(|_| Errno::EFAULT)
            }
            _ => Err(Errno::EFAULT),
        }
    }

    /// Number of the process that the thread belongs to.
    pub(in crate::sandbox) fn process(&self) -> Result<i32, Errno> {
        process_of(self.call.pid).ok_or(Errno::EIO)
    }

    /// Does something with the files of the process as its user, who may do what we may not without
    /// CAP_SYS_PTRACE, and is refused what the process is.
    pub(in crate::sandbox) fn as_itself<T>(&self, work: impl FnOnce() -> T) -> T {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.call.pid)).unwrap_or_default();
        // The fourth of the ids is that for files (proc_pid_status(5)).
        let id = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(3)?.parse::<u32>().ok())
        };
        let (Some(user), Some(group)) = (id("Uid:"), id("Gid:")) else { return work() };
        if user == Uid::effective().as_raw() {
            return work();
        }
        // Of this thread alone.
        let (our_group, our_user) = (setfsgid(Gid::from_raw(group)), setfsuid(Uid::from_raw(user)));
        let done = work();
        setfsuid(our_user);
        setfsgid(our_group);
        done
    }

    fn thread(&self) -> Pid {
        Pid::from_raw(self.call.pid)
    }
}

/// The memory of a process.
pub(in crate::sandbox) fn memory(pid: i32) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
}

fn address(at: u64) -> Result<usize, Errno> {
    usize::try_from(at).map_err(|_| Errno::EFAULT)
}

fn process_of(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
