//! /var: not part of what is deployed, so tmpfiles.d makes it on each machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::Preparation;
use super::tree::{move_one, remove_contents, slot};
use crate::ostree::tmpfiles::{self, Item};

/// Read by systemd-tmpfiles(8). After Debian's own files, whose lines come first where both have one.
const CONFIG: &str = "/usr/lib/tmpfiles.d/var-of-image.conf";

/// Where tmpfiles.d's `C` copies from.
const FACTORY: &str = "usr/share/factory";

/// Leaves /var empty: tmpfiles.d has lines for all directories, links and files that were in it, and the files are
/// below /usr/share/factory.
pub(super) fn empty(it: &Preparation<'_>) -> Result<String> {
    let var = it.root.join("var");
    let known = known(it)?;
    let mut lines = Vec::new();
    let mut copied = 0;
    for entry in WalkDir::new(&var).min_depth(1).sort_by_file_name() {
        let entry = entry.context("reading /var")?;
        let path = entry.path();
        let shown = format!("/{}", path.strip_prefix(it.root).unwrap_or(path).display());
        let stat = entry.metadata().with_context(|| format!("reading {shown}"))?;
        let item = if stat.is_dir() {
            Item::Directory
        } else if stat.is_symlink() {
            Item::Link(fs::read_link(path)?.display().to_string())
        } else if stat.is_file() {
            let to = it.root.join(FACTORY).join(shown.trim_start_matches('/'));
            make_place(it.root, &shown).with_context(|| format!("making a place for {shown}"))?;
            move_one(path, &to)?;
            copied += 1;
            Item::File
        } else {
            // A socket or pipe of a program that ran in the build.
            continue;
        };
        if !known.contains(&shown) {
            lines.push(tmpfiles::line(&shown, &item, stat.mode() & 0o7777, stat.uid(), stat.gid()));
        }
    }
    lines.push(tmpfiles::line("/var/lib/dpkg", &Item::Link("../../usr/share/dpkg/database".into()), 0, 0, 0));
    let text = format!("# What packages left in /var when this system was built.\n{}\n", lines.join("\n"));
    it.files.write(CONFIG, text)?;
    remove_contents(&var)?;
    Ok(format!("{} lines of tmpfiles.d, {copied} files copied on the first start", lines.len()))
}

/// Makes the directories that a file is in once more below the factory's, as they are: what is in a home of mode 0700
/// is for nobody else there either.
fn make_place(root: &Path, shown: &str) -> Result<()> {
    let parents: Vec<&Path> = Path::new(shown).ancestors().skip(1).collect();
    fs::create_dir_all(root.join(FACTORY))?;
    for parent in parents.into_iter().rev().filter_map(|parent| parent.strip_prefix("/").ok()) {
        let at = root.join(FACTORY).join(parent);
        if parent.as_os_str().is_empty() || at.symlink_metadata().is_ok() {
            continue;
        }
        fs::create_dir(&at)?;
        slot(&at)?.apply(&slot(&root.join(parent))?.attributes()?)?;
    }
    Ok(())
}

/// What the packages' own tmpfiles.d makes.
fn known(it: &Preparation<'_>) -> Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    for directory in ["/usr/lib/tmpfiles.d", "/etc/tmpfiles.d"] {
        for name in it.files.names(directory)?.iter().filter(|name| name.ends_with(".conf")) {
            let text = it.files.text(&Path::new(directory).join(name).display().to_string())?.unwrap_or_default();
            known.extend(tmpfiles::made_by(&text));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_nobody_else_may_enter_stays_so_in_the_factory() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("var/home/user");
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        make_place(dir.path(), "/var/home/user/file").unwrap();
        let mode = |path: &str| dir.path().join(FACTORY).join(path).metadata().unwrap().mode() & 0o7777;
        assert_eq!((mode("var/home"), mode("var/home/user")), (0o755, 0o700));
        assert!(!dir.path().join(FACTORY).join("var/home/user/file").exists());
    }
}
