//! Ending what a command left behind, where no pid namespace does it.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Kills all descendants of this process, which is a child subreaper: whoever loses its parent
/// becomes a child of ours, so killing children until there are none reaches everyone.
pub(super) fn kill_all() {
    loop {
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) | Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn children() -> Vec<Pid> {
    let ours = Pid::this().as_raw().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent(*pid).as_deref() == Some(ours.as_str())).map(Pid::from_raw).collect()
}

/// The parent's pid, from the fourth field of proc_pid_stat(5); the second, in brackets, may hold blanks.
fn parent(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1).map(str::to_owned)
}
