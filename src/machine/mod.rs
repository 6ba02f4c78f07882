//! Where a build runs, and the processes that debforge starts as itself.

mod identity;
pub mod local;
mod probe;
mod process;
pub mod qemu;
#[allow(dead_code)]
pub mod vm;

use std::ffi::OsString;

pub use crate::debian::host::find_program;
pub use process::interruptible;

/// Runs the hidden subcommand that the arguments (without the program's name) are for, if they
/// are: `__sandbox FD`, `__engine JOB EVENTS` and `__binfmt`. Gives the process's exit code.
pub fn hidden(arguments: &[OsString]) -> Option<i32> {
    let mut words = arguments.iter().map(|argument| argument.to_str().unwrap_or_default());
    let name = words.next()?;
    let numbers: Vec<i32> = words.map_while(|word| word.parse().ok()).collect();
    match (name, numbers.as_slice()) {
        ("__sandbox", [job]) => Some(crate::sandbox::init(*job)),
        ("__binfmt", []) => Some(crate::sandbox::binfmt::helper()),
        ("__engine", [job, events]) => Some(process::engine(*job, *events)),
        _ => None,
    }
}
