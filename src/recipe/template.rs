//! Rendering of a recipe's template, with all that is wrong in it and where everything came from.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, Value};
use minijinja::{Environment, Error, UndefinedBehavior};

use super::library::Library;
use super::loader::Loader;
use super::source_map::SourceMap;
use super::template_fault::{Fix, Report};
use super::{functions, origins};
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
    /// Every word in the tags of those files.
    pub(super) words: BTreeSet<String>,
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
        let mut env = environment(&stubs);
        library.serve(&mut env);
        let result = env
            .get_template(&source.name)
            .and_then(|template| template.render_with_spans(Value::from(context.clone())));
        if library.read_wanted(template_dirs, loader) {
            continue;
        }
        match result {
            Ok((text, spans)) => {
                let (mut pieces, mut chains) = origins::pieces(&spans, &library, included_from);
                let mut marking = environment(&stubs);
                if let Some(marks) = library.serve_marked(&mut marking)
                    && let Ok(marked) = marking
                        .get_template(&source.name)
                        .and_then(|template| template.render(Value::from(context.clone())))
                {
                    pieces = marks.refine(&text, &marked, pieces, &mut chains);
                }
                let map = SourceMap::new(text, pieces, chains, Span::new(source, 0, 0));
                let files = library.paths();
                return Some(Rendered {
                    map,
                    tainted,
                    files,
                    words: library.words(),
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
                    !included_from.is_empty(),
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
    /// A text that another language's template was rendered to; its expressions are Jinja all the same.
    pub(super) fn of_text(
        map: SourceMap,
        tainted: Vec<Span>,
        path: PathBuf,
        words: BTreeSet<String>,
        variables: &BTreeMap<String, String>,
    ) -> Self {
        Self {
            map,
            tainted,
            files: vec![path],
            words,
            top: String::new(),
            env: environment(&Stubs::default()),
            context: variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect(),
            exports: OnceCell::new(),
        }
    }

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

    /// Those of the recipe's own variables that are texts.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        let own = self.exports.get_or_init(|| self.export()).iter();
        own.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
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

fn environment(stubs: &Stubs) -> Environment<'static> {
    let mut env = Environment::new();
    configure(&mut env);
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
    // A function of minijinja that would make `debug is defined` true where nobody set `debug`.
    env.remove_global("debug");
    functions::add_to(env);
}

/// Stands for a value that is not there: printed, asked for its parts and walked through without a fault.
#[derive(Debug)]
pub(super) struct Placeholder;

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
