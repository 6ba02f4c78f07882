//! The top level of the root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};

use super::Preparation;
use super::tree::{move_contents, remove_contents};
use crate::build::inside::{Inside, Kind};
use crate::diagnostics::Fault;

/// Directories that are links into /usr on a system with a merged one.
const MERGED: [&str; 3] = ["bin", "lib", "sbin"];

/// Directories that OSTree wants empty: mounts of the running system, and /boot, which is the disk's.
const EMPTY: [(&str, u32); 8] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("sysroot", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// What people may write to, and where it goes: name, link, its place in the tree, mode where it is made.
const MOVED: [(&str, &str, &str, u32); 5] = [
    ("home", "var/home", "var/home", 0o755),
    ("root", "var/roothome", "var/roothome", 0o700),
    ("srv", "var/srv", "var/srv", 0o755),
    ("mnt", "var/mnt", "var/mnt", 0o755),
    ("opt", "var/opt", "var/opt", 0o755),
];

/// Looks whether /bin and its kin are links.
pub(super) fn check_merged(it: &Preparation<'_>) -> Result<String> {
    let split: Vec<&str> =
        MERGED.into_iter().filter(|name| matches!(it.files.link_target(&format!("/{name}")), Ok(None))).collect();
    if !split.is_empty() {
        return Err(Fault::failed(format!("/{} is not a link into /usr", split.join(", /")))
            .hint("a system that OSTree deploys has all programs in /usr: bootstrap it merged, or install `usrmerge`")
            .into());
    }
    Ok(String::new())
}

/// Puts links where people write, and leaves nothing else but /usr, /etc and empty directories.
pub(super) fn arrange(it: &Preparation<'_>) -> Result<String> {
    let inside = Inside::open(it.root)?;
    let mut moved = Vec::new();
    for (name, link, place, mode) in MOVED {
        let from = it.root.join(name);
        let to = it.root.join(place);
        if inside.link_kind(Path::new(name))? == Some(Kind::Directory) {
            let attributes = inside.slot(Path::new(name))?.attributes()?;
            make(&to, mode)?;
            let count = move_contents(&from, &to).with_context(|| format!("moving /{name}"))?;
            chown(&to, Some(attributes.uid), Some(attributes.gid))?;
            if count > 0 {
                moved.push(format!("/{name}"));
            }
            if name == "opt" && count > 0 {
                it.cx.warn("what is in /opt is copied to each machine once, and not updated: install it below /usr");
            }
        } else {
            make(&to, mode)?;
        }
        it.replace(name, link)?;
    }
    // systemd's own file wants directories where links are now, and would say so at each start.
    if it.files.has("/usr/lib/tmpfiles.d/home.conf") {
        it.files.link("/etc/tmpfiles.d/home.conf", "/dev/null")?;
    }
    it.replace("media", "run/media")?;
    it.replace("ostree", "sysroot/ostree")?;
    if it.options.local_in_var {
        let (local, to) = (it.root.join("usr/local"), it.root.join("var/usrlocal"));
        make(&to, 0o755)?;
        if local.is_dir() && !local.is_symlink() {
            move_contents(&local, &to).context("moving /usr/local")?;
        }
        it.replace("usr/local", "../var/usrlocal")?;
    }
    for (name, mode) in EMPTY {
        let path = it.root.join(name);
        make(&path, mode)?;
        if name != "var" {
            remove_contents(&path)?;
        }
    }
    let known = |name: &OsStr| {
        let name = name.to_str().unwrap_or_default();
        name == "usr"
            || name == "etc"
            || name == "media"
            || name == "ostree"
            || EMPTY.iter().any(|(known, _)| *known == name)
            || MOVED.iter().any(|(known, ..)| *known == name)
            || name.starts_with("lib")
            || MERGED.contains(&name)
    };
    for entry in fs::read_dir(it.root).context("reading the root")? {
        let entry = entry.context("reading the root")?;
        if known(&entry.file_name()) {
            continue;
        }
        // Links to kernels, such as /vmlinuz, and what nobody can need.
        let is_directory = entry.file_type()?.is_dir();
        let shown = format!("/{}", entry.file_name().display());
        match is_directory {
            false => fs::remove_file(entry.path()),
            true => fs::remove_dir(entry.path()),
        }
        .map_err(|error| {
            Fault::failed(format!("{shown} is neither in /usr nor in /etc nor in /var: {error}"))
                .hint("OSTree's systems have no other place for files: move it below /usr, or remove it")
        })?;
        moved.push(format!("without {shown}"));
    }
    Ok(moved.join(", "))
}

/// A directory with its mode.
fn make(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| format!("making {}", path.display()))
}

impl Preparation<'_> {
    /// Puts a link in the place of an empty directory or of another link.
    fn replace(&self, name: &str, target: &str) -> Result<()> {
        let slot = Inside::open(self.root)?.slot(Path::new(name))?;
        slot.create_link(OsStr::new(target))
    }
}
