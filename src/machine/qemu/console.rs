//! A machine that runs: its serial console, to the terminal and a log, and what is waited for on it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{IsTerminal, Read, Stdin, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{self, SetArg, Termios};
use nix::unistd::Pid;

use super::super::process::interruptible;
use super::transcript::Transcript;
use crate::build::interrupted;
use crate::diagnostics::{Fault, FaultKind};
use crate::sys::process::die_with_us;

/// Lines of the console that a fault shows.
const TAIL: usize = 20;

/// How long QEMU may take to end by itself once it is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// The key that commands begin with: Ctrl-A, as with QEMU's own console.
const COMMAND_KEY: u8 = 1;

/// A message of kernels that will not go on.
const PANIC: &str = "Kernel panic - not syncing";

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
        let mut machine = Machine::start(command)?;
        let raw = if self.input { RawTerminal::enter()? } else { None };
        let watched = self.watch(&mut machine);
        drop(raw);
        let stopped = !matches!(watched, Ok((Reason::Ended, _)));
        let (status, errors) = machine.end(stopped)?;
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

    fn watch(mut self, machine: &mut Machine) -> Result<(Reason, Transcript)> {
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

struct Machine {
    child: Child,
    output: std::process::ChildStdout,
    input: Option<std::process::ChildStdin>,
    errors: Option<JoinHandle<Vec<String>>>,
}

/// What can be done without waiting.
struct Ready {
    said: bool,
    typed: bool,
    takes: bool,
}

impl Machine {
    fn start(line: &[String]) -> Result<Self> {
        let [program, arguments @ ..] = line else { anyhow::bail!("no machine to start") };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal is for us.
            .process_group(0);
        die_with_us(&mut command);
        let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
        let input = child.stdin.take();
        if let Some(input) = &input {
            let flags = OFlag::from_bits_truncate(fcntl(input, FcntlArg::F_GETFL)?);
            fcntl(input, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        let errors = child.stderr.take().map(|errors| std::thread::spawn(move || last_lines(errors)));
        let output = child.stdout.take().context("listening to qemu")?;
        Ok(Self { child, output, input, errors })
    }

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

    /// Waits for its end, or makes one; gives QEMU's last messages besides.
    fn end(mut self, stop: bool) -> Result<(ExitStatus, Vec<String>)> {
        drop(self.input.take());
        if stop {
            // QEMU writes out what it holds for the image before it ends.
            let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
            let asked = Instant::now();
            while self.child.try_wait().context("waiting for qemu")?.is_none() {
                if asked.elapsed() > GRACE {
                    let _ = self.child.kill();
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let status = self.child.wait().context("waiting for qemu")?;
        let errors = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status, errors))
    }
}

fn last_lines(errors: ChildStderr) -> Vec<String> {
    use std::io::{BufRead, BufReader};
    let mut tail = VecDeque::new();
    for line in BufReader::new(errors).split(b'\n').map_while(std::io::Result::ok) {
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(String::from_utf8_lossy(&line).into_owned());
    }
    tail.into()
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

    fn hand_over(&mut self, machine: &mut Machine) -> Result<()> {
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
            print!("\x1b[0m\x1b[?7h\r\n");
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
