//! The line of the running step, redrawn in a terminal; elsewhere one now and then, so that a step that takes long
//! does not look like one that hangs.

use crate::say;
use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::Style;

/// A step that takes longer than this is shown before it is over.
const LONG: Duration = Duration::from_secs(3);
/// And again each time that this is over.
const AGAIN: Duration = Duration::from_secs(30);

/// One running line, or none.
pub(super) struct Progress {
    quiet: Option<QuietKeys>,
    style: Style,
    bar: Option<ProgressBar>,
    beat: Option<Beat>,
    left: String,
    /// Whether the step speaks for itself; else the last line of its tools' output is shown.
    speaks: bool,
}

impl Progress {
    pub(super) fn new(style: Style) -> Self {
        let quiet = if style == Style::Terminal { QuietKeys::set() } else { None };
        Self { quiet, style, bar: None, beat: None, left: String::new(), speaks: false }
    }

    /// A step starts: `left` is what its line begins with.
    pub(super) fn begin(&mut self, left: &str) {
        self.left = left.to_owned();
        self.speaks = false;
        self.beat = (self.style == Style::Plain).then(|| Beat::start(left.to_owned()));
        if self.style == Style::Terminal {
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
        if let Some(beat) = &self.beat {
            message.clone_into(&mut beat.message.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The step is over.
    pub(super) fn end(&mut self) {
        self.beat = None;
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
            self.quiet = if self.style == Style::Terminal { QuietKeys::set() } else { None };
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

/// Says now and then how far a step is.
struct Beat {
    /// What it said last.
    message: Arc<Mutex<String>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Beat {
    fn start(left: String) -> Self {
        let (stop, stopped) = channel();
        let message = Arc::new(Mutex::new(String::new()));
        let (started, said) = (Instant::now(), message.clone());
        let thread = std::thread::spawn(move || {
            let mut patience = LONG;
            while stopped.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                let message = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                say!("{}", format!("{left}  {:>8} … {message}", super::tenths(started.elapsed())).trim_end());
                patience = AGAIN;
            }
        });
        Self { message, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
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
