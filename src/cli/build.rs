//! `debforge build`

use std::collections::BTreeMap;

use anyhow::Result;

use super::recipe::{Ready, RecipeArgs};
use crate::build::Event;
use crate::build::inputs::ReleaseState;
use crate::diagnostics::{Remedy, fault_of};
use crate::engine::Build;
use crate::machine::{Machine, vm};
use crate::plan::{History, Plan, products};
use crate::report::{BuildLog, Report, Style};
use crate::sandbox::{Isolation, Sandbox};
use crate::say;
use crate::store::{Checkpoints, Holder};

/// Build a recipe.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub struct Args {
    #[command(flatten)]
    pub recipe: RecipeArgs,

    /// Show the output of the steps.
    #[arg(short, long)]
    pub(super) verbose: bool,

    /// Print events as JSON, one a line.
    #[arg(long, conflicts_with = "verbose")]
    pub(super) json: bool,

    /// Use no result of an earlier build.
    #[arg(long, conflicts_with = "from")]
    pub(super) no_cache: bool,

    /// Run this step and all after it, whatever the store has.
    #[arg(long, value_name = "STEP")]
    pub(super) from: Option<usize>,

    /// Print the recipe as the template renders it, first.
    #[arg(long)]
    pub(super) print_recipe: bool,

    /// Check and plan, but run nothing.
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Open a shell in the root when a step fails.
    #[arg(long)]
    pub(super) debug_shell: bool,

    /// Shell for `--debug-shell`.
    #[arg(short, long, value_name = "PROGRAM", default_value = "/bin/bash")]
    pub(super) shell: String,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    if args.print_recipe {
        super::output::print(&args.recipe.printed()?)?;
    }
    let ready = args.recipe.ready()?;
    if let (Machine::Local(_), Some(unheeded)) = (&ready.machine, args.recipe.with.machine.unheeded()) {
        say!("{}", crate::report::note(&unheeded));
    }
    if let Machine::Virtual(_) = &ready.machine {
        for (name, value) in args.recipe.proxies() {
            let there = vm::proxy(&name, &value);
            if there != value {
                let note = format!("{name} names this machine: in the machine that builds, it leads to 10.0.2.2");
                say!("{}", crate::report::note(&note));
            }
        }
    }
    let plan = ready.plan(&args.recipe, args.from.or(args.no_cache.then_some(1)))?;
    if args.dry_run {
        super::plan::print(&plan, &ready)?;
        return Ok(0);
    }
    let style = match (args.json, super::interactive()) {
        (true, _) => Style::Json,
        (false, true) => Style::Terminal,
        (false, false) => Style::Plain,
    };
    let debug_shell = args.debug_shell.then(|| args.shell.clone());
    carry_out(&ready, &args.recipe, plan, style, args.verbose, |build| build.debug_shell.clone_from(&debug_shell))
}

/// States of repositories, by "URI SUITE".
type Releases = BTreeMap<String, ReleaseState>;

/// Has a plan carried out; `adjust` sets what is special about it. Where a repository turns out to
/// have moved on since it was made, another one is made, once.
pub(super) fn carry_out(
    ready: &Ready,
    args: &RecipeArgs,
    plan: Plan,
    style: Style,
    verbose: bool,
    adjust: impl Fn(&mut Build),
) -> Result<u8> {
    let log = BuildLog::start(&ready.store.root().join("logs"), &plan).ok();
    let mut report = Report::start(style, verbose, &plan, &ready.machine, log)?;
    report.show_boot(args.with.machine.show_boot);
    let mut broken = None;
    let mut note = |shown: Result<()>| {
        if let Err(error) = shown {
            broken.get_or_insert(error);
        }
    };
    let mut asked = Releases::new();
    let mut show = |event: &Event| {
        if let Event::Asked { releases } = event {
            for message in lagging(releases, &asked) {
                note(report.event(&Event::Warning { step: None, message }));
            }
            asked.clone_from(releases);
        }
        note(report.event(event));
    };
    show(&Event::Asked { releases: plan.releases.clone() });
    if let Some(end) = attempt(ready, args, &plan, false, &adjust, &mut show)? {
        let end = match renewed(ready, args, &plan, &asked) {
            Ok(Some(renewed)) => {
                note(report.renew(&renewed, &ready.machine, &moved(&asked, &plan, &renewed)));
                attempt(ready, args, &renewed, true, &adjust, &mut |event| note(report.event(event)))?
            }
            Ok(None) => Some(end),
            Err(error) => Some(Event::Finished { fault: Some(fault_of(&error)), step: None }),
        };
        end.iter().for_each(|end| note(report.event(end)));
    }
    History::remember(&ready.store, &args.recipe, plan.architecture, report.finished());
    products::remember(&ready.store, &args.recipe, &ready.artifact_dir, &report.left());
    report.finish(&args.again())?;
    match broken {
        Some(error) => Err(error),
        None => Ok(0),
    }
}

/// What there is to say of repositories that went back, but for what was `said`.
pub(super) fn lagging(releases: &Releases, said: &Releases) -> Vec<String> {
    let new = releases.iter().filter(|(suite, state)| said.get(*suite) != Some(*state));
    new.filter_map(|(suite, state)| state.warning(suite)).collect()
}

/// Has a plan carried out. An end that is the plan's fault is given back instead of being shown.
fn attempt(
    ready: &Ready,
    args: &RecipeArgs,
    plan: &Plan,
    replanned: bool,
    adjust: &impl Fn(&mut Build),
    show: &mut dyn FnMut(&Event),
) -> Result<Option<Event>> {
    let mut build = Build {
        store: ready.store.root().to_owned(),
        lender: None,
        by: Holder::here(&plan.recipe),
        artifact_dir: ready.artifact_dir.clone(),
        // What the machine makes of these is its own.
        sandbox: Sandbox::new(Isolation::Namespaces),
        checkpoints: Checkpoints::None,
        id_map: ready.machine.id_map(),
        environment: args.proxies(),
        replanned,
        until: None,
        shell: None,
        debug_shell: None,
        plan: plan.clone(),
    };
    adjust(&mut build);
    let mut outdated = None;
    let mut starting = matches!(ready.machine, Machine::Virtual(_)).then(|| {
        let waiting = super::Waiting::start();
        waiting.say("starting the machine");
        waiting
    });
    let done = ready.machine.build(&ready.store, build, &mut |event| {
        if !matches!(event, Event::Console { .. }) {
            starting = None;
        }
        match &event {
            Event::Finished { fault: Some(fault), .. } if fault.remedy == Remedy::PlanAnew => outdated = Some(event),
            event => show(event),
        }
    });
    drop(starting);
    if let Err(error) = done {
        // Not a step, but what carries out the steps.
        show(&Event::Finished { fault: Some(fault_of(&error)), step: None });
    }
    Ok(outdated)
}

/// Another plan of the same build; `None` where it would come to the same. `asked` are the states of the
/// repositories that the build worked with.
fn renewed(ready: &Ready, args: &RecipeArgs, plan: &Plan, asked: &Releases) -> Result<Option<Plan>> {
    let renewed = ready.plan(args, plan.fresh.as_ref().map(|fresh| fresh.from))?;
    let files =
        renewed.steps.iter().zip(&plan.steps).any(|(now, before)| before.id.is_some() && now.inputs != before.inputs);
    Ok((files || renewed.releases != *asked).then_some(renewed))
}

/// Why a plan had to give way to another.
fn moved(asked: &Releases, plan: &Plan, renewed: &Plan) -> String {
    let changed = renewed.releases.iter().filter(|(suite, state)| asked.get(*suite) != Some(*state));
    let changed: Vec<&str> = changed.map(|(suite, _)| suite.as_str()).collect();
    let inputs = renewed.steps.iter().zip(&plan.steps).flat_map(|(now, before)| {
        now.inputs.iter().filter(|input| !before.inputs.contains(input)).map(|input| input.what.as_str())
    });
    let files: Vec<&str> = inputs.filter(|what| what.starts_with("file ")).collect();
    let which = match (changed.as_slice(), files.as_slice()) {
        ([], []) => "what it reads".to_owned(),
        ([], [only]) => (*only).to_owned(),
        ([], [first, rest @ ..]) => format!("{first} and {} more", rest.len()),
        (changed, _) => changed.join(", "),
    };
    format!("{which} changed while the build was going on: it is planned anew")
}
