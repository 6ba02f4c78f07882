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
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = crate::machine::hidden(&arguments) {
        return std::process::ExitCode::from(code as u8);
    }
    std::process::ExitCode::SUCCESS
}
