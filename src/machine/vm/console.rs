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
    killed: Option<String>,
}

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
            self.killed = Some(name.to_owned());
        }
        if self.panic.is_some() && STACK.iter().any(|mark| line.contains(mark)) {
            return;
        }
        if self.last.len() == TAIL {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    /// The program that was killed for want of memory, if one was.
    pub(super) fn killed(&self) -> Option<&str> {
        self.killed.as_deref()
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
        let short_of_memory = self.killed.clone();
        let fault = fault.tail(self.last.into());
        match short_of_memory {
            Some(victim) => fault.hint(more_memory(&victim)),
            None => fault,
        }
    }
}

/// The way out of a machine that is too small.
pub(super) fn more_memory(victim: &str) -> String {
    format!("the machine had no memory left, and its kernel ended {victim}: give it more with `-m 4G`")
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
        assert_eq!(console.killed(), Some("tail"));
    }
}
