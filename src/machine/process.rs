//! The engine's process: started by the front, in its own namespaces, spoken to through two pipes.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, pipe2};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, map_alone, write_maps};
use super::{probe, vm};
use crate::build::{Event, Reporter};
use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::sandbox::{Isolation, forbids};
use crate::store::Elsewhere;
use crate::sys::process::{adopt, inherit, on_termination};

/// Last lines of the engine's own messages that a fault shows.
const TAIL: usize = 20;

/// What the engine's process is to become; the first line that it reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) identity: Identity,
    pub(super) isolation: Isolation,
    /// Whose end is to end it.
    front: i32,
}

/// What the engine's process is to do; the second line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// See [`crate::engine::serve`].
    Serve(serde_json::Value),
    /// See [`probe`].
    Probe(probe::Question),
    /// Start a machine and watch over it; see [`vm`].
    Machine(Box<vm::Start>),
}

/// What the engine's process says, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// It is in its user namespace and wants its ids.
    Unmapped,
    /// Something happened.
    Event(Event),
    /// The kernel does not let it become what it was to be.
    Forbidden(String),
    /// What [`Job::Probe`] found.
    Findings(probe::Findings),
    /// A machine's first process is there, and still is.
    Alive,
    /// Facts that a machine's store keeps for later builds.
    Facts(BTreeMap<String, serde_json::Value>),
    /// What a machine's store has.
    Contents(Elsewhere),
    /// It is done.
    Done(Option<Fault>),
}

/// The engine's pid while there is one, for the signal handler.
static ENGINE: AtomicI32 = AtomicI32::new(0);

/// Signals that came.
static SIGNALS: AtomicI32 = AtomicI32::new(0);

/// First asks the engine to end, then makes it; without one, the second signal ends this process.
fn pass_on(_: Signal) {
    crate::sys::interrupt::interrupt();
    let engine = ENGINE.load(Ordering::Relaxed);
    let again = SIGNALS.fetch_add(1, Ordering::Relaxed) > 0;
    match (engine, again) {
        (0, false) => {}
        (0, true) => crate::sys::process::exit_now(i32::from(FaultKind::Interrupted.exit_code())),
        (engine, again) => {
            let _ = kill(Pid::from_raw(engine), if again { Signal::SIGKILL } else { Signal::SIGTERM });
        }
    }
}

/// Lets Ctrl-C and termination signals end what this process does in good order.
pub fn interruptible() -> Result<()> {
    crate::store::set_cancelled(crate::build::interrupted);
    crate::sys::interrupt::pass_on_to(interrupt_engine);
    on_termination(pass_on).context("setting up signal handlers")
}

/// Asks the engine to end, if there is one.
pub(super) fn interrupt_engine() {
    crate::sys::interrupt::interrupt();
    let engine = ENGINE.load(Ordering::Relaxed);
    if engine > 0 {
        let _ = kill(Pid::from_raw(engine), Signal::SIGTERM);
    }
}

/// Runs a job in an engine process to its end, handing over what it says.
pub(super) fn run(
    identity: &Identity,
    isolation: Isolation,
    job: &Job,
    on_message: &mut dyn FnMut(Message),
) -> Result<()> {
    interruptible()?;
    let mut engine = Engine::spawn()?;
    if crate::build::interrupted() {
        // Before there was anyone to be told.
        interrupt_engine();
    }
    let spoken = engine.talk(identity, isolation, job, on_message);
    let (status, tail) = engine.wait()?;
    match spoken {
        Ok(Some(None)) => Ok(()),
        Ok(Some(Some(fault))) => Err(fault.into()),
        Ok(None) | Err(_) if crate::build::interrupted() => {
            Err(Fault::new(FaultKind::Interrupted, "interrupted").into())
        }
        Ok(None) => Err(Fault::failed(format!("the engine ended before its work did ({status})")).tail(tail).into()),
        Err(error) if tail.is_empty() => Err(error),
        Err(error) => Err(Fault { tail, ..fault_of(&error) }.into()),
    }
}

struct Engine {
    child: Child,
    job: File,
    messages: BufReader<File>,
    stderr: Option<JoinHandle<Vec<String>>>,
}

impl Engine {
    fn spawn() -> Result<Self> {
        let (job_there, job) = pipe2(OFlag::O_CLOEXEC)?;
        let (messages, messages_there) = pipe2(OFlag::O_CLOEXEC)?;
        let mut program = std::process::Command::new(crate::sandbox::program());
        program
            .arg0("debforge")
            .arg("__engine")
            .arg(job_there.as_raw_fd().to_string())
            .arg(messages_there.as_raw_fd().to_string())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal reaches the front, which passes it on once.
            .process_group(0);
        inherit(&mut program, &[&job_there, &messages_there]);
        let mut child = program.spawn().context("starting the engine")?;
        ENGINE.store(child.id() as i32, Ordering::Relaxed);
        let stderr = child.stderr.take().map(|stderr| std::thread::spawn(move || last_lines(stderr)));
        Ok(Self { child, job: job.into(), messages: BufReader::new(messages.into()), stderr })
    }

    /// Gives the job and takes the messages; the inner option is the engine's fault, the outer is
    /// `None` where it ended without a word.
    fn talk(
        &mut self,
        identity: &Identity,
        isolation: Isolation,
        job: &Job,
        on_message: &mut dyn FnMut(Message),
    ) -> Result<Option<Option<Fault>>> {
        let front = Pid::this().as_raw();
        write_line(&mut self.job, &Setting { identity: identity.clone(), isolation, front })?;
        if let Identity::Mapped { uids, gids, .. } = identity {
            match self.next()? {
                Some(Message::Unmapped) => write_maps(self.child.id(), uids, gids)?,
                Some(Message::Done(fault)) => return Ok(Some(fault)),
                _ => return Ok(None),
            }
        }
        write_line(&mut self.job, job)?;
        while let Some(message) = self.next()? {
            match message {
                Message::Done(fault) => return Ok(Some(fault)),
                message => on_message(message),
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<Message>> {
        let mut line = String::new();
        if self.messages.read_line(&mut line).context("listening to the engine")? == 0 || !line.ends_with('\n') {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).context("understanding the engine")
    }

    fn wait(self) -> Result<(ExitStatus, Vec<String>)> {
        let Self { mut child, job, messages, stderr } = self;
        // Whatever it still waits for does not come.
        drop(job);
        drop(messages);
        let status = child.wait().context("waiting for the engine");
        ENGINE.store(0, Ordering::Relaxed);
        let tail = stderr.and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status?, tail))
    }
}

fn last_lines(stderr: impl Read) -> Vec<String> {
    let mut tail = VecDeque::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(std::io::Result::ok) {
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(String::from_utf8_lossy(&line).into_owned());
    }
    tail.into()
}

fn write_line(file: &mut File, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line).context("writing to the engine")
}

/// The engine's side of [`run`]: the process that `__engine` starts. Gives its exit code.
pub(super) fn engine(job: RawFd, messages: RawFd) -> i32 {
    let Ok(messages) = adopt(messages) else { return 70 };
    let voice = Arc::new(Voice(Mutex::new(File::from(messages))));
    let result = adopt(job).map_err(Into::into).and_then(|job| serve(job, &voice));
    let code = i32::from(result.is_err());
    voice.say(&Message::Done(result.err().map(|error| fault_of(&error))));
    code
}

fn serve(job: OwnedFd, voice: &Arc<Voice>) -> Result<()> {
    let mut job = BufReader::new(File::from(job));
    let setting: Setting = read_line(&mut job)?;
    enter(&setting, voice, &mut || read_line(&mut job)).and_then(|job| match job {
        Job::Serve(job) => crate::engine::serve(job, voice.clone()),
        Job::Probe(question) => {
            voice.say(&Message::Findings(probe::answer(&question, setting.isolation)));
            Ok(())
        }
        Job::Machine(start) => vm::watch(&start, setting.isolation, &mut |message| voice.say(&message)),
    })
}

fn read_line<T: serde::de::DeserializeOwned>(from: &mut impl BufRead) -> Result<T> {
    let mut line = String::new();
    if from.read_line(&mut line).context("reading the job")? == 0 {
        bail!("the front ended");
    }
    serde_json::from_str(&line).context("understanding the job")
}

/// Becomes what the setting says, then waits for the job.
fn enter(setting: &Setting, voice: &Voice, job: &mut dyn FnMut() -> Result<Job>) -> Result<Job> {
    on_termination(|_| crate::sys::interrupt::interrupt()).context("setting up signal handlers")?;
    die_with(setting.front)?;
    let refused = |what: &'static str| {
        move |error| {
            let why = format!("{what}: {error}");
            if forbids(error) {
                voice.say(&Message::Forbidden(why.clone()));
            }
            Fault::machine(why)
        }
    };
    let job = if let Identity::Alone { uid, gid } = setting.identity {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused("no user namespace"))?;
        map_alone(uid, gid)?;
        die_with(setting.front)?;
        job()?
    } else if let Identity::Mapped { .. } = setting.identity {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused("no user namespace"))?;
        voice.say(&Message::Unmapped);
        let job = job()?;
        nix::unistd::setgroups(&[]).context("leaving the user's groups")?;
        nix::unistd::setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).context("becoming group 0")?;
        nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).context("becoming user 0")?;
        // Changed credentials take it away.
        die_with(setting.front)?;
        job
    } else {
        job()?
    };
    if setting.isolation == Isolation::Namespaces {
        unshare(CloneFlags::CLONE_NEWNS).map_err(refused("no mount namespace"))?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(refused("mounts cannot be kept apart from the machine's"))?;
    } else {
        // Who is left behind by a killed command is to be found below us.
        nix::sys::prctl::set_child_subreaper(true)?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(job)
}

/// Has the kernel kill this process when the front ends.
fn die_with(front: i32) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before.
    if nix::unistd::getppid().as_raw() != front {
        bail!("the front ended");
    }
    Ok(())
}

/// Where the engine's messages go.
struct Voice(Mutex<File>);

impl Voice {
    fn say(&self, message: &Message) {
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A front that is gone hears nothing, and its end ends us.
        let _ = file.write_all(&line);
    }
}

impl Reporter for Voice {
    fn report(&self, event: Event) {
        self.say(&Message::Event(event));
    }
}
