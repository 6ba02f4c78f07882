//! The user's terminal, joined to a terminal in the guest while a shell has it.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios, tcgetattr};
use nix::unistd::Pid;

/// How often it is looked whether the shell has ended, in milliseconds.
const ATTENTION: u16 = 50;

/// How long the front may take to let go of the terminal.
const PATIENCE: Duration = Duration::from_millis(500);

/// End of input, as terminals have it.
const END_OF_INPUT: &[u8] = b"\x04";

/// Joins the two until ended.
pub(super) struct Relay {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Relay {
    /// `line` leads to the guest's terminal.
    pub(super) fn start(line: &UnixStream) -> Result<Self> {
        let line = line.try_clone().context("joining the terminals")?;
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || join(line, &stop));
        Ok(Self { over, thread: Some(thread) })
    }

    /// Gives the terminal back.
    pub(super) fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            tracing::warn!("{error:#}");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

fn join(mut line: UnixStream, over: &AtomicBool) -> Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut output = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let held = Held::take(&input)?;
    line.set_nonblocking(true)?;
    // Shells throw away what was typed before they were there. People wait for them; a file does not.
    let mut typing = held.before.is_some();
    let mut waiting_for_shell = !typing;
    let mut buffer = [0; 4096];
    loop {
        let ending = over.load(Ordering::Relaxed);
        let mut waiting = vec![PollFd::new(line.as_fd(), PollFlags::POLLIN)];
        if typing {
            waiting.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, PollTimeout::from(if ending { 0 } else { ATTENTION })) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the terminal"),
        }
        let ready = |at: usize| waiting.get(at).and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
        let (said, typed) = (ready(0), ready(1));
        if said {
            match line.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    output.write_all(&buffer[..read]).and_then(|()| output.flush())?;
                    typing |= std::mem::take(&mut waiting_for_shell);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("reading the machine's terminal"),
            }
        } else if ending {
            break;
        }
        if typed {
            let read = nix::unistd::read(&input, &mut buffer).unwrap_or(0);
            typing = read > 0;
            let keys = if typing { &buffer[..read] } else { END_OF_INPUT };
            line.set_nonblocking(false)?;
            line.write_all(keys).context("writing to the machine's terminal")?;
            line.set_nonblocking(true)?;
        }
    }
    drop(held);
    Ok(())
}

/// The terminal with every key going through to the guest, until dropped.
struct Held {
    terminal: OwnedFd,
    before: Option<Termios>,
    owner: Option<Pid>,
}

impl Held {
    fn take(input: &OwnedFd) -> Result<Self> {
        let terminal = input.try_clone()?;
        if !terminal.is_terminal() {
            return Ok(Self { terminal, before: None, owner: None });
        }
        // The front puts back how it found the terminal, which is the sign that it has let go of it: done
        // later, that would stop it.
        let asked = Instant::now();
        let let_go = || tcgetattr(&terminal).is_ok_and(|now| now.local_flags.contains(LocalFlags::ECHOCTL));
        while !let_go() && asked.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let owner = nix::unistd::tcgetpgrp(&terminal).ok();
        without_stopping(|| {
            let _ = nix::unistd::tcsetpgrp(&terminal, nix::unistd::getpgrp());
        });
        let before = tcgetattr(&terminal).context("reading the terminal's settings")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        without_stopping(|| termios::tcsetattr(&terminal, SetArg::TCSANOW, &raw))
            .context("changing the terminal's settings")?;
        Ok(Self { terminal, before: Some(before), owner })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        without_stopping(|| {
            if let Some(before) = &self.before {
                let _ = termios::tcsetattr(&self.terminal, SetArg::TCSANOW, before);
            }
            if let Some(owner) = self.owner {
                let _ = nix::unistd::tcsetpgrp(&self.terminal, owner);
            }
        });
    }
}

/// Whoever is not in the terminal's foreground is stopped for touching it, unless it blocks that.
fn without_stopping<T>(work: impl FnOnce() -> T) -> T {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    let _ = stop.thread_block();
    let done = work();
    let _ = stop.thread_unblock();
    done
}
