//! Starts a machine, passes its messages on, and notices when something is wrong with it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::channel::{Channel, Heard};
use super::console::Console;
use super::disk::Disk;
use super::lines::{Ends, Lines};
use super::network::Router;
use super::pieces::Pieces;
use super::prepare::{Prepared, prepare};
use super::relay::Relay;
use super::{Hypervisor, Start};
use crate::build::{Event, interrupted};
use crate::diagnostics::{Fault, FaultKind};
use crate::machine::process::Message;
use crate::sandbox::{Command, Exit, Isolation, Sandbox};
use crate::store::{Store, set_holder, waiting_for};

/// How often everything is looked at.
const ATTENTION: Duration = Duration::from_millis(100);
/// How long a guest that is asked to end may take for its clean-up.
const GRACE: Duration = Duration::from_secs(20);
/// How much later than a message what was on the console before it may come.
const CONSOLE: Duration = Duration::from_millis(500);
/// How long a guest that is done may take to switch its machine off.
const FAREWELL: Duration = Duration::from_secs(10);

/// Carries out the job [`Start`]: in a process of its own, whose end ends the machine.
pub(in crate::machine) fn watch(start: &Start, isolation: Isolation, say: &mut dyn FnMut(Message)) -> Result<()> {
    crate::store::set_cancelled(interrupted);
    if let Some(by) = start.by() {
        set_holder(by);
    }
    let store = Store::open(&start.store)?;
    let _awaited = store.await_publication(&start.artifact_dir)?;
    let scratch = store.scratch()?;
    let disk = Disk::take(&store, start.disk_size, &mut |holder| {
        let message = waiting_for("waiting for another build that runs in a machine", holder);
        say(Message::Event(Event::Warning { step: None, message }));
    })?;
    let own = scratch.path.join("machine");
    // What the recipe's properties and variables say is nobody else's.
    fs::DirBuilder::new().mode(0o700).create(&own).context("making a place for the machine")?;
    let (router, network) = match start.hypervisor {
        Hypervisor::Uml if start.network => Router::start().map(|(router, plug)| (Some(router), Some(plug)))?,
        _ => (None, None),
    };
    let (lines, Ends { channel, terminal }) = Lines::new(network)?;
    let Prepared { machine: command, server } = prepare(start, isolation, &disk.path, &own, &lines)?;
    let kept = lines.kept();
    let over = AtomicBool::new(false);
    let (said, console) = std::sync::mpsc::channel();
    let ended = std::thread::scope(|scope| {
        if let Some(server) = &server {
            let said = said.clone();
            let serving = scope.spawn(|| run(&server.command, isolation, &[], &over, said, false));
            if let Err(error) = server.wait(|| serving.is_finished()) {
                over.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        let machine = scope.spawn(|| run(&command, isolation, &kept, &over, said, start.hypervisor == Hypervisor::Uml));
        let mut watcher = Watcher {
            start,
            channel,
            terminal: &terminal,
            lines: console,
            console: Console::default(),
            relay: None,
            pieces: (start.hypervisor == Hypervisor::Uml).then(Pieces::new),
            done: None,
            say,
        };
        let watched = watcher.watch(|| machine.is_finished(), &over);
        over.store(true, Ordering::Relaxed);
        let exit = machine.join().map_err(|_| anyhow!("the thread of the machine broke off"))?;
        watcher.listen_to_console();
        let name = start.hypervisor.name();
        match (watched?, exit) {
            (End::Done(None), _) => Ok(()),
            (End::Done(Some(fault)), _) => Err(fault.into()),
            (End::Interrupted, _) => Err(Fault::new(FaultKind::Interrupted, "interrupted").into()),
            (End::Silent(seconds, started), _) => Err(watcher.console.explain_silence(name, seconds, started).into()),
            (End::Gone, Err(error)) => Err(error.context(format!("starting {name}"))),
            (End::Gone, Ok(exit)) => Err(full(watcher.console.explain(name, Some(exit)), &disk).into()),
        }
    });
    drop(router);
    ended
}

/// What a machine's end may have to do with the disk that its own disk is on.
fn full(fault: Fault, disk: &Disk) -> Fault {
    match crate::store::size::free_space(&disk.path) {
        Ok(free) if free < 1 << 20 => {
            let took = crate::store::size::human(disk.allocated());
            fault.hint(format!("the disk of {} is full, of which the machine's own takes {took}", disk.path.display()))
        }
        _ => fault,
    }
}

/// Runs the machine to its end, its console going to `lines`.
fn run(
    command: &Command,
    isolation: Isolation,
    kept: &[&OwnedFd],
    over: &AtomicBool,
    lines: Sender<String>,
    one_processor: bool,
) -> Result<Exit> {
    if one_processor {
        stay();
    }
    Sandbox::new(isolation).attend(command, kept, &|| over.load(Ordering::Relaxed), &mut |_, line| {
        // Nobody listens any more once the watcher has given up.
        let _ = lines.send(line.to_owned());
    })
}

/// Keeps this thread, and what it starts, on the processor that it is on. UML's kernel and its processes
/// take turns, and taking turns between processors costs it a third more time.
fn stay() {
    let mut here = CpuSet::new();
    let set = sched_getcpu().and_then(|processor| here.set(processor));
    let _ = set.and_then(|()| sched_setaffinity(Pid::from_raw(0), &here));
}

/// Why watching is over.
enum End {
    Done(Option<Fault>),
    Interrupted,
    /// Seconds without a sign of life, and whether there ever was one.
    Silent(u64, bool),
    Gone,
}

struct Watcher<'a> {
    start: &'a Start,
    channel: Channel,
    terminal: &'a UnixStream,
    lines: Receiver<String>,
    console: Console,
    relay: Option<Relay>,
    pieces: Option<Pieces>,
    /// What the guest said last, once it is done.
    done: Option<Option<Fault>>,
    say: &'a mut dyn FnMut(Message),
}

impl Watcher<'_> {
    fn watch(&mut self, gone: impl Fn() -> bool, over: &AtomicBool) -> Result<End> {
        let mut heard: Option<Instant> = None;
        let started = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut farewell: Option<Instant> = None;
        loop {
            // Asked first, so that what it said before is heard.
            let is_gone = gone();
            match self.channel.hear(ATTENTION)? {
                Heard::Message(message) => {
                    heard = Some(Instant::now());
                    self.listen_to_console();
                    self.take(*message)?;
                    if self.done.is_none() {
                        continue;
                    }
                }
                Heard::Nothing if is_gone => return Ok(self.gone()),
                Heard::Nothing => {}
                Heard::End => std::thread::sleep(Duration::from_millis(5)),
            }
            self.listen_to_console();
            if self.pieces.as_mut().is_some_and(Pieces::look) {
                self.console.no_pieces_left();
            }
            if is_gone {
                return Ok(self.gone());
            }
            if self.done.is_some() {
                let since = farewell.get_or_insert_with(Instant::now);
                if since.elapsed() > FAREWELL {
                    over.store(true, Ordering::Relaxed);
                }
                continue;
            }
            if interrupted() {
                match asked {
                    None => {
                        asked = Some(Instant::now());
                        self.channel.interrupt();
                    }
                    Some(asked) if asked.elapsed() > GRACE || heard.is_none() => return Ok(End::Interrupted),
                    Some(_) => {}
                }
            }
            let patience = self.start.hypervisor.patience();
            if heard.unwrap_or(started).elapsed() > patience && self.relay.is_none() {
                return Ok(End::Silent(patience.as_secs(), heard.is_some()));
            }
        }
    }

    fn gone(&mut self) -> End {
        match self.done.take() {
            Some(fault) => End::Done(fault),
            None if interrupted() => End::Interrupted,
            None => End::Gone,
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Done(fault) => self.done = Some(fault),
            Message::Event(Event::Terminal { taken: true }) => {
                (self.say)(Message::Event(Event::Terminal { taken: true }));
                self.relay = Some(Relay::start(self.terminal)?);
            }
            Message::Event(Event::Terminal { taken: false }) => {
                if let Some(relay) = self.relay.take() {
                    relay.end();
                }
                (self.say)(Message::Event(Event::Terminal { taken: false }));
            }
            Message::Event(Event::Finished { fault: Some(fault), step }) => {
                // The kernel says so on its console, which may be slower.
                let asked = Instant::now();
                while is_killed(&fault) && self.console.short_of_memory().is_none() && asked.elapsed() < CONSOLE {
                    std::thread::sleep(Duration::from_millis(10));
                    self.listen_to_console();
                }
                let fault = self.console.short_of_memory().into_iter().fold(fault, Fault::hint);
                (self.say)(Message::Event(Event::Finished { fault: Some(fault), step }));
            }
            message => (self.say)(message),
        }
        Ok(())
    }

    fn listen_to_console(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.console.hear(&line);
            (self.say)(Message::Event(Event::Console { line }));
        }
    }
}

/// Whether a fault may be that a program was killed: by its signal, or as shells report that.
fn is_killed(fault: &Fault) -> bool {
    let signs = ["137", "signal 9", "illed"];
    std::iter::once(&fault.message).chain(&fault.tail).any(|line| signs.iter().any(|sign| line.contains(sign)))
}

impl Hypervisor {
    /// Silence after which a machine counts as hanging: as many seconds as DEBFORGE_MACHINE_PATIENCE says,
    /// else far more than a slow one takes for anything.
    fn patience(self) -> Duration {
        let given = std::env::var("DEBFORGE_MACHINE_PATIENCE").ok().and_then(|text| text.parse().ok());
        Duration::from_secs(given.unwrap_or(match self {
            Self::Uml | Self::Kvm => 60,
            Self::Qemu => 180,
        }))
    }
}
