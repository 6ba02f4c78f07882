//! The top level of the root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::super::fit::listed;
use super::Preparation;
use super::tree::{move_contents, remove_contents, slot};
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

/// A directory that people may write to: its place, where it goes, and what the link in its place says.
type Moved = (&'static str, &'static str, &'static str);

/// What people may write to, and its mode where it is made.
const MOVED: [(Moved, u32); 5] = [
    (("home", "var/home", "var/home"), 0o755),
    (("root", "var/roothome", "var/roothome"), 0o700),
    (("srv", "var/srv", "var/srv"), 0o755),
    (("mnt", "var/mnt", "var/mnt"), 0o755),
    (("opt", "var/opt", "var/opt"), 0o755),
];

/// What administrators install by hand, where it goes to /var, too.
const LOCAL: (Moved, u32) = (("usr/local", "var/usrlocal", "../var/usrlocal"), 0o755);

/// What moves to /var.
pub(super) fn moved(local_in_var: bool) -> Vec<Moved> {
    all_moved(local_in_var).map(|(moved, _)| moved).collect()
}

fn all_moved(local_in_var: bool) -> impl Iterator<Item = (Moved, u32)> {
    MOVED.into_iter().chain(local_in_var.then_some(LOCAL))
}

/// Whether it is in a directory that is emptied.
pub(super) fn is_emptied(path: &Path) -> bool {
    let mut parts = path.iter();
    let top = parts.next().and_then(OsStr::to_str).filter(|top| *top != "var");
    parts.next().is_some() && top.is_some_and(|top| EMPTY.iter().any(|(name, _)| *name == top))
}

/// Whether a name of the top level has a meaning.
pub(super) fn is_known(name: &OsStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    ["usr", "etc", "media", "ostree"].contains(&name)
        || EMPTY.iter().any(|(known, _)| *known == name)
        || MOVED.iter().any(|((known, ..), _)| *known == name)
        || name.starts_with("lib")
        || MERGED.contains(&name)
}

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
    let mut done = Vec::new();
    for ((name, place, link), mode) in all_moved(it.options.local_in_var) {
        let (from, to) = (it.root.join(name), it.root.join(place));
        if inside.link_kind(Path::new(name))? == Some(Kind::Directory) {
            let attributes = inside.slot(Path::new(name))?.attributes()?;
            make(&to, mode)?;
            if ["opt", "usr/local"].contains(&name) && has_files(&from) {
                it.cx.warn(format!(
                    "what is in /{name} is copied to each machine once, and not updated: install it below /usr"
                ));
            }
            let count = move_contents(&from, &to).with_context(|| format!("moving /{name}"))?;
            slot(&to)?.apply(&attributes)?;
            if count > 0 {
                done.push(format!("/{name}"));
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
    for (name, mode) in EMPTY {
        let path = it.root.join(name);
        make(&path, mode)?;
        if name == "boot" {
            warn_of_boot(it)?;
        }
        if name != "var" {
            remove_contents(&path)?;
        }
    }
    for entry in fs::read_dir(it.root).context("reading the root")? {
        let entry = entry.context("reading the root")?;
        let name = entry.file_name();
        let is_directory = entry.file_type()?.is_dir();
        let of_kernel =
            ["vmlinuz", "initrd.img"].iter().any(|kernel| name.as_encoded_bytes().starts_with(kernel.as_bytes()));
        // Other links are committed as they are. What is neither was looked for before.
        if is_known(&name) || !(is_directory || of_kernel) {
            continue;
        }
        let shown = format!("/{}", name.display());
        if is_directory { fs::remove_dir(entry.path()) } else { fs::remove_file(entry.path()) }
            .with_context(|| format!("removing {shown}"))?;
        done.push(format!("without {shown}"));
    }
    Ok(done.join(", "))
}

/// Says what goes with /boot beside kernels and loaders, which are put onto the disk.
fn warn_of_boot(it: &Preparation<'_>) -> Result<()> {
    const USUAL: [&str; 9] =
        ["vmlinuz", "vmlinux", "initrd", "initramfs", "config-", "System.map-", "grub", "dtb", "lost+found"];
    let strange = |name: &String| {
        let path = it.root.join("boot").join(name);
        let empty = || fs::read_dir(&path).is_ok_and(|mut all| all.next().is_none());
        !(USUAL.iter().any(|usual| name.starts_with(usual)) || path.is_dir() && empty())
    };
    let strange: Vec<String> = it.files.names("/boot")?.into_iter().filter(strange).collect();
    if !strange.is_empty() {
        it.cx.warn(format!("left out of /boot, which is the disk's: {}", listed(&strange)));
    }
    Ok(())
}

/// Whether there is more than directories and links.
fn has_files(path: &Path) -> bool {
    WalkDir::new(path).into_iter().filter_map(Result::ok).any(|entry| entry.file_type().is_file())
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
