//! `debforge diff`: what changed between two artifacts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use console::style;

use super::StoreArgs;
use super::columns::Columns;
use super::output::print;
use crate::diagnostics::{FaultKind, fault_of};
use crate::inspect::Artifact;
use crate::inspect::compare::{Comparison, Fact, Fetch, FileChange};
use crate::report;
use crate::say;
use crate::sys::output::is_closed;

/// More files than this are shown by directory.
const FEW: usize = 20;

/// So many source packages of fetched layers are named.
const SOURCES: usize = 10;

/// Parts of a path that directories are told apart by.
const DEPTH: usize = 3;

/// Show what changed between two images or archives, packages first
///
/// They may be of different kinds: a disk and a tar archive, a compressed one and one that is not. Of two
/// OCI images (layout directories or archives) and of OSTree commits (`repo:branch`, `repo:checksum`) it says too
/// what a client that has the first one fetches.
/// Times of files are not compared.
///
/// Exit codes as diff(1) has them: 0 the same, 1 different, 2 trouble.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The older one.
    before: PathBuf,

    /// The newer one.
    after: PathBuf,

    /// Show the lines that changed in /etc.
    #[arg(long)]
    text: bool,

    /// List every file, rather than directories where there are many.
    #[arg(long)]
    files: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    match compared(args) {
        Ok(same) => Ok(u8::from(!same)),
        Err(error) => {
            // 1 says that they differ.
            let fault = fault_of(&error);
            if fault.kind != FaultKind::Failed || is_closed() {
                return Err(error);
            }
            crate::sys::output::say(&report::fault(&fault));
            Ok(2)
        }
    }
}

fn compared(args: &Args) -> Result<bool> {
    crate::machine::interruptible()?;
    let workplace = super::workplace(&args.store);
    let before = Artifact::open(&args.before, &workplace)?;
    let after = Artifact::open(&args.after, &workplace)?;
    let comparison = Comparison::of(&before, &after, args.text)?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&comparison)?))?;
        return Ok(comparison.identical);
    }
    if comparison.identical {
        print("identical\n")?;
        return Ok(true);
    }
    for volume in before.volumes.iter().chain(&after.volumes) {
        if let Some(why) = &volume.unread {
            let of = if volume.name.is_empty() { String::new() } else { format!("{}: ", volume.name) };
            say!("{}", report::note(&format!("{of}{why}")));
        }
    }
    print(&text(&comparison, args))?;
    Ok(false)
}

fn text(comparison: &Comparison, args: &Args) -> String {
    let mut parts = Vec::new();
    let mut part = |title: String, body: String| {
        if !body.is_empty() {
            parts.push(format!("{}\n{body}", style(title).bold()));
        }
    };
    part(packages_title(comparison), packages(comparison));
    part("boot and system".into(), facts(&comparison.system));
    part("image".into(), facts(&comparison.image));
    part("to fetch".into(), comparison.fetch.as_ref().map(fetched).unwrap_or_default());
    part("disk".into(), facts(&comparison.disk));
    let (configuration, others): (Vec<_>, Vec<_>) =
        comparison.files.iter().partition(|change| change.path.starts_with("/etc"));
    part("configuration".into(), configuration.iter().map(|change| file(change)).collect());
    let listed = args.files || others.len() <= FEW;
    part(files_title(&others), if listed { others.iter().map(|c| file(c)).collect() } else { directories(&others) });
    if let Some(at) = &comparison.first_difference {
        parts.push(format!("the same files, but other bytes from {at} on\n"));
    }
    parts.join("\n")
}

fn mark(before: bool, after: bool) -> String {
    match (before, after) {
        (false, _) => style("+").green().to_string(),
        (_, false) => style("-").red().to_string(),
        _ => style("~").yellow().to_string(),
    }
}

fn packages_title(comparison: &Comparison) -> String {
    let count = |test: fn(&Option<String>, &Option<String>) -> bool| {
        comparison.packages.iter().filter(|change| test(&change.before, &change.after)).count()
    };
    counted("packages", count(|b, _| b.is_none()), count(|_, a| a.is_none()), count(|b, a| b.is_some() && a.is_some()))
}

/// "packages: 2 new, 1 gone, 3 changed"
fn counted(what: &str, new: usize, gone: usize, changed: usize) -> String {
    let parts = [(new, "new"), (gone, "gone"), (changed, "changed")];
    let parts = parts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}"));
    format!("{what}: {}", parts.collect::<Vec<_>>().join(", "))
}

fn packages(comparison: &Comparison) -> String {
    let mut columns = Columns::new(&["", "", ""]);
    for change in &comparison.packages {
        let versions = match (&change.before, &change.after) {
            (Some(before), Some(after)) => format!("{before} → {after}"),
            (before, after) => before.as_ref().or(after.as_ref()).cloned().unwrap_or_default(),
        };
        columns.row([mark(change.before.is_some(), change.after.is_some()), change.name.clone(), versions]);
    }
    columns.print("  ")
}

fn facts(facts: &[Fact]) -> String {
    let mut columns = Columns::new(&["", "", ""]);
    for Fact { what, before, after } in facts {
        let value = match (before, after) {
            (Some(before), Some(after)) => format!("{before} → {after}"),
            (one, other) => {
                one.as_ref().or(other.as_ref()).filter(|text| *text != "there").cloned().unwrap_or_default()
            }
        };
        columns.row([mark(before.is_some(), after.is_some()), what.clone(), value]);
    }
    columns.print("  ")
}

/// "3 of 64 layers, 4.1 MB of 61 MB  glibc openssl"
fn fetched(fetch: &Fetch) -> String {
    let sizes = format!("{} of {}", report::bytes(fetch.bytes), report::bytes(fetch.of_bytes));
    let mut line = format!("  {} of {} {}, {sizes}", fetch.layers, fetch.of_layers, fetch.unit);
    if !fetch.sources.is_empty() {
        let more = fetch.sources.len().saturating_sub(SOURCES);
        let mut sources = fetch.sources[..fetch.sources.len() - more].join(" ");
        if more > 0 {
            sources.push_str(&format!(" and {more} more"));
        }
        line.push_str(&format!("  {}", style(sources).dim()));
    }
    line.push('\n');
    line
}

fn delta(before: u64, after: u64) -> String {
    match after.checked_sub(before) {
        Some(0) => String::new(),
        Some(more) => format!("+{}", report::bytes(more)),
        None => format!("-{}", report::bytes(before - after)),
    }
}

/// A line for a file, and what changed in its text.
fn file(change: &FileChange) -> String {
    let path = change.path.display();
    let mut notes = Vec::new();
    let size = delta(change.before.unwrap_or(0), change.after.unwrap_or(0));
    notes.extend((!size.is_empty()).then_some(size));
    // That its size changed says that its contents did.
    notes.extend(change.differs.iter().filter(|what| *what != "contents" || change.before == change.after).cloned());
    let mark = mark(change.before.is_some(), change.after.is_some());
    let mut line = format!("  {mark} {path}");
    if !notes.is_empty() {
        line.push_str(&format!("  {}", style(notes.join(", ")).dim()));
    }
    line.push('\n');
    for text in change.text.iter().flat_map(|text| text.lines()) {
        let styled = match text.as_bytes().first() {
            Some(b'+') => style(text).green(),
            Some(b'-') => style(text).red(),
            Some(b'@') => style(text).cyan(),
            _ => style(text),
        };
        line.push_str(format!("      {styled}").trim_end());
        line.push('\n');
    }
    line
}

fn files_title(files: &[&FileChange]) -> String {
    let count = |test: fn(&FileChange) -> bool| files.iter().filter(|change| test(change)).count();
    let (new, gone) = (count(|c| c.before.is_none()), count(|c| c.after.is_none()));
    counted("files", new, gone, files.len() - new - gone)
}

/// What changed below each directory.
fn directories(files: &[&FileChange]) -> String {
    #[derive(Default)]
    struct Sum {
        counts: [usize; 3],
        before: u64,
        after: u64,
    }
    let mut sums: BTreeMap<PathBuf, Sum> = BTreeMap::new();
    for change in files {
        let parent = change.path.parent().unwrap_or(Path::new("/"));
        let sum = sums.entry(parent.components().take(DEPTH + 1).collect()).or_default();
        let index = match (change.before, change.after) {
            (None, _) => 0,
            (_, None) => 1,
            _ => 2,
        };
        sum.counts[index] += 1;
        sum.before += change.before.unwrap_or(0);
        sum.after += change.after.unwrap_or(0);
    }
    let mut columns = Columns::new(&["directory", ">new", ">gone", ">changed", ">size"]);
    for (path, sum) in &sums {
        let [new, gone, changed] = sum.counts.map(|count| if count == 0 { String::new() } else { count.to_string() });
        columns.row([path.display().to_string(), new, gone, changed, delta(sum.before, sum.after)]);
    }
    columns.print("  ")
}
