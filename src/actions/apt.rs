//! The action `apt`.

use std::path::Path;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::apt::repository::{self, Repository};
use crate::build::apt::{self, Options, Pin};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Install packages with apt.
///
/// apt itself runs on the host, so that a foreign architecture is emulated for the packages' scripts
/// only. Package lists and downloads stay in debforge's store: none of them is left in the root.
///
/// The repositories are those that the root is set up for, and those under `repositories`, as they
/// were when the build was planned. Without `signed-by` a repository must be signed with the keys
/// that the root trusts, or with those of Debian's archive.
///
/// SSH host keys that openssh-server makes when it is installed are removed again, since all systems
/// made from the root would share them; a unit makes new ones when a system starts first.
///
/// ```yaml
/// - action: apt
///   packages: [systemd-sysv, openssh-server, linux-image-amd64/trixie-backports]
///   repositories:
///     - name: backports
///       uris: [https://mirror.example/debian]
///       suites: [trixie-backports]
///     - name: vendor
///       uris: [https://packages.vendor.example/apt]
///       suites: [stable]
///       components: [main, tools]
///       signed-by: keys/vendor.asc
///       credentials: {login: me, password-env: VENDOR_PASSWORD}
///   preferences:
///     - {package: "*", pin: release n=trixie-backports, priority: 100}
/// ```
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Apt {
    /// Packages to install, as on apt's command line: `NAME`, `NAME=VERSION`, `NAME/SUITE`, `NAME:ARCHITECTURE`,
    /// `NAME-` to remove one, or patterns as in apt-patterns(7).
    #[serde(default)]
    pub packages: Vec<String>,
    /// Whether recommended packages are installed too.
    #[serde(default)]
    pub recommends: bool,
    /// Whether packages of repositories may be installed that are not signed, or not with a known key.
    #[serde(default)]
    pub unauthenticated: bool,
    /// Whether the package lists are brought up to date first. Within one build every repository is
    /// asked once in any case.
    #[serde(default = "yes")]
    pub update: bool,
    /// Repositories to add.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    /// Pins, as in apt_preferences(5). They stay in the root, as /etc/apt/preferences.d/debforge.
    #[serde(default)]
    pub preferences: Vec<Pin>,
}

fn yes() -> bool {
    true
}

impl Apt {
    fn options(&self, recipe_dir: &Path) -> Result<Options> {
        let logins = repository::logins(&self.repositories, recipe_dir)?;
        Ok(Options { recommends: self.recommends, logins, ..Options::default() })
    }
}

impl Action for Apt {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if self.packages.is_empty() && self.repositories.is_empty() && self.preferences.is_empty() {
            out.push(cx.error("packages", "there is nothing to install").hint("list `packages`"));
        }
        for (index, package) in self.packages.iter().enumerate() {
            if let Err(why) = apt::check_package(package) {
                out.push(cx.error(&format!("packages[{index}]"), format!("`{package}` is no package: {why}")));
            }
        }
        repository::check(&self.repositories, cx, out);
        for (index, pin) in self.preferences.iter().enumerate() {
            pin.check(&format!("preferences[{index}]"), cx, out);
        }
        if !cx.has_root {
            out.push(
                cx.error("", "there is no root to install packages into")
                    .hint("put a bootstrap (mmdebstrap, debootstrap) or an `unpack` before"),
            );
        }
    }

    fn needs(&self) -> Needs {
        Needs { tools: vec![("apt-get", "apt"), ("dpkg", "dpkg"), ("gpgv", "gpgv")], network: true, emulation: true }
    }

    fn changes(&self) -> Changes {
        Changes { root: true, ..Changes::default() }
    }

    fn summary(&self) -> String {
        match self.packages.as_slice() {
            [] => self.repositories.iter().map(|repository| repository.name.as_str()).collect::<Vec<_>>().join(", "),
            few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
            many => format!("{} packages", many.len()),
        }
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        for repository in &self.repositories {
            if let Some(key) = &repository.signed_by {
                let path = cx.recipe_dir.join(key);
                cx.add_tree(key, &path)?;
            }
        }
        let logins = repository::logins(&self.repositories, cx.recipe_dir)?;
        let own = repository::sources(&self.repositories, cx.recipe_dir)?;
        apt::add_inputs(cx, own, logins, self.unauthenticated)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let own = repository::sources(&self.repositories, cx.recipe_dir)?;
        let options = self.options(cx.recipe_dir)?;
        apt::write_preferences(cx.root, &self.preferences)?;
        repository::write(&self.repositories, cx)?;
        if self.packages.is_empty() {
            return Ok(());
        }
        let mut args = vec!["install".to_owned(), "--".to_owned()];
        args.extend(self.packages.iter().cloned());
        cx.detail = apt::install(cx, own, options, &args, &[])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_parses() {
        let source = include_str!("apt.rs");
        let example: String = source
            .lines()
            .skip_while(|line| !line.starts_with("/// ```yaml"))
            .skip(1)
            .take_while(|line| !line.starts_with("/// ```"))
            .map(|line| line.trim_start_matches("/// ").trim_start_matches("///").to_owned() + "\n")
            .collect();
        let mut actions: Vec<serde_json::Map<String, serde_json::Value>> = serde_yaml::from_str(&example).unwrap();
        let mut first = actions.remove(0);
        assert_eq!(first.remove("action"), Some("apt".into()));
        let apt: Apt = serde_json::from_value(first.into()).unwrap();
        assert_eq!(apt.repositories.len(), 2);
    }
}
