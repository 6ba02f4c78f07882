//! Virtual machines that builds run in.

pub mod modules;
