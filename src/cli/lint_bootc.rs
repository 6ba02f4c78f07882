//! `debforge lint-bootc`: whether a tree makes a bootc image.

use std::path::PathBuf;

use anyhow::Result;
use console::style;
use serde::Serialize;

use super::StoreArgs;
use super::columns::Columns;
use super::output::print;
use crate::diagnostics::Fault;
use crate::inspect::bootc::{Finding, LINTS, Level, lint};
use crate::inspect::tree::Directory;
use crate::inspect::{Artifact, Tree};
use crate::oci::is_layout;

/// Check a root or image as `bootc container lint` does
///
/// It takes a directory, an OCI image (archive or layout directory), a tar archive, or any other artifact that
/// `debforge inspect` reads. The checks and their names are those of bootc; `var-tmpfiles`, which bootc leaves to
/// running systems, is always done.
///
/// Exit code 1 where a fatal check failed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory, image or archive.
    #[arg(required_unless_present = "list")]
    path: Option<PathBuf>,

    /// Let checks fail the command that only warn.
    #[arg(long)]
    fatal_warnings: bool,

    /// Say what each check looks for, and check nothing.
    #[arg(long, conflicts_with_all = ["path", "json", "fatal_warnings"])]
    list: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// Of one tree: an index has several.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Checked {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    checks: Vec<Finding>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    crate::machine::interruptible()?;
    let Some(path) = args.path.as_ref().filter(|_| !args.list) else {
        let mut columns = Columns::new(&["", "", ""]);
        for lint in LINTS {
            columns.row([lint.name.to_owned(), level(lint.level).to_owned(), lint.description.to_owned()]);
        }
        return print(&columns.print("")).map(|()| 0);
    };
    let checked = if path.is_dir() && !is_layout(path) {
        vec![Checked { name: String::new(), checks: lint(&Directory::new(path.clone(), true))? }]
    } else {
        let workplace = super::workplace(&args.store);
        let artifact = Artifact::open(path, &workplace)?;
        trees(&artifact, path)?
    };
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&checked)?))?;
    } else {
        print(&text(&checked))?;
    }
    let counts = |finding: &Finding| finding.fault.is_some() && (finding.level == Level::Fatal || args.fatal_warnings);
    Ok(u8::from(checked.iter().flat_map(|tree| &tree.checks).any(counts)))
}

fn trees(artifact: &Artifact, path: &std::path::Path) -> Result<Vec<Checked>> {
    if artifact.images.len() > 1 {
        let named = artifact.volumes.iter().filter_map(|volume| Some((volume.name.clone(), volume.tree.as_deref()?)));
        return named.map(|(name, tree)| Ok(Checked { name, checks: lint(tree)? })).collect();
    }
    let Some(system) = artifact.system() else {
        return Err(Fault::recipe(format!("there is no system in {}", path.display())).into());
    };
    let tree: &dyn Tree = &system;
    Ok(vec![Checked { name: String::new(), checks: lint(tree)? }])
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Fatal => "fatal",
        Level::Warning => "warning",
    }
}

fn text(checked: &[Checked]) -> String {
    let mut text = String::new();
    for tree in checked {
        if !tree.name.is_empty() {
            text.push_str(&format!("{}\n", style(&tree.name).bold()));
        }
        let mut columns = Columns::new(&["", "", ""]);
        for Finding { name, level: of, fault } in &tree.checks {
            let Some(fault) = fault else { continue };
            let mark = match of {
                Level::Fatal => style(level(*of)).red(),
                Level::Warning => style(level(*of)).yellow(),
            };
            columns.row([mark.to_string(), (*name).to_owned(), fault.clone()]);
        }
        text.push_str(&columns.print(""));
        let count = |level: Level| tree.checks.iter().filter(|f| f.level == level && f.fault.is_some()).count();
        let passed = tree.checks.iter().filter(|finding| finding.fault.is_none()).count();
        let parts = [(count(Level::Fatal), "fatal"), (count(Level::Warning), "warning")];
        let failed = parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}"));
        let all: Vec<String> = std::iter::once(format!("{passed} passed")).chain(failed).collect();
        text.push_str(&format!("{}\n", all.join(", ")));
    }
    text
}
