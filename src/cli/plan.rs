//! `debforge plan`

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::build::lagging;
use super::recipe::{Ready, RecipeArgs};
use crate::plan::Plan;
use crate::report;

/// Show which steps a build would run, and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,

    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,

    /// Plan as if nothing were in the store.
    #[arg(long, conflicts_with = "from")]
    no_cache: bool,

    /// Plan to run this step and all after it, whatever the store has.
    #[arg(long, value_name = "STEP")]
    from: Option<usize>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    let ready = args.recipe.ready()?;
    let plan = ready.plan(&args.recipe, args.from.or(args.no_cache.then_some(1)))?;
    if args.json {
        super::output::print(&(serde_json::to_string_pretty(&plan)? + "\n"))?;
    } else {
        print(&plan, &ready)?;
    }
    Ok(0)
}

/// The plan for people, on standard output.
pub(super) fn print(plan: &Plan, ready: &Ready) -> Result<()> {
    let mut text = format!("{}\n\n", report::header(plan, ready.machine.description()));
    for message in lagging(&plan.releases, &BTreeMap::new()) {
        text += &format!("warning: {message}\n\n");
    }
    let elsewhere = ready.machine.elsewhere(&ready.store);
    let courses = plan.courses(|id| match &elsewhere {
        Some(elsewhere) => elsewhere.has(id, false, true),
        None => ready.store.has_outputs(id),
    })?;
    for (step, course) in plan.steps.iter().zip(courses) {
        text += &format!("{}\n", report::planned(step, course, plan.steps.len()));
    }
    let (mut tools, mut network, mut emulation) = (BTreeSet::new(), false, false);
    for step in &ready.recipe.steps {
        let needs = step.action.needs();
        tools.extend(needs.tools.into_iter().map(|(tool, _)| tool));
        network |= needs.network;
        emulation |= needs.emulation && plan.architecture != crate::debian::Architecture::host();
    }
    let mut needs: Vec<String> = tools.into_iter().map(str::to_owned).collect();
    if network {
        needs.push("the network".into());
    }
    if emulation {
        needs.push(format!("emulation of {}", plan.architecture));
    }
    if !needs.is_empty() {
        text += &format!("\nneeds {}\n", needs.join(", "));
    }
    if let Ok(free) = crate::store::size::free_space(ready.store.root()) {
        text += &format!("free for the store: {}\n", report::bytes(free));
    }
    super::output::print(&text)
}
