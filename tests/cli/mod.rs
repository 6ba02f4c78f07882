//! What a user sees: commands, options, exit codes, output.

mod arguments;
mod boot;
mod build;
mod check;
mod closed_pipe;
mod diff;
mod examples;
mod image;
mod inspect;
mod interrupt;
mod long_steps;
mod manual;
mod plan;
mod shell;
mod store;
mod test_atomic;
