//! QEMU as a process: started, listened to, and ended.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::process::{die_with_us, inherit};

/// Lines of the console, or of QEMU's own messages, that a fault shows.
pub(in crate::machine) const TAIL: usize = 20;

/// How long QEMU may take to end by itself once it is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// A machine that runs.
pub(in crate::machine) struct Running {
    child: Child,
    /// Its serial console.
    pub(in crate::machine) output: ChildStdout,
    /// What is typed at it; does not block.
    pub(super) input: Option<ChildStdin>,
    errors: Option<JoinHandle<Vec<String>>>,
}

/// How a machine is brought to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::machine) enum Stop {
    /// It ends by itself.
    Wait,
    /// QEMU is asked to end, and writes out what it holds for the image.
    Ask,
    /// At once, as if the power failed.
    Cut,
}

impl Running {
    /// Starts a machine, which gets these descriptors too.
    pub(in crate::machine) fn start(line: &[String], descriptors: &[&OwnedFd]) -> Result<Self> {
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
        inherit(&mut command, descriptors);
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

    /// Its end; gives QEMU's last messages besides.
    pub(in crate::machine) fn end(mut self, stop: Stop) -> Result<(ExitStatus, Vec<String>)> {
        drop(self.input.take());
        match stop {
            Stop::Wait => {}
            Stop::Cut => self.child.kill().context("ending qemu")?,
            Stop::Ask => {
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
