//! How a command's calls come here: the listener's way from the command to who answers.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::unistd::Pid;

use super::watch::Watch;
use super::{ARCHITECTURE, Handler};
use crate::sandbox::filter;
use crate::sys::notify::Listener;
use crate::sys::process;

/// Before the fork: how the command hands its calls over.
pub(in crate::sandbox) struct HandOver {
    handlers: Vec<Box<dyn Handler>>,
    ours: OwnedFd,
    theirs: OwnedFd,
    /// Whether the kernel can carry out a call after it was looked at (Linux 5.5). One that cannot would
    /// leave the command waiting.
    continues: bool,
}

impl HandOver {
    /// For a command that these handlers watch over; `None` where there are none.
    pub(in crate::sandbox) fn new(handlers: Vec<Box<dyn Handler>>) -> Result<Option<Self>> {
        if handlers.is_empty() {
            return Ok(None);
        }
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .context("preparing to answer its system calls")?;
        // Not from /proc, which is the command's by now.
        let kernel = nix::sys::utsname::uname().context("asking which kernel this is")?;
        let release = kernel.release().to_string_lossy();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let continues = (numbers.next(), numbers.next()) >= (Some(5), Some(5));
        Ok(Some(Self { handlers, ours, theirs, continues }))
    }

    /// In the process that becomes the command, as the last thing: from here on its calls wait for answers.
    pub(in crate::sandbox) fn give(self) -> Result<()> {
        drop(self.ours);
        let said = match listened(&self.handlers, self.continues) {
            Ok(listener) => {
                let descriptors = [listener.as_raw_fd()];
                let message = [ControlMessage::ScmRights(&descriptors)];
                sendmsg::<()>(self.theirs.as_raw_fd(), &[IoSlice::new(b"+")], &message, MsgFlags::empty(), None)?;
                // Closing them would be a call that waits for an answer: execve does it.
                std::mem::forget((listener, self.theirs));
                return Ok(());
            }
            Err(error) => error,
        };
        if self.handlers.iter().any(|handler| handler.required()) {
            return Err(said.context("watching over its system calls"));
        }
        let said = format!("{said:#}");
        sendmsg::<()>(self.theirs.as_raw_fd(), &[IoSlice::new(said.as_bytes())], &[], MsgFlags::empty(), None)?;
        Ok(())
    }

    /// In the process that waits for the command `child`: answers its calls on a thread of its own. What
    /// handlers that the command can do without were refused is handed to `note`; an error is what one of
    /// the others was, and then the command must not go on.
    pub(in crate::sandbox) fn answer(self, child: Pid, note: &mut dyn FnMut(String)) -> Result<()> {
        drop(self.theirs);
        let listener = match received(&self.ours) {
            Ok(Some(listener)) => listener,
            Ok(None) => return Ok(()),
            Err(error) => {
                note(format!("{error:#}"));
                return Ok(());
            }
        };
        let mut ready = Vec::new();
        for mut handler in self.handlers {
            match handler.begin(child) {
                Ok(()) => ready.push(handler),
                Err(error) if handler.required() => return Err(error.context("watching over its system calls")),
                Err(error) => note(format!("{error:#}")),
            }
        }
        let watch = Watch::new(listener, ready);
        std::thread::spawn(move || watch.run());
        Ok(())
    }
}

/// Has the kernel hand over this process's calls.
fn listened(handlers: &[Box<dyn Handler>], continues: bool) -> Result<OwnedFd> {
    let Some(architecture) = ARCHITECTURE else { bail!("its system calls are not known here") };
    ensure!(continues, "that takes Linux 5.5");
    let wanted: Vec<_> = handlers.iter().flat_map(|handler| handler.calls()).collect();
    let foreign = handlers.iter().any(|handler| handler.refuses_foreign());
    let program = filter::handed_over(architecture, &wanted, foreign);
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
