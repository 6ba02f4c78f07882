//! A machine that runs: its serial console, to the terminal and a log, and what is waited for on it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{IsTerminal, Read, Stdin, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, SetArg, Termios};

use super::super::process::interruptible;
use super::running::{Running, Stop, TAIL};
use super::transcript::Transcript;
use crate::build::interrupted;
use crate::diagnostics::{Fault, FaultKind};

/// The key that commands begin with: Ctrl-A, as with QEMU's own console.
const COMMAND_KEY: u8 = 1;

/// A message of kernels that will not go on.
pub(in crate::machine) const PANIC: &str = "Kernel panic - not syncing";

/// What is to be done with a machine's console.
#[derive(Debug, Default)]
pub struct Session {
    /// Texts that are waited for, one after the other; the last one ends the machine.
    pub expected: Vec<String>,
    /// When waiting is over.
    pub timeout: Option<Duration>,
    /// Gets all that is said.
    pub log: Option<File>,
    /// Whether what is typed goes to the machine.
    pub input: bool,
}

/// How a machine ended that nobody had to be sorry for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All that was expected has come.
    Expected,
    /// It ended by itself.
    Ended,
    /// The user ended it.
    Left,
}

impl Session {
    /// Runs a machine to its end.
    pub fn run(self, command: &[String]) -> Result<Ending> {
        interruptible()?;
        let mut machine = Running::start(command, &[])?;
        let raw = if self.input { RawTerminal::enter()? } else { None };
        let watched = self.watch(&mut machine);
        drop(raw);
        let stopped = !matches!(watched, Ok((Reason::Ended, _)));
        let (status, errors) = machine.end(if stopped { Stop::Ask } else { Stop::Wait })?;
        let (reason, transcript) = watched?;
        match reason {
            Reason::Expected => Ok(Ending::Expected),
            Reason::Left => Ok(Ending::Left),
            Reason::Interrupted => Err(Fault::new(FaultKind::Interrupted, "interrupted").into()),
            Reason::Ended if !status.success() => {
                Err(Fault::failed(format!("qemu ended with {status}")).tail(errors).into())
            }
            Reason::Ended if transcript.awaited().is_none() => Ok(Ending::Ended),
            Reason::Ended => Err(transcript.missed("the machine ended").into()),
            Reason::Panic => Err(transcript.missed("the kernel panicked").into()),
            Reason::TimedOut(after) => {
                Err(transcript.missed(&format!("the machine was stopped after {} s", after.as_secs())).into())
            }
        }
    }

    fn watch(mut self, machine: &mut Running) -> Result<(Reason, Transcript)> {
        let started = Instant::now();
        let mut transcript = Transcript::new(std::mem::take(&mut self.expected), TAIL);
        let waiting = transcript.awaited().is_some();
        let mut keys = Keys::default();
        let mut input = self.input.then(std::io::stdin);
        let mut buffer = vec![0; 1 << 16];
        loop {
            if interrupted() {
                return Ok((Reason::Interrupted, transcript));
            }
            let left = match self.timeout {
                // One look at the clock: at a second one the time may be up.
                Some(timeout) => match timeout.checked_sub(started.elapsed()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return Ok((Reason::TimedOut(timeout), transcript)),
                },
                None => Duration::MAX,
            };
            // What is typed is only taken when the machine has had what was typed before.
            let typing = if keys.pending.is_empty() { input.as_ref() } else { None };
            let ready = machine.wait(typing, !keys.pending.is_empty(), left.min(Duration::from_millis(500)))?;
            if ready.typed && !keys.take(input.as_mut(), &mut buffer)? {
                input = None;
            }
            if keys.leave {
                return Ok((Reason::Left, transcript));
            }
            if ready.takes {
                keys.hand_over(machine)?;
            }
            if !ready.said {
                continue;
            }
            let read = match machine.output.read(&mut buffer) {
                Ok(0) => return Ok((Reason::Ended, transcript)),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading the console"),
            };
            let said = &buffer[..read];
            if let Some(log) = &mut self.log {
                log.write_all(said).context("writing the log of the console")?;
            }
            let mut out = std::io::stdout().lock();
            out.write_all(said).and_then(|()| out.flush()).context("writing the console")?;
            transcript.hear(said);
            if waiting && transcript.awaited().is_none() {
                return Ok((Reason::Expected, transcript));
            }
            if waiting && transcript.has_lately(PANIC, read) {
                return Ok((Reason::Panic, transcript));
            }
        }
    }
}

/// Why watching is over.
enum Reason {
    Expected,
    Ended,
    Left,
    Interrupted,
    Panic,
    TimedOut(Duration),
}

/// What can be done without waiting.
struct Ready {
    said: bool,
    typed: bool,
    takes: bool,
}

impl Running {
    fn wait(&self, typing: Option<&Stdin>, writing: bool, at_most: Duration) -> Result<Ready> {
        let mut waiting = vec![PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
        let typed_at = typing.map(|stdin| {
            waiting.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            waiting.len() - 1
        });
        let takes_at = self.input.as_ref().filter(|_| writing).map(|input| {
            waiting.push(PollFd::new(input.as_fd(), PollFlags::POLLOUT));
            waiting.len() - 1
        });
        let time = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        match poll(&mut waiting, time) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready { said: false, typed: false, takes: false }),
            Err(error) => return Err(error).context("waiting for the console"),
        }
        let ready = |at: usize| waiting[at].revents().is_some_and(|events| !events.is_empty());
        Ok(Ready { said: ready(0), typed: typed_at.is_some_and(ready), takes: takes_at.is_some_and(ready) })
    }
}

/// What is typed, on its way to the machine.
#[derive(Default)]
struct Keys {
    /// The command key was the last.
    commanded: bool,
    /// The user wants to leave.
    leave: bool,
    /// Not taken by the machine yet.
    pending: VecDeque<u8>,
}

impl Keys {
    /// Reads what is typed; false at its end.
    fn take(&mut self, stdin: Option<&mut Stdin>, buffer: &mut [u8]) -> Result<bool> {
        let Some(stdin) = stdin else { return Ok(false) };
        // Not through Stdin's own buffer, which poll does not see.
        let read = match nix::unistd::read(stdin.as_fd(), buffer) {
            Ok(read) => read,
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(true),
            Err(Errno::EIO) => 0,
            Err(error) => return Err(error).context("reading the keyboard"),
        };
        self.type_in(&buffer[..read]);
        Ok(read > 0)
    }

    fn type_in(&mut self, keys: &[u8]) {
        for &key in keys {
            match (self.commanded, key) {
                (false, COMMAND_KEY) => self.commanded = true,
                (false, key) => self.pending.push_back(key),
                (true, b'x' | b'X') => self.leave = true,
                (true, key) => {
                    self.commanded = false;
                    if key != COMMAND_KEY {
                        self.pending.push_back(COMMAND_KEY);
                    }
                    self.pending.push_back(key);
                }
            }
        }
    }

    fn hand_over(&mut self, machine: &mut Running) -> Result<()> {
        let Some(input) = &mut machine.input else {
            self.pending.clear();
            return Ok(());
        };
        match input.write(self.pending.make_contiguous()) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(error) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::Interrupted].contains(&error.kind()) => {
            }
            // Its end shows on its output.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.pending.clear(),
            Err(error) => return Err(error).context("writing to the console"),
        }
        Ok(())
    }
}

/// The terminal with every key going through, until dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` where standard input is no terminal.
    fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin).context("reading the terminal's settings")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).context("changing the terminal's settings")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
        if std::io::stdout().is_terminal() {
            // Firmware leaves colours behind, and lines that it does not want wrapped.
            let _ = crate::sys::output::print("\x1b[0m\x1b[?7h\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_key_leaves_or_goes_through() {
        let mut keys = Keys::default();
        keys.type_in(b"a\x01\x01b\x01c");
        assert_eq!(keys.pending.make_contiguous(), b"a\x01b\x01c");
        assert!(!keys.leave);
        keys.type_in(b"\x01");
        keys.type_in(b"x");
        assert!(keys.leave);
    }
}
