//! The action `recipe`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Run the actions of another recipe.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecipeAction {
    /// Recipe relative to this one.
    pub recipe: String,
    /// Variables that it gets, beside `architecture`.
    #[serde(default)]
    pub variables: BTreeMap<String, serde_json::Value>,
}

impl Action for RecipeAction {
    fn check(&self, _cx: &CheckContext<'_>, _out: &mut Diagnostics) {}

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn changes(&self) -> Changes {
        Changes { root: true, ..Changes::default() }
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn inputs(&self, _cx: &mut InputContext<'_>) -> Result<()> {
        Ok(())
    }

    fn run(&self, _cx: &mut BuildContext<'_>) -> Result<()> {
        bail!("`recipe` is not there yet")
    }
}
