//! cli

pub mod actions;
pub mod completions;
pub mod manual;
pub mod output;

/// The whole command line.
pub fn command() -> clap::Command {
    clap::Command::new("debforge")
}

/// main
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
