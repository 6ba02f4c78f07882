//! System calls of other processes that a filter hands over to be answered here: seccomp_unotify(2).

use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` of linux/seccomp.h.
const SYNCHRONOUS_WAKE_UP: libc::c_ulong = 1;

/// Where the calls come in.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A system call whose caller waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    id: u64,
    /// The calling thread, as this process's pid namespace counts.
    pub pid: i32,
    /// The architecture that it is made by (linux/audit.h), by whose table it is numbered.
    pub architecture: u32,
    /// Number of the system call.
    pub number: libc::c_long,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Listener {
    /// Of a descriptor that [`super::filter::install_listened`] gave.
    pub fn new(descriptor: OwnedFd) -> Self {
        // Caller and answerer take turns, which is faster on one processor. Linux before 6.6 knows no flags.
        // SAFETY: an open descriptor and an integer argument.
        unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNCHRONOUS_WAKE_UP) };
        Self(descriptor)
    }

    /// Waits for the next call; `None` where its caller is gone by now, an error where all are.
    pub fn next(&self) -> Result<Option<Call>> {
        // SAFETY: plain integers, for which zeros are right; the kernel wants them to be zeros.
        let mut given: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a struct of the type that the request writes.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut given) };
        if result < 0 {
            return match Errno::last() {
                Errno::EINTR => Ok(None),
                Errno::ENOENT if !self.is_over() => Ok(None),
                error => Err(error.into()),
            };
        }
        Ok(Some(Call {
            id: given.id,
            pid: given.pid as i32,
            architecture: given.data.arch,
            number: given.data.nr.into(),
            arguments: given.data.args,
        }))
    }

    /// Whether nobody is left whose calls could come.
    fn is_over(&self) -> bool {
        let mut state = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let polled = poll(&mut state, PollTimeout::ZERO);
        polled.is_ok() && state[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    /// Whether the caller still waits, so that its number is no other process's.
    pub fn waits(&self, call: &Call) -> bool {
        // SAFETY: an open descriptor and an integer that the request reads.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const call.id) == 0 }
    }

    /// Lets the kernel carry the call out.
    pub fn pass(&self, call: &Call) -> Result<()> {
        self.send(call, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// Answers in the kernel's place.
    pub fn answer(&self, call: &Call, answer: std::result::Result<i64, Errno>) -> Result<()> {
        match answer {
            Ok(value) => self.send(call, value, 0, 0),
            Err(error) => self.send(call, 0, -(error as i32), 0),
        }
    }

    /// Answers with a descriptor of an open file, which is made in the calling process.
    pub fn give(&self, call: &Call, file: &OwnedFd, close_on_exec: bool) -> Result<()> {
        match self.add(call, file, close_on_exec, libc::SECCOMP_ADDFD_FLAG_SEND as u32) {
            // The caller is gone.
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            // Linux before 5.14 takes the descriptor and the answer one after the other.
            Err(Errno::EINVAL) => self.answer(call, self.add(call, file, close_on_exec, 0).map(i64::from)),
            Err(error) => self.answer(call, Err(error)),
        }
    }

    fn add(&self, call: &Call, file: &OwnedFd, close_on_exec: bool, flags: u32) -> std::result::Result<i32, Errno> {
        let given = libc::seccomp_notif_addfd {
            id: call.id,
            flags,
            srcfd: file.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        // SAFETY: an open descriptor and a struct of the type that the request reads.
        let added = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const given) };
        Errno::result(added)
    }

    fn send(&self, call: &Call, val: i64, error: i32, flags: u32) -> Result<()> {
        let answer = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        // SAFETY: an open descriptor and a struct of the type that the request reads.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
        match result {
            // The caller is gone.
            _ if result < 0 && Errno::last() == Errno::ENOENT => Ok(()),
            _ if result < 0 => Err(Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
