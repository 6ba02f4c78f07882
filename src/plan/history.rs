//! What the steps of a recipe were made from last time: the reason why one is run again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fresh, PlanStep};
use crate::build::Input;
use crate::debian::Architecture;
use crate::diagnostics::redacted;
use crate::store::{EntryId, Store};

/// The steps of a recipe's last build.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    steps: Vec<HistoryStep>,
}

/// A step of a recipe's last build.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub struct HistoryStep {
    pub action: String,
    pub properties: BTreeMap<String, String>,
    pub inputs: Vec<Input>,
    pub id: EntryId,
}

impl History {
    /// What is remembered of a recipe; nothing where it was never built here.
    pub fn recall(store: &Store, recipe: &Path, architecture: Architecture) -> Self {
        store
            .recall(&key(recipe, architecture))
            .and_then(|value| serde_json::from_value(value).ok())
            .unwrap_or_default()
    }

    /// Keeps the steps that a build has just finished; of those that it did not come to, what was
    /// remembered of the build before.
    pub fn remember(store: &Store, recipe: &Path, architecture: Architecture, finished: &[PlanStep]) {
        let before = Self::recall(store, recipe, architecture);
        let steps = finished.iter().map_while(|step| {
            Some(HistoryStep {
                action: step.action.clone(),
                properties: properties(step),
                inputs: inputs(step),
                id: step.id.clone()?,
            })
        });
        let mut steps: Vec<HistoryStep> = steps.collect();
        steps.extend(before.steps.into_iter().skip(steps.len()));
        if let Ok(value) = serde_json::to_value(Self { steps }) {
            store.remember(&key(recipe, architecture), &value);
        }
    }

    /// Why a step has to be run.
    pub(super) fn reason(&self, step: &PlanStep, fresh: Option<&Fresh>, previous: Option<&PlanStep>) -> String {
        if step.action().is_ok_and(|action| action.changes().outside) {
            return "done in every build".into();
        }
        if fresh.is_some_and(|fresh| step.number >= fresh.from) {
            return "asked for".into();
        }
        if let Some(last) = self.steps.get(step.number - 1)
            && last.action == step.action
        {
            if let Some(property) = changed_property(&last.properties, &properties(step)) {
                return format!("`{property}` changed");
            }
            if step.id.is_some()
                && let Some(input) = changed_input(&last.inputs, &inputs(step))
            {
                return input;
            }
            if step.id.as_ref() == Some(&last.id) {
                return "not in the store".into();
            }
        } else if !self.steps.is_empty() && previous.is_none_or(|previous| previous.hit) {
            return "new step".into();
        }
        match previous {
            Some(previous) if !previous.hit => format!("follows step {}", previous.number),
            _ => "first build".into(),
        }
    }
}

fn key(recipe: &Path, architecture: Architecture) -> String {
    let path = recipe.canonicalize().unwrap_or_else(|_| recipe.to_owned());
    format!("recipe-{architecture}-{}", blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex())
}

/// By its name a digest of each property: what it says may be a secret.
fn properties(step: &PlanStep) -> BTreeMap<String, String> {
    let digest = |value: &Value| blake3::hash(value.to_string().as_bytes()).to_hex()[..32].to_owned();
    let all = step.properties.as_object().into_iter().flatten();
    all.map(|(name, value)| (name.clone(), digest(value))).collect()
}

fn inputs(step: &PlanStep) -> Vec<Input> {
    let shown = |input: &Input| Input { what: redacted(&input.what), state: input.state.clone() };
    step.inputs.iter().map(shown).collect()
}

fn changed_property(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<String> {
    now.keys().chain(before.keys()).find(|name| before.get(*name) != now.get(*name)).cloned()
}

fn changed_input(before: &[Input], now: &[Input]) -> Option<String> {
    let state = |inputs: &[Input], what: &str| inputs.iter().find(|i| i.what == what).map(|i| i.state.clone());
    let changed = |input: &&Input| state(before, &input.what).is_some_and(|state| state != input.state);
    let name = |what: &str| what.strip_prefix("file ").unwrap_or(what).to_owned();
    let changes: Vec<String> = now.iter().filter(changed).map(|i| format!("{} changed", name(&i.what))).collect();
    let added = now.iter().filter(|i| state(before, &i.what).is_none()).map(|i| format!("{} is new", name(&i.what)));
    let gone = before.iter().filter(|i| state(now, &i.what).is_none()).map(|i| format!("{} is gone", name(&i.what)));
    let mut all = changes.into_iter().chain(added).chain(gone);
    let first = all.next()?;
    Some(match all.count() {
        0 => first,
        more => format!("{first}, and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(what: &str, state: &str) -> Input {
        Input { what: what.into(), state: state.into() }
    }

    #[test]
    fn names_the_input_that_changed() {
        let before = [input("file ssh/sshd_config", "1"), input("tool apt", "2.6")];
        let now = [input("file ssh/sshd_config", "2"), input("tool apt", "2.6")];
        assert_eq!(changed_input(&before, &now).as_deref(), Some("ssh/sshd_config changed"));
        assert_eq!(changed_input(&before, &before), None);
        assert_eq!(changed_input(&before, &before[..1]).as_deref(), Some("tool apt is gone"));
    }
}
