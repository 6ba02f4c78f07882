//! Labels that the kernel itself gives each new file where a security module is loaded, and lets nobody remove.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};

const LABELS: [&str; 2] = ["security.selinux", "security.SMACK64"];

/// Whether the kernel was seen to label new files.
static LABELS_FILES: AtomicBool = AtomicBool::new(false);

/// Whether an extended attribute is a label.
pub fn is_label(name: &OsStr) -> bool {
    LABELS.iter().any(|label| name == *label)
}

/// Remembers that a new file got a label that nobody asked for.
pub fn saw_label() {
    LABELS_FILES.store(true, Ordering::Relaxed);
}

/// Whether the kernel was seen to label new files.
pub fn labels_files() -> bool {
    LABELS_FILES.load(Ordering::Relaxed)
}

/// Whether an attribute of a file of a build is the host's label, which is none of what the recipe made.
pub fn is_hosts(name: &OsStr) -> bool {
    labels_files() && is_label(name)
}
