//! What a root gets while processes run in it, and must not keep.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// Forbids services to start (invoke-rc.d(8)) and gives the resolver the host's name servers; put
/// back as it was by [`RootGuard::release`], or when dropped.
pub(super) struct RootGuard {
    files: Vec<Placed>,
}

/// One file that stands in for what was there.
struct Placed {
    path: PathBuf,
    ours: Vec<u8>,
    before: Before,
    parent_time: Option<SystemTime>,
}

enum Before {
    Nothing,
    Link(PathBuf),
    File { contents: Vec<u8>, mode: u32, modified: Option<SystemTime> },
}

impl RootGuard {
    /// Puts the files in place, as far as the root has the directories for them.
    pub(super) fn set(root: &Path, network: bool) -> Result<Self> {
        let mut guard = Self { files: Vec::new() };
        guard.place(root, "usr/sbin", "policy-rc.d", b"#!/bin/sh\nexit 101\n".to_vec(), 0o755)?;
        if network && let Ok(resolver) = fs::read("/etc/resolv.conf") {
            guard.place(root, "etc", "resolv.conf", resolver, 0o644)?;
        }
        Ok(guard)
    }

    /// Puts everything back that the processes did not change themselves.
    pub(super) fn release(mut self) -> Result<()> {
        for placed in std::mem::take(&mut self.files) {
            placed.restore()?;
        }
        Ok(())
    }

    fn place(&mut self, root: &Path, directory: &str, name: &str, ours: Vec<u8>, mode: u32) -> Result<()> {
        let directory = root.join(directory);
        // A link in the place of the directory could lead out of the root.
        if !directory.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Ok(());
        }
        let path = directory.join(name);
        let parent_time = directory.metadata().and_then(|meta| meta.modified()).ok();
        let before = Before::of(&path).with_context(|| format!("reading {}", path.display()))?;
        if !matches!(before, Before::Nothing) {
            fs::remove_file(&path).with_context(|| format!("moving {} aside", path.display()))?;
        }
        fs::write(&path, &ours).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        self.files.push(Placed { path, ours, before, parent_time });
        Ok(())
    }
}

impl Drop for RootGuard {
    fn drop(&mut self) {
        for placed in std::mem::take(&mut self.files) {
            let _ = placed.restore();
        }
    }
}

impl Before {
    fn of(path: &Path) -> std::io::Result<Self> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Nothing),
            Err(error) => Err(error),
            Ok(meta) if meta.is_symlink() => Ok(Self::Link(fs::read_link(path)?)),
            Ok(meta) => Ok(Self::File {
                contents: fs::read(path)?,
                mode: meta.permissions().mode() & 0o7777,
                modified: meta.modified().ok(),
            }),
        }
    }
}

impl Placed {
    fn restore(self) -> Result<()> {
        let untouched = self.path.symlink_metadata().is_ok_and(|meta| meta.is_file())
            && fs::read(&self.path).is_ok_and(|now| now == self.ours);
        if !untouched {
            return Ok(());
        }
        let doing = || format!("restoring {}", self.path.display());
        fs::remove_file(&self.path).with_context(doing)?;
        match self.before {
            Before::Nothing => {}
            Before::Link(target) => symlink(target, &self.path).with_context(doing)?,
            Before::File { contents, mode, modified } => {
                fs::write(&self.path, contents).with_context(doing)?;
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)).with_context(doing)?;
                if let Some(modified) = modified {
                    fs::File::options().write(true).open(&self.path)?.set_modified(modified).with_context(doing)?;
                }
            }
        }
        if let (Some(time), Some(parent)) = (self.parent_time, self.path.parent()) {
            fs::File::open(parent)?.set_modified(time).with_context(doing)?;
        }
        Ok(())
    }
}
