//! `debforge shell`

use anyhow::Result;

use super::recipe::RecipeArgs;
use crate::diagnostics::Fault;
use crate::report::Style;

/// Open a shell in the root as it stands after a step, or where steps work in a mounted image, in that;
/// what it changes is thrown away.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,

    /// Number of the step; the last one where it is left out. Steps that the store does not have are run.
    #[arg(long, value_name = "STEP")]
    after: Option<usize>,

    /// Program to run.
    #[arg(short, long, value_name = "PROGRAM", default_value = "/bin/bash")]
    shell: String,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    let ready = args.recipe.ready()?;
    let steps = crate::plan::step_count(&ready.recipe);
    let after = args.after.unwrap_or(steps);
    if after == 0 || after > steps {
        return Err(Fault::recipe(format!("there is no step {after}: the recipe has {steps}")).into());
    }
    let plan = ready.plan(&args.recipe, None)?;
    let style = if super::interactive() { Style::Terminal } else { Style::Plain };
    super::build::carry_out(&ready, &args.recipe, plan, style, false, |build| {
        build.until = Some(after);
        build.shell = Some(args.shell.clone());
    })
}
