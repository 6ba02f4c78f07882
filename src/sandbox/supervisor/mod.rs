//! One who answers a command's system calls in the kernel's place (seccomp user notification).
//!
//! The kernel lets a process tree have one listener, and several concerns want calls answered. So there is one
//! [`Watch`], and each concern is a [`Handler`] that names its calls; [`handlers`] is the table of them.

mod caller;
mod hand_over;
mod watch;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;

pub(super) use self::caller::{Caller, memory};
pub(super) use self::hand_over::HandOver;
use super::mounts::Mounts;
use super::plain::{Bounds, Furnished, Others, Refused, SetId};
use super::powers;
use super::sockets::Sockets;
use super::stated::Stated;
use super::uniform::Numbered;
use super::{Command, Isolation, Told};
use crate::sys::notify::Call;

/// This program's own architecture as seccomp names it (linux/audit.h). Commands of another one, which the
/// kernel may run too, are left alone, or refused.
pub(super) const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else {
    None
};

/// A concern that answers some of a command's system calls.
///
/// It is made twice, on both sides of the fork that makes the command: there its [`Handler::calls`] become the
/// filter, here it answers.
pub(super) trait Handler: Send {
    /// The calls that it wants to see.
    fn calls(&self) -> Vec<Wanted>;

    /// Looks whether it can work on `child`, which is about to become the command; here, not in the child. Where
    /// it cannot, its calls are carried out as they are, and the error is told: as a note, or where the handler is
    /// [`Handler::required`] as the command's failure.
    fn begin(&mut self, child: Pid) -> anyhow::Result<()>;

    /// Whether the command is not to run without it.
    fn required(&self) -> bool;

    /// Whether it is to hear of programs of another architecture, whose calls nobody here can answer.
    fn refuses_foreign(&self) -> bool {
        false
    }

    /// Hears of one.
    fn foreign(&mut self) {}

    /// Answers a call that is one of its own. An error is what the caller gets as its `errno`.
    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno>;
}

/// A system call that a handler wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its number on [`ARCHITECTURE`].
    pub(super) number: u32,
    /// Leaves it to the kernel where this argument has this bit.
    pub(super) unless: Option<(u32, u32)>,
}

impl Wanted {
    /// Every call of this number.
    pub(super) fn all(number: libc::c_long) -> Self {
        Self { number: number as u32, unless: None }
    }

    /// Calls of this number that do not have `bit` set in the argument at `index`.
    pub(super) fn without(number: libc::c_long, index: u32, bit: i32) -> Self {
        Self { number: number as u32, unless: Some((index, bit.cast_unsigned())) }
    }
}

/// What is to be done with a call.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The next handler is asked; after the last the kernel carries it out.
    Pass,
    /// It gives this.
    Value(i64),
    /// It gives a descriptor of this open file, which is closed on exec or not.
    File(OwnedFd, bool),
}

/// What is to be known of a command beside how it ended.
pub(super) enum Heard {
    /// It would have elsewhere what it cannot have here: the end of a sentence that begins with the command.
    Refused(String),
    /// It makes this in a directory for temporary files that is not its own.
    Left(PathBuf),
}

/// Everything that answers calls of this command, in the order in which it is asked. **To register a concern,
/// add it here.**
pub(super) fn handlers(
    command: &Command,
    isolation: Isolation,
    hear: impl Fn(Heard) + Send + Sync + 'static,
) -> Vec<Box<dyn Handler>> {
    let mut all: Vec<Box<dyn Handler>> = Vec::new();
    let hear = Arc::new(hear);
    let tell = {
        let hear = Arc::clone(&hear);
        move |what| hear(Heard::Refused(what))
    };
    if let Some(refused) = Refused::new(&command.view, isolation, tell.clone()) {
        all.push(Box::new(refused));
    }
    if let Some(set_id) = SetId::new(&command.view, isolation, tell) {
        all.push(Box::new(set_id));
    }
    if let Some(others) = Others::new(isolation, powers::held(command)) {
        all.push(Box::new(others));
    }
    if let Some(sockets) = Sockets::new(command, isolation) {
        all.push(Box::new(sockets));
    }
    if let Some(mounts) = Mounts::new(command, isolation) {
        all.push(Box::new(mounts));
    }
    if isolation == Isolation::Chroot
        && let Some(bounds) = Bounds::new(command, move |path| hear(Heard::Left(path)))
    {
        all.push(Box::new(bounds));
    }
    if isolation == Isolation::Chroot
        && let Some(furnished) = Furnished::new(&command.view)
    {
        all.push(Box::new(furnished));
    }
    if let Some(uniform) = &command.uniform {
        all.push(Box::new(Numbered::new(uniform)));
    }
    if command.told != Told::Truth {
        all.push(Box::new(Stated::new(command.told)));
    }
    all
}
