//! The action `apt`.

use std::path::Path;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::apt::repository::{self, Repository};
use crate::build::apt::{self, Options, Pin};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;

/// Install packages with apt.
///
/// ```yaml
/// - action: apt
///   packages: [systemd-sysv, openssh-server]
/// ```
///
/// apt itself runs on the host, so that a foreign architecture is emulated for the packages' scripts
/// only. Package lists and downloads stay in debforge's store: none of them is left in the root.
/// Packages that are only recommended are left out unless `recommends` is set.
///
/// The repositories are those that the root is set up for, and those under `repositories`, as they
/// were when the build was planned; when one of them has changed, the step runs again. Without
/// `signed-by` a repository must be signed with the keys that the root trusts, or with those of
/// Debian's archive that are in the root. Keys of the machine that builds verify nothing.
///
/// ```yaml
/// - action: apt
///   packages: [linux-image-amd64/trixie-backports, vendor-tool]
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
///
/// A repository stays in the root as /etc/apt/sources.list.d/NAME.sources, unless it has `keep: false`.
/// Passwords come from the environment of debforge or from a file; they reach neither the root nor the
/// plan nor a log.
///
/// SSH host keys that openssh-server makes when it is installed are removed again, since all systems
/// made from the root would share them; a unit makes new ones when a system starts first. The same
/// goes for /etc/machine-id.
///
/// Packages' scripts start nothing: invoke-rc.d(8) is told so by a policy-rc.d, start-stop-daemon(8) does nothing, and
/// what a script starts by itself ends with the step. They have the environment that every step has.
///
/// What apt's configuration in the root says of fetching holds for debforge, which does it in apt's place:
/// `Acquire::Check-Valid-Until`, `Acquire::By-Hash`, proxies (before those of the environment and of this machine's apt),
/// and the logins of /etc/apt/auth.conf.d. What cannot be met is an error; what has no effect is said.
///
/// **Compared with debos**: nothing is downloaded twice; `repositories`, `preferences` and `network: false` are new; no
/// service is started; versions, suites and patterns are taken as on apt's command line.
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
    #[serde(default = "super::defaults::yes")]
    pub update: bool,
    /// Whether the packages' scripts have the network, with the name servers of this machine; else they have a loopback
    /// of their own. What one of them downloads is not noticed when it changes.
    #[serde(default = "super::defaults::yes")]
    pub network: bool,
    /// Repositories to add.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    /// Pins, as in apt_preferences(5). They stay in the root, as /etc/apt/preferences.d/debforge.
    #[serde(default)]
    pub preferences: Vec<Pin>,
}

impl Apt {
    fn options(&self, recipe_dir: &Path) -> Result<Options> {
        let access = repository::access(&self.repositories, recipe_dir)?;
        let Self { recommends, unauthenticated, network, .. } = *self;
        Ok(Options { recommends, unauthenticated, access, network, ..Options::default() })
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
        apt::check_root(cx, out);
    }

    fn nature(&self) -> Nature {
        Nature {
            // 3: nothing of packages is left in /run and /tmp. 4: scripts have the network, and start no daemon. 5: copies of
            // this machine's name servers go.
            version: 5,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::REPOSITORIES,
            needs: Needs { tools: apt::TOOLS.into(), network: true, emulation: true },
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn release_after(&self, before: Option<String>) -> Option<String> {
        before.filter(|_| self.repositories.is_empty())
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
        let access = repository::access(&self.repositories, cx.recipe_dir)?;
        let own = repository::sources(&self.repositories, cx.recipe_dir)?;
        apt::add_inputs(cx, own, access, self.unauthenticated)
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
