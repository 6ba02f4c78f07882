//! What a machine's kernel says: kept for the log, and asked when the machine ends before its work does.

use std::collections::VecDeque;

use crate::diagnostics::Fault;
use crate::sandbox::Exit;

/// Lines that a fault shows.
const TAIL: usize = 20;

/// How kernels say that they will not go on.
const PANIC: &str = "Kernel panic - not syncing";

/// What UML prints of its own state after a panic, and nobody reads.
const STACK: [&str; 3] = ["Call Trace", "Stack:", "[<"];

/// The console so far.
#[derive(Debug, Default)]
pub(super) struct Console {
    last: VecDeque<String>,
    panic: Option<String>,
    /// What helps a program that was killed for want of memory.
    short: Option<String>,
}

/// What UML says where this machine does not let a process have more pieces of memory (`vm.max_map_count`). UML
/// takes one for each row of pages that a program touched one after the other.
const OUTSIDE: &str = "UML ran out of memory on the host side";

impl Console {
    /// Takes a line.
    pub(super) fn hear(&mut self, line: &str) {
        if self.panic.is_none()
            && let Some((_, why)) = line.split_once(PANIC)
        {
            self.panic = Some(why.trim_start_matches([':', ' ']).to_owned());
        }
        if let Some((_, victim)) = line.split_once("Out of memory: Killed process ") {
            // "1234 (cc1plus) total-vm:…"
            let name =
                victim.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or(victim, |(name, _)| name);
            self.short =
                Some(format!("the machine had no memory left, and its kernel ended {name}: give it more with `-m 4G`"));
        }
        if line.contains(OUTSIDE) {
            self.no_pieces_left();
        }
        if self.panic.is_some() && STACK.iter().any(|mark| line.contains(mark)) {
            return;
        }
        if self.last.len() == TAIL {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    /// A program in UML has as many pieces of memory as this machine lets it have, and was ended for that.
    pub(super) fn no_pieces_left(&mut self) {
        self.short = Some(
            "this machine does not let a program in UML have more memory: sudo sysctl vm.max_map_count=1048576, \
             or another machine (`-b qemu`)"
                .into(),
        );
    }

    /// What helps, where a program was killed for want of memory.
    pub(super) fn short_of_memory(&self) -> Option<&str> {
        self.short.as_deref()
    }

    /// Why a machine (`uml`, `qemu`) ended by itself before its work was done.
    pub(super) fn explain(self, name: &str, exit: Option<Exit>) -> Fault {
        let message = match (&self.panic, exit) {
            (Some(why), _) => format!("the machine's kernel panicked: {why}"),
            (None, Some(Exit::Signal(signal))) => format!("{name} was killed by signal {signal}"),
            (None, Some(Exit::Code(code))) => format!("{name} ended with exit code {code} before its work was done"),
            (None, None) => format!("{name} ended before its work was done"),
        };
        let fault = Fault::failed(message);
        let fault = match exit {
            Some(Exit::Signal(9)) if self.panic.is_none() => {
                fault.hint("signal 9 without anybody's doing is this machine's kernel running out of memory")
            }
            _ => fault,
        };
        self.with_tail(fault)
    }

    /// Why a machine was ended that had not said anything for too long.
    pub(super) fn explain_silence(self, name: &str, seconds: u64, started: bool) -> Fault {
        let message = if started {
            format!("the machine has not answered for {seconds} s, and was ended")
        } else {
            format!("{name} did not start a machine within {seconds} s")
        };
        self.with_tail(Fault::failed(message))
    }

    fn with_tail(self, fault: Fault) -> Fault {
        let fault = fault.tail(self.last.into());
        self.short.into_iter().fold(fault, Fault::hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_named_without_its_stack() {
        let mut console = Console::default();
        for line in ["one", "Kernel panic - not syncing: VFS: Unable to mount root fs", "Call Trace:", " [<6000>] x"] {
            console.hear(line);
        }
        let fault = console.explain("uml", Some(Exit::Code(1)));
        assert_eq!(fault.message, "the machine's kernel panicked: VFS: Unable to mount root fs");
        assert_eq!(fault.tail.len(), 2);
    }

    #[test]
    fn who_was_killed_for_memory_is_known() {
        let mut console = Console::default();
        console.hear("[ 3.1] Out of memory: Killed process 61 (tail) total-vm:99kB, anon-rss:5kB");
        assert!(console.short_of_memory().is_some_and(|hint| hint.contains("ended tail")));
        console.hear("UML ran out of memory on the host side! This can happen due to a memory limitation");
        assert!(console.short_of_memory().is_some_and(|hint| hint.contains("vm.max_map_count")));
    }
}
