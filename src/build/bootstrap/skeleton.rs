//! What stands in a root before its first package, as mmdebstrap makes it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// Directories that apt and dpkg expect, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("dev/pts", 0o755),
    ("dev/shm", 0o755),
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
        for (name, target) in DEVICE_LINKS {
            symlink(target, root.join("dev").join(name)).with_context(|| format!("making the link /dev/{name}"))?;
        }
        let files = [
            ("etc/apt/sources.list", self.sources_list.as_str()),
            ("etc/apt/apt.conf.d/99mmdebstrap", &self.apt_configuration),
            ("etc/dpkg/dpkg.cfg.d/99mmdebstrap", &self.dpkg_configuration),
            ("etc/fstab", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n"),
            // Not the builder's, which is nobody's business and would differ from machine to machine.
            ("etc/hostname", "localhost\n"),
        ];
        for (name, contents) in files.into_iter().filter(|(_, contents)| !contents.is_empty()) {
            let path = root.join(name);
            fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    }
}
