//! A tree that a command sees the same on every host.
//!
//! Programs that make file systems take from the host what differs between two copies of a tree: the
//! order in which directories are read and attributes listed, inode numbers, what directories "weigh".
//! The kernel hands these system calls of the command over (seccomp user notification), and they are
//! answered here from the real tree: names sorted, inodes numbered in the order of first sight. Calls
//! that are not about the tree are carried out as they are.

mod caller;
mod calls;
mod inodes;
mod listing;
mod watch;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::watch::Watch;
use crate::sys::notify::Listener;
use crate::sys::process;

/// See [`super::Command::uniform`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uniform {
    /// The tree's top directory, absolute. In a root that is entered by `chroot` alone a tree is out of reach.
    pub top: PathBuf,
    /// Whether only the order of extended attributes matters: what else differs between hosts the
    /// command leaves aside by itself, and there is less to answer.
    pub attributes_only: bool,
}

/// Before the fork: how the command hands its calls over.
pub(super) struct HandOver {
    ours: OwnedFd,
    theirs: OwnedFd,
    /// Whether the kernel can carry out a call after it was looked at (Linux 5.5). One that cannot would
    /// leave the command waiting.
    continues: bool,
}

impl HandOver {
    pub(super) fn new() -> Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let continues = (numbers.next(), numbers.next()) >= (Some(5), Some(5));
        Ok(Self { ours, theirs, continues })
    }

    /// In the process that becomes the command, as the last thing: from here on its calls wait for answers.
    pub(super) fn give(self, uniform: &Uniform) -> Result<()> {
        drop(self.ours);
        let said = match listened(uniform, self.continues) {
            Ok(listener) => {
                let descriptors = [listener.as_raw_fd()];
                let message = [ControlMessage::ScmRights(&descriptors)];
                sendmsg::<()>(self.theirs.as_raw_fd(), &[IoSlice::new(b"+")], &message, MsgFlags::empty(), None)?;
                // Closing them would be a call that waits for an answer: execve does it.
                std::mem::forget((listener, self.theirs));
                return Ok(());
            }
            Err(error) => format!("{error:#}"),
        };
        sendmsg::<()>(self.theirs.as_raw_fd(), &[IoSlice::new(said.as_bytes())], &[], MsgFlags::empty(), None)?;
        Ok(())
    }

    /// In the process that waits for the command `child`: answers its calls on a thread of its own. An
    /// error is why they cannot be had; then the command runs as if nobody had asked for this.
    pub(super) fn answer(self, uniform: &Uniform, child: Pid) -> Result<()> {
        drop(self.theirs);
        let Some(listener) = received(&self.ours)? else { return Ok(()) };
        let refused = caller::reach(child.as_raw()).err();
        let watch = Watch::new(listener, uniform, refused.is_some());
        std::thread::spawn(move || watch.run());
        refused.map_or(Ok(()), Err)
    }
}

/// Has the kernel hand over this process's calls.
fn listened(uniform: &Uniform, continues: bool) -> Result<OwnedFd> {
    let Some(architecture) = calls::ARCHITECTURE else { bail!("its system calls are not known here") };
    ensure!(continues, "that takes Linux 5.5");
    let calls = if uniform.attributes_only { calls::attributes() } else { calls::all() };
    let program = super::filter::handed_over(architecture, &calls);
    let installed = crate::sys::filter::install_listened(&program).or_else(|refused| {
        // Without CAP_SYS_ADMIN the kernel takes a filter only from those who can gain no privileges.
        nix::sys::prctl::set_no_new_privs().map_err(|_| refused)?;
        crate::sys::filter::install_listened(&program)
    });
    installed.map_err(|error| anyhow!("seccomp(2): {}", Errno::try_from(error).map_or("refused", Errno::desc)))
}

/// What [`HandOver::give`] gave; `None` where the process ended before.
fn received(socket: &OwnedFd) -> Result<Option<Listener>> {
    let mut text = [0; 512];
    let mut space = cmsg_space!([i32; 1]);
    let mut buffers = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let Some(descriptor) = descriptors.first()
        {
            return Ok(Some(Listener::new(process::adopt(*descriptor)?)));
        }
    }
    match length {
        0 => Ok(None),
        _ => bail!("{}", String::from_utf8_lossy(&text[..length])),
    }
}
