//! The action `mmdebstrap`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Make the root filesystem as mmdebstrap does.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mmdebstrap {
    /// Suite to install: trixie, bookworm, sid, …
    pub suite: String,
    /// Mirrors (URIs, or whole lines of sources.list) to install from; the one the host's own sources name where there is none.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// extract, custom, essential, apt, minbase, required, buildd, important, debootstrap, standard or `-`.
    #[serde(default)]
    pub variant: Option<String>,
    /// Parts of the archive.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// Packages that hold the archives' keys, installed with the rest.
    #[serde(default)]
    pub keyring_packages: Vec<String>,
    /// Keyrings that Release files are verified with, relative to the recipe.
    #[serde(default)]
    pub keyring_files: Vec<String>,
    /// Whether /bin, /sbin and /lib are links into /usr; the suite's own way where it is left out.
    #[serde(default)]
    pub merged_usr: Option<bool>,
    /// Further packages to install.
    #[serde(default)]
    pub include: Vec<String>,
    /// Options for dpkg, one a line of its configuration.
    #[serde(default)]
    pub dpkg_opts: Vec<String>,
    /// Options for apt, one a line of its configuration.
    #[serde(default)]
    pub apt_opts: Vec<String>,
    /// Moment of Debian's snapshot archive to install from: `20260901T000000Z`.
    #[serde(default)]
    pub snapshot: Option<String>,
}

fn main_component() -> Vec<String> {
    vec!["main".into()]
}

impl Action for Mmdebstrap {
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
        bail!("`mmdebstrap` is not there yet")
    }
}
