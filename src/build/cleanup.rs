//! What installing packages leaves in a root that no image should have.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::inside::{Inside, Kind};

/// Files that hold times, inode numbers or random numbers, or are of no use after the build: logs of
/// the installation, caches that programs make again, and the tools' backups of their own databases.
const FILES: &[&str] = &[
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/passwords.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/dbus/machine-id",
    "/var/lib/dpkg/available-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/statoverride-old",
    "/var/lib/dpkg/status-old",
    "/var/lib/systemd/credential.secret",
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/log/alternatives.log",
    "/var/log/bootstrap.log",
    "/var/log/dpkg.log",
];

/// Directories whose files go: package lists and archives, apt's logs.
const EMPTIED: &[&str] = &[
    "/var/cache/apt/archives",
    "/var/cache/apt/archives/partial",
    "/var/lib/apt/lists",
    "/var/lib/apt/lists/partial",
    "/var/log/apt",
];

/// Directories that a system finds empty when it starts.
const VOLATILE: [&str; 2] = ["/run", "/tmp"];

/// What /etc/machine-id says for "make one at the first boot, and run what is to run then"
/// (machine-id(5)); an empty file would not count as a first boot.
const UNINITIALIZED: &[u8] = b"uninitialized\n";

/// Clears up after packages were installed, so that the same packages give the same bytes.
pub fn after_packages(root: &Path) -> Result<()> {
    let root = Inside::open(root)?;
    for path in FILES {
        remove_file(&root, Path::new(path))?;
    }
    for directory in EMPTIED {
        for name in names(&root, Path::new(directory))? {
            remove_file(&root, &Path::new(directory).join(name))?;
        }
    }
    remove_all(&root, Path::new("/var/lib/apt/lists/auxfiles"))?;
    forget_machine_id(&root)
}

/// What is in /run and /tmp, which are empty on a system that starts.
pub struct Volatile(BTreeSet<PathBuf>);

impl Volatile {
    /// As it is before packages are installed.
    pub fn before(root: &Path) -> Result<Self> {
        let root = Inside::open(root)?;
        let mut known = BTreeSet::new();
        for directory in VOLATILE {
            paths_below(&root, Path::new(directory), &mut known)?;
        }
        Ok(Self(known))
    }

    /// Removes what came since.
    pub fn remove_new(&self, root: &Path) -> Result<()> {
        let root = Inside::open(root)?;
        VOLATILE.into_iter().try_for_each(|directory| self.prune(&root, Path::new(directory)))
    }

    fn prune(&self, root: &Inside, directory: &Path) -> Result<()> {
        for name in names(root, directory)? {
            let path = directory.join(name);
            match (self.0.contains(&path), root.link_kind(&path)?) {
                (true, Some(Kind::Directory)) => self.prune(root, &path)?,
                (true, _) => {}
                (false, _) => remove_all(root, &path)?,
            }
        }
        Ok(())
    }
}

fn paths_below(root: &Inside, directory: &Path, known: &mut BTreeSet<PathBuf>) -> Result<()> {
    for name in names(root, directory)? {
        let path = directory.join(name);
        if root.link_kind(&path)? == Some(Kind::Directory) {
            paths_below(root, &path, known)?;
        }
        known.insert(path);
    }
    Ok(())
}

/// Clears up after a bootstrap: besides, nothing of /run and /tmp belongs to the system.
pub fn after_bootstrap(root: &Path) -> Result<()> {
    after_packages(root)?;
    let root = Inside::open(root)?;
    for directory in VOLATILE {
        for name in names(&root, Path::new(directory))? {
            // /var/lock is a link to /run/lock.
            if directory != "/run" || name != "lock" {
                remove_all(&root, &Path::new(directory).join(name))?;
            }
        }
    }
    Ok(())
}

fn forget_machine_id(root: &Inside) -> Result<()> {
    let path = Path::new("/etc/machine-id");
    if root.link_kind(path)? != Some(Kind::File) {
        return Ok(());
    }
    let slot = root.slot(path)?;
    slot.create_file()?.write_all(UNINITIALIZED).context("writing /etc/machine-id")?;
    slot.set_mode(0o644)
}

/// Removes a regular file, if there is one.
fn remove_file(root: &Inside, path: &Path) -> Result<()> {
    match root.link_kind(path)? {
        Some(Kind::File) => root.slot(path)?.remove(),
        _ => Ok(()),
    }
}

/// Removes whatever is at a path; links are removed, not followed.
fn remove_all(root: &Inside, path: &Path) -> Result<()> {
    match root.link_kind(path)? {
        None => return Ok(()),
        Some(Kind::Directory) => {
            for name in names(root, path)? {
                remove_all(root, &path.join(name))?;
            }
        }
        Some(_) => {}
    }
    root.slot(path)?.remove()
}

/// Removes everything in a directory.
pub fn remove_below(root: &Inside, directory: &Path) -> Result<()> {
    for name in names(root, directory)? {
        remove_all(root, &directory.join(name))?;
    }
    Ok(())
}

/// The names in a directory; none where there is no directory.
fn names(root: &Inside, path: &Path) -> Result<Vec<OsString>> {
    if root.kind(path)? != Some(Kind::Directory) {
        return Ok(Vec::new());
    }
    let (_open, host) = root.host_path(path)?;
    let entries = fs::read_dir(host).with_context(|| format!("reading {}", path.display()))?;
    entries.map(|entry| Ok(entry.with_context(|| format!("reading {}", path.display()))?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root_with(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        root
    }

    #[test]
    fn removes_what_the_tools_left_and_nothing_else() {
        let gone =
            ["var/log/dpkg.log", "var/lib/apt/lists/x_Packages", "var/cache/apt/archives/a.deb", "run/a/b", "tmp/c"];
        let kept = ["var/log/wtmp", "var/lib/dpkg/status", "run/lock/d", "etc/passwd-"];
        let root = root_with(&[&gone[..], &kept[..], &["etc/machine-id"]].concat());
        after_bootstrap(root.path()).unwrap();
        for file in gone {
            assert!(!root.path().join(file).exists(), "{file}");
        }
        for file in kept {
            assert!(root.path().join(file).exists(), "{file}");
        }
        assert_eq!(fs::read_to_string(root.path().join("etc/machine-id")).unwrap(), "uninitialized\n");
    }

    #[test]
    fn what_was_in_run_and_tmp_before_packages_came_stays() {
        let root = root_with(&["tmp/mine/a.deb", "run/lock/mine"]);
        symlink("..", root.path().join("tmp/mine/up")).unwrap();
        let before = Volatile::before(root.path()).unwrap();
        for file in ["tmp/mine/left", "tmp/left", "run/left/deep/file", "run/lock/left"] {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), "").unwrap();
        }
        symlink("/etc", root.path().join("run/link")).unwrap();
        before.remove_new(root.path()).unwrap();
        let left: Vec<String> = walkdir::WalkDir::new(root.path())
            .min_depth(2)
            .sort_by_file_name()
            .into_iter()
            .map(|entry| entry.unwrap().path().strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(left, ["run/lock", "run/lock/mine", "tmp/mine", "tmp/mine/a.deb", "tmp/mine/up"]);
    }

    #[test]
    fn follows_no_link_out_of_the_root() {
        let outside = root_with(&["lists/precious", "log/dpkg.log"]);
        let root = root_with(&["etc/x"]);
        fs::create_dir_all(root.path().join("var/lib/apt")).unwrap();
        symlink(outside.path().join("lists"), root.path().join("var/lib/apt/lists")).unwrap();
        symlink(outside.path().join("log"), root.path().join("var/log")).unwrap();
        symlink(outside.path(), root.path().join("run")).unwrap();
        after_bootstrap(root.path()).unwrap();
        assert!(outside.path().join("lists/precious").exists());
        assert!(outside.path().join("log/dpkg.log").exists());
    }
}
