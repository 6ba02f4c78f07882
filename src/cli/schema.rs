//! `debforge schema`: what a recipe may hold, for editors.

use anyhow::Result;

use super::output::print;

/// Print the JSON Schema of recipes, for editors
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

/// Prints it.
pub fn run(_args: &Args) -> Result<()> {
    print(&text()?)
}

/// The schema as a text.
pub fn text() -> Result<String> {
    Ok(serde_json::to_string_pretty(&crate::recipe::schema())? + "\n")
}
