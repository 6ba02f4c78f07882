//! What went wrong while something was done.

use serde::{Deserialize, Serialize};

use super::{Place, redacted};

/// Who has to act; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A step failed: exit code 1.
    Failed,
    /// The recipe or the arguments are wrong: exit code 2.
    Recipe,
    /// This machine lacks something: exit code 3.
    Machine,
    /// Ctrl-C or a termination signal: exit code 130.
    Interrupted,
}

impl FaultKind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Recipe => 2,
            Self::Machine => 3,
            Self::Interrupted => 130,
        }
    }
}

/// What a program may try by itself before it troubles the user with a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// Nothing.
    #[default]
    None,
    /// Another address: this one has no such file, or another than was expected.
    LookElsewhere,
    /// A new plan: what the plan was made from can no longer be had.
    PlanAnew,
}

/// A failure with all that a user needs to act on it. Travels inside [`anyhow::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Who has to act.
    pub kind: FaultKind,
    /// Lower-case, one sentence: what was being done, to what, and what came of it.
    pub message: String,
    /// Where in the recipe it was asked for, once known.
    pub place: Option<Place>,
    /// The part of the step that it is about, a partition's name, where its place is not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Last lines of the failing tool's output.
    #[serde(default)]
    pub tail: Vec<String>,
    /// Ways out.
    #[serde(default)]
    pub hints: Vec<String>,
    /// The command that failed, as a shell in the root reads it, where it needs nothing else.
    #[serde(default)]
    pub replay: Option<String>,
    /// What may help without the user.
    #[serde(default, skip_serializing_if = "Remedy::is_none")]
    pub remedy: Remedy,
}

impl Remedy {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl Fault {
    /// A fault of a kind.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            place: None,
            part: None,
            tail: Vec::new(),
            hints: Vec::new(),
            replay: None,
            remedy: Remedy::None,
        }
    }

    /// A step failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Failed, message)
    }

    /// This machine lacks something.
    pub fn machine(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Machine, message)
    }

    /// The recipe or the arguments are wrong.
    pub fn recipe(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Recipe, message)
    }

    /// The same with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same about a part of the step.
    #[must_use]
    pub fn about(mut self, part: impl Into<String>) -> Self {
        self.part = Some(part.into());
        self
    }

    /// The same with what may help without the user.
    #[must_use]
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    /// The same without what its addresses let in with.
    fn redacted(mut self) -> Self {
        let texts =
            [&mut self.message].into_iter().chain(&mut self.tail).chain(&mut self.hints).chain(&mut self.replay);
        texts.for_each(|text| *text = redacted(text));
        self
    }

    /// The same with the last lines of a tool's output.
    #[must_use]
    pub fn tail(mut self, tail: Vec<String>) -> Self {
        self.tail = tail;
        self
    }
}

/// The fault in an error, made from its chain of causes where there is none: a plain error is a
/// failed step whose message is "context: cause: cause".
pub fn fault_of(error: &anyhow::Error) -> Fault {
    let mut contexts = Vec::new();
    for cause in error.chain() {
        if let Some(fault) = cause.downcast_ref::<Fault>() {
            let mut fault = fault.clone();
            if !contexts.is_empty() {
                fault.message = format!("{}: {}", contexts.join(": "), fault.message);
            }
            return fault.redacted();
        }
        contexts.push(cause.to_string());
    }
    Fault::failed(contexts.join(": ")).redacted()
}
