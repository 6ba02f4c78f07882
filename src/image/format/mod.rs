//! Formats that disk images are turned into, and what they are made of.

pub mod bmap;
mod extent;
pub mod identity;
mod needed;
pub mod qcow2;

pub use extent::extent;
