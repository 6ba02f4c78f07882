//! Ctrl-C and termination signals, as a flag that long work looks at.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the user has asked to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Asks to stop; safe in a signal handler.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

static PASS_ON: OnceLock<fn()> = OnceLock::new();

/// Has whatever else is at work told, too, when [`ask`] asks it to stop.
pub fn pass_on_to(tell: fn()) {
    let _ = PASS_ON.set(tell);
}

/// Asks this process, and what works for it, to stop.
pub fn ask() {
    interrupt();
    if let Some(tell) = PASS_ON.get() {
        tell();
    }
}
