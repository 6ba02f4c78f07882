//! The lines that a build prints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use console::{Term, measure_text_width, style};

use super::{bytes, tenths};
use crate::build::event::Outcome;
use crate::diagnostics::{Fault, FaultKind, redacted};
use crate::plan::{Course, Plan, PlanStep};
use crate::store::Cleared;
use crate::store::size::human;

/// Columns of the action's name and of the summary.
const ACTION: usize = 17;
const SUMMARY: usize = 34;
/// The summary's, where the terminal has few.
const NARROW: usize = 16;
/// Columns that all else takes.
const BEHIND: usize = 60;

/// What is built, and where.
pub fn header(plan: &Plan, machine: &str) -> String {
    let (version, recipe) = (env!("CARGO_PKG_VERSION"), &plan.recipe);
    format!("{} {version} · {recipe} · {} · {machine}", style("debforge").bold().for_stderr(), plan.architecture)
}

/// "  2/5  apt               5 packages        ", always of the same width.
pub(super) fn left(step: &PlanStep, of: usize) -> String {
    left_on(&Term::stderr(), step, of)
}

/// The same, narrow enough for a terminal that what comes behind it fits, too.
fn left_on(terminal: &Term, step: &PlanStep, of: usize) -> String {
    let columns = terminal.size_checked().map_or(usize::MAX, |(_, columns)| usize::from(columns));
    let summary = columns.saturating_sub(BEHIND).clamp(NARROW, SUMMARY);
    let number = format!("{:>3}/{of}", step.number);
    format!("{number}  {}  {}", fitted(&step.action, ACTION), fitted(&redacted(&step.summary), summary))
}

/// A step as `debforge plan` shows it.
pub fn planned(step: &PlanStep, course: Course, of: usize) -> String {
    let id = step.id.as_ref().map_or("not known yet", |id| id.0.get(..12).unwrap_or(&id.0));
    let state = match (course, step.reason.as_str()) {
        (Course::Restore | Course::RestoreArtifacts, _) => style("cached").green().to_string(),
        (Course::Skip, _) => style("unneeded").dim().to_string(),
        (Course::Run, "") => "to run".to_owned(),
        (Course::Run, reason) => format!("to run: {reason}"),
    };
    format!("{}  {id:<13}  {state}", left_on(&Term::stdout(), step, of))
}

/// Something about where the build runs.
pub fn note(note: &str) -> String {
    format!("{} {note}", style("note:").cyan().bold().for_stderr())
}

/// What was removed from the store to keep it to its bound.
pub(super) fn cleared(cleared: &Cleared) -> String {
    let Cleared { entries, bytes, left, .. } = cleared;
    let noun = if *entries == 1 { "entry" } else { "entries" };
    format!(
        "room in the store: removed the {entries} {noun} used least recently, {}; {} left",
        human(*bytes),
        human(*left)
    )
}

/// A step that is over.
pub(super) fn finished(
    step: &PlanStep,
    of: usize,
    outcome: Outcome,
    seconds: f64,
    detail: &str,
    reason: &str,
) -> String {
    let took = match outcome {
        Outcome::Ran => format!("{:>8}", super::seconds(seconds)),
        Outcome::Cached => style(format!("{:>8}", "cached")).green().for_stderr().to_string(),
        Outcome::NotNeeded => style(format!("{:>8}", "unneeded")).dim().for_stderr().to_string(),
    };
    // Of a step that follows another, or is built for the first time, everyone knows why it runs.
    let reason = if reason.starts_with("follows") || reason == "first build" { "" } else { reason };
    let begin = format!("{}  {took}   ", left(step, of));
    let gap = match (detail.is_empty() || reason.is_empty(), Term::stderr().size_checked()) {
        (true, _) => String::new(),
        (_, Some((_, columns)))
            if measure_text_width(&begin) + detail.len() + 2 + reason.len() > usize::from(columns) =>
        {
            format!("\n{}", " ".repeat(measure_text_width(&begin)))
        }
        _ => ", ".to_owned(),
    };
    format!("{begin}{detail}{gap}{reason}").trim_end().to_owned()
}

/// A step that failed.
pub(super) fn failed(step: &PlanStep, of: usize, after: Duration, kind: FaultKind) -> String {
    let how = if kind == FaultKind::Interrupted { "interrupted" } else { "failed" };
    let failed = style(format!("{how} after {}", tenths(after))).red().for_stderr();
    format!("{}  {failed}", left(step, of))
}

/// What a running step says of itself.
pub(super) fn progress(message: &str, fraction: Option<(u64, u64)>) -> String {
    match fraction {
        Some((done, all)) if all > 0 => format!("{message} ({done}/{all})"),
        _ => message.to_owned(),
    }
}

/// Something that the user should know.
pub(super) fn warning(message: &str) -> String {
    format!("{} {message}", style("warning:").yellow().bold().for_stderr())
}

/// The closing line.
pub(super) fn done(took: Duration, artifacts: &[(PathBuf, u64, String)]) -> String {
    let took = tenths(took);
    let shown = |(path, size, sha256): &(PathBuf, u64, String)| {
        let short = sha256.get(..12).unwrap_or(sha256);
        format!("{} ({}, sha256 {short}…)", from_here(path).display(), bytes(*size))
    };
    match artifacts {
        [] => format!("\ndone in {took}"),
        [one] => format!("\ndone in {took} · {}", shown(one)),
        several => {
            let lines: Vec<String> = several.iter().map(|artifact| format!("  {}", shown(artifact))).collect();
            format!("\ndone in {took}\n{}", lines.join("\n"))
        }
    }
}

/// A path as the user would type it: relative where it lies below the working directory.
fn from_here(path: &Path) -> &Path {
    std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}

/// A fault as it ends a command: what, where, the tool's last words, the ways out.
pub fn fault(fault: &Fault) -> String {
    let mut text = match fault.kind {
        FaultKind::Interrupted => format!("{}\n", style(&fault.message).bold().for_stderr()),
        _ => format!("{} {}\n", style("error:").red().bold().for_stderr(), fault.message),
    };
    if let Some(place) = &fault.place {
        text += &format!("  {} {place}\n", style("┌").blue().for_stderr());
    }
    for line in &fault.tail {
        text += &format!("  {} {line}\n", style("│").blue().for_stderr());
    }
    for hint in &fault.hints {
        text += &format!("  = hint: {hint}\n");
    }
    text
}

/// Cut or filled to a width of the terminal's columns.
fn fitted(text: &str, width: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = console::truncate_str(&text, width, "…");
    console::pad_str(&cut, width, console::Alignment::Left, None).into_owned()
}
