//! Faults, their places in the author's files, and their hints.
//!
//! [`Diagnostic`]s are what is wrong with a recipe: all of them are collected before anything is
//! printed. A [`Fault`] is what went wrong while something was done; it travels inside an
//! [`anyhow::Error`] and decides the exit code.

mod fault;
mod render;
mod secret;
mod size;
mod source;
mod suggest;

pub use fault::{Fault, FaultKind, Remedy, fault_of};
pub use secret::{has_login, redacted};
pub use size::size_shown;
pub use source::{Place, Source, Span, Spans};
pub use suggest::suggest;

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The recipe builds, but probably not what was meant.
    Warning,
    /// Nothing is run.
    Error,
}

/// One fault of a recipe: what is wrong, where, and the way out.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Lower-case, one sentence, no full stop: what is wrong.
    pub message: String,
    /// What to write under the marked text; empty for carets alone.
    pub label: String,
    /// The text it is about; `None` for faults of the command line.
    pub span: Option<Span>,
    /// Where the file of `span` was included from or called, innermost first.
    pub included_from: Vec<Span>,
    /// Ways out, one sentence each.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        Self::new(Severity::Error, message, span)
    }

    /// A warning at a place.
    pub fn warning(message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        Self::new(Severity::Warning, message, span)
    }

    fn new(severity: Severity, message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        Self {
            severity,
            message: message.into(),
            label: String::new(),
            span: span.into(),
            included_from: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// The same with a text under the marked part of the line.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same with "did you mean …?" where one of `candidates` is close to `name`.
    #[must_use]
    pub fn suggest<'a>(self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match suggest(name, candidates) {
            Some(close) => self.hint(format!("did you mean `{close}`?")),
            None => self,
        }
    }
}

/// All the faults found so far.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, unless it was said already: a loop in a template repeats its faults.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let said = |other: &Diagnostic| other.message == diagnostic.message && other.span == diagnostic.span;
        if diagnostic.span.is_none() || !self.0.iter().any(said) {
            self.0.push(diagnostic);
        }
    }

    /// Adds all of another collection.
    pub fn extend(&mut self, other: Diagnostics) {
        other.0.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Whether there is at least one [`Severity::Error`].
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// As printed on the terminal (see UX in the book): every diagnostic with its source line, then a closing count.
    pub fn render(&self, colour: bool) -> String {
        render::render(&self.0, colour)
    }
}
