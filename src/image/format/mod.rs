//! Formats that disk images are turned into.

pub mod identity;
pub mod qcow2;
