//! Virtual machines that builds run in.

pub mod initramfs;
pub mod kernel;
pub mod modules;
mod program;
