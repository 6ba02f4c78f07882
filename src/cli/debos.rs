//! `debos`: debforge under the name of the program that it stands in for, with its arguments.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::machine::{Backend, MachineArgs};
use super::recipe::{RecipeArgs, RecipeOptions};
use super::template::TemplateArgs;
use super::{StoreArgs, build};
use crate::diagnostics::Fault;
use crate::say;

/// The name to be called by.
pub const NAME: &str = "debos";

/// The release of debos whose arguments and recipes these are.
const STANDS_FOR: &str = "1.1.7";

/// What debos ends with, whatever went wrong.
const FAILED: u8 = 1;

/// Build a system image from a recipe of debos.
#[derive(Debug, Parser)]
#[command(name = NAME, args_override_self = true, disable_version_flag = true, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Args {
    /// Recipe to build.
    #[arg(value_name = "RECIPE")]
    recipes: Vec<PathBuf>,

    /// Machine to build in: auto takes KVM where it works, else none where that works.
    #[arg(short = 'b', long = "fakemachine-backend", value_enum, default_value_t = Choice::Auto)]
    backend: Choice,

    /// Directory for archives, images and ostree repositories [default: the current one].
    #[arg(long, value_name = "DIR")]
    artifactdir: Option<PathBuf>,

    /// Set a variable of the template.
    #[arg(short = 't', long = "template-var", value_name = "VARIABLE:VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,

    /// Open an interactive shell when an action fails.
    #[arg(long)]
    debug_shell: bool,

    /// Shell for `--debug-shell`.
    #[arg(short, long, value_name = "PROGRAM", default_value = "/bin/bash")]
    shell: String,

    /// Size of the machine's scratch space, in powers of 1000: `8GB`.
    #[arg(long, value_name = "SIZE", value_parser = decimal)]
    scratchsize: Option<u64>,

    /// Processors of the machine [default: those of this one].
    #[arg(short, long, value_name = "NUMBER")]
    cpus: Option<u32>,

    /// Memory of the machine, in powers of 1024: `4Gb` [default: 2Gb].
    #[arg(short, long, value_name = "SIZE", value_parser = binary)]
    memory: Option<u64>,

    /// Show what the machine's kernel says.
    #[arg(long)]
    show_boot: bool,

    /// Set a variable in the environment of every action; an empty value unsets it.
    #[arg(short = 'e', long = "environ-var", value_name = "VARIABLE:VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,

    /// Show the output of actions.
    #[arg(short, long)]
    verbose: bool,

    /// Print the recipe as the template renders it.
    #[arg(long)]
    print_recipe: bool,

    /// Check the recipe and all of its actions, but run none.
    #[arg(long)]
    dry_run: bool,

    /// Build on this machine itself.
    #[arg(long)]
    disable_fakemachine: bool,

    /// Print the version.
    #[arg(long)]
    version: bool,
}

const AFTER_HELP: &str = "\
This is debforge, in the place of debos. `debforge --help` shows what else it can do.

Exit codes: 0 done; 1 something went wrong.";

/// debos's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Auto,
    Kvm,
    Qemu,
    Uml,
}

/// Whether the program is called by debos's name.
pub fn is_called(program: Option<&OsString>) -> bool {
    program.and_then(|program| Path::new(program).file_name()) == Some(OsStr::new(NAME))
}

/// The clap command, for completions and man pages.
pub fn command() -> clap::Command {
    Args::command()
}

/// Does what debos would do with these arguments; its exit code.
pub fn run(arguments: Vec<OsString>) -> Result<u8> {
    let args = match command().try_get_matches_from(arguments).and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => {
            return Ok(super::explained(&error, FAILED));
        }
    };
    if args.version {
        super::output::print(&format!("{NAME} {STANDS_FOR} (debforge {})\n", env!("CARGO_PKG_VERSION")))?;
        return Ok(0);
    }
    let [recipe] = args.recipes.as_slice() else {
        say!("No recipe given!");
        return Ok(FAILED);
    };
    if args.disable_fakemachine && args.backend != Choice::Auto {
        return Err(Fault::recipe("--disable-fakemachine and --fakemachine-backend are mutually exclusive").into());
    }
    build::run(&args.as_build(recipe))
}

/// The code that debos ends with where debforge ends with another.
pub fn exit_code(code: u8) -> u8 {
    match code {
        0 | 130 => code,
        _ => FAILED,
    }
}

impl Args {
    fn as_build(&self, recipe: &Path) -> build::Args {
        let backend = match self.backend {
            _ if self.disable_fakemachine => Backend::Local,
            Choice::Auto => Backend::Auto,
            Choice::Kvm => Backend::Kvm,
            Choice::Qemu => Backend::Qemu,
            Choice::Uml => Backend::Uml,
        };
        let machine = MachineArgs {
            backend,
            // A bare number is in MiB there, and bytes here.
            memory: self.memory.map(|bytes| bytes.div_ceil(1 << 20).to_string()),
            cpus: self.cpus,
            scratchsize: self.scratchsize.map(|bytes| bytes.to_string()),
            show_boot: self.show_boot,
            ..MachineArgs::new(backend)
        };
        let with = RecipeOptions {
            variables: self.variables.clone(),
            artifactdir: self.artifactdir.clone(),
            environment: self.environment.clone(),
            templatedir: Vec::new(),
            template: TemplateArgs::of_debos(),
            machine,
            store: StoreArgs::of_environment(),
            like_debos: true,
        };
        build::Args {
            recipe: RecipeArgs { recipe: recipe.to_owned(), with },
            verbose: self.verbose,
            json: false,
            no_cache: false,
            from: None,
            print_recipe: self.print_recipe,
            dry_run: self.dry_run,
            debug_shell: self.debug_shell,
            shell: self.shell.clone(),
        }
    }
}

/// A variable; without a colon its value is empty.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() { Err("the name before `:` is empty".into()) } else { Ok((name.into(), value.into())) }
}

fn decimal(text: &str) -> Result<u64, String> {
    bytes(text, 1000)
}

fn binary(text: &str) -> Result<u64, String> {
    bytes(text, 1024)
}

/// A size as the units of Docker are read: `2Gb`, `2 GiB` and `2g` are all two of `base` to the third.
fn bytes(text: &str, base: u32) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write it like 2Gb");
    let trimmed = text.trim();
    let end = trimmed.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None | Some('b') => 0,
        Some(letter) => "kmgtp".find(letter).ok_or_else(wrong)? as i32 + 1,
    };
    if !matches!((power, letters.as_str()), (_, "") | (1.., "b" | "ib")) {
        return Err(wrong());
    }
    Ok((number * f64::from(base).powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Args {
        Args::try_parse_from(["debos"].iter().chain(words)).unwrap()
    }

    #[test]
    fn sizes_are_read_as_debos_does() {
        for (text, base, size) in [
            ("2Gb", 1024, 2 << 30),
            ("2GB", 1024, 2 << 30),
            ("1.5 GiB", 1024, 3 << 29),
            ("512m", 1024, 512 << 20),
            ("8GB", 1000, 8_000_000_000),
            ("8GiB", 1000, 8_000_000_000),
            ("1048576", 1024, 1 << 20),
            ("7b", 1000, 7),
        ] {
            assert_eq!(bytes(text, base), Ok(size), "{text}");
        }
        for text in ["", "much", "2x", "2gbb", "2bb"] {
            bytes(text, 1024).unwrap_err();
        }
    }

    #[test]
    fn options_have_all_the_forms_that_they_have_there() {
        let args = parsed(&[
            "-tsuite:trixie",
            "--template-var=mirror:http://m.example/debian",
            "r.yaml",
            "-t",
            "suite:sid",
            "-t",
            "bare",
            "-vb",
            "kvm",
            "--artifactdir=a",
            "--artifactdir",
            "b",
            "-e",
            "http_proxy:",
            "-m=4Gb",
        ]);
        let with = args.as_build(Path::new("r.yaml")).recipe.with;
        let pairs: Vec<(&str, &str)> = with.variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs, [("suite", "trixie"), ("mirror", "http://m.example/debian"), ("suite", "sid"), ("bare", "")]);
        assert_eq!(with.artifactdir, Some("b".into()));
        assert_eq!(with.environment, [("http_proxy".to_owned(), String::new())]);
        assert_eq!(with.machine.backend, Backend::Kvm);
        assert_eq!(with.machine.memory.as_deref(), Some("4096"));
        assert!(args.verbose);
    }

    #[test]
    fn a_word_is_a_recipe_and_never_a_command() {
        assert_eq!(parsed(&["build"]).recipes, [PathBuf::from("build")]);
        assert!(is_called(Some(&"/usr/bin/debos".into())));
        assert!(!is_called(Some(&"/usr/bin/debforge".into())));
    }
}
