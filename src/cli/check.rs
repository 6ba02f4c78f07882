//! `debforge check`

use anyhow::Result;

use super::recipe::RecipeArgs;
use crate::say;

/// Check a recipe, and that this machine can build it, without running anything.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,

    /// Look at the recipe alone, not at this machine.
    #[arg(long)]
    recipe_only: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    let (recipe, machine) = if args.recipe_only {
        (args.recipe.load()?, String::new())
    } else {
        let ready = args.recipe.ready()?;
        (ready.recipe, format!(" · {}", ready.machine.description()))
    };
    let steps = match recipe.steps.len() {
        1 => "1 step".to_owned(),
        n => format!("{n} steps"),
    };
    say!("{}: good, {steps} for {}{machine}", recipe.path.display(), recipe.architecture);
    Ok(0)
}
