//! What a guest sees of this machine: its programs, a handful of settings, and the directories of the build.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

/// What programs want to find in /etc, and no secrets.
const SETTINGS: [&str; 27] = [
    "adduser.conf",
    "alternatives",
    "apt/apt.conf.d",
    "apt/keyrings",
    "apt/preferences.d",
    "apt/sources.list",
    "apt/sources.list.d",
    "apt/trusted.gpg.d",
    "ca-certificates",
    "debian_version",
    "dpkg",
    "group",
    "gss",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "mke2fs.conf",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "protocols",
    "services",
    "ssl",
    "xattr.conf",
];

/// Below `ssl`, what only the machine's own services have business with.
const SECRETS: [&str; 1] = ["private"];

/// Directories at the top of a system that hold programs and their files, or lead to those that do.
const PROGRAMS: [&str; 8] = ["bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin", "usr"];

/// How user-mode networking answers questions for names.
pub(super) const NAME_SERVER: &str = "nameserver 10.0.2.3\n";

/// What goes into the guest.
pub(super) struct Surroundings {
    /// Symbolic links at the top of its root.
    pub(super) links: Vec<(String, String)>,
    /// Directories at their own paths, outermost first; whether they are only read.
    pub(super) directories: Vec<(PathBuf, bool)>,
}

impl Surroundings {
    /// With the programs of this machine. `seen` are directories to be read; `written` those that the guest
    /// may write to.
    pub(super) fn with_programs(seen: &[PathBuf], written: &[PathBuf]) -> Self {
        let mut links = Vec::new();
        let mut seen: Vec<PathBuf> = seen.to_vec();
        seen.push("/usr".into());
        for name in PROGRAMS {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(target) => links.push((name.to_owned(), target.to_string_lossy().into_owned())),
                Err(_) if path.is_dir() => seen.push(path),
                Err(_) => {}
            }
        }
        // Versions of tools are part of what steps depend on.
        seen.extend(["/var/lib/dpkg".into(), "/var/lib/ca-certificates".into()]);
        seen.retain(|path| path.is_dir());
        Self { links, directories: order(&seen, written) }
    }

    /// The directories alone, for a guest that has programs of its own.
    pub(super) fn bare(seen: &[PathBuf], written: &[PathBuf]) -> Self {
        Self { links: Vec::new(), directories: order(seen, written) }
    }
}

/// Outermost first, and none that is seen through another already.
fn order(seen: &[PathBuf], written: &[PathBuf]) -> Vec<(PathBuf, bool)> {
    let mut all: Vec<(PathBuf, bool)> = written.iter().map(|path| (path.clone(), false)).collect();
    all.extend(seen.iter().map(|path| (path.clone(), true)));
    all.sort_by(|a, b| (depth(&a.0), &a.0, a.1).cmp(&(depth(&b.0), &b.0, b.1)));
    let mut kept: Vec<(PathBuf, bool)> = Vec::new();
    for (path, read_only) in all {
        let around = kept.iter().rev().find(|(outer, _)| path.starts_with(outer));
        // What is written to below what is only read needs a mount of its own.
        if around.is_none_or(|(_, outer)| *outer && !read_only) {
            kept.push((path, read_only));
        }
    }
    kept
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

/// Copies the settings to `etc`, which is made.
pub(super) fn settings(etc: &Path) -> Result<()> {
    fs::create_dir(etc).with_context(|| format!("making {}", etc.display()))?;
    for name in SETTINGS {
        copy(&Path::new("/etc").join(name), &etc.join(name)).with_context(|| format!("copying /etc/{name}"))?;
    }
    let write = |name: &str, text: &str| fs::write(etc.join(name), text).with_context(|| format!("writing {name}"));
    write("resolv.conf", NAME_SERVER)?;
    write("hostname", "debforge\n")?;
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n".into());
    write("hosts", &hosts)?;
    symlink("../proc/self/mounts", etc.join("mtab")).context("making mtab")
}

/// Copies what may be read; what is not there or not for this user is left out.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let meta = match from.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if meta.is_symlink() {
        let target = fs::read_link(from)?;
        // A link to something beside /usr and /etc leads nowhere in the guest.
        let known = |part: Option<Component<'_>>| {
            part.is_some_and(|part| ["usr", "etc", "bin", "lib", "sbin"].iter().any(|name| part.as_os_str() == *name))
        };
        if target.is_relative() || known(target.components().nth(1)) {
            symlink(target, to)?;
        } else if from.is_file() {
            fs::copy(from, to)?;
        }
    } else if meta.is_dir() {
        let entries = match fs::read_dir(from) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        fs::create_dir_all(to)?;
        for entry in entries {
            let name = entry?.file_name();
            if !SECRETS.iter().any(|secret| name == *secret) {
                copy(&from.join(&name), &to.join(&name))?;
            }
        }
    } else if meta.is_file() {
        match fs::copy(from, to) {
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_seen_through_another_is_not_shared_twice() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let shown = |seen: &[&str], written: &[&str]| {
            order(&paths(seen), &paths(written))
                .into_iter()
                .map(|(path, read_only)| format!("{}{}", path.display(), if read_only { "" } else { " rw" }))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&["/a/b", "/a", "/usr"], &["/a/out"]), ["/a", "/usr", "/a/out rw"]);
        assert_eq!(shown(&["/a"], &["/a"]), ["/a rw"]);
        assert_eq!(shown(&["/a/recipes"], &["/a"]), ["/a rw"]);
        assert_eq!(shown(&["/ab"], &["/a"]), ["/a rw", "/ab"]);
    }

    #[test]
    fn settings_have_no_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        settings(&etc).unwrap();
        assert!(etc.join("passwd").is_file() && etc.join("resolv.conf").is_file());
        assert!(!etc.join("shadow").exists() && !etc.join("ssl/private").exists());
    }
}
