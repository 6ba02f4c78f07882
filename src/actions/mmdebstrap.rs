//! The action `mmdebstrap`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::apt::{Access, Settings, Trust, add_repositories};
use crate::build::bootstrap::{Bootstrap, Filters, Skeleton, VARIANTS, Variant};
use crate::build::{BuildContext, CheckContext, FileKind, InputContext, LOGIN_FILE};
use crate::debian::snapshot::Stamp;
use crate::debian::sources::{Sources, check_address};
use crate::debian::{Architecture, apt_conf, host};
use crate::diagnostics::Diagnostics;

/// Make the root filesystem as mmdebstrap does.
///
/// ```yaml
/// - action: mmdebstrap
///   suite: trixie
///   variant: minbase
///   include: [systemd-sysv, udev]
/// ```
///
/// The result is what the command `mmdebstrap` with the same arguments leaves, in a fraction of its
/// time: apt chooses the packages, they are downloaded and unpacked side by side, and only their
/// maintainer scripts run in the new root. The program mmdebstrap is not needed. It must be the first
/// action that makes a root.
///
/// Where no mirror is named, packages come from the one that this machine's own sources name (else
/// from the one that debootstrap or mmdebstrap would take), with the suite's updates and security
/// updates. The root's /etc/apt/sources.list has the same lines. Other mirrors, with a keyring of
/// their own:
///
/// ```yaml
/// - action: mmdebstrap
///   suite: trixie
///   mirrors:
///     - https://mirror.example/debian
///     - deb https://mirror.example/debian-security trixie-security main
///   components: [main, non-free-firmware]
///   keyring-files: [keys/archive.gpg]
///   dpkg-opts: [path-exclude=/usr/share/man/*]
/// ```
///
/// The step depends on the Release files of these suites: it runs again when one of them has changed,
/// and `snapshot` keeps them as they were at one moment.
///
/// Packages' scripts start nothing, as with the command, and have the environment that every step has. `apt-opts` hold for
/// debforge, which fetches in apt's place, as far as they are about that; what cannot be met is an error.
///
/// **Compared with the command**: nothing is left in the root that would tell one machine from
/// another. There is no /etc/resolv.conf, /etc/hostname says `localhost`, /etc/machine-id asks for a
/// new one at the first boot, and /dev has no device nodes; caches, package lists and logs are gone.
/// Hooks and modes have no counterpart: what a hook would do is an action of its own.
///
/// **Compared with debos**: the work is done by debforge itself; packages stay in its store, so no
/// second build downloads them; `architectures`, `check-valid-until`, `network` and `snapshot` are new.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mmdebstrap {
    /// Suite to install: trixie, bookworm, sid, …
    pub suite: String,
    /// Mirrors (URIs, or whole lines of sources.list) to install from; where there is none, the one that the
    /// host's own sources name, with the suite's updates and security updates.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// extract, custom, essential, apt, minbase (or required), buildd, important (or debootstrap, `-`), standard;
    /// important where it is left out.
    #[serde(default)]
    pub variant: Option<String>,
    /// Parts of the archive.
    #[serde(default = "super::defaults::main_component")]
    pub components: Vec<String>,
    /// Architectures whose packages the root takes: that of the recipe, then others, as `dpkg --add-architecture` adds
    /// them. `include` can have such packages then, as `libc6:i386`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Packages that hold the archives' keys, installed with the rest.
    #[serde(default)]
    pub keyring_packages: Vec<String>,
    /// Keyrings that Release files are verified with, relative to the recipe; where there is none, that of Debian's
    /// archive which this machine has, as an input of the step. A `signed-by` in a line of `mirrors` names one of them.
    #[serde(default)]
    pub keyring_files: Vec<String>,
    /// Whether /bin, /sbin and /lib are links into /usr; the suite's own way where it is left out.
    #[serde(default)]
    pub merged_usr: Option<bool>,
    /// Further packages to install.
    #[serde(default)]
    pub include: Vec<String>,
    /// Options for dpkg, one a line of its configuration. `path-exclude` and `path-include` cost no time.
    #[serde(default)]
    pub dpkg_opts: Vec<String>,
    /// Options for apt, one a line of its configuration.
    #[serde(default)]
    pub apt_opts: Vec<String>,
    /// Whether a Release file past its date of expiry is refused. Where it is not, the root's sources.list says so, too.
    #[serde(default = "super::defaults::yes")]
    pub check_valid_until: bool,
    /// Whether the packages' scripts have the network, with the name servers of this machine; else they have a loopback
    /// of their own. What one of them downloads is not noticed when it changes.
    #[serde(default = "super::defaults::yes")]
    pub network: bool,
    /// Moment of Debian's snapshot archive to install from: `20260901T000000Z`. The mirrors' addresses are
    /// replaced by those of their snapshots.
    #[serde(default)]
    pub snapshot: Option<String>,
}

/// Suites that have neither updates nor security updates beside them.
const ROLLING: [&str; 5] = ["sid", "unstable", "testing", "experimental", "rc-buggy"];

/// Debian's releases before security updates came to be named `SUITE-security`.
const OLD_SECURITY: [&str; 4] = ["wheezy", "jessie", "stretch", "buster"];

impl Mmdebstrap {
    fn variant(&self) -> Result<Variant> {
        self.variant.as_deref().unwrap_or("-").parse().map_err(anyhow::Error::msg)
    }

    /// What becomes /etc/apt/sources.list.
    fn sources_list(&self) -> Result<String> {
        let stamp = self.snapshot.as_deref().map(Stamp::parse).transpose()?;
        let lines = match self.mirrors.as_slice() {
            [] => self.default_lines(&host::default_mirror()?, host::default_security_mirror().as_deref()),
            mirrors => mirrors.iter().map(|mirror| self.line(mirror)).collect(),
        };
        let lines = match stamp {
            Some(stamp) => lines.iter().map(|line| at_moment(line, &stamp)).collect::<Result<_>>()?,
            None if !self.check_valid_until => lines.iter().map(|line| not_expiring(line)).collect(),
            None => lines,
        };
        Ok(lines.join("\n") + "\n")
    }

    fn default_lines(&self, mirror: &str, security: Option<&str>) -> Vec<String> {
        let (suite, components) = (&self.suite, self.components.join(" "));
        let mut lines = vec![format!("deb {mirror} {suite} {components}")];
        if ROLLING.contains(&suite.as_str()) || suite.contains('-') {
            return lines;
        }
        lines.push(format!("deb {mirror} {suite}-updates {components}"));
        if let Some(security) = security {
            let suite = match OLD_SECURITY.contains(&suite.as_str()) {
                true => format!("{suite}/updates"),
                false => format!("{suite}-security"),
            };
            lines.push(format!("deb {security} {suite} {components}"));
        }
        lines
    }

    fn line(&self, mirror: &str) -> String {
        match mirror.trim() {
            line if is_line(line) => line.to_owned(),
            uri => format!("deb {uri} {} {}", self.suite, self.components.join(" ")),
        }
    }

    fn check_mirror(&self, mirror: &str) -> Result<()> {
        if !is_line(mirror.trim()) {
            url::Url::parse(mirror)
                .with_context(|| format!("`{mirror}` is neither an address nor a line of sources.list"))?;
        }
        let sources = Sources::from_lines(&self.line(mirror))?;
        Settings::default().check(&sources, "")?;
        sources.0.iter().flat_map(|source| &source.uris).try_for_each(|uri| check_address(uri))
    }

    /// The list of repositories, and how they are fetched.
    fn repositories(&self) -> Result<(String, Sources, Access)> {
        let list = self.sources_list()?;
        let settings = Settings::of_options(&self.apt_opts)?;
        let mut sources = Sources::from_lines(&list)?;
        settings.apply(&mut sources);
        Ok((list, sources, Access::default().with(&settings)))
    }

    fn foreign(&self) -> Result<Vec<Architecture>> {
        self.architectures.iter().skip(1).map(|name| name.parse().map_err(anyhow::Error::msg)).collect()
    }

    fn keyrings(&self, recipe_dir: &Path) -> Vec<PathBuf> {
        self.keyring_files.iter().map(|file| recipe_dir.join(file)).collect()
    }
}

fn is_line(text: &str) -> bool {
    text.starts_with("deb ") || text.starts_with("deb-src ")
}

/// A line of sources.list with its address at a moment of the snapshot archive, whose Release files
/// have long expired.
fn at_moment(line: &str, stamp: &Stamp) -> Result<String> {
    let uri = line.split_whitespace().find(|word| word.contains("://")).context("a mirror without an address")?;
    Ok(not_expiring(&line.replacen(uri, &stamp.of_mirror(uri)?, 1)))
}

/// A line of sources.list whose Release files may have expired.
fn not_expiring(line: &str) -> String {
    match line.split_once('[') {
        Some((kind, options)) => format!("{kind}[check-valid-until=no {options}"),
        None => line.replacen("deb ", "deb [check-valid-until=no] ", 1),
    }
}

impl Action for Mmdebstrap {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_suite(&self.suite, cx, out);
        if let Some(variant) = &self.variant
            && let Err(message) = variant.parse::<Variant>()
        {
            let names = VARIANTS.iter().map(|(name, _)| *name);
            let known = names.clone().collect::<Vec<_>>().join(", ");
            out.push(cx.error("variant", message).suggest(variant, names).hint(format!("there are: {known}")));
        }
        for (index, mirror) in self.mirrors.iter().enumerate() {
            cx.refuse_login(&format!("mirrors[{index}]"), mirror, LOGIN_FILE, out);
            if let Err(error) = self.check_mirror(mirror) {
                out.push(cx.error(&format!("mirrors[{index}]"), format!("{error:#}")));
            }
        }
        if self.components.is_empty() {
            out.push(cx.error("components", "there is no component").hint("leave `components` out for main alone"));
        }
        for (index, name) in self.architectures.iter().enumerate() {
            let place = format!("architectures[{index}]");
            match name.parse::<Architecture>() {
                Err(message) => out.push(cx.error(&place, message)),
                Ok(first) if index == 0 && first != cx.architecture => out.push(
                    cx.error(
                        &place,
                        format!("the first architecture is the root's own, and the recipe is for {}", cx.architecture),
                    )
                    .hint(format!("begin the list with {}", cx.architecture)),
                ),
                Ok(_) if self.architectures[..index].contains(name) => {
                    out.push(cx.error(&place, format!("`{name}` is there twice")));
                }
                Ok(_) => {}
            }
        }
        for (index, file) in self.keyring_files.iter().enumerate() {
            check_file(&format!("keyring-files[{index}]"), file, cx, out);
        }
        check_snapshot(self.snapshot.as_deref(), cx, out);
        for (index, option) in self.apt_opts.iter().enumerate() {
            check_apt_option(&format!("apt-opts[{index}]"), option, cx, out);
            let instead = "a proxy is named by the environment, `http_proxy`, or this machine's apt: both stay outside";
            cx.refuse_login(&format!("apt-opts[{index}]"), option, instead, out);
        }
        for (index, option) in self.dpkg_opts.iter().enumerate() {
            if let Err(error) = Filters::parse(option) {
                out.push(cx.error(&format!("dpkg-opts[{index}]"), format!("{error:#}")));
            }
        }
        for (property, packages) in [("include", &self.include), ("keyring-packages", &self.keyring_packages)] {
            for (index, package) in packages.iter().enumerate() {
                if package.trim().is_empty() || package.starts_with('-') {
                    out.push(cx.error(&format!("{property}[{index}]"), format!("`{package}` is no package")));
                }
            }
        }
        if cx.has_root {
            out.push(cx.error("", "an earlier action has made the root already").hint("a recipe has one bootstrap"));
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            // 2: `merged-usr: false` holds, or fails. 3: scripts have the network, and start no daemon. 4: copies of
            // this machine's name servers go.
            version: 4,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs { tools: vec![("apt-get", "apt"), ("dpkg", "dpkg")], network: true, emulation: true },
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

    fn release_after(&self, _before: Option<String>) -> Option<String> {
        Some(self.suite.clone())
    }

    fn summary(&self) -> String {
        match &self.variant {
            Some(variant) => format!("{}, {variant}", self.suite),
            None => self.suite.clone(),
        }
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let (_, sources, access) = self.repositories()?;
        let mut trust = Trust::new(self.keyrings(cx.recipe_dir));
        trust.expired = self.snapshot.is_some();
        trust.access = access;
        trust.foreign = self.foreign()?.iter().map(ToString::to_string).collect();
        add_repositories(cx, &sources, &trust)?;
        for file in &self.keyring_files {
            cx.add_tree(file, &cx.recipe_dir.join(file))?;
        }
        for tool in ["apt", "dpkg"] {
            cx.add(format!("tool {tool}"), host::tool_state(tool, tool));
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let (list, sources, access) = self.repositories()?;
        let apt_configuration =
            self.apt_opts.iter().map(|option| format!("{};\n", option.trim().trim_end_matches(';')));
        let dpkg_configuration = self.dpkg_opts.iter().map(|option| format!("{option}\n"));
        let bootstrap = Bootstrap {
            suite: self.suite.clone(),
            sources,
            access,
            variant: self.variant()?,
            include: [&self.keyring_packages[..], &self.include].concat(),
            foreign: self.foreign()?,
            merged_usr: self.merged_usr,
            apt_options: vec![apt_configuration.clone().collect()],
            skeleton: Skeleton {
                sources_list: list,
                apt_configuration: apt_configuration.collect(),
                dpkg_configuration: dpkg_configuration.collect(),
            },
            network: self.network,
        };
        cx.detail = bootstrap.run(cx)?;
        Ok(())
    }
}

/// Checks a suite's name.
pub(super) fn check_suite(suite: &str, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    if suite.is_empty() {
        out.push(cx.error("suite", "the suite is empty").hint("such as trixie, bookworm or sid"));
    } else if !suite.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        out.push(cx.error("suite", format!("`{suite}` is no name of a suite")));
    }
}

/// Checks that an option for apt can be met by who fetches in its place.
fn check_apt_option(place: &str, option: &str, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let mut all = Vec::new();
    if let Err(error) = apt_conf::read(&format!("{option}\n;"), &mut all) {
        return out.push(cx.error(place, format!("apt would not read `{option}`: {error:#}")));
    }
    if all.is_empty() && !option.trim_start().starts_with('#') {
        out.push(
            cx.error(place, format!("`{option}` sets nothing")).hint("such as `APT::Install-Recommends \"true\"`"),
        );
    }
    let settings = Settings::of(&all);
    for refused in settings.refused() {
        let message = format!("`{}` cannot be met: packages are fetched by debforge, not by apt", refused.name);
        out.push(cx.error(place, message).hint(refused.instead()));
    }
    for name in settings.unheeded() {
        let message = format!("`{name}` has no effect in the build: packages are fetched by debforge, not by apt");
        out.push(cx.warning(place, message).hint("it is in force in the finished system"));
    }
}

/// Checks that a file beside the recipe is there.
pub(super) fn check_file(property: &str, file: &str, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    if cx.files.kind(&cx.recipe_dir.join(file)) != Some(FileKind::File) {
        out.push(cx.error(property, format!("there is no file `{file}`")).hint("paths are relative to the recipe"));
    }
}

/// Checks a moment of the snapshot archive.
pub(super) fn check_snapshot(stamp: Option<&str>, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    if let Some(Err(error)) = stamp.map(Stamp::parse) {
        out.push(cx.error("snapshot", format!("{error:#}")));
    }
}
