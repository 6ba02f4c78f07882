//! The action `run`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Run a command or a script.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Run {
    /// Command line for `sh -e -u -c`.
    #[serde(default)]
    pub command: Option<String>,
    /// Script beside the recipe, with arguments.
    #[serde(default)]
    pub script: Option<String>,
    /// Whether it runs in the target root.
    #[serde(default)]
    pub chroot: bool,
    /// Whether it runs on the host when everything else is done.
    #[serde(default)]
    pub postprocess: bool,
    /// Shown in front of its output, at most 40 characters.
    #[serde(default)]
    pub label: Option<String>,
    /// Further environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Whether it has the network.
    #[serde(default = "yes")]
    pub network: bool,
}

fn yes() -> bool {
    true
}

impl Action for Run {
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
        bail!("`run` is not there yet")
    }
}
