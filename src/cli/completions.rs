//! `debforge completions`: completions for shells.

use anyhow::Result;

use super::output::print;

/// Print a script that completes debforge's arguments in a shell
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Shell to complete in
    pub shell: clap_complete::Shell,
}

/// Prints it, for the whole command line `command`.
pub fn run(args: &Args, command: clap::Command) -> Result<()> {
    print(&script(args.shell, command))
}

/// The script itself, for the program that the command is named after.
pub fn script(shell: clap_complete::Shell, mut command: clap::Command) -> String {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
