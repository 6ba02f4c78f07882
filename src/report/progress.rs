//! The line of the running step, redrawn in a terminal.

use crate::say;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// One running line, or none.
pub(super) struct Progress {
    quiet: Option<QuietKeys>,
    terminal: bool,
    bar: Option<ProgressBar>,
    left: String,
    /// Whether the step speaks for itself; else the last line of its tools' output is shown.
    speaks: bool,
}

impl Progress {
    pub(super) fn new(terminal: bool) -> Self {
        let quiet = if terminal { QuietKeys::set() } else { None };
        Self { quiet, terminal, bar: None, left: String::new(), speaks: false }
    }

    /// A step starts: `left` is what its line begins with.
    pub(super) fn begin(&mut self, left: &str) {
        self.left = left.to_owned();
        self.speaks = false;
        if self.terminal {
            let bar = ProgressBar::new_spinner().with_prefix(left.to_owned());
            let took = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:>8}", super::tenths(state.elapsed()));
            };
            if let Ok(style) = ProgressStyle::with_template("{prefix}  {took} {spinner} {wide_msg:.dim}") {
                bar.set_style(style.with_key("took", took));
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            self.bar = Some(bar);
        }
    }

    /// What the step says of itself.
    pub(super) fn say(&mut self, message: &str) {
        self.speaks = true;
        self.show(message);
    }

    /// What a tool of the step has just printed.
    pub(super) fn overhear(&self, line: &str) {
        if !self.speaks && !line.trim().is_empty() {
            self.show(&console::strip_ansi_codes(line.trim()).replace('\t', " "));
        }
    }

    fn show(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_owned());
        }
    }

    /// The step is over.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A shell takes the terminal, or gives it back.
    pub(super) fn pause(&mut self, taken: bool) {
        if taken {
            self.end();
            self.quiet = None;
        } else {
            self.quiet = if self.terminal { QuietKeys::set() } else { None };
        }
    }

    /// A line above the running one.
    pub(super) fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say!("{line}"),
        }
    }
}

/// Keeps the terminal from writing `^C` into the running line, which would break it in two.
struct QuietKeys(Termios);

impl QuietKeys {
    fn set() -> Option<Self> {
        let before = stderr().is_terminal().then(|| tcgetattr(stderr()).ok()).flatten()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHOCTL);
        tcsetattr(stderr(), SetArg::TCSANOW, &quiet).ok()?;
        Some(Self(before))
    }
}

impl Drop for QuietKeys {
    fn drop(&mut self) {
        let _ = tcsetattr(stderr(), SetArg::TCSANOW, &self.0);
    }
}
