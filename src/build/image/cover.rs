//! Directories and files of a plain tree that something else stands in for, for a while: where nothing
//! can be mounted over them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::build::inside::{Attributes, Inside};

/// What is covered now, undone in reverse order, also when dropped.
#[derive(Debug, Default)]
pub struct Covers {
    covered: Vec<Covered>,
}

#[derive(Debug)]
struct Covered {
    path: PathBuf,
    /// Where what was there is meanwhile.
    aside: PathBuf,
    /// Where what stands there now came from; `None` for an empty directory.
    really: Option<PathBuf>,
    /// Date of the directory that it is in.
    dated: SystemTime,
}

impl Covers {
    /// Puts an empty directory in the place of another. `aside` is a directory on the same file system.
    pub fn hide(&mut self, path: &Path, aside: &Path) -> Result<()> {
        let attributes = attributes(path)?;
        self.set_aside(path, aside, None)?;
        let (parent, name) = parts(path)?;
        let slot = Inside::open(parent)?.slot(Path::new(name))?;
        slot.create_dir()?;
        slot.apply(&attributes)?;
        self.date()
    }

    /// Puts a file in the place of another.
    pub fn replace(&mut self, path: &Path, really: &Path, aside: &Path) -> Result<()> {
        self.set_aside(path, aside, Some(really))?;
        fs::rename(really, path).with_context(|| format!("replacing {}", path.display()))?;
        self.date()
    }

    fn set_aside(&mut self, path: &Path, aside: &Path, really: Option<&Path>) -> Result<()> {
        let doing = || format!("covering {}", path.display());
        let dated = parts(path)?.0.metadata().and_then(|meta| meta.modified()).with_context(doing)?;
        let aside = aside.join(self.covered.len().to_string());
        fs::rename(path, &aside).with_context(doing)?;
        self.covered.push(Covered { path: path.into(), aside, really: really.map(Path::to_owned), dated });
        Ok(())
    }

    /// Gives the directory of what was covered last the date that it had.
    fn date(&self) -> Result<()> {
        self.covered.last().map_or(Ok(()), Covered::date)
    }

    /// Puts everything back.
    pub fn undo(mut self) -> Result<()> {
        while let Some(covered) = self.covered.pop() {
            covered.undo()?;
        }
        Ok(())
    }
}

impl Drop for Covers {
    fn drop(&mut self) {
        while let Some(covered) = self.covered.pop() {
            if let Err(error) = covered.undo() {
                tracing::warn!("{error:#}");
            }
        }
    }
}

impl Covered {
    fn undo(&self) -> Result<()> {
        let doing = || format!("uncovering {}", self.path.display());
        match &self.really {
            // What failed half-way never came to its place.
            _ if self.path.symlink_metadata().is_err() => {}
            Some(really) => fs::rename(&self.path, really).with_context(doing)?,
            None => fs::remove_dir(&self.path).with_context(doing)?,
        }
        fs::rename(&self.aside, &self.path).with_context(doing)?;
        self.date()
    }

    fn date(&self) -> Result<()> {
        let parent = parts(&self.path)?.0;
        let dated = File::open(parent).and_then(|parent| parent.set_modified(self.dated));
        dated.with_context(|| format!("dating {}", parent.display()))
    }
}

fn parts(path: &Path) -> Result<(&Path, &std::ffi::OsStr)> {
    path.parent().zip(path.file_name()).with_context(|| format!("{} cannot be covered", path.display()))
}

/// Owner, mode, date and attributes of a file or directory of the host.
pub fn attributes(path: &Path) -> Result<Attributes> {
    let (parent, name) = parts(path)?;
    Inside::open(parent)?.slot(Path::new(name))?.attributes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_covered_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (root, aside) = (dir.path().join("root"), dir.path().join("aside"));
        let efi = root.join("boot/efi");
        fs::create_dir_all(efi.join("EFI")).unwrap();
        fs::create_dir(&aside).unwrap();
        fs::write(root.join("boot/cmdline"), "before").unwrap();
        fs::write(dir.path().join("other"), "after").unwrap();
        fs::set_permissions(&efi, fs::Permissions::from_mode(0o700)).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::open(root.join("boot")).unwrap().set_modified(then).unwrap();
        let inode = efi.metadata().unwrap().ino();
        for finish in [|covers: Covers| covers.undo().unwrap(), |covers: Covers| drop(covers)] {
            let mut covers = Covers::default();
            covers.hide(&efi, &aside).unwrap();
            covers.replace(&root.join("boot/cmdline"), &dir.path().join("other"), &aside).unwrap();
            assert_eq!(fs::read_dir(&efi).unwrap().count(), 0);
            assert_eq!(efi.metadata().unwrap().mode() & 0o7777, 0o700);
            assert_eq!(fs::read_to_string(root.join("boot/cmdline")).unwrap(), "after");
            assert_eq!(root.join("boot").metadata().unwrap().modified().unwrap(), then);
            finish(covers);
            assert_eq!(efi.metadata().unwrap().ino(), inode);
            assert!(efi.join("EFI").is_dir());
            assert_eq!(fs::read_to_string(root.join("boot/cmdline")).unwrap(), "before");
            assert_eq!(fs::read_to_string(dir.path().join("other")).unwrap(), "after");
            assert_eq!(root.join("boot").metadata().unwrap().modified().unwrap(), then);
            assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
        }
    }
}
