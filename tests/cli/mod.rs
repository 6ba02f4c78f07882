//! What a user sees: commands, options, exit codes, output.

mod arguments;
mod build;
mod check;
mod examples;
mod interrupt;
mod manual;
mod plan;
mod shell;
