//! The action `pacstrap`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mmdebstrap::check_file;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::files::RootFiles;
use crate::build::inside::Inside;
use crate::build::pacman::{self, Config, MIRROR_LIST, Session, architecture_name};
use crate::build::{BuildContext, CheckContext, InputContext, LOGIN_FILE};
use crate::debian::Architecture;
use crate::diagnostics::Diagnostics;

/// Make the root filesystem of Arch Linux, or of a system like it, as pacstrap does.
///
/// ```yaml
/// - action: pacstrap
///   config: pacman.conf
///   mirror: mirrorlist
///   packages: [base, linux, openssh]
/// ```
///
/// The host's pacman (package pacman-package-manager) does the work; its scripts and hooks run in the new
/// root. `config` is a pacman.conf(5), which says what repositories there are and which signatures they
/// need; where it includes /etc/pacman.d/mirrorlist, that is `mirror`, which stays in the root. Signatures are
/// verified with the keys that the host has (package archlinux-keyring).
///
/// The step depends on both files, on the keys, and on the databases of the repositories as they were when the
/// build was planned; when one of them has changed, it runs again. Packages come through debforge's store,
/// each checked against the digest in the database. The databases stay in the root, for a later `pacman`.
///
/// **Compared with pacstrap**: nothing is left in the root that would tell one machine from another. There are
/// no packages, logs and host's keyring; packages are dated by the build; where the root has systemd, a unit
/// makes the keyring, which has a secret key in it, when the system starts first.
///
/// **Compared with debos**: no machine is needed, nor being root; packages are kept.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pacstrap {
    /// Configuration of pacman, relative to the recipe.
    pub config: String,
    /// List of mirrors, relative to the recipe.
    pub mirror: String,
    /// Packages and groups to install.
    #[serde(default = "base")]
    pub packages: Vec<String>,
}

fn base() -> Vec<String> {
    vec!["base".into()]
}

/// Directories that stand in a root before its first package, with their modes.
const DIRECTORIES: [(&str, u32); 10] = [
    ("/var/cache/pacman/pkg", 0o755),
    ("/var/lib/pacman/sync", 0o755),
    ("/var/lib/pacman/local", 0o755),
    ("/var/log", 0o755),
    ("/dev", 0o755),
    ("/run", 0o755),
    ("/etc/pacman.d", 0o755),
    ("/tmp", 0o1777),
    ("/sys", 0o555),
    ("/proc", 0o555),
];

impl Pacstrap {
    fn parse(config: &str, mirror: &str) -> Result<Config> {
        Config::parse(config, &mut |path| {
            if path != MIRROR_LIST {
                bail!("only {MIRROR_LIST} can be included, which is the recipe's `mirror`");
            }
            Ok(vec![mirror.to_owned()])
        })
    }

    fn read(&self, recipe_dir: &Path) -> Result<Config> {
        let read = |file: &str| {
            let path = recipe_dir.join(file);
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Self::parse(&read(&self.config)?, &read(&self.mirror)?).with_context(|| format!("reading {}", self.config))
    }

    /// Packages; pacstrap takes `base` where there are none.
    fn packages(&self) -> Vec<String> {
        if self.packages.is_empty() { base() } else { self.packages.clone() }
    }

    fn check_config(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        let text = |file: &str| cx.files.text(&cx.recipe_dir.join(file));
        let (Some(config), Some(mirror)) = (text(&self.config), text(&self.mirror)) else { return };
        let config = match Self::parse(&config, &mirror) {
            Ok(config) => config,
            Err(error) => {
                out.push(cx.error("config", format!("`{}` cannot be read: {error:#}", self.config)));
                return;
            }
        };
        if config.repositories.is_empty() {
            out.push(cx.error("config", format!("`{}` has no repository", self.config)));
        }
        for server in config.repositories.iter().flat_map(|repository| &repository.servers) {
            cx.refuse_login("mirror", server, LOGIN_FILE, out);
        }
        for repository in config.repositories.iter().filter(|repository| repository.servers.is_empty()) {
            let diagnostic = cx.error("config", format!("the repository `{}` has no server", repository.name));
            out.push(diagnostic.hint("`Server = https://…`, or `Include = /etc/pacman.d/mirrorlist`"));
        }
        if let Some(name) = architecture_name(cx.architecture)
            && !config.architectures.is_empty()
            && !config.architectures.iter().any(|architecture| architecture == name)
        {
            let named = config.architectures.join(", ");
            out.push(
                cx.error("config", format!("the recipe is for {}, `{}` for {named}", cx.architecture, self.config))
                    .hint(format!("`Architecture = auto`, or `{name}`")),
            );
        }
    }
}

/// The name that pacman has for what is built.
pub(super) fn own_name(architecture: Architecture) -> Result<&'static str> {
    architecture_name(architecture).with_context(|| format!("there is no Arch Linux for {architecture}"))
}

/// Reports architectures that pacman's systems do not have.
pub(super) fn check_architecture(cx: &CheckContext<'_>, out: &mut Diagnostics) {
    if architecture_name(cx.architecture).is_none() {
        out.push(cx.error("", format!("there is no Arch Linux for {}", cx.architecture)));
    }
}

/// Reports what pacman would take for an option, or for nothing.
pub(super) fn check_packages(packages: &[String], cx: &CheckContext<'_>, out: &mut Diagnostics) {
    for (index, package) in packages.iter().enumerate() {
        if package.is_empty() || package.starts_with('-') || package.contains(char::is_whitespace) {
            out.push(cx.error(&format!("packages[{index}]"), format!("`{package}` is no package")));
        }
    }
}

impl Action for Pacstrap {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_file("config", &self.config, cx, out);
        check_file("mirror", &self.mirror, cx, out);
        self.check_config(cx, out);
        check_architecture(cx, out);
        check_packages(&self.packages, cx, out);
        if cx.has_root {
            out.push(cx.error("", "an earlier action has made the root already").hint("a recipe has one bootstrap"));
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::NOTHING,
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
        match self.packages().as_slice() {
            few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
            many => format!("{} packages", many.len()),
        }
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        for file in [&self.config, &self.mirror] {
            let path = cx.recipe_dir.join(file);
            cx.add_tree(file, &path)?;
        }
        pacman::add_inputs(cx);
        Session::add_databases(cx, &self.read(cx.recipe_dir)?, own_name(cx.architecture)?)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let inside = Inside::open(cx.root)?;
        for (path, mode) in DIRECTORIES {
            inside.create_dir_all(Path::new(path))?;
            inside.slot(Path::new(path))?.set_mode(mode)?;
        }
        let mirror = std::fs::read(cx.recipe_dir.join(&self.mirror)).context("reading the list of mirrors")?;
        let files = RootFiles::open(cx.root)?;
        let detail = {
            let mut session = Session::open(cx, self.read(cx.recipe_dir)?, own_name(cx.architecture)?)?;
            session.place_databases()?;
            session.install("-S", &self.packages())?
        };
        files.write(MIRROR_LIST, mirror)?;
        cx.detail = detail;
        Ok(())
    }
}
