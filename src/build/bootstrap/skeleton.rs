//! What stands in a root before its first package, as mmdebstrap makes it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::build::cleanup;
use crate::build::inside::Inside;

/// Directories that apt and dpkg expect, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("etc/apt/apt.conf.d", 0o755),
    ("etc/apt/preferences.d", 0o755),
    ("etc/apt/sources.list.d", 0o755),
    ("etc/dpkg/dpkg.cfg.d", 0o755),
    ("tmp", 0o1777),
    ("var/cache/apt", 0o755),
    ("var/lib/apt/lists/partial", 0o755),
    ("var/log/apt", 0o755),
];

/// Links of /dev that programs expect before a boot has made them. Device nodes, which only real root
/// could make, are left to whoever starts the system.
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// What /etc/hostname says: not the builder's name, which would differ from machine to machine.
pub const HOSTNAME: &str = "localhost\n";

/// Directories of /dev that file systems are mounted on.
const DEVICE_DIRECTORIES: &[&str] = &["pts", "shm"];

/// Makes /dev what it is before anything is mounted on it, in place of what was there.
pub fn reset_devices(root: &Path) -> Result<()> {
    let inside = Inside::open(root)?;
    cleanup::remove_below(&inside, Path::new("/dev"))?;
    make_devices(&inside)
}

fn make_devices(inside: &Inside) -> Result<()> {
    inside.create_dir_all(Path::new("/dev"))?;
    for name in DEVICE_DIRECTORIES {
        inside.create_dir_all(&Path::new("/dev").join(name))?;
    }
    for (name, target) in DEVICE_LINKS {
        inside.slot(&Path::new("/dev").join(name))?.create_link(target.as_ref())?;
    }
    Ok(())
}

/// Files that are written before the first package comes.
#[derive(Debug, Clone, Default)]
pub struct Skeleton {
    /// /etc/apt/sources.list.
    pub sources_list: String,
    /// /etc/apt/apt.conf.d/99mmdebstrap; none where empty.
    pub apt_configuration: String,
    /// /etc/dpkg/dpkg.cfg.d/99mmdebstrap; none where empty.
    pub dpkg_configuration: String,
}

impl Skeleton {
    /// Writes it into an empty root.
    pub fn write(&self, root: &Path) -> Result<()> {
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).context("setting the mode of the root")?;
        for (name, mode) in DIRECTORIES {
            let path = root.join(name);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
        }
        make_devices(&Inside::open(root)?)?;
        let files = [
            ("etc/apt/sources.list", self.sources_list.as_str()),
            ("etc/apt/apt.conf.d/99mmdebstrap", &self.apt_configuration),
            ("etc/dpkg/dpkg.cfg.d/99mmdebstrap", &self.dpkg_configuration),
            ("etc/fstab", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n"),
            ("etc/hostname", HOSTNAME),
        ];
        for (name, contents) in files.into_iter().filter(|(_, contents)| !contents.is_empty()) {
            let path = root.join(name);
            fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    }
}
