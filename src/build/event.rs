//! What a build says while it runs. One type serves the terminal, the log file, `--json` and, later, the hub.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::diagnostics::{Fault, redacted};

/// How a step came to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was run.
    Ran,
    /// The store had its result.
    Cached,
    /// Nothing that follows needs it.
    NotNeeded,
}

/// Something that happened in a build. Steps are numbered from 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first: what is about to be built.
    Started {
        /// The recipe as the user named it.
        recipe: String,
        /// What is built.
        architecture: crate::debian::Architecture,
        /// Where: "local, root".
        machine: String,
        /// The steps, in order.
        steps: Vec<StepTitle>,
    },
    /// A step begins to run.
    StepStarted {
        /// Which.
        step: usize,
    },
    /// A running step has got somewhere; replaces what it said before.
    Progress {
        /// Which.
        step: usize,
        /// "unpacking libc6".
        message: String,
        /// Parts done and in all, where the tool says so.
        fraction: Option<(u64, u64)>,
    },
    /// A line of a tool's output, for `-v` and the log.
    Log {
        /// Which.
        step: usize,
        /// Without its newline.
        line: String,
    },
    /// A line of the console of the machine that the build runs in.
    Console {
        /// Without its newline.
        line: String,
    },
    /// Something the user should know that is no error.
    Warning {
        /// Which, if any.
        step: Option<usize>,
        /// One sentence.
        message: String,
    },
    /// A step has its result.
    StepFinished {
        /// Which.
        step: usize,
        /// How.
        outcome: Outcome,
        /// Wall time.
        seconds: f64,
        /// "78 packages, 111 MB".
        detail: String,
    },
    /// A step's id and inputs, as they turned out when it was reached.
    Resolved {
        /// Which.
        step: usize,
        /// Its id.
        id: crate::store::EntryId,
        /// What the id was made from.
        inputs: Vec<super::Input>,
    },
    /// States of repositories that nobody could ask for before a step was reached, by "URI SUITE".
    Asked {
        /// All that this build knows.
        releases: std::collections::BTreeMap<String, super::inputs::ReleaseState>,
    },
    /// An interactive shell takes the terminal, or gives it back.
    Terminal {
        /// Which of the two.
        taken: bool,
    },
    /// A file is in its place in the artifact directory.
    Artifact {
        /// Where.
        path: PathBuf,
        /// In bytes.
        size: u64,
        /// Lower-case hex.
        sha256: String,
    },
    /// Room was made in the store.
    Cleared {
        /// What came of it.
        cleared: crate::store::Cleared,
    },
    /// Every byte of the store was looked at.
    Verified {
        /// What came of it.
        verified: crate::store::Verified,
    },
    /// The end, good or bad.
    Finished {
        /// What failed.
        fault: Option<Fault>,
        /// The step that failed.
        step: Option<usize>,
    },
}

impl Event {
    /// The same without what addresses in its texts let in with ([`redacted`]).
    #[must_use]
    pub fn redacted(mut self) -> Self {
        let clear = |text: &mut String| *text = redacted(text);
        match &mut self {
            Self::Started { steps, .. } => steps.iter_mut().for_each(|step| clear(&mut step.summary)),
            Self::Progress { message, .. } | Self::Warning { message, .. } => clear(message),
            Self::Log { line, .. } | Self::Console { line } => clear(line),
            Self::StepFinished { detail, .. } => clear(detail),
            _ => {}
        }
        self
    }
}

/// A step as a reader of events first hears of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepTitle {
    /// Name of the action.
    pub action: String,
    /// A few words on it.
    pub summary: String,
}

/// Takes events. Implementations are cheap and never fail.
pub trait Reporter: Send + Sync {
    /// Passes one on.
    fn report(&self, event: Event);
}
