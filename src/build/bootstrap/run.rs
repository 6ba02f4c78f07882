//! A whole bootstrap: apt decides and fetches, [`Target`] installs, at the same time where it can be.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use super::{Filters, Skeleton, Surroundings, Target, Variant};
use crate::build::apt::{Access, Apt, Base, Options, PackageFile};
use crate::build::files::RootFiles;
use crate::build::{BuildContext, cleanup};
use crate::debian::sources::Sources;
use crate::debian::{Architecture, package_list};
use crate::sandbox::Stream;

/// What is to be installed, and how.
#[derive(Clone)]
pub struct Bootstrap {
    /// The suite whose essential packages and priorities count.
    pub suite: String,
    /// Where packages come from.
    pub sources: Sources,
    /// Which packages.
    pub variant: Variant,
    /// Further packages.
    pub include: Vec<String>,
    /// Architectures beside the root's own that packages may be of.
    pub foreign: Vec<Architecture>,
    /// Whether /bin, /sbin and /lib are links into /usr; as the packages have it where `None`.
    pub merged_usr: Option<bool>,
    /// Options for apt, lines of apt.conf(5).
    pub apt_options: Vec<String>,
    /// How to get at the packages.
    pub access: Access,
    /// Files that are there before the packages.
    pub skeleton: Skeleton,
    /// Whether maintainer scripts have the network.
    pub network: bool,
}

/// Says that the suite is old enough to be without links, so that its usrmerge converts nothing.
const SPLIT_USR: (&str, &str) =
    ("etc/unsupported-skip-usrmerge-conversion", "this system will not be supported in the future\n");

/// Packages that were decided on and fetched.
struct Fetched {
    debs: Vec<PathBuf>,
    packages: Vec<PackageFile>,
    /// Names that were asked for, rather than pulled in by others.
    manual: Vec<String>,
}

impl Bootstrap {
    /// Fills the empty root of a step; says what it has become: "78 packages, 111 MB".
    pub fn run(&self, cx: &BuildContext<'_>) -> Result<String> {
        let filters = Filters::parse(&self.skeleton.dpkg_configuration)?;
        let mut apt = Apt::open(cx, self.sources.clone(), self.apt_options())?;
        apt.update()?;
        cx.progress("choosing packages", None);
        let essential = self.fetch(&apt, &self.essential(cx))?;

        self.skeleton.write(cx.root)?;
        let chroot = Chroot { cx, network: self.network };
        let mut target = Target::create(cx.root, cx.architecture, &self.foreign, filters, &chroot)?;
        let wave = target.add(&essential.debs)?;
        match self.merged_usr {
            Some(false) if target.brings_merged_usr()? => return Err(super::always_merged(&self.suite).into()),
            Some(false) => fs::write(cx.root.join(SPLIT_USR.0), SPLIT_USR.1).context("asking for a split /usr")?,
            None if !target.wants_merged_usr()? => {}
            _ => target.merge_usr()?,
        }
        if self.variant == Variant::Extract {
            target.extract(wave)?;
        } else {
            apt.assume_installed(&target.status_when_installed())?;
            // What else is needed is fetched while the essential packages are being installed.
            let rest = std::thread::scope(|scope| {
                let rest = scope.spawn(|| self.rest(cx, &apt));
                target.install_essential(wave)?;
                rest.join().map_err(|_| anyhow!("choosing packages ended in a panic"))?
            })?;
            let own = [cx.architecture.name(), "all"];
            if rest.packages.iter().all(|package| own.contains(&package.architecture.as_str())) {
                let wave = target.add(&rest.debs)?;
                target.install(wave)?;
                write_extended_states(cx, &rest)?;
            } else {
                // What packages of several architectures share, dpkg knows.
                apt.install(&[vec!["install".to_owned(), "--".into()], self.rest_of(cx)].concat(), &[])?;
            }
        }
        cleanup::after_bootstrap(cx.root)?;
        let status = RootFiles::open(cx.root)?.text("/var/lib/dpkg/status")?.context("dpkg left no status file")?;
        let (installed, bytes) = package_list::installed(&status);
        Ok(format!("{} packages, {:.0} MB", installed.len(), bytes as f64 / 1e6))
    }

    fn apt_options(&self) -> Options {
        Options {
            config: self.apt_options.clone(),
            access: self.access.clone(),
            network: self.network,
            foreign: self.foreign.iter().map(ToString::to_string).collect(),
            ..Options::default()
        }
    }

    fn essential(&self, cx: &BuildContext<'_>) -> Vec<String> {
        let mut wanted = self.variant.essential(&self.suite, cx.architecture, &self.include);
        if self.merged_usr.is_some() {
            // Stands for usrmerge, which would convert the root.
            wanted.push("usr-is-merged".into());
        }
        wanted
    }

    fn rest_of(&self, cx: &BuildContext<'_>) -> Vec<String> {
        self.variant.rest(&self.suite, cx.architecture, &self.include)
    }

    fn rest(&self, cx: &BuildContext<'_>, apt: &Apt<'_>) -> Result<Fetched> {
        let mut fetched = self.fetch(apt, &self.rest_of(cx))?;
        let name = |wanted: &String| wanted.split(['/', '=', ':']).next().unwrap_or_default().to_owned();
        fetched.manual.extend(self.include.iter().map(name));
        let priorities = self.variant.priorities();
        if !priorities.is_empty() && !fetched.packages.is_empty() {
            apt.each_package(&mut |package| {
                if priorities.contains(&package.priority.as_str()) {
                    fetched.manual.push(package.name);
                }
            })?;
        }
        if self.variant == Variant::Buildd {
            fetched.manual.push("build-essential".into());
        }
        Ok(fetched)
    }

    fn fetch(&self, apt: &Apt<'_>, wanted: &[String]) -> Result<Fetched> {
        let mut packages = Vec::new();
        if !wanted.is_empty() {
            let arguments: Vec<&str> = ["install"].into_iter().chain(wanted.iter().map(String::as_str)).collect();
            packages = apt.resolve(Base::Empty, &arguments)?;
        }
        Ok(Fetched { debs: apt.fetch(&packages)?, packages, manual: Vec::new() })
    }
}

/// Tells the root's apt which packages only others asked for (apt-mark(8)).
fn write_extended_states(cx: &BuildContext<'_>, fetched: &Fetched) -> Result<()> {
    let native = cx.architecture.name();
    let states: String = fetched
        .packages
        .iter()
        .filter(|package| !fetched.manual.contains(&package.name))
        .map(|package| format!("Package: {}\nArchitecture: {native}\nAuto-Installed: 1\n\n", package.name))
        .collect();
    if states.is_empty() {
        return Ok(());
    }
    let root = crate::build::inside::Inside::open(cx.root)?;
    let slot = root.slot("/var/lib/apt/extended_states".as_ref())?;
    std::io::Write::write_all(&mut slot.create_file()?, states.as_bytes()).context("writing apt's extended_states")?;
    slot.set_mode(0o644)
}

/// The target's programs run in the step's sandbox.
struct Chroot<'a> {
    cx: &'a BuildContext<'a>,
    network: bool,
}

impl Surroundings for Chroot<'_> {
    fn run(&self, argv: &[String], doing: &str) -> Result<()> {
        let runner = self.cx.chroot(argv).maintainer_scripts().network(self.network);
        runner.run_with(doing, &mut |stream, line| {
            if stream == Stream::Out
                && let Some(rest) = line.strip_prefix("Setting up ")
                && let Some(name) = rest.split([' ', ':']).next()
            {
                self.cx.progress(format!("setting up {name}"), None);
            }
        })
    }

    fn progress(&self, message: &str, fraction: Option<(u64, u64)>) {
        self.cx.progress(message, fraction);
    }
}
