//! `debforge actions`: the manual of actions.

use anyhow::Result;

use super::manual::{Manual, manual};
use super::output::{print, width};
use crate::actions::{KINDS, find};
use crate::diagnostics::{Fault, suggest};

/// Show the manual of an action, or what actions there are
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Action to show the manual of
    pub name: Option<String>,
    /// Print Markdown
    #[arg(long)]
    pub markdown: bool,
}

/// Prints it.
pub fn run(args: &Args) -> Result<()> {
    let Some(name) = &args.name else { return print(&list()) };
    let Some(kind) = find(name) else {
        let mut fault = Fault::recipe(format!("there is no action `{name}`"));
        if let Some(close) = suggest(name, KINDS.iter().map(|kind| kind.name)) {
            fault = fault.hint(format!("did you mean `{close}`?"));
        }
        return Err(fault.hint("`debforge actions` lists them").into());
    };
    let manual = manual(kind);
    print(&if args.markdown { manual.markdown() } else { manual.terminal(width(), console::colors_enabled()) })
}

fn list() -> String {
    let manuals: Vec<Manual> = KINDS.iter().map(manual).collect();
    let longest = manuals.iter().map(|manual| manual.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Manual { name, summary, .. } in &manuals {
        text.push_str(&format!("  {name:longest$}  {summary}\n"));
    }
    text
}
