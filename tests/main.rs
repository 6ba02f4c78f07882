//! The integration tests: one binary, so that debforge is linked once. Every file below `tests/`
//! is a module of it; `harness` holds what they share.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

#[macro_use]
#[allow(dead_code, reason = "a helper may wait for its first test")]
mod harness;

mod boot;
mod cli;
mod debos;
mod golden;
mod image;
mod machine;
mod oci;
mod ostree;
mod recipes;
mod root;
mod sandbox;
mod store;
mod whole;
