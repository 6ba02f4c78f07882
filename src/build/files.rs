//! Files of a root, by their paths in it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::inside::{Inside, Kind};

/// A root whose files are read and written whole.
pub struct RootFiles {
    inside: Inside,
}

impl RootFiles {
    /// The root at a path of the host.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { inside: Inside::open(root)? })
    }

    /// Whether there is a regular file.
    pub fn has(&self, path: &str) -> bool {
        matches!(self.inside.kind(Path::new(path)), Ok(Some(Kind::File)))
    }

    /// Whether there is a directory.
    pub fn has_directory(&self, path: &str) -> bool {
        matches!(self.inside.kind(Path::new(path)), Ok(Some(Kind::Directory)))
    }

    /// What a file says; `None` where there is none.
    pub fn text(&self, path: &str) -> Result<Option<String>> {
        if !self.has(path) {
            return Ok(None);
        }
        let mut text = String::new();
        self.inside.read(Path::new(path))?.read_to_string(&mut text).with_context(|| format!("reading {path}"))?;
        Ok(Some(text))
    }

    /// What is in a file; `None` where there is none.
    pub fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if !self.has(path) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.inside.read(Path::new(path))?.read_to_end(&mut bytes).with_context(|| format!("reading {path}"))?;
        Ok(Some(bytes))
    }

    /// Where something is on the host, whatever links lead to it; `None` where nothing is there.
    pub fn find(&self, path: &str) -> Result<Option<PathBuf>> {
        self.inside.find(Path::new(path))
    }

    /// Writes a file that all may read, with the directories above it.
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let doing = || format!("writing {path}");
        let path = Path::new(path);
        self.inside.create_dir_all(path.parent().unwrap_or(path)).with_context(doing)?;
        let slot = self.inside.slot(path)?;
        slot.create_file().with_context(doing)?.write_all(contents.as_ref()).with_context(doing)?;
        slot.set_mode(0o644)
    }

    /// Copies a file within the root, with the directories above its new place.
    pub fn copy(&self, from: &str, to: &str) -> Result<()> {
        let doing = || format!("copying {from} to {to}");
        let to = Path::new(to);
        self.inside.create_dir_all(to.parent().unwrap_or(to)).with_context(doing)?;
        let mut source = self.inside.read(Path::new(from)).with_context(doing)?;
        let slot = self.inside.slot(to)?;
        std::io::copy(&mut source, &mut slot.create_file().with_context(doing)?).with_context(doing)?;
        slot.set_mode(0o644)
    }

    /// Names in a directory, in order; none where there is none.
    pub fn names(&self, directory: &str) -> Result<Vec<String>> {
        if !self.has_directory(directory) {
            return Ok(Vec::new());
        }
        let (_open, host) = self.inside.host_path(Path::new(directory))?;
        let entries = std::fs::read_dir(host).with_context(|| format!("reading {directory}"))?;
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.with_context(|| format!("reading {directory}"))?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    /// Makes a directory, and those above it.
    pub fn make_directory(&self, path: &str) -> Result<()> {
        self.inside.create_dir_all(Path::new(path)).with_context(|| format!("making {path}"))
    }

    /// A link, with the directories above it.
    pub fn link(&self, path: &str, target: &str) -> Result<()> {
        let doing = || format!("making the link {path}");
        let path = Path::new(path);
        self.inside.create_dir_all(path.parent().unwrap_or(path)).with_context(doing)?;
        self.inside.slot(path)?.create_link(target.as_ref()).with_context(doing)
    }

    /// Where a link points; `None` where there is none.
    pub fn link_target(&self, path: &str) -> Result<Option<String>> {
        let path = Path::new(path);
        if self.inside.link_kind(path)? != Some(Kind::Link) {
            return Ok(None);
        }
        Ok(self.inside.slot(path)?.link_target()?.to_str().map(str::to_owned))
    }

    /// Lets all read a file, and its owner write to it.
    pub fn set_readable(&self, path: &str) -> Result<()> {
        self.inside.slot(Path::new(path))?.set_mode(0o644)
    }

    /// Lets all run a file.
    pub fn set_executable(&self, path: &str) -> Result<()> {
        self.inside.slot(Path::new(path))?.set_mode(0o755)
    }

    /// Removes a file or link; whether there was one.
    pub fn remove(&self, path: &str) -> Result<bool> {
        let path = Path::new(path);
        match self.inside.link_kind(path)? {
            Some(Kind::File | Kind::Link) => {
                self.inside.slot(path)?.remove()?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root whose directories are absolute links: to what the root has, and to what only the host has.
    #[test]
    fn absolute_links_lead_to_the_root_s_own_files() {
        let (dir, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path();
        fs::create_dir_all(root.join("srv/dpkg")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("srv/dpkg/arch"), "amd64\narm64\n").unwrap();
        fs::create_dir_all(root.join("var/lib")).unwrap();
        symlink("/srv/dpkg", root.join("var/lib/dpkg")).unwrap();
        fs::write(host.path().join("ssh_host_rsa_key"), "the host's").unwrap();
        symlink(host.path(), root.join("etc/ssh")).unwrap();
        let files = RootFiles::open(root).unwrap();
        let arch = root.canonicalize().unwrap().join("srv/dpkg/arch");
        assert_eq!(files.find("/var/lib/dpkg/arch").unwrap(), Some(arch));
        assert_eq!(files.find("/etc/ssh/ssh_host_rsa_key").unwrap(), None);
        assert_eq!(files.find("/etc/ssh").unwrap(), None);
        assert!(crate::build::apt::first_start::host_keys(root).is_empty());
    }
}
