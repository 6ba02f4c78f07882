//! Directories and files of a plain tree that something else stands in for, for a while: where nothing
//! can be mounted over them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use crate::build::inside::{Attributes, Inside};
use crate::sys::remove::remove_wholly;

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
    instead: Instead,
    /// Date of the directory that it is in.
    dated: SystemTime,
}

/// What stands in the place of what is covered.
#[derive(Debug)]
enum Instead {
    Nothing,
    Empty,
    /// A file that came from there.
    File(PathBuf),
}

impl Covers {
    /// Takes a directory away, so that its name is free, and says where it is. Where it cannot be moved,
    /// because it lies on an overlay, which is thrown away in the end, it is copied and removed.
    pub fn take(&mut self, path: &Path, aside: &Path) -> Result<PathBuf> {
        let number = self.covered.len();
        let to = aside.join(number.to_string());
        match self.set_aside(path, aside, Instead::Nothing) {
            Ok(()) => {}
            Err(error) if is_across_devices(&error) => {
                let dated = parts(path)?.0.metadata()?.modified()?;
                copy(path, &to)?;
                remove_wholly(path)?;
                let gone = Covered { path: path.into(), aside: to.clone(), instead: Instead::Nothing, dated };
                gone.date()?;
                return Ok(to);
            }
            Err(error) => return Err(error),
        }
        self.date()?;
        Ok(to)
    }

    /// Puts an empty directory in the place of another. `aside` is a directory on the same file system.
    pub fn hide(&mut self, path: &Path, aside: &Path) -> Result<()> {
        let attributes = attributes(path)?;
        self.set_aside(path, aside, Instead::Empty)?;
        let (parent, name) = parts(path)?;
        let slot = Inside::open(parent)?.slot(Path::new(name))?;
        slot.create_dir()?;
        slot.apply(&attributes)?;
        self.date()
    }

    /// Puts a file in the place of another.
    pub fn replace(&mut self, path: &Path, really: &Path, aside: &Path) -> Result<()> {
        self.set_aside(path, aside, Instead::File(really.into()))?;
        fs::rename(really, path).with_context(|| format!("replacing {}", path.display()))?;
        self.date()
    }

    fn set_aside(&mut self, path: &Path, aside: &Path, instead: Instead) -> Result<()> {
        let doing = || format!("covering {}", path.display());
        let dated = parts(path)?.0.metadata().and_then(|meta| meta.modified()).with_context(doing)?;
        let aside = aside.join(self.covered.len().to_string());
        fs::rename(path, &aside).with_context(doing)?;
        self.covered.push(Covered { path: path.into(), aside, instead, dated });
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
        match &self.instead {
            // What failed half-way never came to its place.
            _ if self.path.symlink_metadata().is_err() => {}
            Instead::Nothing => {}
            Instead::Empty => fs::remove_dir(&self.path).with_context(doing)?,
            Instead::File(really) => fs::rename(&self.path, really).with_context(doing)?,
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

fn is_across_devices(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|error| error.kind() == std::io::ErrorKind::CrossesDevices)
}

/// A whole copy of a directory under a new name.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to).output();
    let output = output.context("starting cp")?;
    ensure!(output.status.success(), "copying {}: {}", from.display(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
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
