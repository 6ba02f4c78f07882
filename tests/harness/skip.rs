//! Tests that this machine cannot run.

use std::fs::OpenOptions;
use std::io::Write;

/// Ends a test that cannot run here, with the reason; `./x test` counts it as skipped.
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::harness::skip::note(&format!($($reason)*));
        return;
    }};
}

/// Ends a slow test unless `./x test --all` asked for it.
#[allow(unused_macros)]
macro_rules! slow {
    () => {
        if std::env::var_os("DEBFORGE_TEST_ALL").is_none() {
            skip!("slow: `./x test --all` runs it");
        }
    };
}

/// Ends a test unless it runs as root.
#[allow(unused_macros)]
macro_rules! needs_root {
    () => {
        if !$crate::harness::is_root() {
            skip!("needs root");
        }
    };
}

/// Ends a test unless a program is there: `needs_program!("busybox", "busybox-static")`.
#[allow(unused_macros)]
macro_rules! needs_program {
    ($program:expr, $package:expr) => {
        if !$crate::harness::has_program($program) {
            skip!("needs {} (package {})", $program, $package);
        }
    };
}

/// Prints the reason, and records it in the file that `DEBFORGE_TEST_SKIPS` names.
pub fn note(reason: &str) {
    let thread = std::thread::current();
    let name = match thread.name() {
        Some("main") | None => std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| "a test".into()),
        Some(name) => name.to_owned(),
    };
    eprintln!("skipped: {name}: {reason}");
    if let Some(path) = std::env::var_os("DEBFORGE_TEST_SKIPS") {
        // One write of a short line to a file opened for appending is not torn by other threads.
        let line = format!("{}: {reason}\n", name.replace("::", "/"));
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("the list of skipped tests");
        file.write_all(line.as_bytes()).expect("the list of skipped tests");
    }
}
