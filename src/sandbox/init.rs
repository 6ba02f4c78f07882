//! The inner side of the sandbox: processes that become, watch and end the command.
//!
//! The first process (`outer`) stays in the host's pid namespace and can be told to end everything;
//! the second is process 1 of the command's own pid namespace, whose end ends all in it; the third
//! becomes the command. Without namespaces there is no second, and the first hunts down what the
//! command leaves behind.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::place::Created;
use super::supervisor::{HandOver, Heard, handlers};
use super::{
    Command, Exit, Input, Isolation, Told, View, constant, descendants, fence, filter, forbids, limits, powers, view,
};
use crate::sys::network;
use crate::sys::process::{self, Fork};

/// What the process gets to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) isolation: Isolation,
    pub(super) command: Command,
    /// Descriptor for [`Report`]s, one JSON text per line.
    pub(super) reports: RawFd,
    /// Descriptor of a user namespace to enter first: the one with a private binfmt_misc.
    pub(super) user_namespace: Option<RawFd>,
    /// Descriptors that the command keeps.
    pub(super) kept: Vec<RawFd>,
}

/// What the process says about its job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// This has to be removed after the command.
    Created(Vec<Created>),
    /// The command runs without something that was asked for.
    Note(String),
    /// The command did something that it cannot do here and could elsewhere, so that its product would be
    /// another: the end of a sentence about it.
    Refused(String),
    /// The command leaves this in a directory for temporary files, and it has to go with the command.
    Left(PathBuf),
    /// The command, about to begin, has looked and has no network.
    Offline,
    /// The command could not be started; `forbidden` where the kernel has refused what would keep it apart.
    Failed { why: String, forbidden: bool },
    /// The command ended.
    Ended(Exit),
}

/// A message of `Failed`, kept apart from the process's own end.
fn send(reports: &OwnedFd, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report)
        && let Ok(copy) = reports.try_clone()
    {
        line.push(b'\n');
        let _ = File::from(copy).write_all(&line);
    }
}

fn failed(error: &anyhow::Error) -> Report {
    let codes = error.chain().filter_map(|cause| {
        let own = cause.downcast_ref::<Errno>().copied();
        own.or_else(|| cause.downcast_ref::<std::io::Error>()?.raw_os_error().map(Errno::from_raw))
    });
    Report::Failed { why: format!("{error:#}"), forbidden: codes.into_iter().any(forbids) }
}

/// Takes up the job that the descriptor holds.
pub(super) fn run(fd: RawFd) -> Result<()> {
    let mut text = String::new();
    File::from(process::adopt(fd)?).read_to_string(&mut text).context("reading the job")?;
    let job: Job = serde_json::from_str(&text).context("reading the job")?;
    let reports = process::adopt(job.reports)?;
    let result = outer(&job, &reports);
    if let Err(error) = &result {
        send(&reports, &failed(error));
    }
    result
}

fn outer(job: &Job, reports: &OwnedFd) -> Result<()> {
    umask(Mode::from_bits_truncate(0o022));
    process::close_on_exec_from(3);
    process::keep_open(&job.kept)?;
    process::reset_signals();
    if job.command.told != Told::Truth {
        limits::state().context("setting the limits of its processes")?;
    }
    let terminal = job.command.input == Input::Terminal;
    if terminal {
        process::ignore(&[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGTTOU, Signal::SIGTTIN]);
    } else {
        nix::unistd::setsid().context("leaving the terminal")?;
    }
    match job.isolation {
        Isolation::Namespaces => {
            if let Some(fd) = job.user_namespace {
                let namespace = process::adopt(fd)?;
                nix::sched::setns(&namespace, CloneFlags::CLONE_NEWUSER)
                    .context("entering the emulator's namespace")?;
            }
            // What ends us has to end process 1, and that ends the rest.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            let mut flags = CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS;
            if !job.command.network {
                flags |= CloneFlags::CLONE_NEWNET;
            }
            unshare(flags).context("entering namespaces of its own")?;
            // Else /proc/self/cgroup names the host's. A kernel without control groups has none to hide.
            match unshare(CloneFlags::CLONE_NEWCGROUP) {
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(error) => return Err(error).context("entering a namespace of control groups"),
            }
            let (alive, alive_here) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            let child = fork_victim()?;
            match child {
                Fork::Child => {
                    drop(alive_here);
                    first(job, reports, &alive)
                }
                Fork::Parent(child) => {
                    drop(alive);
                    wait_for(child)?;
                    Ok(())
                }
            }
        }
        Isolation::Chroot => {
            // Two processes watch over the command, so that whichever of them is killed the other ends all of it.
            nix::sys::prctl::set_child_subreaper(true)?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            let ours = Pid::this();
            match fork_victim()? {
                Fork::Child => match supervise(job, reports, ours) {
                    Ok(()) => process::exit_now(0),
                    Err(error) => fail(reports, &error),
                },
                Fork::Parent(child) => {
                    wait_for(child)?;
                    descendants::kill_all();
                    Ok(())
                }
            }
        }
    }
}

/// Runs the command in a directory as its root, without namespaces, and ends with all that it has started.
fn supervise(job: &Job, reports: &OwnedFd, parent: Pid) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    // Asked to end, it still has to end what the command started.
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
    if nix::unistd::getppid() != parent {
        bail!("interrupted");
    }
    let hand_over = hand_over(job, reports)?;
    match fork_victim()? {
        Fork::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            if let View::Chroot { root } = &job.command.view {
                let entered = nix::unistd::chroot(root).and_then(|()| nix::unistd::chdir("/"));
                if let Err(error) = entered {
                    fail(reports, &anyhow!("entering the root {}: {error}", root.display()));
                }
            }
            become_command(job, hand_over, reports)
        }
        Fork::Parent(child) => {
            answer(hand_over, child, reports);
            let ended = wait_for(child)?;
            descendants::kill_all();
            if let Some(exit) = ended {
                send(reports, &Report::Ended(exit));
            }
            Ok(())
        }
    }
}

/// Forks a child that SIGTERM to us kills, from its first moment on.
fn fork_victim() -> Result<Fork> {
    let mut terminate = SigSet::empty();
    terminate.add(Signal::SIGTERM);
    terminate.thread_block()?;
    let forked = process::fork()?;
    if let Fork::Parent(child) = forked {
        process::kill_on_terminate(child)?;
    }
    terminate.thread_unblock()?;
    Ok(forked)
}

fn exit_of(status: WaitStatus) -> Option<(Pid, Exit)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, Exit::Code(code))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, Exit::Signal(signal as i32))),
        _ => None,
    }
}

/// Waits until `wanted` has ended, and takes in every orphan that ends meanwhile.
fn wait_for(wanted: Pid) -> Result<Option<Exit>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => match exit_of(status) {
                Some((pid, exit)) if pid == wanted => return Ok(Some(exit)),
                _ => {}
            },
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(None),
            Err(error) => return Err(error).context("waiting for the command"),
        }
    }
}

/// Process 1 of the command's own namespaces.
fn first(job: &Job, reports: &OwnedFd, alive: &OwnedFd) -> ! {
    if let Err(error) = set_up(job, reports, alive) {
        fail(reports, &error);
    }
    let hand_over = match hand_over(job, reports) {
        Ok(hand_over) => hand_over,
        Err(error) => fail(reports, &error),
    };
    match process::fork() {
        Ok(Fork::Child) => become_command(job, hand_over, reports),
        Ok(Fork::Parent(child)) => {
            answer(hand_over, child, reports);
            if let Ok(Some(exit)) = wait_for(child) {
                send(reports, &Report::Ended(exit));
            }
            process::exit_now(0)
        }
        Err(error) => fail(reports, &error.into()),
    }
}

fn set_up(job: &Job, reports: &OwnedFd, alive: &OwnedFd) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The outer process may have ended before that was set; then its end of the pipe is closed.
    let mut gone = [PollFd::new(alive.as_fd(), PollFlags::empty())];
    if poll(&mut gone, PollTimeout::ZERO)? > 0 {
        bail!("interrupted");
    }
    nix::unistd::sethostname(constant::NODE_NAME).context("setting the host name")?;
    if !job.command.network {
        network::loopback_up().context("setting up the loopback interface")?;
    }
    view::enter(&job.command, &mut |created| {
        if !created.is_empty() {
            send(reports, &Report::Created(created.to_vec()));
        }
    })
}

/// How the command is going to hand its system calls over, where it is to.
fn hand_over(job: &Job, reports: &OwnedFd) -> Result<Option<HandOver>> {
    let refused = reports.try_clone()?;
    let tell = move |heard| match heard {
        Heard::Refused(what) => send(&refused, &Report::Refused(what)),
        Heard::Left(path) => send(&refused, &Report::Left(path)),
    };
    HandOver::new(handlers(&job.command, job.isolation, tell))
}

/// Answers the system calls of the command that `child` becomes, or says why that cannot be.
fn answer(hand_over: Option<HandOver>, child: Pid, reports: &OwnedFd) {
    let Some(hand_over) = hand_over else { return };
    if let Err(error) = hand_over.answer(child, &mut |note| send(reports, &Report::Note(note))) {
        send(reports, &failed(&error));
        let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    }
}

fn fail(reports: &OwnedFd, error: &anyhow::Error) -> ! {
    send(reports, &failed(error));
    process::exit_now(70)
}

fn become_command(job: &Job, hand_over: Option<HandOver>, reports: &OwnedFd) -> ! {
    let error = match try_become(job, hand_over, reports) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    fail(reports, &error)
}

fn try_become(job: &Job, hand_over: Option<HandOver>, reports: &OwnedFd) -> Result<std::convert::Infallible> {
    let command = &job.command;
    let directory = command.directory.as_deref().unwrap_or(Path::new("/"));
    nix::unistd::chdir(directory).with_context(|| format!("entering the directory {}", directory.display()))?;
    if command.input == Input::Terminal {
        take_terminal();
    }
    forbid(&filter::no_durable_writes());
    if !command.remounts {
        forbid(&filter::no_remounts());
    }
    if powers::runs_the_target(command) && !forbid(&filter::no_machine()) {
        bail!("the calls that lead to this machine cannot be kept from it");
    }
    let sockets = match job.isolation {
        // It has a network of its own, where it has none.
        Isolation::Namespaces => filter::no_strange_sockets(),
        Isolation::Chroot if command.network => filter::no_strange_sockets(),
        Isolation::Chroot => filter::no_network(),
    };
    let kept = (command.network && !powers::held(command)) || forbid(&sockets);
    if !command.network {
        ensure!(kept, "the network cannot be kept from it");
        prove_offline(job.isolation)?;
        send(reports, &Report::Offline);
    }
    fence::raise(command, job.isolation)?;
    powers::reduce(command, job.isolation)?;
    process::reset_signals();
    let argv = strings(command.argv.iter().cloned())?;
    let environment = strings(command.environment.iter().map(|(name, value)| format!("{name}={value}")))?;
    let program = command.argv.first().context("an empty command")?;
    if let Some(hand_over) = hand_over {
        hand_over.give()?;
    }
    let mut refused = None;
    for candidate in candidates(program, command.environment.get("PATH").map(String::as_str)) {
        let path = CString::new(Path::new(&candidate).as_os_str().as_bytes())?;
        match nix::unistd::execve(&path, &argv, &environment) {
            Ok(never) => return Ok(never),
            Err(Errno::ENOENT | Errno::ENOTDIR) if Path::new(&candidate).symlink_metadata().is_err() => {}
            Err(error) => refused = refused.or(Some((candidate, error))),
        }
    }
    match refused {
        None => bail!("there is no program `{program}`"),
        Some((path, Errno::ENOEXEC)) => {
            bail!("{path} is neither a script with an interpreter line nor a program that this machine can run")
        }
        Some((path, Errno::ENOENT)) => bail!("the interpreter of {path} is missing"),
        Some((path, error)) => bail!("{path}: {}", error.desc()),
    }
}

/// Looks, in the process that is about to become the command, that it has no network: what was asked of the kernel is
/// not taken for what it did.
fn prove_offline(isolation: Isolation) -> Result<()> {
    let looked = match isolation {
        Isolation::Namespaces => network::ways_out(),
        Isolation::Chroot => network::families_out(),
    };
    let ways = looked.context("looking whether it has no network")?;
    ensure!(ways.is_empty(), "it is to have no network, and has {}", ways.join(", "));
    Ok(())
}

/// Where a program is looked for (execvp(3)).
fn candidates(program: &str, path: Option<&str>) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    path.unwrap_or("/usr/sbin:/usr/bin:/sbin:/bin")
        .split(':')
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}

fn strings(all: impl Iterator<Item = String>) -> Result<Vec<CString>> {
    all.map(|text| CString::new(text).context("a NUL in the command")).collect()
}

/// Makes this process the one that Ctrl-C in the terminal is for.
fn take_terminal() {
    let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let input = std::io::stdin();
    let _ = nix::unistd::tcsetpgrp(input.as_fd(), nix::unistd::getpgrp());
}

/// Installs a filter; whether the kernel took it.
fn forbid(program: &[seccompiler::sock_filter]) -> bool {
    // Without CAP_SYS_ADMIN the kernel takes a filter only from those who can gain no privileges.
    // Where it takes none at all, builds are slower, and nobody could remount.
    let install = || crate::sys::filter::install(program).is_ok();
    install() || nix::sys::prctl::set_no_new_privs().is_ok() && install()
}

/// Descriptor numbers as text for the command line.
pub(super) fn number(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
