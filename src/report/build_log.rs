//! The whole log of a build, as a file.

use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::Event;
use crate::diagnostics::redacted;
use crate::plan::Plan;

/// How many logs are kept.
const KEPT: usize = 50;

/// A new file for a log in a directory, named by the time, and the user's alone: values of variables, and what commands
/// print, may be secrets. The oldest beyond [`KEPT`] go.
pub fn log_file(directory: &Path) -> Result<(PathBuf, fs::File)> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    prune(directory);
    let stamp = jiff::ZonedDateTime::now().strftime("%Y-%m-%dT%H-%M-%S").to_string();
    let names = std::iter::once(format!("{stamp}.log")).chain((2..).map(|n| format!("{stamp}-{n}.log")));
    for path in names.map(|name| directory.join(name)) {
        match fs::File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("making {}", path.display())),
        }
    }
    anyhow::bail!("no name for the log is left")
}

/// A log being written. Writing is best effort: a build does not fail for its log.
pub struct BuildLog {
    path: PathBuf,
    file: BufWriter<fs::File>,
}

impl BuildLog {
    /// Starts one in a directory, as [`log_file`] names it.
    pub fn start(directory: &Path, plan: &Plan) -> Result<Self> {
        let (path, file) = log_file(directory)?;
        let mut log = Self { path, file: BufWriter::new(file) };
        log.line(&format!("debforge {} {} {}", env!("CARGO_PKG_VERSION"), plan.recipe, plan.architecture));
        for step in &plan.steps {
            let place = step.place.as_ref().map(ToString::to_string).unwrap_or_default();
            log.line(&format!("step {} {} {place} {}", step.number, step.action, step.properties));
        }
        Ok(log)
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an event down.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Log { step, line } => self.line(&format!("{step:>3} │ {line}")),
            Event::Console { line } => self.line(&format!("    ╎ {line}")),
            Event::StepStarted { step } => self.line(&format!("{step:>3} ┌ started")),
            Event::StepFinished { step, outcome, seconds, detail } => {
                self.line(&format!("{step:>3} └ {outcome:?} {seconds:.2} s {detail}"));
            }
            Event::Warning { message, .. } => self.line(&format!("warning: {message}")),
            Event::Resolved { step, id, inputs } => {
                self.line(&format!("{step:>3}   id {id}"));
                for input in inputs {
                    self.line(&format!("{step:>3}   input {}: {}", input.what, input.state));
                }
            }
            Event::Artifact { path, size, sha256 } => {
                self.line(&format!("artifact {} {size} bytes sha256 {sha256}", path.display()));
            }
            Event::Finished { fault, .. } => {
                match fault {
                    Some(fault) => self.line(&format!("failed: {}", fault.message)),
                    None => self.line("done"),
                }
                let _ = self.file.flush();
            }
            Event::Started { .. }
            | Event::Cleared { .. }
            | Event::Verified { .. }
            | Event::Asked { .. }
            | Event::Progress { .. }
            | Event::Terminal { .. } => {}
        }
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.file, "{}", redacted(line));
    }
}

fn prune(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut logs: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    let surplus = logs.len().saturating_sub(KEPT - 1);
    for log in logs.iter().take(surplus) {
        let _ = fs::remove_file(log);
    }
}
