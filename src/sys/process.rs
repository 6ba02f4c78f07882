//! Processes: forking, descriptors, signals.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Pid};

/// Which side of a [`fork`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent(Pid),
}

/// Splits this process in two. Refused where the process has more than one thread, since the child
/// would then inherit locks that nobody releases.
pub fn fork() -> Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(1);
    if threads > 1 {
        return Err(Error::other("fork in a process with several threads"));
    }
    // SAFETY: there is one thread, so the child may do all that the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Fork::Child),
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
    }
}

/// Ends the process at once: no destructors, no flushing of what a fork copied.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Takes ownership of a descriptor whose number was handed over on the command line.
pub fn adopt(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: only asks for flags; an unknown number gives EBADF.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, and the process that started us made it for us alone.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    nix::fcntl::fcntl(&owned, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(owned)
}

/// Another process's open file, the same and not a copy of it: whoever reads, both have read.
pub fn open_file_of(pid: i32, fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: these calls take numbers alone.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let process = adopt(RawFd::try_from(process).map_err(|_| Error::last_os_error())?)?;
    // SAFETY: as above.
    let file = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    adopt(RawFd::try_from(file).map_err(|_| Error::last_os_error())?)
}

/// Marks every descriptor from `first` on to be closed by the next `execve`.
pub fn close_on_exec_from(first: RawFd) {
    // SAFETY: changes flags of descriptors only. Before Linux 5.11 this fails, and what Rust opened
    // is marked already.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Takes back [`close_on_exec_from`] for some descriptors.
pub fn keep_open(descriptors: &[RawFd]) -> Result<()> {
    for fd in descriptors {
        // SAFETY: changes a flag of a descriptor only; an unknown number gives EBADF.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}

/// Leaves these descriptors open in the command that is about to be spawned. They must stay open
/// until it is.
pub fn inherit(command: &mut Command, descriptors: &[&OwnedFd]) {
    let numbers: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for &fd in &numbers {
                if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                    return Err(Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Has the kernel kill the command that is about to be spawned when the thread that spawns it ends.
pub fn die_with_us(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only prctl and getppid are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // It may have ended before.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(Error::from_raw_os_error(libc::ESRCH)) }
        });
    }
}

/// Sets variables of this process's environment; for a program that has but one thread yet.
pub fn set_environment(variables: &std::collections::BTreeMap<String, String>) {
    for (name, value) in variables {
        // SAFETY: nobody else reads or writes the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Gives every signal its default action and lets all of them through, as a new program expects.
pub fn reset_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        if signal != Signal::SIGKILL && signal != Signal::SIGSTOP {
            // SAFETY: no handler of ours is installed.
            let _ = unsafe { sigaction(signal, &default) };
        }
    }
    let _ = SigSet::all().thread_unblock();
}

/// Leaves signals without any effect.
pub fn ignore(signals: &[Signal]) {
    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for &signal in signals {
        // SAFETY: no handler of ours is installed.
        let _ = unsafe { sigaction(signal, &ignored) };
    }
}

/// Calls `handler` on each of the signals. It may only do what signal-safety(7) allows.
fn handle(signals: &[Signal], handler: extern "C" fn(libc::c_int)) -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::empty(), SigSet::empty());
    for &signal in signals {
        // SAFETY: the handlers in this file only touch atomics and call kill(2) and _exit(2).
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Process that [`kill_on_terminate`] kills.
static VICTIM: AtomicI32 = AtomicI32::new(0);

extern "C" fn kill_victim(_: libc::c_int) {
    let victim = VICTIM.load(Ordering::Relaxed);
    if victim > 0 {
        // SAFETY: kill is async-signal-safe.
        unsafe { libc::kill(victim, libc::SIGKILL) };
    }
}

/// Kills `child` when this process gets SIGTERM.
pub fn kill_on_terminate(child: Pid) -> Result<()> {
    VICTIM.store(child.as_raw(), Ordering::Relaxed);
    handle(&[Signal::SIGTERM], kill_victim)
}

/// What [`on_termination`] calls.
static TERMINATION: OnceLock<fn(Signal)> = OnceLock::new();

extern "C" fn note_termination(signal: libc::c_int) {
    if let (Some(call), Ok(signal)) = (TERMINATION.get(), Signal::try_from(signal)) {
        call(signal);
    }
}

/// Calls `call` on SIGINT, SIGTERM and SIGHUP. It runs in the signal handler, so it may do no more
/// than set atomics, kill and exit. The first `call` given to a process stays.
pub fn on_termination(call: fn(Signal)) -> Result<()> {
    TERMINATION.get_or_init(|| call);
    handle(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP], note_termination)
}
/// Takes a capability (linux/capability.h) out of what programs that this process becomes can have; one that they
/// cannot have anyway is no error.
pub fn drop_capability(number: u32) -> Result<()> {
    let number = libc::c_ulong::from(number);
    // SAFETY: both options of prctl(2) take a number and touch no memory.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } {
        1 => {}
        _ => return Ok(()),
    }
    // SAFETY: as above.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}
