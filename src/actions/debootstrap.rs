//! The action `debootstrap`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Make the root filesystem with debootstrap.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Debootstrap {
    /// Suite to install: trixie, bookworm, sid, …
    pub suite: String,
    /// Mirror to install from; the one the host's own sources name where it is left out.
    #[serde(default)]
    pub mirror: Option<String>,
    /// minbase, buildd or fakechroot; debootstrap's own default where it is left out.
    #[serde(default)]
    pub variant: Option<String>,
    /// Parts of the archive.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// Package that holds the archive's keys, installed with the rest.
    #[serde(default)]
    pub keyring_package: Option<String>,
    /// Keyring that the Release file is verified with, relative to the recipe.
    #[serde(default)]
    pub keyring_file: Option<String>,
    /// Client certificate for the mirror, relative to the recipe.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Key of the client certificate, relative to the recipe.
    #[serde(default)]
    pub private_key: Option<String>,
    /// Whether signatures are verified.
    #[serde(default = "yes")]
    pub check_gpg: bool,
    /// Whether /bin, /sbin and /lib are links into /usr.
    #[serde(default = "yes")]
    pub merged_usr: bool,
    /// Moment of Debian's snapshot archive to install from: `20260901T000000Z`.
    #[serde(default)]
    pub snapshot: Option<String>,
}

fn yes() -> bool {
    true
}

fn main_component() -> Vec<String> {
    vec!["main".into()]
}

impl Action for Debootstrap {
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
        bail!("`debootstrap` is not there yet")
    }
}
