//! What is shown of a test that goes on in stages.

use std::time::Instant;

use anyhow::Result;
use console::{Alignment, pad_str, style};
use serde_json::{Value, json};

use super::progress::Progress;
use super::{Style, tenths};
use crate::diagnostics::{Fault, FaultKind};
use crate::say;

/// Columns of a stage's name and of what it does.
const NAME: usize = 12;
const TITLE: usize = 38;

/// How a stage came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// All held; a few words on it.
    Passed(String),
    /// It could not be tried, and why.
    Skipped(String),
    /// Something did not hold.
    Failed(Fault),
}

/// Shows stages as they go.
pub struct StageReport {
    style: Style,
    progress: Progress,
    stages: Vec<(&'static str, &'static str)>,
    at: usize,
    started: Instant,
    stage_started: Instant,
}

impl StageReport {
    /// For these stages: name, and what is done in it. `what` says what is tested.
    pub fn start(style: Style, what: &str, stages: Vec<(&'static str, &'static str)>) -> Result<Self> {
        let now = Instant::now();
        let progress = Progress::new(style);
        let report = Self { style, progress, stages, at: 0, started: now, stage_started: now };
        if style != Style::Json {
            say!("{what}\n");
        }
        let names: Vec<&str> = report.stages.iter().map(|(name, _)| *name).collect();
        report.say(&json!({ "event": "test-started", "stages": names }))?;
        Ok(report)
    }

    /// The next stage begins.
    pub fn begin(&mut self) -> Result<()> {
        self.stage_started = Instant::now();
        self.progress.begin(&self.left());
        self.say(&json!({ "event": "stage-started", "stage": self.name() }))
    }

    /// It is over.
    pub fn end(&mut self, stopped: &Stopped) -> Result<()> {
        self.progress.end();
        let took = self.stage_started.elapsed();
        let (outcome, detail) = match stopped {
            Stopped::Passed(detail) => ("passed", detail),
            Stopped::Skipped(why) => ("skipped", why),
            Stopped::Failed(fault) => ("failed", &fault.message),
        };
        if self.style != Style::Json {
            let shown = match stopped {
                Stopped::Passed(detail) => format!("{:>12}   {detail}", tenths(took)),
                Stopped::Skipped(why) => {
                    format!("{}   {why}", style(format!("{:>12}", "skipped")).yellow().for_stderr())
                }
                Stopped::Failed(fault) => {
                    let how = if fault.kind == FaultKind::Interrupted { "interrupted" } else { "failed" };
                    style(format!("{how} after {}", tenths(took))).red().for_stderr().to_string()
                }
            };
            self.progress.print(format!("{}  {shown}", self.left()).trim_end());
        }
        let seconds = (took.as_secs_f64() * 100.0).round() / 100.0;
        self.say(&json!({
            "event": "stage-finished", "stage": self.name(), "outcome": outcome, "seconds": seconds, "detail": detail,
        }))?;
        self.at += 1;
        Ok(())
    }

    /// The test is over.
    pub fn finish(self, fault: Option<&Fault>) -> Result<()> {
        if self.style != Style::Json && fault.is_none() {
            say!("\nall held after {}", tenths(self.started.elapsed()));
        }
        if self.style != Style::Json && fault.is_some() {
            say!();
        }
        self.say(&json!({ "event": "finished", "fault": fault }))
    }

    fn name(&self) -> &'static str {
        self.stages.get(self.at).map_or("", |(name, _)| name)
    }

    fn left(&self) -> String {
        let (name, title) = self.stages.get(self.at).copied().unwrap_or_default();
        let number = format!("{:>3}/{}", self.at + 1, self.stages.len());
        let filled = |text, width| pad_str(text, width, Alignment::Left, Some("…")).into_owned();
        format!("{number}  {}  {}", filled(name, NAME), filled(title, TITLE))
    }

    fn say(&self, event: &Value) -> Result<()> {
        if self.style == Style::Json {
            crate::sys::output::print(&format!("{event}\n"))?;
        }
        Ok(())
    }
}
