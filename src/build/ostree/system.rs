//! The disk of an atomic system: OSTree's sysroot, with deployments in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::files::RootFiles;
use crate::build::inside::Inside;
use crate::ostree::entry::{self, Entry};

/// Where boot entries are.
pub(super) const ENTRIES: &str = "/boot/loader/entries";

/// Whether a root is a disk that OSTree deploys to, rather than a system itself.
pub fn is_sysroot(root: &Path) -> bool {
    root.join("ostree/repo/config").is_file() && root.join("ostree/deploy").is_dir()
}

/// The deployment of a disk that is started first, relative to the disk.
pub fn deployment(root: &Path) -> Result<PathBuf> {
    let files = RootFiles::open(root)?;
    let first = entries(&files)?.into_iter().next().context("the disk has no boot entry of OSTree's")?;
    let options = first.1.get("options").unwrap_or_default();
    let link = options.split_whitespace().find_map(|word| word.strip_prefix("ostree="));
    let link = link.context("the boot entry names no deployment")?;
    Inside::open(root)?.resolve(Path::new(link)).context("looking for the deployment")
}

/// The boot entries of a disk with the names of their files, what is started first first.
pub(super) fn entries(files: &RootFiles) -> Result<Vec<(String, Entry)>> {
    let mut all = Vec::new();
    for name in files.names(ENTRIES)?.into_iter().filter(|name| name.ends_with(".conf")) {
        let path = format!("{ENTRIES}/{name}");
        all.push((path.clone(), Entry::parse(&files.text(&path)?.unwrap_or_default())));
    }
    all.sort_by_key(|(_, entry)| std::cmp::Reverse(entry::version(entry)));
    Ok(all)
}
