//! The action `unpack`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Unpack an archive into the root.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Unpack {
    /// Archive below the origin; left out where the origin is a single file.
    #[serde(default)]
    pub file: Option<String>,
    /// Where it is: artifacts, recipe, or the name of a download.
    #[serde(default)]
    pub origin: Option<String>,
    /// Where its files go in the root.
    #[serde(default = "slash")]
    pub destdir: String,
    /// bzip2, gz, lzip, lzma, lzop, xz, zstd or none; found out where it is left out.
    #[serde(default)]
    pub compression: Option<String>,
}

fn slash() -> String {
    "/".into()
}

impl Action for Unpack {
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
        bail!("`unpack` is not there yet")
    }
}
