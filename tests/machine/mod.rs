//! Builds in machines of their own: UML and QEMU. One machine runs at a time, since each takes a processor
//! for itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ends a test unless UML can be had. Its kernel comes by [`Project::kernel_of`](crate::harness::Project::kernel_of).
macro_rules! needs_uml {
    () => {
        needs_machine!("uml");
    };
}

/// Ends a test unless QEMU can be had; for its kernel likewise.
macro_rules! needs_qemu {
    () => {
        needs_machine!("qemu");
    };
}

/// Ends a test unless a machine of a kind can be had.
macro_rules! needs_machine {
    ($machine:expr) => {
        if $machine == "uml" {
            if debforge::debian::Architecture::host() != debforge::debian::Architecture::Amd64 {
                skip!("UML is for amd64 alone");
            }
            needs_program!("libslirp-helper", "libslirp-helper");
        } else {
            needs_program!("qemu-system-x86_64", "qemu-system-x86");
        }
        needs_program!("mke2fs", "e2fsprogs");
        let _turn = $crate::machine::turn();
    };
}

pub(crate) use needs_machine;
pub(crate) use needs_uml;

/// Waits for the one machine that may run.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

mod auto;
mod confined;
mod faults;
mod images;
mod inspect;
mod same;
mod shell;
