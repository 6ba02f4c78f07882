//! What installing packages leaves in a root that no image should have.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;

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

/// Clears up after a bootstrap: besides, nothing of /run and /tmp belongs to the system.
pub fn after_bootstrap(root: &Path) -> Result<()> {
    after_packages(root)?;
    let root = Inside::open(root)?;
    for directory in ["/run", "/tmp"] {
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
