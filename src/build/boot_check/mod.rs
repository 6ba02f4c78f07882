//! Whether an image can start: looked at as its firmware, its boot loader and its initramfs would, before it is
//! written.
//!
//! Only what is certainly wrong is a fault. What cannot be read is said, and what is computed when the machine starts
//! counts as right: an image is not refused for what nobody knows.

mod drivers;
pub mod features;
mod fstab;
mod loader;
mod place;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use self::drivers::{Drivers, Has};
use self::place::relative;
use crate::build::packages::DATABASES;
use crate::debian::package_list;
use crate::image::{FilesystemKind, Spec};
use crate::inspect::Tree;
use crate::inspect::initrd::Initrd;
use crate::inspect::menu::{self, Choice, Menu, Menus};
use crate::inspect::tree::Directory;

/// Something for which a system does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Lower-case, one sentence.
    pub message: String,
    /// The way out.
    pub hint: String,
}

impl Finding {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// A root that is about to be written into an image.
struct Look<'a> {
    spec: &'a Spec,
    slot: Option<&'a str>,
    tree: Directory,
    /// What was read of each initramfs, by its path in the root; `None` for what cannot be read here.
    initrds: BTreeMap<PathBuf, Option<Initrd>>,
    found: Found,
}

/// What was found out of a root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What keeps it from starting, each said once.
    pub findings: Vec<Finding>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
    /// Versions of the kernels that are started; empty where one of them is not known.
    pub kernels: BTreeSet<String>,
    /// Version of GRUB, where nothing else starts it and the root has that package.
    pub grub: Option<String>,
}

/// A module of the kernel that an initramfs lacks to mount a kind of file system; an error where it cannot be read.
pub fn missing_module(root: &Path, kernel: &str, initrd: &Path, kind: FilesystemKind) -> Result<Option<String>> {
    let tree = Directory::new(root.to_owned(), false);
    let initrd = Initrd::read((&tree as &dyn Tree).open(&relative(initrd))?)?;
    let drivers = Drivers::of(&tree, Path::new(""), kernel, Some(&initrd))?;
    Ok(match drivers.early_any(drivers::of_filesystem(kind), true) {
        Has::No(module) => Some(module),
        Has::Yes | Has::Unknown => None,
    })
}

/// All that keeps the root of a deploy from starting.
pub fn check(spec: &Spec, slot: Option<&str>, root: &Path) -> Result<Found> {
    let tree = Directory::new(root.to_owned(), false);
    let Menus { choices, more } = menu::menus(&tree)?;
    let mut look = Look { spec, slot, tree, initrds: BTreeMap::new(), found: Found::default() };
    look.check_loaders(&choices, more)?;
    let own = |choice: &&Choice| choice.starts_system() && !look.is_anothers(choice);
    let own: Vec<&Choice> = choices.iter().filter(own).collect();
    let started = own.iter().map(|choice| look.apart(|look| look.check_choice(choice)));
    let (started, of_choices): (Vec<_>, Vec<_>) = started.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let mut systems: Vec<&System> = Vec::new();
    for system in started.iter().flatten() {
        if !systems.contains(&system) {
            systems.push(system);
        }
    }
    let of_systems = systems.iter().map(|system| look.apart(|look| look.check_fstab(system)));
    let of_systems = of_systems.map(|looked| Ok(looked?.1)).collect::<Result<Vec<_>>>()?;
    if !more {
        if !choices.is_empty() && choices.iter().all(|choice| choice.menu == Menu::Grub) {
            look.found.grub = grub_version(&look.tree)?;
        }
        of_all(of_choices).into_iter().for_each(|finding| look.add(finding));
        if started.iter().all(|system| system.as_ref().is_some_and(|system| system.kernel.is_some())) {
            look.found.kernels = systems.iter().filter_map(|system| system.kernel.clone()).collect();
        }
    }
    of_all(of_systems).into_iter().for_each(|finding| look.add(finding));
    Ok(look.found)
}

fn grub_version(tree: &dyn Tree) -> Result<Option<String>> {
    for database in DATABASES {
        let Some(status) = tree.text(Path::new(database.trim_start_matches('/')).join("status"))? else { continue };
        let version = package_list::status_of(&status, "grub-common")
            .and_then(|package| package.get("Version").map(str::to_owned));
        return Ok(version);
    }
    Ok(None)
}

/// What is wrong where each of several has a fault: loaders go on to another choice, and a menu may be one that nothing
/// reads any more, so that one that starts is enough.
pub fn of_all(faults: Vec<Vec<Finding>>) -> Vec<Finding> {
    match faults.iter().all(|found| !found.is_empty()) {
        true => faults.into_iter().flatten().collect(),
        false => Vec::new(),
    }
}

/// A system that a choice starts: the root itself, or a deployment in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct System {
    /// Relative to the top of the root.
    top: PathBuf,
    /// Its kernel's version, where that is known.
    kernel: Option<String>,
}

impl Look<'_> {
    fn tree(&self) -> &dyn Tree {
        &self.tree
    }

    /// What one look comes to, and what it finds.
    fn apart<T>(&mut self, look: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, Vec<Finding>)> {
        let others = std::mem::take(&mut self.found.findings);
        let looked = look(self);
        let found = std::mem::replace(&mut self.found.findings, others);
        Ok((looked?, found))
    }

    fn add(&mut self, finding: Finding) {
        if !self.found.findings.iter().any(|known| known.message == finding.message) {
            self.found.findings.push(finding);
        }
    }
}
