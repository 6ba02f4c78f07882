//! Recipes that are Go templates, as debos has them: text/template with slim-sprig's functions.

#[cfg(test)]
mod as_go;
mod duration;
mod eval;
mod exec;
mod format;
mod functions;
pub(super) mod lexer;
mod parse;
mod time;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::lexer::words;
use super::source_map::{Origin, SourceMap};
use super::template::Rendered;
use crate::diagnostics::{Diagnostics, Severity, Source, Span};

use lexer::tags;
use value::Value;

/// What is wrong with a template at some bytes of it.
#[derive(Debug, Clone)]
struct Fault {
    range: Range<usize>,
    severity: Severity,
    message: String,
    label: String,
    hints: Vec<String>,
}

impl Fault {
    fn new(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { range, severity: Severity::Error, message: message.into(), label: String::new(), hints: Vec::new() }
    }

    fn warning(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(range, message) }
    }

    fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    fn push(self, source: &Arc<Source>, included_from: &[Span], out: &mut Diagnostics) {
        let span = Span::new(source, self.range.start, self.range.end);
        let origin = Origin { span, included_from: included_from.to_vec() };
        let mut diagnostic = match self.severity {
            Severity::Error => origin.error(self.message),
            Severity::Warning => origin.warning(self.message),
        };
        diagnostic.label = self.label;
        diagnostic.hints = self.hints;
        out.push(diagnostic);
    }
}

/// What is asked of a rendering.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    /// Whether values that are others each time may be used.
    pub(super) impure: bool,
    /// Whether what has no value is an error; debos prints `<no value>`.
    pub(super) strict: bool,
}

/// Renders a recipe with the variables it was given, and nothing else. Reports all that is wrong; the text is
/// there unless the template could not be read.
pub(super) fn render(
    path: &Path,
    source: &Arc<Source>,
    variables: &BTreeMap<String, String>,
    settings: Settings,
    included_from: &[Span],
    out: &mut Diagnostics,
) -> Option<Rendered> {
    let tags = tags(&source.text);
    let mut faults = Vec::new();
    let program = parse::parse(&source.text, &tags, &mut faults);
    for fault in faults {
        fault.push(source, included_from, out);
    }
    let program = program?;
    let data = Value::string_map(variables.iter().map(|(name, value)| (name.clone(), value.clone())));
    let run = exec::run(&program, source, &tags, &data, settings, included_from);
    for (fault, chain) in run.faults {
        fault.push(source, &run.chains[chain], out);
    }
    let tainted = run.tainted.iter().map(|range| Span::new(source, range.start, range.end)).collect();
    let mut asked: BTreeSet<String> = program.fields;
    for tag in tags.iter().filter(|tag| !tag.comment) {
        asked.extend(words(tag.text(&source.text)));
    }
    if program.uses_all {
        asked.extend(variables.keys().cloned());
    }
    let map = SourceMap::new(run.text, run.pieces, run.chains, Span::new(source, 0, 0));
    Some(Rendered::of_text(map, tainted, path.to_owned(), asked, variables))
}
