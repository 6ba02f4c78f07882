//! The only `unsafe`: system calls that no crate wraps. Each wrapper is safe to call.
#![allow(unsafe_code)]
