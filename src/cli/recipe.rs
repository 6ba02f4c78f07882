//! What all subcommands that take a recipe share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::StoreArgs;
use super::machine::{Backend, MachineArgs};
use super::template::TemplateArgs;
use crate::build::command::shell_words;
use crate::debian::Architecture;
use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::machine::local::{self, Local};
use crate::machine::vm::{Hypervisor, MachineRoot};
use crate::machine::{Machine, vm};
use crate::plan::{Plan, Request};
use crate::recipe::{DiskLoader, Options, Recipe};
use crate::sandbox::binfmt::{self, Support};
use crate::store::Store;

/// A recipe and what the command line says of it.
#[derive(Debug, Clone, clap::Args)]
pub struct RecipeArgs {
    /// Recipe to build.
    #[arg(value_name = "RECIPE")]
    pub recipe: PathBuf,

    #[command(flatten)]
    pub with: RecipeOptions,
}

/// What the command line says of any recipe.
#[derive(Debug, Clone, clap::Args)]
pub struct RecipeOptions {
    /// Set a variable of the template.
    #[arg(short = 't', long = "template-var", value_name = "NAME:VALUE", value_parser = pair)]
    pub variables: Vec<(String, String)>,

    /// Directory that artifacts go to and come from [default: .]
    #[arg(long, value_name = "DIR")]
    pub artifactdir: Option<PathBuf>,

    /// Set a variable in the environment of every step; an empty value unsets it.
    #[arg(short = 'e', long = "environ-var", value_name = "NAME:VALUE", value_parser = pair)]
    pub environment: Vec<(String, String)>,

    /// Further directory that templates include from.
    #[arg(long, value_name = "DIR")]
    pub templatedir: Vec<PathBuf>,

    #[command(flatten)]
    pub template: TemplateArgs,

    #[command(flatten)]
    pub machine: MachineArgs,

    #[command(flatten)]
    pub store: StoreArgs,

    /// Whether the recipe, and what is chosen for it, is to be taken as debos would take it.
    #[arg(skip)]
    pub like_debos: bool,
}

/// A recipe ready to be planned, with the machine that it would run on.
pub struct Ready {
    pub recipe: Recipe,
    pub machine: Machine,
    pub store: Store,
    pub artifact_dir: PathBuf,
}

/// Takes a pair of a command line apart.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("NAME:VALUE is wanted, as in `arch:arm64`")?;
    if name.is_empty() { Err("the name before `:` is empty".into()) } else { Ok((name.into(), value.into())) }
}

impl RecipeArgs {
    fn artifacts(&self) -> &Path {
        self.with.artifactdir.as_deref().unwrap_or(Path::new("."))
    }

    /// The recipe, checked; prints what is to be said of it.
    pub fn load(&self) -> Result<Recipe> {
        let (recipe, diagnostics) = crate::recipe::load(&self.recipe, &self.options()?, &DiskLoader);
        if !diagnostics.is_empty() {
            crate::sys::output::say(&diagnostics.render(console::colors_enabled_stderr()));
        }
        recipe.filter(|_| !diagnostics.has_errors()).ok_or_else(|| Said(FaultKind::Recipe).into())
    }

    /// The text that the template renders to.
    pub fn printed(&self) -> Result<String> {
        crate::recipe::print(&self.recipe, &self.options()?, &DiskLoader).map_err(|diagnostics| {
            crate::sys::output::say(&diagnostics.render(console::colors_enabled_stderr()));
            Said(FaultKind::Recipe).into()
        })
    }

    /// The recipe, with the machine found able to build it.
    pub fn ready(&self) -> Result<Ready> {
        let recipe = self.load()?;
        let store = self.with.store.open()?;
        let machine = self.find_machine(&recipe, &store)?;
        if let Machine::Virtual(machine) = &machine {
            machine.use_tools()?;
        }
        missing(&recipe, &machine)?;
        Ok(Ready { recipe, machine, store, artifact_dir: std::path::absolute(self.artifacts())? })
    }

    /// Where the recipe is built: what the user asks for, else the best of what works.
    fn find_machine(&self, recipe: &Recipe, store: &Store) -> Result<Machine> {
        let mut options = self.with.machine.options()?;
        options.memory = options.memory.max(recipe.machine.memory);
        if self.with.machine.machine_root && self.with.machine.wanted() != Backend::Local {
            let root = MachineRoot::find(store, recipe.architecture != Architecture::host())?;
            options.root = Some(root);
        }
        let waiting = super::Waiting::start();
        let mut progress = |message: &str| waiting.say(message);
        if let Some(hypervisor) = self.with.machine.wanted().hypervisor() {
            return vm::find(hypervisor, options, store, &mut progress)
                .map(|machine| Machine::Virtual(Box::new(machine)));
        }
        let wanted = self.with.machine.wanted();
        if recipe.machine.required && wanted == Backend::Local {
            return Err(Fault::recipe("the recipe has `machine: required`, and `--backend local` is none")
                .hint("leave `--backend` out, or name `uml`, `kvm` or `qemu`")
                .into());
        }
        // debos's own choice: what is quick and has devices.
        if self.with.like_debos
            && wanted == Backend::Auto
            && Path::new("/dev/kvm").exists()
            && let Ok(working) = vm::working(Hypervisor::Kvm, options.clone(), store, &mut progress)
        {
            return Ok(Machine::Virtual(Box::new(working.machine)));
        }
        let refused = match recipe.machine.required {
            true => Fault::machine("the recipe has `machine: required`, and no machine works here"),
            false => match local::probe(store.root()).and_then(|local| unmountable(recipe, &local).map(|()| local)) {
                Ok(local) => return Ok(Machine::Local(local)),
                Err(error) if wanted == Backend::Local => return Err(error),
                Err(error) => fault_of(&error),
            },
        };
        if refused.kind == FaultKind::Interrupted {
            return Err(refused.into());
        }
        let mut hints = Vec::new();
        for hypervisor in vm::KINDS {
            match vm::working(hypervisor, options.clone(), store, &mut progress) {
                Ok(working) => {
                    let mut machine = working.machine;
                    if !recipe.machine.required {
                        machine.notes.insert(0, format!("in a machine, since {}", refused.message));
                    }
                    return Ok(Machine::Virtual(Box::new(machine)));
                }
                Err(error) => {
                    let fault = fault_of(&error);
                    if fault.kind == FaultKind::Interrupted {
                        return Err(error);
                    }
                    hints.push(format!("{}: {}", hypervisor.name(), fault.message));
                    hints.extend(fault.hints.into_iter().take(1));
                }
            }
        }
        Err(hints.into_iter().fold(refused, Fault::hint).into())
    }

    /// Variables of `-e`, unset ones left out.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (name, value) in &self.with.environment {
            if value.is_empty() {
                all.remove(name);
            } else {
                all.insert(name.clone(), value.clone());
            }
        }
        all
    }

    /// Proxies of our own environment that `-e` does not unset, for the steps.
    pub fn proxies(&self) -> BTreeMap<String, String> {
        let names = ["http_proxy", "https_proxy", "ftp_proxy", "rsync_proxy", "all_proxy", "no_proxy"];
        let names = names.iter().flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
        let unset: BTreeSet<&str> =
            self.with.environment.iter().filter(|(_, v)| v.is_empty()).map(|(k, _)| k.as_str()).collect();
        names
            .filter(|name| !unset.contains(name.as_str()))
            .filter_map(|name| std::env::var(&name).ok().filter(|v| !v.is_empty()).map(|value| (name, value)))
            .collect()
    }

    /// The arguments that name the same recipe again, as a shell reads them.
    pub fn again(&self) -> String {
        let mut words = vec![self.recipe.display().to_string()];
        let pairs = |option: &'static str, pairs: &[(String, String)]| -> Vec<String> {
            pairs.iter().flat_map(|(name, value)| [option.to_owned(), format!("{name}:{value}")]).collect()
        };
        words.extend(pairs("-t", &self.with.variables));
        words.extend(pairs("-e", &self.with.environment));
        let directories = self.with.artifactdir.iter().map(|directory| ("--artifactdir", directory));
        let directories = directories
            .chain(self.with.templatedir.iter().map(|directory| ("--templatedir", directory)))
            .chain(self.with.store.given().map(|directory| ("--store", directory)));
        words.extend(self.with.template.again());
        words.extend(self.with.machine.again());
        words.extend(directories.flat_map(|(option, path)| [option.to_owned(), path.display().to_string()]));
        shell_words(words.iter().map(String::as_str))
    }

    fn options(&self) -> Result<Options> {
        Ok(Options {
            variables: self.with.variables.iter().cloned().collect(),
            template_dirs: self.with.templatedir.iter().cloned().chain(installed_templates()).collect(),
            artifact_dir: std::path::absolute(self.artifacts())?,
            dialect: self.with.template.dialect(),
            strictness: self.with.template.strictness(),
            impure: self.with.template.impure,
            debos: self.with.like_debos,
        })
    }
}

impl Ready {
    /// The plan of the recipe; `fresh_from` as in [`Request`].
    pub fn plan(&self, args: &RecipeArgs, fresh_from: Option<usize>) -> Result<Plan> {
        if let Some(from) = fresh_from.filter(|from| *from == 0 || *from > crate::plan::step_count(&self.recipe)) {
            let steps = crate::plan::step_count(&self.recipe);
            return Err(Fault::recipe(format!("there is no step {from}: the recipe has {steps}")).into());
        }
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => Some(text.trim().parse().map_err(|_| {
                Fault::recipe(format!("SOURCE_DATE_EPOCH is `{text}`"))
                    .hint("it takes seconds since 1970, as `date +%s` prints them")
            })?),
            Err(_) => None,
        };
        let waiting = super::Waiting::start();
        let elsewhere = self.machine.elsewhere(&self.store);
        let plan = crate::plan::plan(
            &self.recipe,
            Request {
                store: &self.store,
                id_map: &self.machine.id_map(),
                elsewhere: elsewhere.as_ref(),
                artifact_dir: &self.artifact_dir,
                environment: args.environment(),
                epoch,
                fresh_from,
                progress: &mut |message| waiting.say(message),
            },
        );
        for note in self.store.notes() {
            crate::say!("{}", crate::report::note(&note));
        }
        plan
    }
}

/// All that the recipe needs and this machine does not have, at once.
fn missing(recipe: &Recipe, machine: &Machine) -> Result<()> {
    let mut tools = BTreeMap::new();
    let mut emulation = false;
    for (action, needs) in crate::plan::needs(recipe) {
        tools.extend(needs.tools.into_iter().map(|(tool, package)| (tool, (package, action.clone()))));
        emulation |= needs.emulation;
    }
    let lacking: Vec<_> = tools.into_iter().filter(|(tool, _)| crate::machine::find_program(tool).is_none()).collect();
    let own_tools = matches!(machine, Machine::Virtual(machine) if machine.has_root());
    if !lacking.is_empty() && !own_tools {
        let shown: Vec<String> =
            lacking.iter().map(|(tool, (_, action))| format!("`{tool}` (for `{action}`)")).collect();
        let packages: BTreeSet<&str> = lacking.iter().map(|(_, (package, _))| *package).collect();
        let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
        let message = format!("this machine lacks {}", shown.join(", "));
        return Err(Fault::machine(message).hint(format!("apt install {packages}")).into());
    }
    if let Machine::Virtual(_) = machine {
        return if emulation && !own_tools { binfmt::needed_emulator(recipe.architecture).map(drop) } else { Ok(()) };
    }
    if emulation && let Support::Missing { why, hint } = binfmt::support(recipe.architecture) {
        let message = format!("programs of {} do not run here: {why}", recipe.architecture);
        return Err(Fault::machine(message).hint(hint).into());
    }
    Ok(())
}

/// What the recipe wants mounted and this machine cannot mount.
fn unmountable(recipe: &Recipe, local: &Local) -> Result<()> {
    let kinds = crate::plan::mounted(recipe);
    if kinds.is_empty() {
        return Ok(());
    }
    if !local.mounts_devices() {
        return Err(Fault::machine("`strategy: mounted` mounts the image, which only root of the machine can do")
            .hint("build as root (`sudo debforge …`), in a container with the right to mount and its loop devices")
            .hint("or leave `strategy` out, where no step needs a device")
            .into());
    }
    crate::build::image::refused(&kinds).map_or(Ok(()), |fault| Err(fault.into()))
}

/// Templates of the installed package, and of a checkout that the program was built in.
fn installed_templates() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok();
    let beside = beside.iter().flat_map(|program| program.ancestors().skip(1).take(4));
    let candidates = beside.flat_map(|dir| [dir.join("share/debforge/templates"), dir.join("templates")]);
    candidates.filter(|dir| dir.join("bases").is_dir()).take(1).collect()
}

/// Everything has been said already; only the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("said")]
pub struct Said(pub FaultKind);
