//! The Debian system in a tree.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{Tree, bootable};
use crate::build::packages::DATABASES;
use crate::debian::package_list;

/// What a system says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct System {
    /// `PRETTY_NAME` of os-release(5).
    pub name: String,
    /// As Debian names it.
    pub architecture: Option<String>,
    /// Kernels in `/boot`, and such as have modules alone.
    pub kernels: Vec<Kernel>,
    /// Installed packages.
    pub packages: Vec<Package>,
    /// What the packages take, as they say, in bytes.
    pub installed_size: u64,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kernel {
    /// `6.12.43+deb13-amd64`.
    pub version: String,
    /// Whether the kernel itself is there.
    pub image: bool,
    /// Whether an initramfs is there.
    pub initrd: bool,
    /// Whether its modules are there.
    pub modules: bool,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(missing_docs)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub architecture: String,
}

impl System {
    /// Reads it; empty where there is none.
    pub fn of(tree: &dyn Tree) -> Result<Self> {
        let release = match tree.text("etc/os-release")? {
            Some(text) => text,
            None => tree.text("usr/lib/os-release")?.unwrap_or_default(),
        };
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let mut status = None;
        for directory in DATABASES {
            status = match status {
                None => tree.text(format!("{}/status", directory.trim_start_matches('/')))?,
                found => found,
            };
        }
        let status = status.unwrap_or_default();
        let (found, installed_size) = package_list::installed(&status);
        let mut packages: Vec<Package> = found
            .into_iter()
            .map(|package| Package { name: package.name, version: package.version, architecture: package.architecture })
            .collect();
        packages.sort();
        let of_dpkg = packages.iter().find(|package| package.name == "dpkg").map(|dpkg| dpkg.architecture.clone());
        Ok(Self {
            name: name.unwrap_or_default().trim_matches(['"', '\'']).to_owned(),
            architecture: of_dpkg.or_else(|| Some(bootable::architecture_of(tree)?.name().to_owned())),
            kernels: kernels(tree)?,
            packages,
            installed_size,
        })
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn kernels(tree: &dyn Tree) -> Result<Vec<Kernel>> {
    let mut found: BTreeMap<String, Kernel> = BTreeMap::new();
    let mut note = |version: &str, set: fn(&mut Kernel)| {
        let new = Kernel { version: version.to_owned(), image: false, initrd: false, modules: false };
        set(found.entry(version.to_owned()).or_insert(new));
    };
    for entry in tree.names("boot")? {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for prefix in ["vmlinuz-", "vmlinux-"] {
            name.strip_prefix(prefix).into_iter().for_each(|version| note(version, |kernel| kernel.image = true));
        }
        if let Some(version) = name.strip_prefix("initrd.img-") {
            note(version, |kernel| kernel.initrd = true);
        }
    }
    for entry in tree.names(Path::new("lib/modules"))? {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        note(&name, |kernel| kernel.modules = true);
        // Where /boot is not part of the system.
        for file in tree.names(&entry.path)? {
            match file.path.file_name().and_then(|name| name.to_str()) {
                Some("vmlinuz") => note(&name, |kernel| kernel.image = true),
                Some("initramfs.img") => note(&name, |kernel| kernel.initrd = true),
                _ => {}
            }
        }
    }
    Ok(found.into_values().collect())
}
