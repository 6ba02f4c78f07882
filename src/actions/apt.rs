//! The action `apt`.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Install packages with apt.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Apt {
    /// Packages to install, as on apt's command line.
    pub packages: Vec<String>,
    /// Whether recommended packages are installed too.
    #[serde(default)]
    pub recommends: bool,
    /// Whether packages of unsigned repositories may be installed.
    #[serde(default)]
    pub unauthenticated: bool,
    /// Whether the package lists are brought up to date first.
    #[serde(default = "yes")]
    pub update: bool,
    /// Repositories to add.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    /// Pins, as in apt_preferences(5).
    #[serde(default)]
    pub preferences: Vec<Pin>,
}

/// A repository, in the terms of sources.list(5)'s deb822 format.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Repository {
    /// Its file in /etc/apt/sources.list.d is NAME.sources.
    pub name: String,
    /// Base addresses.
    pub uris: Vec<String>,
    /// Suites, or exact paths ending in `/`.
    pub suites: Vec<String>,
    /// Parts of the archive.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
    /// Keyring the repository is signed with, relative to the recipe; it becomes /etc/apt/keyrings/NAME.asc or .gpg.
    #[serde(default)]
    pub signed_by: Option<String>,
    /// Whether the finished root keeps the repository.
    #[serde(default = "yes")]
    pub keep: bool,
    /// How to log in.
    #[serde(default)]
    pub credentials: Option<Credentials>,
}

/// A login whose secret never reaches the image, the plan or a log.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Credentials {
    /// User name.
    pub login: String,
    /// Environment variable of debforge that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// File that holds the password, relative to the recipe.
    #[serde(default)]
    pub password_file: Option<String>,
}

/// A pin, as in apt_preferences(5).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pin {
    /// Packages it is about.
    pub package: String,
    /// `release n=trixie-backports`, `version 1.2*`, `origin HOST`.
    pub pin: String,
    /// 1 to 1000 and beyond, or negative to forbid.
    pub priority: i32,
}

fn yes() -> bool {
    true
}

fn main_component() -> Vec<String> {
    vec!["main".into()]
}

impl Action for Apt {
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
        bail!("`apt` is not there yet")
    }
}
