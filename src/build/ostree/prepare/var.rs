//! /var: not part of what is deployed, so tmpfiles.d makes it on each machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::Preparation;
use super::tree::{move_one, remove_contents};
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
            fs::create_dir_all(to.parent().unwrap_or(&to)).with_context(|| format!("making a place for {shown}"))?;
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
