//! The action `recipe`: the steps of another recipe take its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::check::{Loading, Scope};
use super::dialect::Dialect;
use super::loader::normalise;
use super::loader::read;
use super::source_map::Origin;
use crate::debian::Architecture;
use crate::diagnostics::{Span, Spans};

/// Recipes that call recipes deeper than this call each other in a circle that no path shows.
const MAX_DEPTH: usize = 16;

/// Who calls a recipe.
pub(super) struct Caller {
    /// The language of the calling recipe's template.
    pub(super) dialect: Dialect,
    /// What the calling recipe builds, if that is known.
    pub(super) architecture: Option<Architecture>,
    origin: Origin,
    spans: Spans,
}

impl Caller {
    /// How one comes to the called recipe, innermost first.
    pub(super) fn chain(&self) -> Vec<Span> {
        let mut chain = vec![self.origin.span.clone()];
        chain.extend_from_slice(&self.origin.included_from);
        chain
    }

    /// Where it gives a variable.
    pub(super) fn variable(&self, name: &str) -> Option<Origin> {
        let span = self.spans.keys.get(&format!("variables.{name}"))?.clone();
        Some(Origin { span, included_from: self.spans.included_from.clone() })
    }
}

impl Loading<'_> {
    /// Adds the steps of the recipe that an action calls. It gets the variables it is given, and the
    /// architecture; nothing else of its caller's.
    pub(super) fn nested(&mut self, scope: &Scope, properties: &Value, spans: &Spans) {
        let Some(span) = spans.value("recipe") else { return };
        let origin = Origin { span, included_from: spans.included_from.clone() };
        let given = properties["recipe"].as_str().unwrap_or_default();
        let path = normalise(&scope.directory.join(given));
        if let Some(first) = self.open.iter().position(|open| *open == path) {
            let circle: Vec<String> =
                self.open[first..].iter().chain([&path]).map(|path| path.display().to_string()).collect();
            self.push(scope, origin.error(format!("these recipes call each other: {}", circle.join(" → "))));
            return;
        }
        if self.open.len() >= MAX_DEPTH {
            self.push(scope, origin.error(format!("recipes call recipes more than {MAX_DEPTH} levels deep")));
            return;
        }
        let source = match read(&path, self.loader) {
            Ok(source) => source,
            Err(why) => {
                let diagnostic = origin.error(format!("cannot read the recipe `{given}`: {why}"));
                self.push(scope, diagnostic.hint(format!("it is looked for as {}", path.display())));
                self.assume_done(None);
                return;
            }
        };
        let Some(variables) = self.variables(scope, &properties["variables"], spans) else {
            self.assume_done(None);
            return;
        };
        let caller = Caller { dialect: scope.dialect, architecture: scope.architecture, origin, spans: spans.clone() };
        self.recipe(&path, Arc::clone(&source), variables, Some(&caller));
    }

    fn variables(&mut self, scope: &Scope, given: &Value, spans: &Spans) -> Option<BTreeMap<String, String>> {
        let mut variables = BTreeMap::new();
        let mut whole = true;
        for (name, value) in given.as_object().into_iter().flatten() {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                Value::Null => String::new(),
                Value::Array(_) | Value::Object(_) => {
                    if let Some(span) = spans.value(&format!("variables.{name}")) {
                        let origin = Origin { span, included_from: spans.included_from.clone() };
                        let diagnostic =
                            origin.error(format!("the variable `{name}` must be text, a number or a truth value"));
                        self.push(
                            scope,
                            diagnostic.hint("give a list as text and take it apart there: `packages | split(\" \")`"),
                        );
                    }
                    whole = false;
                    continue;
                }
            };
            variables.insert(name.clone(), text);
        }
        let architecture = || scope.architecture_or_any().name().to_owned();
        variables.entry("architecture".to_owned()).or_insert_with(architecture);
        whole.then_some(variables)
    }
}
