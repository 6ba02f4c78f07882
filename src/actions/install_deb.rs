//! The action `install-deb`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Install .deb files.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct InstallDeb {
    /// Files or globs below the origin; left out where the origin is a single file.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Where the files are: recipe, artifacts, filesystem, or the name of a download.
    #[serde(default = "recipe_origin")]
    pub origin: String,
    /// Whether recommended packages are installed too.
    #[serde(default)]
    pub recommends: bool,
    /// Whether packages of unsigned repositories may be installed.
    #[serde(default)]
    pub unauthenticated: bool,
    /// Whether the package lists are brought up to date first.
    #[serde(default = "yes")]
    pub update: bool,
}

fn yes() -> bool {
    true
}

fn recipe_origin() -> String {
    "recipe".into()
}

impl Action for InstallDeb {
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
        bail!("`install-deb` is not there yet")
    }
}
