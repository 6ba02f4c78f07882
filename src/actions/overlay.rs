//! The action `overlay`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Copy files into the target root.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Overlay {
    /// File or directory below the origin; the origin itself where it is left out.
    #[serde(default)]
    pub source: Option<String>,
    /// Where the files are: recipe, artifacts, filesystem, or the name of a download.
    #[serde(default = "recipe_origin")]
    pub origin: String,
    /// Where they go in the root.
    #[serde(default = "slash")]
    pub destination: String,
    /// Owner (name in the root, or number).
    #[serde(default)]
    pub owner: Option<String>,
    /// Group (name in the root, or number).
    #[serde(default)]
    pub group: Option<String>,
    /// Mode of the files: `0644`, or symbolic as chmod takes it.
    #[serde(default)]
    pub mode: Option<String>,
    /// Whether the files are Jinja templates, rendered with the recipe's variables.
    #[serde(default)]
    pub render: bool,
}

fn recipe_origin() -> String {
    "recipe".into()
}

fn slash() -> String {
    "/".into()
}

impl Action for Overlay {
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
        bail!("`overlay` is not there yet")
    }
}
