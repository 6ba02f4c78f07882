//! The outer side of the sandbox: starts a command, follows its output, clears up after it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::init::{Job, Report, number};
use super::lines::Lines;
use super::plain::Copies;
use super::{Command, Exit, Forbidden, Input, Isolation, Sandbox, Stream};
use crate::diagnostics::Fault;
use crate::sys::process::inherit;
use crate::sys::remove::remove_wholly;

/// How often a running command looks whether it was interrupted, in milliseconds.
const ATTENTION: u16 = 100;

impl Sandbox {
    /// Runs a command to its end, handing over each line of its output as it comes.
    ///
    /// When [`crate::sys::interrupt::interrupted`] becomes true, the command and all its descendants are
    /// killed. An error is that it could not be started; how it ended is the [`Exit`].
    pub fn run(&self, command: &Command, on_line: &mut dyn FnMut(Stream, &str)) -> Result<Exit> {
        if command.input == Input::Terminal {
            return self.interactive(command);
        }
        self.attend(command, &[], &crate::sys::interrupt::interrupted, on_line)
    }

    /// Runs a command as [`Sandbox::run`] does, which keeps some of our open files under their numbers
    /// and is killed when `over` becomes true rather than when the user interrupts.
    pub fn attend(
        &self,
        command: &Command,
        kept: &[&OwnedFd],
        over: &dyn Fn() -> bool,
        on_line: &mut dyn FnMut(Stream, &str),
    ) -> Result<Exit> {
        let copies = self.copies(command)?;
        let ended = stdin(&command.input)
            .and_then(|input| Started::spawn(self, command, &input, Output::Pipes, kept))
            .and_then(|mut started| {
                let followed = started.follow(over, on_line);
                started.finish(followed, on_line)
            });
        copies.map_or(Ok(()), Copies::release)?;
        ended
    }

    /// Runs a command that the user talks to: it has the terminal, and Ctrl-C is for it.
    pub fn interactive(&self, command: &Command) -> Result<Exit> {
        let command = Command { input: Input::Terminal, ..command.clone() };
        let copies = self.copies(&command)?;
        let terminal = Terminal::take()?;
        let mut started = Started::spawn(self, &command, &terminal.input, Output::Terminal(&terminal.output), &[])?;
        let followed = started.follow(&crate::sys::interrupt::interrupted, &mut |_, _| {});
        let ended = started.finish(followed, &mut |_, _| {});
        drop(terminal);
        copies.map_or(Ok(()), Copies::release)?;
        ended
    }

    /// Without mounts, what a command is to see beside its view is copied there for it.
    fn copies(&self, command: &Command) -> Result<Option<Copies>> {
        match self.isolation {
            Isolation::Namespaces => Ok(None),
            Isolation::Chroot => Copies::place(&command.view, &command.binds).map(Some),
        }
    }
}

/// A file to read a command's input from.
fn stdin(input: &Input) -> Result<OwnedFd> {
    match input {
        Input::Text(text) => memory(text.as_bytes()),
        Input::Null | Input::Terminal => Ok(File::open("/dev/null").context("opening /dev/null")?.into()),
    }
}

/// An unnamed file in memory with this text, to be read from its start.
fn memory(text: &[u8]) -> Result<OwnedFd> {
    let mut file = File::from(memfd_create("debforge", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file.into())
}

/// The user's terminal while a command has it.
struct Terminal {
    input: OwnedFd,
    output: OwnedFd,
    ours: Option<Pid>,
}

impl Terminal {
    /// The controlling terminal where there is one, else what this process has as its input and output.
    fn take() -> Result<Self> {
        let input = std::io::stdin().as_fd().try_clone_to_owned()?;
        let output = std::io::stdout().as_fd().try_clone_to_owned()?;
        if !nix::unistd::isatty(&input).unwrap_or(false) {
            return Ok(Self { input, output, ours: None });
        }
        let output = match File::options().read(true).write(true).open("/dev/tty") {
            Ok(terminal) => terminal.into(),
            Err(_) => output,
        };
        let ours = nix::unistd::tcgetpgrp(&input).ok();
        Ok(Self { input, output, ours })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(ours) = self.ours {
            // Whoever is not in the terminal's foreground is stopped for asking, unless it ignores that.
            let mut stop = nix::sys::signal::SigSet::empty();
            stop.add(Signal::SIGTTOU);
            let _ = stop.thread_block();
            let _ = nix::unistd::tcsetpgrp(&self.input, ours);
            let _ = stop.thread_unblock();
        }
    }
}

enum Output<'a> {
    Pipes,
    Terminal(&'a OwnedFd),
}

/// A command that runs.
struct Started {
    child: Child,
    /// Whether it is to have a network.
    network: bool,
    reports: File,
    reported: Vec<u8>,
}

impl Started {
    fn spawn(
        sandbox: &Sandbox,
        command: &Command,
        input: &OwnedFd,
        output: Output<'_>,
        kept: &[&OwnedFd],
    ) -> Result<Self> {
        let (reports, reports_there) = pipe2(OFlag::O_CLOEXEC)?;
        let namespace = sandbox.binfmt.as_ref().and_then(|binfmt| binfmt.namespace.as_ref());
        let job = Job {
            isolation: sandbox.isolation,
            command: command.clone(),
            reports: number(&reports_there),
            user_namespace: namespace.map(number),
            kept: kept.iter().map(|fd| number(fd)).collect(),
        };
        let job = memory(&serde_json::to_vec(&job)?)?;
        let mut program = std::process::Command::new(super::program());
        program.arg0("debforge").arg("__sandbox").arg(number(&job).to_string()).env_clear().stdin(input.try_clone()?);
        match output {
            Output::Pipes => program.stdout(Stdio::piped()).stderr(Stdio::piped()),
            Output::Terminal(output) => program.stdout(output.try_clone()?).stderr(output.try_clone()?),
        };
        let handed_over: Vec<&OwnedFd> =
            [&job, &reports_there].into_iter().chain(namespace).chain(kept.iter().copied()).collect();
        inherit(&mut program, &handed_over);
        let child = program.spawn().context("starting the sandbox")?;
        Ok(Self { child, network: command.network, reports: reports.into(), reported: Vec::new() })
    }

    /// Passes on output until the command and all its descendants are gone.
    fn follow(&mut self, over: &dyn Fn() -> bool, on_line: &mut dyn FnMut(Stream, &str)) -> Result<()> {
        let mut streams = Vec::new();
        if let Some(out) = self.child.stdout.take() {
            streams.push(Reader::new(OwnedFd::from(out), Stream::Out)?);
        }
        if let Some(err) = self.child.stderr.take() {
            streams.push(Reader::new(OwnedFd::from(err), Stream::Err)?);
        }
        nonblocking(&self.reports)?;
        let mut asked_to_end = false;
        loop {
            let mut waiting: Vec<PollFd<'_>> =
                streams.iter().map(|reader| PollFd::new(reader.file.as_fd(), PollFlags::POLLIN)).collect();
            waiting.push(PollFd::new(self.reports.as_fd(), PollFlags::POLLIN));
            match poll(&mut waiting, PollTimeout::from(ATTENTION)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for the command"),
            }
            for reader in &mut streams {
                reader.read(on_line)?;
            }
            streams.retain(|reader| !reader.ended);
            if read_available(&mut self.reports, &mut self.reported)? {
                // Nobody can report any more, so all are gone; what they wrote is in the pipes.
                for reader in &mut streams {
                    reader.read(on_line)?;
                    reader.lines.finish(&mut |line| on_line(reader.stream, line));
                }
                return Ok(());
            }
            if !asked_to_end && over() {
                asked_to_end = true;
                self.end();
            }
        }
    }

    fn end(&self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
    }

    /// Waits for the last process and takes away what was made for the command.
    fn finish(mut self, followed: Result<()>, on_line: &mut dyn FnMut(Stream, &str)) -> Result<Exit> {
        if followed.is_err() {
            self.end();
        }
        self.child.wait().context("waiting for the command")?;
        let mut ended = None;
        let mut failed = None;
        let mut refused = None;
        let mut offline = false;
        let (mut created, mut left) = (Vec::new(), Vec::new());
        for line in self.reported.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line).context("reading how the command ended")? {
                Report::Created(more) => created.extend(more),
                Report::Left(path) => left.push(path),
                Report::Note(why) => on_line(Stream::Note, &why),
                Report::Refused(what) => refused = refused.or(Some(what)),
                Report::Offline => offline = true,
                Report::Failed { why, forbidden } => failed = failed.or(Some((why, forbidden))),
                Report::Ended(exit) => ended = Some(exit),
            }
        }
        for made in created.iter().rev() {
            made.remove()?;
        }
        for path in left {
            if let Err(error) = remove_wholly(&path) {
                on_line(Stream::Note, &format!("the command has left {}: {error:#}", path.display()));
            }
        }
        followed?;
        if let Some(what) = refused {
            return Err(Fault::machine(format!("the command {what}, which cannot be had here"))
                .hint("build in a machine of its own: `--backend uml` needs no privilege")
                .into());
        }
        match (failed, ended) {
            (Some((why, true)), _) => Err(Forbidden(why).into()),
            (Some((why, false)), _) => bail!("{why}"),
            (None, Some(_)) if !self.network && !offline => {
                bail!("the command did not say that it has no network, which it was to have none of")
            }
            (None, Some(exit)) => Ok(exit),
            // Killed with its process 1, by us or by the kernel.
            (None, None) => Ok(Exit::Signal(Signal::SIGKILL as i32)),
        }
    }
}

/// One of the command's output pipes.
struct Reader {
    file: File,
    stream: Stream,
    lines: Lines,
    ended: bool,
}

impl Reader {
    fn new(fd: OwnedFd, stream: Stream) -> Result<Self> {
        nonblocking(&fd)?;
        Ok(Self { file: fd.into(), stream, lines: Lines::default(), ended: false })
    }

    fn read(&mut self, on_line: &mut dyn FnMut(Stream, &str)) -> Result<()> {
        let mut buffer = [0; 16384];
        // A bound, so that one stream that never pauses does not keep the other waiting.
        for _ in 0..16 {
            match self.file.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    self.lines.finish(&mut |line| on_line(self.stream, line));
                    return Ok(());
                }
                Ok(count) => self.lines.push(&buffer[..count], &mut |line| on_line(self.stream, line)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading the command's output"),
            }
        }
        Ok(())
    }
}

/// Reads what is there; true at the end.
fn read_available(file: &mut File, into: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading how the command ended"),
        }
    }
}

fn nonblocking(fd: &impl AsFd) -> Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
