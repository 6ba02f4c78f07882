//! What is wrong with a template, said in the recipe's terms.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::library::Library;
use super::source_map::Origin;
use super::template::Placeholder;
use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span, suggest};

/// What makes a template go on after a fault.
pub(super) enum Fix {
    Variable(String),
    Filter(String),
    Test(String),
    Function(String),
    Include,
    None,
}

/// A fault of a template at its place.
pub(super) struct Report {
    kind: ErrorKind,
    detail: String,
    pub(super) origin: Origin,
}

impl Report {
    pub(super) fn new(error: &Error, library: &Library, top: &Arc<Source>, included_from: &[Span]) -> Self {
        let mut errors = vec![error];
        let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
        while let Some(inner) = cause {
            if let Some(inner) = inner.downcast_ref::<Error>() {
                errors.push(inner);
            }
            cause = inner.source();
        }
        let innermost = errors.last().copied().unwrap_or(error);
        let (file, span) = span_of(innermost, library).unwrap_or((0, Span::new(top, 0, 0)));
        // Outer errors of an include stand at its tag; an import leaves no such trace.
        let mut chain: Vec<Span> = errors
            .iter()
            .rev()
            .skip(1)
            .filter(|outer| outer.kind() == ErrorKind::BadInclude)
            .filter_map(|outer| span_of(outer, library).map(|(_, span)| span))
            .collect();
        let leads_here =
            chain.first().is_some_and(|tag| library.referrers(file).iter().any(|(_, at)| at.source == tag.source));
        if !leads_here {
            chain = library.chain(file);
        }
        chain.extend_from_slice(included_from);
        Self {
            kind: innermost.kind(),
            detail: innermost.detail().unwrap_or_default().to_owned(),
            origin: Origin { span, included_from: chain },
        }
    }

    /// Says what is wrong, and what to do about it to find the next fault.
    pub(super) fn explain(
        mut self,
        missing: Option<(&str, &str)>,
        context: &BTreeMap<String, Value>,
        env: &Environment<'_>,
        nested: bool,
        out: &mut Diagnostics,
    ) -> Fix {
        let named = self.detail.split(' ').nth(1).unwrap_or_default().to_owned();
        if self.kind == ErrorKind::UndefinedError && self.detail.is_empty() {
            self.mark_operand();
        }
        if let Some(name) = self.undefined(context) {
            self.narrow(&name);
            let known = context.iter().filter(|(_, value)| value.downcast_object_ref::<Placeholder>().is_none());
            let globals: Vec<&str> = env.globals().map(|(name, _)| name).collect();
            let mut diagnostic = self
                .origin
                .error(format!("undefined variable `{name}`"))
                .suggest(&name, known.map(|(name, _)| name.as_str()).chain(globals));
            let default = format!("a default: `{name} | default(\"…\")`");
            diagnostic = diagnostic.hint(if nested {
                format!("give it among the `variables` of the action `recipe`, or {default}")
            } else {
                format!("give it with `-t {name}:VALUE`, or {default}")
            });
            diagnostic.hints.extend(self.comment_hint());
            out.push(diagnostic);
            return Fix::Variable(name);
        }
        let (message, hint, fix) = match self.kind {
            ErrorKind::UndefinedError => {
                let text = &self.origin.span.source.text[self.range()];
                let what = between_ticks(&self.detail).unwrap_or(text);
                let hint = what.rsplit_once('.').map(|(of, name)| {
                    format!("in a loop, some values of `{of}` may have it and others not: give `{name}` to each, or a default: `{what} | default(\"…\")`")
                });
                (format!("`{what}` is undefined"), hint, Fix::None)
            }
            ErrorKind::UnknownFilter => {
                self.narrow(&named);
                (format!("unknown filter `{named}`"), close(&named, FILTERS), Fix::Filter(named))
            }
            ErrorKind::UnknownTest => {
                self.narrow(&named);
                (format!("unknown test `{named}`"), close(&named, TESTS), Fix::Test(named))
            }
            ErrorKind::UnknownFunction => {
                let name = self.detail.split(' ').next().unwrap_or_default().to_owned();
                self.narrow(&name);
                let globals: Vec<String> = env.globals().map(|(name, _)| name.to_owned()).collect();
                let hint = close(&name, &globals.iter().map(String::as_str).collect::<Vec<_>>());
                (format!("unknown function `{name}`"), hint, Fix::Function(name))
            }
            ErrorKind::TemplateNotFound => match missing {
                Some((name, why)) => {
                    self.narrow(name);
                    (format!("cannot include `{name}`: {why}"), None, Fix::Include)
                }
                None => (format!("cannot include a template: {}", self.detail), None, Fix::None),
            },
            ErrorKind::OutOfFuel => (
                "the template does too much".to_owned(),
                Some("look for a loop that grows without end".to_owned()),
                Fix::None,
            ),
            ErrorKind::SyntaxError | ErrorKind::BadEscape => {
                let go = self.is_go().then(|| {
                    "this looks like a Go template, as debos has them: in Jinja `{{ or .suite \"sid\" }}` is \
                     `{{ suite | default(\"sid\") }}`, and `{{ if eq .a \"b\" }}` is `{% if a == \"b\" %}`"
                        .to_owned()
                });
                (format!("this is not Jinja: {}", self.or_kind()), go, Fix::None)
            }
            _ if self.detail.contains("recursion limit") => (
                "this goes deeper than any template needs to".to_owned(),
                Some("look for templates that include each other, or a macro that calls itself".to_owned()),
                Fix::None,
            ),
            ErrorKind::InvalidOperation if self.follows(context) => return Fix::None,
            _ => (self.or_kind(), None, Fix::None),
        };
        let mut diagnostic = self.origin.error(message);
        diagnostic.hints.extend(hint);
        diagnostic.hints.extend(self.comment_hint());
        out.push(diagnostic);
        fix
    }

    /// The template does not know what a comment is to YAML.
    fn comment_hint(&self) -> Option<String> {
        let before = &self.origin.span.source.text[..self.origin.span.start];
        let line = &before[before.rfind('\n').map_or(0, |newline| newline + 1)..];
        line.trim_start().starts_with('#').then(|| {
            "what stands in a YAML comment is rendered like everything else; `{# … #}` is a comment to Jinja".to_owned()
        })
    }

    /// Whether the line of the fault has what only Go's templates have.
    fn is_go(&self) -> bool {
        let text = &self.origin.span.source.text;
        let start = text[..self.origin.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        let statement = |word: &str| line.contains(&format!("{{{{ {word}")) || line.contains(&format!("{{{{- {word}"));
        line.contains(":=")
            || line.contains('$')
            || ["if ", "range ", "end", "else", ".", "or .", "eq ."].into_iter().any(statement)
    }

    /// The variable whose absence is the fault, if that is what it is.
    fn undefined(&self, context: &BTreeMap<String, Value>) -> Option<String> {
        let expression = match self.detail.find("` is undefined") {
            Some(end) => self.detail[..end].rsplit('`').next()?,
            None if self.kind == ErrorKind::UndefinedError => &self.origin.span.source.text[self.range()],
            None => return None,
        };
        let name: String = expression.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        // Only a bare name; for `a.b` it is the attribute that is absent.
        (is_name && !context.contains_key(&name) && (expression.len() == name.len())).then_some(name)
    }

    /// Whether it is only the stand-in for an undefined variable that cannot be used so.
    fn follows(&self, context: &BTreeMap<String, Value>) -> bool {
        let text = &self.origin.span.source.text[self.range()];
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        text.split(|c| !is_word(c))
            .any(|word| context.get(word).is_some_and(|value| value.downcast_object_ref::<Placeholder>().is_some()))
    }

    /// Moves the mark from a filter or a call of ours to the value that it was handed: the filter
    /// does not know what the author called it, the text does.
    fn mark_operand(&mut self) {
        let text = &self.origin.span.source.text;
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let operand = if let Some(before) = text[..self.origin.span.start].trim_end().strip_suffix('|') {
            let before = before.trim_end();
            before.trim_end_matches(is_path).len()..before.len()
        } else if let Some(bracket) = text[self.range()].find('(') {
            let start = self.origin.span.start + bracket + 1;
            let start = start + text[start..].len() - text[start..].trim_start().len();
            start..start + text[start..].find(|c| !is_path(c)).unwrap_or(0)
        } else {
            return;
        };
        if !operand.is_empty() {
            self.origin.span = Span::new(&self.origin.span.source.clone(), operand.start, operand.end);
        }
    }

    fn range(&self) -> Range<usize> {
        self.origin.span.start..self.origin.span.end
    }

    fn or_kind(&self) -> String {
        if self.detail.is_empty() { self.kind.to_string() } else { self.detail.clone() }
    }

    /// Marks only the word, where it stands in the marked text.
    fn narrow(&mut self, word: &str) {
        let text = &self.origin.span.source.text[self.range()];
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let found = text.match_indices(word).find(|(at, _)| {
            !text[..*at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word) && !word.is_empty()
        });
        if let Some((at, _)) = found {
            let start = self.origin.span.start + at;
            self.origin.span = Span::new(&self.origin.span.source.clone(), start, start + word.len());
        }
    }
}

fn between_ticks(detail: &str) -> Option<&str> {
    detail.split('`').nth(1)
}

fn close(name: &str, candidates: &[&str]) -> Option<String> {
    suggest(name, candidates.iter().copied()).map(|close| format!("did you mean `{close}`?"))
}

/// Where an error stands.
fn span_of(error: &Error, library: &Library) -> Option<(usize, Span)> {
    let (file, source) = library.find(error.name()?)?;
    let range = error.range().filter(|range| !range.is_empty() && source.text.get(range.clone()).is_some());
    let range = range.unwrap_or_else(|| line_range(&source.text, error.line().unwrap_or(1)));
    Some((file, Span::new(&source, range.start, range.end)))
}

/// The bytes of a line without the white space around it.
fn line_range(text: &str, line: usize) -> Range<usize> {
    let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let content = text[start..].lines().next().unwrap_or_default();
    let indent = content.len() - content.trim_start().len();
    start + indent..start + content.trim_end().len().max(indent)
}

/// What is wrong with an expression that stands at `origin`, as `when` has it.
pub(super) fn explain_expression(error: &Error, expression: &str, known: &[String], origin: &Origin) -> Diagnostic {
    let detail = error.detail().unwrap_or_default();
    let compiled = Environment::new().compile_expression(expression).map(|it| it.undeclared_variables(false));
    let undefined = (error.kind() == ErrorKind::UndefinedError || detail.contains("is undefined"))
        .then(|| compiled.unwrap_or_default().into_iter().filter(|name| !known.contains(name)).min())
        .flatten();
    let mut origin = origin.clone();
    // A plain value stands in the file as it is, and then the fault has its own place in it.
    let start = origin.span.start;
    let written = &origin.span.source.text[start..origin.span.end];
    let offset = written.find(expression);
    let part = match &undefined {
        Some(name) => expression.find(name.as_str()).map(|at| at..at + name.len()),
        None => error.range().filter(|range| !range.is_empty() && range.end <= expression.len()),
    };
    if let (Some(offset), Some(part)) = (offset, part) {
        origin.span = Span::new(&origin.span.source.clone(), start + offset + part.start, start + offset + part.end);
    }
    match undefined {
        Some(name) => origin
            .error(format!("undefined variable `{name}`"))
            .suggest(&name, known.iter().map(String::as_str))
            .hint(format!("give it with `-t {name}:VALUE`, or ask `{name} is defined`")),
        None => {
            let what = if detail.is_empty() { error.kind().to_string() } else { detail.to_owned() };
            origin.error(format!("`when` cannot be evaluated: {what}"))
        }
    }
}

/// Names for "did you mean"; minijinja does not list its own.
const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "b64decode",
    "b64encode",
    "basename",
    "batch",
    "bool",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "dirname",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "quote",
    "reject",
    "rejectattr",
    "removeprefix",
    "removesuffix",
    "repeat",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sha256",
    "shellquote",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "ternary",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];

const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];
