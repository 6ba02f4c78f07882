//! The action `pacman`.

use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pacstrap::{check_architecture, check_packages, own_name};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::files::RootFiles;
use crate::build::pacman::{self, Config, Session};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, Fault};

/// Install packages with pacman, and bring those of the root up to date.
///
/// ```yaml
/// - action: pacman
///   packages: [procps-ng, openssh]
/// ```
///
/// The host's pacman does what `pacman -Su PACKAGES` would do in the root, with the root's own
/// /etc/pacman.conf. The states of the repositories are those that `pacstrap` left in the root, so that all
/// packages of a build fit together; where the root has none, they are asked for when the build is planned, or when
/// the root is there to say which they are.
///
/// As after `pacstrap`, no packages and logs are left in the root, and no keyring.
///
/// **Compared with debos**: the program pacman is not needed in the root; packages are kept.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pacman {
    /// Packages and groups to install; where there are none, the root is only brought up to date.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// Where the root says what its repositories are.
const CONFIGURATION: &str = "/etc/pacman.conf";

impl Pacman {
    /// The root's configuration.
    fn read(root: &Path) -> Result<Config> {
        let files = RootFiles::open(root)?;
        let Some(text) = files.text(CONFIGURATION)? else {
            return Err(Fault::failed(format!("the root has no {CONFIGURATION}"))
                .hint("`pacstrap` with the package `pacman` (part of `base`) makes one that has")
                .into());
        };
        let include = &mut |path: &str| -> Result<Vec<String>> {
            let (directory, pattern) = path.rsplit_once('/').unwrap_or(("", path));
            if !pattern.contains(['*', '?', '[']) {
                return Ok(vec![files.text(path)?.with_context(|| format!("the root has no {path}"))?]);
            }
            let pattern = glob::Pattern::new(pattern).with_context(|| format!("`{path}` is no pattern"))?;
            let names = files.names(directory)?.into_iter().filter(|name| pattern.matches(name));
            names.filter_map(|name| files.text(&format!("{directory}/{name}")).transpose()).collect()
        };
        Config::parse(&text, include).with_context(|| format!("reading the root's {CONFIGURATION}"))
    }
}

/// The repositories of a root of which it has no database, as one configuration; empty where there are none.
pub fn without_databases(root: &Path) -> Result<String> {
    let files = RootFiles::open(root)?;
    if !files.has(CONFIGURATION) {
        return Ok(String::new());
    }
    let mut config = Pacman::read(root)?;
    config.repositories.retain(|repository| !pacman::has_database(&files, repository));
    Ok(if config.repositories.is_empty() { String::new() } else { config.text("auto") })
}

impl Action for Pacman {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_architecture(cx, out);
        check_packages(&self.packages, cx, out);
        if !cx.has_root {
            out.push(
                cx.error("", "there is no root to install packages into")
                    .hint("put a `pacstrap` or an `unpack` before"),
            );
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 2,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::REPOSITORIES,
            needs: Needs { tools: pacman::TOOLS.into(), network: true, emulation: true },
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

    fn summary(&self) -> String {
        match self.packages.as_slice() {
            [] => "all up to date".to_owned(),
            few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
            many => format!("{} packages", many.len()),
        }
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        pacman::add_inputs(cx);
        let text = cx.pacman.context("what the root's repositories are was asked before the root was there")?;
        let config = Config::parse(text, &mut |_| Ok(Vec::new())).context("reading the root's repositories")?;
        Session::add_states(cx, &config, own_name(cx.architecture)?)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let mut session = Session::open(cx, Self::read(cx.root)?, own_name(cx.architecture)?)?;
        session.place_databases()?;
        let detail = session.install("-Su", &self.packages)?;
        drop(session);
        cx.detail = detail;
        Ok(())
    }
}
