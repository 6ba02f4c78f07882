//! The action `pack`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Pack the root into a tar archive.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pack {
    /// Name of the archive in the artifact directory.
    pub file: String,
    /// gz, bzip2, xz, zstd, …, `auto` by the name's ending, or `none`.
    #[serde(default = "gz")]
    pub compression: String,
    /// Part of the root to pack.
    #[serde(default)]
    pub subdir: Option<String>,
}

fn gz() -> String {
    "gz".into()
}

impl Action for Pack {
    fn check(&self, _cx: &CheckContext<'_>, _out: &mut Diagnostics) {}

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn changes(&self) -> Changes {
        Changes { artifacts: true, ..Changes::default() }
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn inputs(&self, _cx: &mut InputContext<'_>) -> Result<()> {
        Ok(())
    }

    fn run(&self, _cx: &mut BuildContext<'_>) -> Result<()> {
        bail!("`pack` is not there yet")
    }
}
