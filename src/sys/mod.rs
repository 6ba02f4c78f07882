//! The only `unsafe`: system calls that no crate wraps. Each wrapper is safe to call.
#![allow(unsafe_code)]

pub mod file;
pub mod filter;
pub mod interrupt;
pub mod label;
pub mod loops;
pub mod mount;
pub mod network;
pub mod notify;
pub mod output;
pub mod process;
pub mod remove;
pub mod terminal;
