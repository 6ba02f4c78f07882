//! Formats that disk images are turned into, and what they are made of.

mod extent;
pub mod identity;
pub mod qcow2;

pub use extent::extent;
