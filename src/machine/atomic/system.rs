//! The system under test in its machine: started, spoken to through its agent, ended or cut off.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::agent::{Agent, Answer, PORT, Said};
use super::disk::Disk;
use crate::build::interrupted;
use crate::debian::Architecture;
use crate::diagnostics::{Fault, FaultKind};
use crate::inspect::Format;
use crate::machine::qemu::console::PANIC;
use crate::machine::qemu::running::{Running, Stop, TAIL};
use crate::machine::qemu::transcript::Transcript;
use crate::machine::qemu::{Accelerator, Code, Guest, Medium, Port, Serial};

/// What the machine is like.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Of its processor.
    pub architecture: Architecture,
    /// How that runs.
    pub accelerator: Accelerator,
    /// In MiB.
    pub memory: Option<u64>,
    /// Number of processors.
    pub processors: Option<u32>,
    /// What starts the disk; `None`: its kernel is handed to QEMU, without firmware and boot loader.
    pub firmware: Option<Code>,
}

/// The system, running or not.
pub struct System {
    /// Its disk.
    pub disk: Disk,
    hardware: Hardware,
    scratch: PathBuf,
    /// How long it may take to start, and a command to be done.
    patience: Duration,
    log: File,
    log_path: PathBuf,
    machine: Option<Machine>,
}

struct Machine {
    running: Running,
    agent: Agent,
    transcript: Transcript,
}

/// What came of waiting.
enum Heard {
    Said(Said),
    /// The machine ended.
    End,
    /// Nothing in the time given.
    Nothing,
}

impl System {
    /// A system that does not run yet; all that is said goes to the log.
    pub fn new(
        disk: Disk,
        hardware: Hardware,
        scratch: PathBuf,
        patience: Duration,
        (log, log_path): (File, PathBuf),
    ) -> Self {
        Self { disk, hardware, scratch, patience, log, log_path, machine: None }
    }

    /// Whether it is started through firmware and boot loader.
    pub fn has_firmware(&self) -> bool {
        self.hardware.firmware.is_some()
    }

    /// Starts it, through firmware and boot loader where there are some and `fast` is not set; comes back when its
    /// agent is there.
    pub fn start(&mut self, fast: bool) -> Result<()> {
        let code = match self.hardware.firmware.as_ref().filter(|_| !fast) {
            Some(code) => code.clone(),
            None => {
                let start = self.disk.start(&self.scratch)?;
                Code::of_kernel(start.kernel, start.initrd, start.line)
            }
        };
        let (agent, theirs) = Agent::new()?;
        let guest = Guest {
            architecture: self.hardware.architecture,
            board: None,
            code,
            accelerator: self.hardware.accelerator.clone(),
            memory: self.hardware.memory,
            processors: self.hardware.processors,
            graphical: false,
            medium: Medium {
                file: self.disk.file.clone(),
                format: Format::Raw,
                cd: false,
                sector_size: self.disk.bootable.table.as_ref().map_or(512, |table| table.sector_size),
                // Nobody wants it when the test is over; and this machine lives on when QEMU is killed.
                throwaway: true,
            },
            flash: None,
            forwards: Vec::new(),
            serial: Serial::Pipe,
            port: Some(Port { name: PORT, socket: theirs.as_raw_fd() }),
            restarts: false,
        };
        let command = guest.command()?;
        self.note(&format!("starting: {}", crate::machine::qemu::preparation::shell_line(&command)));
        let running = Running::start(&command, &[&theirs])?;
        self.machine = Some(Machine { running, agent, transcript: Transcript::new(Vec::new(), TAIL) });
        let until = Instant::now() + self.patience;
        match self.wait(until)? {
            Heard::Said(Said::Hello) => Ok(()),
            Heard::Said(Said::Answer(_)) => Err(self.fault("the machine answers what nobody asked")),
            Heard::End => Err(self.ended("before the system was up")),
            Heard::Nothing => Err(self.fault(&format!("the system was not up after {} s", self.patience.as_secs()))),
        }
    }

    /// Has a shell of the system run a command.
    pub(super) fn run(&mut self, command: &str) -> Result<Answer> {
        self.ask(command)?;
        let until = Instant::now() + self.patience;
        let answer = match self.wait(until)? {
            Heard::Said(Said::Answer(answer)) => answer,
            Heard::Said(Said::Hello) => return Err(self.fault(&format!("the agent started anew in `{command}`"))),
            Heard::End => return Err(self.ended(&format!("in `{command}`"))),
            Heard::Nothing => {
                let seconds = self.patience.as_secs();
                return Err(self.fault(&format!("`{command}` was not done after {seconds} s")));
            }
        };
        self.note(&format!("{command}\n{}= {}", answer.output, answer.code));
        Ok(answer)
    }

    /// The same of a command that has to go well; what it printed.
    pub fn output(&mut self, command: &str) -> Result<String> {
        let answer = self.run(command)?;
        if answer.code == 0 {
            return Ok(answer.output);
        }
        let tail = answer.output.lines().map(str::to_owned).collect();
        let message = format!("in the system, `{command}` ended with {}", answer.code);
        Err(self.hinted(Fault::failed(message).tail(tail)))
    }

    /// Starts a command and takes the power away after a time; whether the command was done by then.
    pub fn cut_during(&mut self, command: &str, after: Duration) -> Result<bool> {
        self.ask(command)?;
        let until = Instant::now() + after;
        let mut done = false;
        while Instant::now() < until {
            match self.wait(until)? {
                Heard::Said(_) => done = true,
                Heard::End => return Err(self.ended(&format!("in `{command}`"))),
                Heard::Nothing => break,
            }
        }
        self.note(&format!("{command}\n= the power is cut after {:.1} s", after.as_secs_f64()));
        if let Some(machine) = self.machine.take() {
            machine.running.end(Stop::Cut)?;
        }
        Ok(done)
    }

    /// Has the system end: `reboot` or `poweroff`.
    pub fn shut_down(&mut self, how: &str) -> Result<()> {
        self.ask(&format!("systemctl {how}"))?;
        let until = Instant::now() + self.patience;
        loop {
            match self.wait(until)? {
                Heard::Said(_) => {}
                Heard::End => break,
                Heard::Nothing => {
                    return Err(self.fault(&format!("the system did not end after {} s", self.patience.as_secs())));
                }
            }
        }
        let Some(machine) = self.machine.take() else { return Ok(()) };
        let (status, errors) = machine.running.end(Stop::Wait)?;
        if status.success() {
            Ok(())
        } else {
            Err(Fault::failed(format!("qemu ended with {status}")).tail(errors).into())
        }
    }

    /// A fault with the last lines of the console.
    pub fn fault(&self, message: &str) -> anyhow::Error {
        let fault = match &self.machine {
            Some(machine) => machine.transcript.missed(message),
            None => Fault::failed(message),
        };
        self.hinted(fault)
    }

    /// A fault with the place of the log.
    pub fn hinted(&self, fault: Fault) -> anyhow::Error {
        fault.hint(format!("the log with the whole console is {}", self.log_path.display())).into()
    }

    /// Writes something to the log that is not the console's.
    pub fn note(&mut self, text: &str) {
        // The log is for people; the test goes on without it.
        let _ = writeln!(self.log);
        for line in text.lines() {
            let _ = writeln!(self.log, "### {line}");
        }
    }

    fn ask(&mut self, command: &str) -> Result<()> {
        let Some(machine) = &mut self.machine else { anyhow::bail!("the machine does not run") };
        let asked = machine.agent.ask(command);
        asked.map_err(|error| self.fault(&format!("{error:#}")))
    }

    /// The fault of a machine that has ended.
    fn ended(&mut self, when: &str) -> anyhow::Error {
        let fault = self.fault(&format!("the machine ended {when}"));
        if let Some(machine) = self.machine.take()
            && let Ok((status, errors)) = machine.running.end(Stop::Wait)
            && !status.success()
        {
            return self.hinted(Fault::failed(format!("qemu ended with {status} {when}")).tail(errors));
        }
        fault
    }

    fn wait(&mut self, until: Instant) -> Result<Heard> {
        let mut buffer = vec![0; 1 << 16];
        // The agent's line ends a moment before the console, which may have more to say.
        let mut listening = true;
        loop {
            if interrupted() {
                return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
            }
            let Some(machine) = &mut self.machine else { return Ok(Heard::End) };
            if let Some(said) = machine.agent.next() {
                return Ok(Heard::Said(said));
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(Heard::Nothing) };
            let step = PollTimeout::try_from(left.min(Duration::from_millis(500))).unwrap_or(PollTimeout::ZERO);
            let mut waiting = vec![PollFd::new(machine.running.output.as_fd(), PollFlags::POLLIN)];
            if listening {
                waiting.push(PollFd::new(machine.agent.descriptor(), PollFlags::POLLIN));
            }
            match poll(&mut waiting, step) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for the machine"),
            }
            let ready = |at: usize| waiting.get(at).and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
            let (console, agent) = (ready(0), ready(1));
            if agent {
                listening = machine.agent.take()?;
            }
            if !console {
                continue;
            }
            let read = match machine.running.output.read(&mut buffer) {
                Ok(0) => return Ok(Heard::End),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading the console"),
            };
            self.log.write_all(&buffer[..read]).context("writing the log")?;
            machine.transcript.hear(&buffer[..read]);
            if machine.transcript.has_lately(PANIC, read) {
                return Err(self.fault("the kernel panicked"));
            }
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            let _ = machine.running.end(Stop::Cut);
        }
    }
}
