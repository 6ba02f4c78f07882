//! The line of the running step, redrawn in a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One running line, or none.
pub(super) struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    left: String,
}

impl Progress {
    pub(super) fn new(terminal: bool) -> Self {
        Self { terminal, bar: None, left: String::new() }
    }

    /// A step starts: `left` is what its line begins with.
    pub(super) fn begin(&mut self, left: &str) {
        self.left = left.to_owned();
        if self.terminal {
            let bar = ProgressBar::new_spinner().with_prefix(left.to_owned());
            let style = ProgressStyle::with_template("{prefix}  {spinner} {elapsed:>6}   {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            self.bar = Some(bar);
        }
    }

    /// What the step last said.
    pub(super) fn say(&self, message: &str) {
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
        } else {
            self.begin(&self.left.clone());
        }
    }

    /// A line above the running one.
    pub(super) fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}
