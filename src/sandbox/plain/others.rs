//! Processes that are not the command's: where there is no namespace of processes, nobody is there for it but its own.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::answer::is_ours;
use crate::sandbox::Isolation;
use crate::sandbox::supervisor::{Caller, Handler, Verdict, Wanted};
use crate::sys::notify::Call;

/// Calls about a process, and which of their arguments is its number.
const CALLS: &[(libc::c_long, usize)] = &[
    (libc::SYS_kill, 0),
    (libc::SYS_tkill, 0),
    (libc::SYS_tgkill, 0),
    (libc::SYS_rt_sigqueueinfo, 0),
    (libc::SYS_rt_tgsigqueueinfo, 0),
    (libc::SYS_pidfd_open, 0),
    (libc::SYS_ptrace, 1),
    (libc::SYS_process_vm_readv, 0),
    (libc::SYS_process_vm_writev, 0),
    (libc::SYS_kcmp, 0),
    (libc::SYS_kcmp, 1),
    (libc::SYS_prlimit64, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_migrate_pages, 0),
    (libc::SYS_move_pages, 0),
    (libc::SYS_perf_event_open, 1),
    (libc::SYS_getsid, 0),
    (libc::SYS_getpgid, 0),
];

/// Has a command find its own processes alone.
pub(in crate::sandbox) struct Others;

impl Others {
    /// `None` where the kernel does.
    pub(in crate::sandbox) fn new(isolation: Isolation, held: bool) -> Option<Self> {
        (isolation == Isolation::Chroot && held).then_some(Self)
    }
}

/// Whether a call is about processes at all: `PTRACE_TRACEME` has no number, and setpriority(2) and ioprio_set(2) may
/// be about a user's.
fn about_a_process(call: &Call) -> bool {
    match call.number {
        libc::SYS_ptrace => call.arguments[0] != 0,
        libc::SYS_setpriority => call.arguments[0] == 0,
        libc::SYS_ioprio_set => call.arguments[0] == 1,
        _ => true,
    }
}

impl Handler for Others {
    fn calls(&self) -> Vec<Wanted> {
        CALLS.iter().map(|(number, _)| Wanted::all(*number)).collect()
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        Ok(())
    }

    fn required(&self) -> bool {
        true
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        if !about_a_process(call) {
            // A user's processes are the machine's.
            return if matches!(call.number, libc::SYS_setpriority) && call.arguments[0] == 2 {
                Err(Errno::EPERM)
            } else {
                Ok(Verdict::Pass)
            };
        }
        for (_, position) in CALLS.iter().filter(|(number, _)| *number == call.number) {
            let process = call.arguments[*position] as i32;
            match process {
                // Of the caller itself, or its group.
                0 => {}
                // All that there are.
                -1 if call.number == libc::SYS_kill => return Err(Errno::EPERM),
                _ if process == caller.pid() => {}
                _ if process < 0 && call.number != libc::SYS_kill => {}
                // A group has the number of a process that made it.
                _ if !is_ours(process.saturating_abs()) => return Err(Errno::ESRCH),
                _ => {}
            }
        }
        Ok(Verdict::Pass)
    }
}
