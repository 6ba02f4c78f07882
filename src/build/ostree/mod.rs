//! Atomic systems: roots turned into OSTree's layout, commits, and disks that start them.

pub mod boot;
pub mod commit;
pub mod deploy;
mod fit;
pub mod prepare;
mod system;

pub use system::{deployment, is_sysroot};

/// libostree's program, and Debian's package of it.
pub const OSTREE: (&str, &str) = ("ostree", "ostree");
