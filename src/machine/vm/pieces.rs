//! Programs in UML that have as many pieces of memory as this machine lets a process have (`vm.max_map_count`).
//!
//! Without ptrace(2), UML (seen in 7.2) does not notice that it was refused another one: the program that touched
//! the memory touches it again, for ever. So it is ended from outside, which UML takes for an end by a signal.

use std::fs;
use std::process;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(3);

/// As UML names the processes that run its programs.
const NAME: &str = "uml-userspace";

/// Looks after the descendants of this process.
pub(super) struct Pieces {
    /// Of one process.
    limit: Option<usize>,
    looked: Instant,
    /// Those that had all their pieces when it was looked last.
    full: Vec<i32>,
}

impl Pieces {
    pub(super) fn new() -> Self {
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|text| text.trim().parse().ok());
        Self { limit, looked: Instant::now(), full: Vec::new() }
    }

    /// Ends programs that are stuck; says whether there were any. Looks only now and then.
    pub(super) fn look(&mut self) -> bool {
        let Some(limit) = self.limit.filter(|_| self.looked.elapsed() > INTERVAL) else { return false };
        self.looked = Instant::now();
        let full: Vec<i32> = programs().into_iter().filter(|pid| pieces(*pid) >= limit).collect();
        // One that is just giving some back is not stuck.
        let stuck: Vec<i32> = full.iter().copied().filter(|pid| self.full.contains(pid)).collect();
        for pid in &stuck {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        self.full = full;
        !stuck.is_empty()
    }
}

/// Number of lines of proc_pid_maps(5).
fn pieces(pid: i32) -> usize {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.iter().filter(|byte| **byte == b'\n').count()
}

/// The processes of UML's programs among the descendants of this one.
fn programs() -> Vec<i32> {
    let mut pending = children(i32::try_from(process::id()).unwrap_or_default());
    let mut found = Vec::new();
    while let Some(pid) = pending.pop() {
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == NAME) {
            found.push(pid);
        }
        pending.extend(children(pid));
    }
    found
}

/// Children of all threads of a process (proc_tid_children(5)).
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_of_a_process_are_found() {
        let mut child = process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let shell = i32::try_from(child.id()).unwrap();
        let started = Instant::now();
        let sleeping = loop {
            match children(shell)[..] {
                [sleeping] => break sleeping,
                _ => assert!(started.elapsed() < Duration::from_secs(20)),
            }
        };
        assert!(children(i32::try_from(process::id()).unwrap()).contains(&shell));
        // It may be a shell's copy still, on its way to becoming the program.
        while pieces(sleeping) <= 5 {
            assert!(started.elapsed() < Duration::from_secs(20));
        }
        kill(Pid::from_raw(sleeping), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert_eq!((children(shell), pieces(shell)), (Vec::new(), 0));
    }
}
