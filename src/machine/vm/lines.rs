//! The lines between a machine and those around it, as open files.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};

use super::channel::Channel;

/// The machine's ends.
pub(super) struct Lines {
    pub(super) channel: OwnedFd,
    pub(super) terminal: OwnedFd,
    /// To a router, where the machine has none built in.
    pub(super) network: Option<OwnedFd>,
}

/// Ours.
pub(super) struct Ends {
    pub(super) channel: Channel,
    pub(super) terminal: UnixStream,
}

impl Lines {
    pub(super) fn new(network: Option<OwnedFd>) -> Result<(Self, Ends)> {
        let (channel, channel_there) = Channel::new()?;
        let (terminal, terminal_there) = UnixStream::pair().context("making a terminal for the machine")?;
        let there = Self { channel: channel_there, terminal: terminal_there.into(), network };
        Ok((there, Ends { channel, terminal }))
    }

    /// The files that the machine keeps.
    pub(super) fn kept(&self) -> Vec<&OwnedFd> {
        [&self.channel, &self.terminal].into_iter().chain(&self.network).collect()
    }
}
