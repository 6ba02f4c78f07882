//! What a person, a log or a program reads of a build.

mod build_log;
mod lines;
mod progress;
mod stages;
mod units;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

pub use build_log::{BuildLog, log_file};
pub use lines::{fault, header, note, planned};
pub use stages::{StageReport, Stopped};
pub use units::{bytes, seconds};

use crate::build::Event;
use crate::build::event::{Outcome, StepTitle};
use crate::diagnostics::{Fault, FaultKind};
use crate::machine::Machine;
use crate::plan::{Plan, PlanStep};
use crate::say;

/// Characters of a failed command that fit into a hint.
const REPLAYED: usize = 200;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One line per step, the running one redrawn.
    Terminal,
    /// The same lines, none redrawn.
    Plain,
    /// The events, one JSON object a line, on standard output.
    Json,
}

/// Shows a build as it goes and keeps its log.
pub struct Report {
    style: Style,
    verbose: bool,
    /// Whether the console of the machine is shown.
    show_boot: bool,
    /// Steps as shown: number, action, summary.
    steps: Vec<PlanStep>,
    /// How many of them are over.
    finished: usize,
    progress: progress::Progress,
    log: Option<BuildLog>,
    started: Instant,
    step_started: Instant,
    artifacts: Vec<(PathBuf, u64, String)>,
    fault: Option<(Option<usize>, Fault)>,
    /// Whether a shell was opened, whose time is the user's own.
    visited: bool,
}

impl Report {
    /// For a plan about to be carried out; says what is built and where.
    pub fn start(style: Style, verbose: bool, plan: &Plan, machine: &Machine, log: Option<BuildLog>) -> Result<Self> {
        if style != Style::Json {
            say!("{}", header(plan, machine.description()));
            machine.notes().iter().for_each(|weakness| say!("{}", note(weakness)));
            say!();
        }
        let mut report = Self {
            style,
            verbose,
            show_boot: false,
            steps: plan.steps.clone(),
            finished: 0,
            progress: progress::Progress::new(style),
            log,
            started: Instant::now(),
            step_started: Instant::now(),
            artifacts: Vec::new(),
            fault: None,
            visited: false,
        };
        report.event(&started(plan, machine))?;
        Ok(report)
    }

    /// Shows the console of the machine too, if asked to.
    pub fn show_boot(&mut self, show: bool) {
        self.show_boot = show;
    }

    /// Goes over to another plan of the same build, which begins again; says why.
    pub fn renew(&mut self, plan: &Plan, machine: &Machine, why: &str) -> Result<()> {
        self.progress.end();
        self.event(&Event::Warning { step: None, message: why.to_owned() })?;
        self.steps.clone_from(&plan.steps);
        self.finished = 0;
        self.event(&started(plan, machine))
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        let event = &event.clone().redacted();
        if let Some(log) = &mut self.log {
            log.event(event);
        }
        if self.style == Style::Json {
            crate::sys::output::print(&(serde_json::to_string(event)? + "\n"))?;
        }
        match event {
            Event::StepStarted { step } => {
                self.step_started = Instant::now();
                if let Some(step) = self.steps.get(step - 1) {
                    self.progress.begin(&lines::left(step, self.steps.len()));
                }
            }
            Event::Progress { message, fraction, .. } => self.progress.say(&lines::progress(message, *fraction)),
            Event::Log { step, line } if self.verbose => self.print(&format!("  {step:>3}  │ {line}")),
            Event::Console { line } if self.show_boot => self.print(&format!("       ╎ {line}")),
            Event::Log { line, .. } => self.progress.overhear(line),
            Event::Warning { message, .. } => self.print(&lines::warning(message)),
            Event::StepFinished { step, outcome, seconds, detail } => {
                self.progress.end();
                self.finished = (*step).min(self.steps.len());
                if let Some(planned) = self.steps.get(step - 1) {
                    let reason = if *outcome == Outcome::Ran { planned.reason.as_str() } else { "" };
                    self.print(&lines::finished(planned, self.steps.len(), *outcome, *seconds, detail, reason));
                }
            }
            Event::Terminal { taken } => {
                self.progress.pause(*taken);
                self.visited = true;
            }
            Event::Artifact { path, size, sha256 } => self.artifacts.push((path.clone(), *size, sha256.clone())),
            Event::Resolved { step, id, inputs } => {
                if let Some(planned) = self.steps.get_mut(step - 1) {
                    planned.id = Some(id.clone());
                    planned.inputs.clone_from(inputs);
                }
            }
            Event::Finished { fault: Some(fault), step } => {
                self.progress.end();
                if let Some(planned) = step.and_then(|step| self.steps.get(step - 1)) {
                    self.print(&lines::failed(planned, self.steps.len(), self.step_started.elapsed(), fault.kind));
                }
                self.print("");
                self.fault = Some((*step, fault.clone()));
            }
            Event::Cleared { cleared } => self.print(&lines::note(&lines::cleared(cleared))),
            Event::Console { .. } | Event::Asked { .. } => {}
            Event::Started { .. } | Event::Verified { .. } | Event::Finished { fault: None, .. } => {}
        }
        Ok(())
    }

    /// Ends the report; the fault, with the log and the way back in among its hints. `arguments` are
    /// those that name the same recipe again.
    pub fn finish(mut self, arguments: &str) -> Result<()> {
        self.progress.end();
        match self.fault.take() {
            Some((step, fault)) => Err(self.explained(fault, step, arguments).into()),
            None if self.visited => Ok(()),
            None => {
                self.print(&lines::done(self.started.elapsed(), &self.artifacts));
                Ok(())
            }
        }
    }

    /// The steps that are over, as they turned out.
    pub fn finished(&self) -> &[PlanStep] {
        &self.steps[..self.finished]
    }

    /// The files that were left in the artifact directory.
    pub fn left(&self) -> Vec<PathBuf> {
        self.artifacts.iter().map(|(path, _, _)| path.clone()).collect()
    }

    fn explained(&self, mut fault: Fault, step: Option<usize>, arguments: &str) -> Fault {
        if let Some(log) = &self.log {
            fault.hints.push(format!("the whole log is {}", from_home(log.path())));
        }
        let Some(step) = step.filter(|_| fault.kind == FaultKind::Failed) else { return fault };
        if step > 1 {
            let before = step - 1;
            fault.hints.push(format!("look around in the root before it: debforge shell {arguments} --after {before}"));
            match fault.replay.as_deref() {
                Some(command) if command.contains('\n') || command.len() > REPLAYED => {
                    fault.hints.push("run it there by hand: the log has it after `failed:`".into());
                }
                Some(command) => fault.hints.push(format!("run it there by hand: {command}")),
                None => {}
            }
        }
        let action = self.steps.get(step - 1).and_then(|step| step.action().ok());
        if action.is_some_and(|action| action.changes().root) {
            fault.hints.push(format!("stop in the root as it fails: debforge build {arguments} --debug-shell"));
        }
        fault
    }

    fn print(&self, line: &str) {
        if self.style != Style::Json {
            self.progress.print(line);
        }
    }
}

/// A path as people write it: `~/…` below their home.
fn from_home(path: &Path) -> String {
    let below = std::env::home_dir().and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned));
    below.map_or_else(|| path.display().to_string(), |below| format!("~/{}", below.display()))
}

fn started(plan: &Plan, machine: &Machine) -> Event {
    let title = |step: &PlanStep| StepTitle { action: step.action.clone(), summary: step.summary.clone() };
    Event::Started {
        recipe: plan.recipe.clone(),
        architecture: plan.architecture,
        machine: machine.description().to_owned(),
        steps: plan.steps.iter().map(title).collect(),
    }
}

/// Rounded for people: a tenth of a second.
fn tenths(duration: Duration) -> String {
    seconds(duration.as_secs_f64())
}
