//! Rendering of a recipe's template, with all that is wrong in it and where everything came from.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, Value};
use minijinja::{Environment, Error, ErrorKind, OutputSpan, OutputSpanKind, UndefinedBehavior};

use super::functions;
use super::library::Library;
use super::loader::Loader;
use super::source_map::{Origin, Piece, SourceMap};
use crate::diagnostics::{Diagnostics, Source, Span};

/// What a template may do: instructions, and 64 bytes of data each. Enough for any recipe, and spent
/// in well under a second.
const FUEL: u64 = 2_000_000;

/// Faults of one template that are collected before the rest is left alone.
const MAX_FAULTS: usize = 50;

/// A rendered recipe.
pub(super) struct Rendered {
    /// The text and where it came from.
    pub(super) map: SourceMap,
    /// Expressions whose value is made up because of a fault that was reported: what follows from them is not.
    pub(super) tainted: Vec<Span>,
    /// Every file that was read.
    pub(super) files: Vec<PathBuf>,
    top: String,
    env: Environment<'static>,
    context: BTreeMap<String, Value>,
    exports: OnceCell<BTreeMap<String, Value>>,
}

/// Renders a recipe. Reports every undefined variable, unknown filter and missing include, not the
/// first; the text is there unless the template could not be rendered at all.
pub(super) fn render(
    path: &Path,
    source: &Arc<Source>,
    variables: &BTreeMap<String, String>,
    template_dirs: &[PathBuf],
    included_from: &[Span],
    loader: &dyn Loader,
    out: &mut Diagnostics,
) -> Option<Rendered> {
    let library = Library::new(path, source.clone());
    let mut context: BTreeMap<String, Value> =
        variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let mut stubs = Stubs::default();
    let mut tainted = Vec::new();
    let mut faults = 0;
    loop {
        let env = environment(&library, &stubs);
        let result = env
            .get_template(&source.name)
            .and_then(|template| template.render_with_spans(Value::from(context.clone())));
        if library.read_wanted(template_dirs, loader) {
            continue;
        }
        match result {
            Ok((text, spans)) => {
                let map = source_map(text, &spans, &library, source, included_from);
                let files = library.paths();
                return Some(Rendered {
                    map,
                    tainted,
                    files,
                    top: source.name.clone(),
                    env,
                    context,
                    exports: OnceCell::new(),
                });
            }
            Err(error) => {
                faults += 1;
                let report = Report::new(&error, &library, source, included_from);
                tainted.push(report.origin.span.clone());
                let missing = library.take_missing();
                let fixed = report.explain(
                    missing.as_ref().map(|missing| (&*missing.name, &*missing.why)),
                    &context,
                    &env,
                    out,
                );
                let goes_on = match fixed {
                    Fix::Variable(name) => context.insert(name, placeholder()).is_none(),
                    Fix::Filter(name) => stubs.filters.insert(name),
                    Fix::Test(name) => stubs.tests.insert(name),
                    Fix::Function(name) => stubs.functions.insert(name),
                    Fix::Include => missing.is_some_and(|missing| {
                        library.stub(&missing);
                        true
                    }),
                    Fix::None => false,
                };
                if !goes_on || faults >= MAX_FAULTS {
                    return None;
                }
            }
        }
    }
}

/// Renders a file on its own: nothing can be included.
pub(super) fn render_text(name: &str, text: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut env = Environment::new();
    configure(&mut env);
    let context: BTreeMap<String, Value> =
        variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let rendered = env.add_template(name, text).and_then(|()| env.get_template(name)?.render(Value::from(context)));
    rendered.map_err(|error| {
        let line = error.line().unwrap_or(1);
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        anyhow::anyhow!("rendering {name}, line {line}: {what}")
    })
}

impl Rendered {
    /// The value of an expression where the recipe's variables, and those that it sets at its top level, are known.
    pub(super) fn evaluate(&self, expression: &str) -> Result<Value, Error> {
        let compiled = self.env.compile_expression(expression)?;
        let mut context = self.context.clone();
        if compiled.undeclared_variables(false).iter().any(|name| !context.contains_key(name)) {
            context.extend(self.exports.get_or_init(|| self.export()).clone());
        }
        compiled.eval(Value::from(context))
    }

    /// Names that an expression may use.
    pub(super) fn names(&self) -> Vec<String> {
        self.context.keys().chain(self.exports.get_or_init(|| self.export()).keys()).cloned().collect()
    }

    /// Adds a variable that is known once the header was read.
    pub(super) fn define(&mut self, name: &str, value: &str) {
        self.context.entry(name.to_owned()).or_insert_with(|| Value::from(value));
    }

    fn export(&self) -> BTreeMap<String, Value> {
        let captured =
            self.env.get_template(&self.top).and_then(|top| top.render_captured(Value::from(self.context.clone())));
        let Ok(captured) = captured else { return BTreeMap::new() };
        let state = captured.state();
        state
            .exports()
            .into_iter()
            .filter_map(|name| state.lookup(name).map(|value| (name.to_owned(), value)))
            .collect()
    }
}

/// Names that stand for something after their absence was reported.
#[derive(Default)]
struct Stubs {
    filters: BTreeSet<String>,
    tests: BTreeSet<String>,
    functions: BTreeSet<String>,
}

fn environment(library: &Library, stubs: &Stubs) -> Environment<'static> {
    let mut env = Environment::new();
    configure(&mut env);
    library.serve(&mut env);
    for name in &stubs.filters {
        env.add_filter(name.clone(), |_: Value, _: Rest<Value>| placeholder());
    }
    for name in &stubs.tests {
        env.add_test(name.clone(), |_: Value, _: Rest<Value>| false);
    }
    for name in &stubs.functions {
        env.add_function(name.clone(), |_: Rest<Value>| placeholder());
    }
    env
}

fn configure(env: &mut Environment<'_>) {
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // As Jinja has it: no white space is taken away that the author does not take away with `-`.
    env.set_syntax(env.syntax().to_builder().keep_trailing_newline(true).build().unwrap_or_default());
    env.set_debug(true);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(200);
    functions::add_to(env);
}

/// Stands for a value that is not there: printed, asked for its parts and walked through without a fault.
#[derive(Debug)]
struct Placeholder;

fn placeholder() -> Value {
    Value::from_object(Placeholder)
}

impl Object for Placeholder {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        Some(placeholder())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Empty
    }

    fn call(self: &Arc<Self>, _state: &mut minijinja::State<'_, '_>, _args: &[Value]) -> Result<Value, Error> {
        Ok(placeholder())
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("undefined")
    }
}

/// What makes a template go on after a fault.
enum Fix {
    Variable(String),
    Filter(String),
    Test(String),
    Function(String),
    Include,
    None,
}

/// A fault of a template at its place.
struct Report {
    kind: ErrorKind,
    detail: String,
    origin: Origin,
}

impl Report {
    fn new(error: &Error, library: &Library, top: &Arc<Source>, included_from: &[Span]) -> Self {
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
    fn explain(
        mut self,
        missing: Option<(&str, &str)>,
        context: &BTreeMap<String, Value>,
        env: &Environment<'_>,
        out: &mut Diagnostics,
    ) -> Fix {
        let named = self.detail.split(' ').nth(1).unwrap_or_default().to_owned();
        if let Some(name) = self.undefined(context) {
            self.narrow(&name);
            let known = context.iter().filter(|(_, value)| value.downcast_object_ref::<Placeholder>().is_none());
            let globals: Vec<&str> = env.globals().map(|(name, _)| name).collect();
            let mut diagnostic = self
                .origin
                .error(format!("undefined variable `{name}`"))
                .suggest(&name, known.map(|(name, _)| name.as_str()).chain(globals));
            diagnostic = if self.origin.included_from.iter().any(|span| span.source.text.is_empty()) {
                diagnostic
            } else {
                diagnostic.hint(format!("give it with `-t {name}:VALUE`, or a default: `{name} | default(\"…\")`"))
            };
            out.push(diagnostic);
            return Fix::Variable(name);
        }
        let (message, hint, fix) = match self.kind {
            ErrorKind::UndefinedError => {
                let what = between_ticks(&self.detail).unwrap_or("this").to_owned();
                (format!("`{what}` is undefined"), None, Fix::None)
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
                (format!("this is not Jinja: {}", self.or_kind()), None, Fix::None)
            }
            ErrorKind::BadInclude | ErrorKind::EvalBlock => (self.or_kind(), None, Fix::None),
            _ => (self.or_kind(), None, Fix::None),
        };
        let mut diagnostic = self.origin.error(message);
        diagnostic.hints.extend(hint);
        out.push(diagnostic);
        fix
    }

    /// The variable whose absence is the fault, if that is what it is.
    fn undefined(&self, context: &BTreeMap<String, Value>) -> Option<String> {
        let expression = match self.detail.find("` is undefined") {
            Some(end) => self.detail[..end].rsplit('`').next()?,
            // A function of ours that was handed the value does not know the name; the author's text does.
            None if self.kind == ErrorKind::UndefinedError => &self.origin.span.source.text[self.range()],
            None => return None,
        };
        let name: String = expression.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        // Only a bare name; for `a.b` it is the attribute that is absent.
        (is_name && !context.contains_key(&name) && (expression.len() == name.len())).then_some(name)
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
    crate::diagnostics::suggest(name, candidates.iter().copied()).map(|close| format!("did you mean `{close}`?"))
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

/// The map from what minijinja noted while it rendered.
fn source_map(
    text: String,
    spans: &[OutputSpan],
    library: &Library,
    top: &Arc<Source>,
    included_from: &[Span],
) -> SourceMap {
    /// Where a file's output last came from.
    struct Last {
        sequence: usize,
        end: usize,
        chain: usize,
    }
    let mut chains = vec![included_from.to_vec()];
    let mut files: HashMap<&str, Option<(usize, Arc<Source>)>> = HashMap::new();
    let mut last: HashMap<usize, Last> = HashMap::new();
    let mut pieces = Vec::with_capacity(spans.len());
    for (sequence, span) in spans.iter().enumerate() {
        let found = files.entry(span.name()).or_insert_with(|| library.find(span.name()));
        let Some((file, source)) = found.clone() else { continue };
        let origin = span.source_range();
        let chain = if file == 0 {
            0
        } else {
            // The file that asked for this one is the one of its referrers that wrote last.
            let parent = library
                .referrers(file)
                .into_iter()
                .filter_map(|(parent, tag)| last.get(&parent).map(|last| (last.sequence, parent, tag)))
                .max_by_key(|(sequence, _, tag)| (*sequence, std::cmp::Reverse(tag.start)));
            let own = last.get(&file);
            match (parent, own) {
                (Some((at, ..)), Some(own)) if own.sequence > at => own.chain,
                (None, Some(own)) => own.chain,
                (Some((_, parent, first_tag)), _) => {
                    let (end, chain) = last.get(&parent).map_or((0, 0), |last| (last.end, last.chain));
                    let tag = library
                        .referrers(file)
                        .into_iter()
                        .filter(|(from, tag)| *from == parent && tag.start >= end)
                        .map(|(_, tag)| tag)
                        .min_by_key(|tag| tag.start)
                        .unwrap_or(first_tag);
                    let mut links = vec![tag];
                    links.extend_from_slice(&chains[chain]);
                    chains.push(links);
                    chains.len() - 1
                }
                (None, None) => {
                    let mut links = library.chain(file);
                    links.extend_from_slice(included_from);
                    chains.push(links);
                    chains.len() - 1
                }
            }
        };
        last.insert(file, Last { sequence, end: origin.end, chain });
        let literal = span.kind() == OutputSpanKind::Raw && origin.len() == span.output_range().len();
        pieces.push(Piece { rendered: span.output_range(), source, origin, literal, chain });
    }
    SourceMap::new(text, pieces, chains, Span::new(top, 0, 0))
}

/// Names for "did you mean"; minijinja does not list its own.
const FILTERS: &[&str] = &[
    "abs",
    "attr",
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

/// What is wrong with an expression that stands at `origin`, as `when` has it.
pub(super) fn explain_expression(
    error: &Error,
    expression: &str,
    known: &[String],
    origin: &Origin,
) -> crate::diagnostics::Diagnostic {
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
