//! The action `debootstrap`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mmdebstrap::{check_file, check_snapshot, check_suite};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::apt::{Apt, Base, Options, Trust, add_repositories};
use crate::build::bootstrap::{self, HOSTNAME, Variant, reset_devices};
use crate::build::inside::{Inside, Kind};
use crate::build::{BuildContext, CheckContext, InputContext, cleanup};
use crate::debian::apt_proxy::AptProxies;
use crate::debian::snapshot::Stamp;
use crate::debian::sources::{Source, Sources, check_address};
use crate::debian::{host, package_list};
use crate::diagnostics::{Diagnostics, Remedy, fault_of};

/// Make the root filesystem with debootstrap.
///
/// ```yaml
/// - action: debootstrap
///   suite: trixie
///   variant: minbase
///   components: [main, non-free-firmware]
/// ```
///
/// Debian's own debootstrap does the work: its first stage on the host, its second in the new root, for
/// a foreign architecture through qemu. The action `mmdebstrap` gives nearly the same system in a
/// fraction of the time; this one is for what only debootstrap knows, or for being quite the same.
///
/// Packages come through debforge's store, so they are downloaded once. Where no mirror is named, they
/// come from the one that this machine's own sources name; that is also what the root's
/// /etc/apt/sources.list says. Unlike `mmdebstrap` it takes one suite alone: updates and security
/// updates come by a later `apt` with `repositories`.
///
/// A mirror that only lets in who has a certificate, and the state of the archive at one moment:
///
/// ```yaml
/// - action: debootstrap
///   suite: bookworm
///   mirror: https://mirror.example/debian
///   keyring-file: keys/archive.gpg
///   certificate: keys/client.pem
///   private-key: keys/client.key
///   snapshot: 20260901T000000Z
/// ```
///
/// The step depends on the suite's Release file and on the versions of debootstrap and apt. With a
/// client certificate only debootstrap itself sees the mirror: then a change there is not noticed
/// (`--from` runs the step again).
///
/// **Compared with debos**: works without being root; packages are kept; no /etc/resolv.conf, machine
/// id, package lists or logs are left, and /dev has no device nodes; `check-valid-until`, `network` and `snapshot` are new.
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
    #[serde(default = "super::defaults::main_component")]
    pub components: Vec<String>,
    /// Package that holds the archive's keys, installed with the rest.
    #[serde(default)]
    pub keyring_package: Option<String>,
    /// Keyring that the Release file is verified with, relative to the recipe; where it is left out, that of Debian's
    /// archive which this machine has, as an input of the step.
    #[serde(default)]
    pub keyring_file: Option<String>,
    /// Client certificate for the mirror, relative to the recipe.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Key of the client certificate, relative to the recipe.
    #[serde(default)]
    pub private_key: Option<String>,
    /// Whether signatures are verified.
    #[serde(default = "super::defaults::yes")]
    pub check_gpg: bool,
    /// Whether /bin, /sbin and /lib are links into /usr.
    #[serde(default = "super::defaults::yes")]
    pub merged_usr: bool,
    /// Whether a Release file past its date of expiry is refused. Where it is not, the root's sources.list says so, too.
    #[serde(default = "super::defaults::yes")]
    pub check_valid_until: bool,
    /// Whether the packages' scripts have the network, with the name servers of this machine; else they have a loopback
    /// of their own. What one of them downloads is not noticed when it changes.
    #[serde(default = "super::defaults::yes")]
    pub network: bool,
    /// Moment of Debian's snapshot archive to install from: `20260901T000000Z`. The mirror's address is
    /// replaced by that of its snapshot.
    #[serde(default)]
    pub snapshot: Option<String>,
}

/// debootstrap's variants.
const VARIANTS: [&str; 4] = ["minbase", "buildd", "fakechroot", "-"];

/// Where debootstrap keeps what it knows of suites.
const SCRIPTS: &str = "/usr/share/debootstrap/scripts";

impl Debootstrap {
    fn mirror(&self) -> Result<String> {
        let mirror = match &self.mirror {
            Some(mirror) => mirror.clone(),
            None => host::default_mirror()?,
        };
        match &self.snapshot {
            Some(stamp) => Stamp::parse(stamp)?.of_mirror(&mirror),
            None => Ok(mirror),
        }
    }

    fn source(&self) -> Result<Source> {
        let components: Vec<&str> = self.components.iter().map(String::as_str).collect();
        let mut source = Source::new(&self.mirror()?, &self.suite, &components);
        source.check_valid_until = self.may_have_expired().then_some(false);
        Ok(source)
    }

    fn may_have_expired(&self) -> bool {
        self.snapshot.is_some() || !self.check_valid_until
    }

    /// The files that debootstrap is to read: option, name in the recipe.
    fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("--keyring", &self.keyring_file),
            ("--certificate", &self.certificate),
            ("--private-key", &self.private_key),
        ];
        all.into_iter().filter_map(|(option, file)| Some((option, file.as_deref()?)))
    }

    fn first_stage(&self, cx: &BuildContext<'_>, cache: &Path) -> Result<()> {
        let mut argv: Vec<String> = ["debootstrap", "--foreign", "--arch"].map(str::to_owned).into();
        argv.push(cx.architecture.name().into());
        argv.push(format!("--cache-dir={}", cache.display()));
        argv.push(format!("--components={}", self.components.join(",")));
        argv.push(if self.merged_usr { "--merged-usr" } else { "--no-merged-usr" }.into());
        argv.extend(self.variant.iter().map(|variant| format!("--variant={variant}")));
        argv.push(if self.check_gpg { "--force-check-gpg" } else { "--no-check-gpg" }.into());
        argv.extend(self.keyring_package.iter().map(|package| format!("--include={package}")));
        for (option, file) in self.files() {
            argv.push(format!("{option}={}", cx.recipe_dir.join(file).display()));
        }
        argv.extend([self.suite.clone(), cx.root.display().to_string(), self.mirror()?]);
        if !Path::new(SCRIPTS).join(&self.suite).exists() {
            // A suite that this debootstrap has not heard of is younger than it.
            argv.push(format!("{SCRIPTS}/sid"));
        }
        let mut runner = cx.host(argv).network(true).writable(cache);
        if let Some((variable, proxy)) = proxy_of_apt(&self.mirror()?, &cx.process_environment())? {
            runner = runner.env(variable, proxy);
        }
        for (_, file) in self.files() {
            let path = cx.recipe_dir.join(file);
            runner = runner.bind(&path, &path, true);
        }
        // In "lxc" debootstrap does not insist on device nodes, which only real root could make.
        runner.env("container", "lxc").run_with("downloading and extracting packages", &mut |_, line| follow(cx, line))
    }

    fn second_stage(&self, cx: &BuildContext<'_>) -> Result<()> {
        // As above, and of no concern to the packages' scripts: a variable of the shell alone.
        let script = "container=lxc; . /debootstrap/debootstrap";
        cx.chroot(["sh", "-c", script, "/debootstrap/debootstrap", "--second-stage"])
            .network(self.network)
            .run_with("installing packages", &mut |_, line| follow(cx, line))
    }

    /// Puts the packages that debootstrap will want into its cache: from the store where it has them, else
    /// several downloads at once.
    fn fill_cache(&self, cx: &BuildContext<'_>, cache: &Path) -> Result<()> {
        let variant = match self.variant.as_deref() {
            Some("minbase") => Variant::Required,
            Some("buildd") => Variant::Buildd,
            _ => Variant::Important,
        };
        let mut apt = Apt::open(cx, Sources(vec![self.source()?]), Options::default())?;
        apt.update()?;
        let include: Vec<String> = self.keyring_package.iter().cloned().collect();
        let mut wanted = vec!["install".to_owned()];
        wanted.extend(variant.essential(&self.suite, cx.architecture, &[]));
        wanted.extend(variant.rest(&self.suite, cx.architecture, &include));
        let packages = apt.resolve(Base::Empty, &wanted)?;
        for (package, file) in packages.iter().zip(apt.fetch(&packages)?) {
            // No symbolic link: the store may lie below the host's /tmp or /var/tmp, which debootstrap
            // does not see. It only reads from its cache.
            let cached = cache.join(&package.file_name);
            std::fs::hard_link(&file, &cached).or_else(|_| std::fs::copy(&file, &cached).map(|_| ()))?;
        }
        Ok(())
    }

    /// Brings what debootstrap leaves to what a root of debforge's is.
    fn finish(&self, cx: &BuildContext<'_>) -> Result<String> {
        let option = if self.may_have_expired() { "[check-valid-until=no] " } else { "" };
        let line = format!("deb {option}{} {} {}\n", self.mirror()?, self.suite, self.components.join(" "));
        let root = Inside::open(cx.root)?;
        for (path, contents) in [("/etc/apt/sources.list", line.as_str()), ("/etc/hostname", HOSTNAME)] {
            let slot = root.slot(path.as_ref())?;
            std::io::Write::write_all(&mut slot.create_file()?, contents.as_bytes())
                .with_context(|| format!("writing {path}"))?;
            slot.set_mode(0o644)?;
        }
        root.slot("/etc/resolv.conf".as_ref())?.remove()?;
        if !self.merged_usr && root.link_kind("/bin".as_ref())? == Some(Kind::Link) {
            return Err(bootstrap::always_merged(&self.suite).into());
        }
        reset_devices(cx.root)?;
        cleanup::after_bootstrap(cx.root)?;
        let status =
            std::io::read_to_string(root.read("/var/lib/dpkg/status".as_ref())?).context("reading dpkg's status")?;
        let (installed, bytes) = package_list::installed(&status);
        Ok(format!("{} packages, {:.0} MB", installed.len(), bytes as f64 / 1e6))
    }
}

/// Shows what debootstrap says it is doing.
fn follow(cx: &BuildContext<'_>, line: &str) {
    if let Some(doing) = line.strip_prefix("I: ") {
        let doing = doing.trim_end_matches('.');
        let mut letters = doing.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        cx.progress(first.into_iter().chain(letters).collect::<String>(), None);
    }
}

impl Action for Debootstrap {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_suite(&self.suite, cx, out);
        if let Some(variant) = &self.variant
            && !VARIANTS.contains(&variant.as_str())
        {
            let known = VARIANTS.join(", ");
            out.push(
                cx.error("variant", format!("`{variant}` is not a variant of debootstrap"))
                    .suggest(variant, VARIANTS)
                    .hint(format!("there are: {known}")),
            );
        }
        if let Some(mirror) = &self.mirror {
            let instead = "`mmdebstrap` takes logins from apt_auth.conf(5) of this machine, or from a file of that form that \
                           `NETRC` names; debootstrap itself has no way but the address";
            cx.refuse_login("mirror", mirror, instead, out);
        }
        if let Some(mirror) = &self.mirror
            && let Err(error) = check_mirror(mirror)
        {
            out.push(cx.error("mirror", format!("{error:#}")));
        }
        if self.components.is_empty() {
            out.push(cx.error("components", "there is no component").hint("leave `components` out for main alone"));
        }
        let files = [
            ("keyring-file", &self.keyring_file),
            ("certificate", &self.certificate),
            ("private-key", &self.private_key),
        ];
        for (property, file) in files {
            if let Some(file) = file {
                check_file(property, file, cx, out);
            }
        }
        if self.certificate.is_none() && self.private_key.is_some() {
            out.push(cx.error("private-key", "there is a key, but no `certificate` that it belongs to"));
        }
        check_snapshot(self.snapshot.as_deref(), cx, out);
        if cx.has_root {
            out.push(cx.error("", "an earlier action has made the root already").hint("a recipe has one bootstrap"));
        }
    }

    fn nature(&self) -> Nature {
        let tools = vec![("debootstrap", "debootstrap"), ("apt-get", "apt"), ("dpkg", "dpkg"), ("wget", "wget")];
        Nature {
            // 2: `merged-usr: false` holds, or fails. 3: scripts have the network. 4: copies of this machine's name servers go.
            version: 4,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs { tools, network: true, emulation: true },
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
        let keyrings: Vec<PathBuf> = self.keyring_file.iter().map(|file| cx.recipe_dir.join(file)).collect();
        let mut trust = Trust::new(keyrings);
        trust.unauthenticated = !self.check_gpg;
        trust.expired = self.may_have_expired();
        // With a client certificate only debootstrap itself gets to see the mirror.
        match &self.certificate {
            None => add_repositories(cx, &Sources(vec![self.source()?]), &trust)?,
            Some(_) => {
                trust.add_keyring(cx)?;
                cx.add_unknown(
                    "a mirror that only debootstrap gets to see, and that so is taken as changed every time",
                );
            }
        }
        for (_, file) in self.files() {
            cx.add_tree(file, &cx.recipe_dir.join(file))?;
        }
        for tool in ["debootstrap", "apt", "dpkg"] {
            cx.add(format!("tool {tool}"), host::tool_state(tool, tool));
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let cache = cx.scratch.join("debootstrap");
        std::fs::create_dir(&cache).context("making debootstrap's cache")?;
        if self.certificate.is_none()
            && let Err(error) = self.fill_cache(cx, &cache)
        {
            // debootstrap would take a state that the plan does not know.
            if fault_of(&error).remedy == Remedy::PlanAnew {
                return Err(error);
            }
            // debootstrap chooses and downloads by itself then.
            cx.log(format!("packages are left to debootstrap: {error:#}"));
        }
        self.first_stage(cx, &cache)?;
        self.second_stage(cx)?;
        cx.detail = self.finish(cx)?;
        Ok(())
    }
}

/// The proxy that this machine's apt has for a mirror, as the variable that tells wget; `None` where the environment
/// names one.
fn proxy_of_apt(mirror: &str, environment: &BTreeMap<String, String>) -> Result<Option<(String, String)>> {
    let url = url::Url::parse(mirror).with_context(|| format!("`{mirror}` is no address"))?;
    let variable = format!("{}_proxy", url.scheme());
    if !matches!(url.scheme(), "http" | "https") || environment.keys().any(|name| name.eq_ignore_ascii_case(&variable))
    {
        return Ok(None);
    }
    Ok(AptProxies::of_host().to(&url)?.map(|proxy| (variable, proxy)))
}

fn check_mirror(mirror: &str) -> Result<()> {
    url::Url::parse(mirror).with_context(|| format!("`{mirror}` is no address"))?;
    check_address(mirror)
}
