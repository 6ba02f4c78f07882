//! Our end of the line to a guest: messages in, a word or two out.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::guest::INTERRUPT;
use crate::machine::process::Message;

pub(super) struct Channel {
    ours: UnixStream,
    /// Read, and not yet a line.
    pending: Vec<u8>,
}

/// What came of listening.
pub(super) enum Heard {
    Message(Box<Message>),
    /// Nothing in the time given.
    Nothing,
    /// Nobody will say anything any more.
    End,
}

impl Channel {
    /// A line, and its end for the machine.
    pub(super) fn new() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().context("making a line to the machine")?;
        ours.set_nonblocking(true)?;
        Ok((Self { ours, pending: Vec::new() }, theirs.into()))
    }

    /// Tells the guest that the user wants it to end.
    pub(super) fn interrupt(&mut self) {
        let _ = writeln!(self.ours, "{INTERRUPT}");
    }

    /// The next message, if it comes in time. What is no message (a kernel that writes where it should not)
    /// is passed over.
    pub(super) fn hear(&mut self, patience: Duration) -> Result<Heard> {
        if let Some(message) = self.next() {
            return Ok(Heard::Message(message));
        }
        let mut waiting = [PollFd::new(self.ours.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Heard::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error).context("listening to the machine"),
        }
        let mut buffer = [0; 65536];
        match self.ours.read(&mut buffer) {
            Ok(0) => return Ok(Heard::End),
            Ok(read) => self.pending.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(Heard::End),
            Err(error) => return Err(error).context("listening to the machine"),
        }
        Ok(self.next().map_or(Heard::Nothing, Heard::Message))
    }

    fn next(&mut self) -> Option<Box<Message>> {
        loop {
            let end = self.pending.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(message) => return Some(Box::new(message)),
                Err(error) => tracing::debug!("no message from the machine: {error}"),
            }
        }
    }
}
