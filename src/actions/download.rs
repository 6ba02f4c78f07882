//! The action `download`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Download a file.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Download {
    /// http or https address.
    pub url: String,
    /// What other actions call it as their origin.
    pub name: String,
    /// Name of the file; the address's last part where it is left out.
    #[serde(default)]
    pub filename: Option<String>,
    /// Whether it is an archive to unpack.
    #[serde(default)]
    pub unpack: bool,
    /// Compression of the archive; found out where it is left out.
    #[serde(default)]
    pub compression: Option<String>,
    /// Digest that the file must have.
    #[serde(default)]
    pub sha256sum: Option<String>,
    /// Digest that the file must have.
    #[serde(default)]
    pub sha512sum: Option<String>,
}

impl Action for Download {
    fn check(&self, _cx: &CheckContext<'_>, _out: &mut Diagnostics) {}

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn changes(&self) -> Changes {
        Changes { origin: true, ..Changes::default() }
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn inputs(&self, _cx: &mut InputContext<'_>) -> Result<()> {
        Ok(())
    }

    fn run(&self, _cx: &mut BuildContext<'_>) -> Result<()> {
        bail!("`download` is not there yet")
    }
}
