//! The command line: a file per subcommand.

pub mod actions;
mod boot;
mod build;
mod check;
mod columns;
pub mod completions;
pub mod debos;
mod diff;
pub mod doctor;
mod import;
mod inspect;
mod lint_bootc;
mod machine;
pub mod manual;
pub mod output;
mod plan;
mod recipe;
pub mod schema;
mod shell;
mod store;
mod template;
mod test_atomic;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::inspect::Workplace;
use crate::report;
use crate::store::Store;
use crate::sys::output::{CLOSED, is_closed, say};

/// Build Debian systems from a recipe.
#[derive(Debug, Parser)]
#[command(name = "debforge", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
`debforge RECIPE …` is short for `debforge build RECIPE …`.

Exit codes: 0 done; 1 a step failed; 2 the recipe or the arguments are wrong;
3 this machine lacks something; 130 interrupted; 141 nobody reads the output any more.";

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::Args),
    Boot(boot::Args),
    Check(check::Args),
    Import(import::Args),
    Inspect(inspect::Args),
    Diff(diff::Args),
    LintBootc(lint_bootc::Args),
    Plan(plan::Args),
    Shell(shell::Args),
    Store(store::Args),
    TestAtomic(test_atomic::Args),
    Doctor(doctor::Args),
    Actions(actions::Args),
    Schema(schema::Args),
    Completions(completions::Args),
}

/// The clap command, for completions and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = crate::machine::hidden(&arguments[1..]) {
        return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
    }
    if debos::is_called(arguments.first()) {
        return ExitCode::from(debos::exit_code(ended(debos::run(arguments))));
    }
    let cli = Cli::command().try_get_matches_from(with_subcommand(arguments)).and_then(|m| Cli::from_arg_matches(&m));
    match cli {
        Ok(cli) => ExitCode::from(ended(run(cli.command))),
        Err(error) => ExitCode::from(explained(&error, 2)),
    }
}

/// Shows what the arguments came to instead of a command: help, or what is wrong, which ends with `code`.
fn explained(error: &clap::Error, code: u8) -> u8 {
    match error.print() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => CLOSED,
        Err(_) if !error.use_stderr() => FaultKind::Failed.exit_code(),
        _ if error.use_stderr() => code,
        _ => 0,
    }
}

/// The exit code of what was done; says what went wrong unless that was said, or nobody reads it any more.
fn ended(done: Result<u8>) -> u8 {
    let code = done.unwrap_or_else(|error| {
        if let Some(said) = error.downcast_ref::<recipe::Said>() {
            return said.0.exit_code();
        }
        let fault = fault_of(&error);
        if !is_closed() {
            say(&report::fault(&fault));
        }
        fault.kind.exit_code()
    });
    if is_closed() { CLOSED } else { code }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Build(args) => build::run(&args),
        Command::Boot(args) => boot::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::LintBootc(args) => lint_bootc::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Shell(args) => shell::run(&args),
        Command::Store(args) => store::run(&args).map(|()| 0),
        Command::TestAtomic(args) => test_atomic::run(&args),
        Command::Doctor(args) => doctor::run(&args).map(|()| 0),
        Command::Actions(args) => actions::run(&args).map(|()| 0),
        Command::Schema(args) => schema::run(&args).map(|()| 0),
        Command::Completions(args) => completions::run(&args, Cli::command()).map(|()| 0),
    }
}

/// Puts `build` in front where the first word is no subcommand.
fn with_subcommand(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let known = |word: &str| {
        ["help", "-h", "--help", "-V", "--version"].contains(&word)
            || command.get_subcommands().any(|c| c.get_name() == word || c.get_all_aliases().any(|a| a == word))
    };
    let first = arguments.get(1).map(|word| word.to_string_lossy().into_owned());
    if first.is_some_and(|word| !known(&word)) {
        arguments.insert(1, "build".into());
    }
    arguments
}

/// Where the store is, for every subcommand that uses it.
#[derive(Debug, Clone, clap::Args)]
pub struct StoreArgs {
    /// Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]
    #[arg(long, value_name = "DIR", env = "DEBFORGE_STORE", hide_env_values = true, global = true)]
    store: Option<PathBuf>,
}

impl StoreArgs {
    /// As where no argument names it.
    fn of_environment() -> Self {
        Self { store: std::env::var_os("DEBFORGE_STORE").map(PathBuf::from) }
    }

    /// The store's directory.
    pub fn path(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(Store::default_location)
    }

    /// The directory where an argument named it.
    pub fn given(&self) -> Option<&PathBuf> {
        let environment = std::env::var_os("DEBFORGE_STORE");
        self.store.as_ref().filter(|store| Some(store.as_os_str()) != environment.as_deref())
    }

    /// Opens it.
    pub fn open(&self) -> Result<Store> {
        let path = self.path();
        Store::open(&path).map_err(|error| {
            let fault = fault_of(&error);
            Fault::machine(format!("opening the store {}: {}", path.display(), fault.message))
                .hint("name another directory with `--store` or DEBFORGE_STORE")
                .into()
        })
    }
}

/// Where artifacts are looked into.
fn workplace(store: &StoreArgs) -> Workplace<'_> {
    Workplace::new(|| store.open()?.scratch()).taking_out(|directory, image, kind, archive| {
        let waiting = Waiting::start();
        waiting.say(&format!("mounting {kind}"));
        crate::machine::take_out(&store.open()?, directory, image, kind, archive)
    })
}

/// A line that says what is waited for, where it can be taken away again; gone when dropped.
struct Waiting(Option<indicatif::ProgressBar>);

impl Waiting {
    fn start() -> Self {
        let spinner = interactive().then(indicatif::ProgressBar::new_spinner);
        if let Some(spinner) = &spinner {
            spinner.enable_steady_tick(std::time::Duration::from_millis(120));
        }
        Self(spinner)
    }

    fn say(&self, message: &str) {
        if let Some(spinner) = &self.0 {
            spinner.set_message(message.to_owned());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(spinner) = &self.0 {
            spinner.finish_and_clear();
        }
    }
}

/// Whether standard error may be redrawn and coloured.
fn interactive() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
