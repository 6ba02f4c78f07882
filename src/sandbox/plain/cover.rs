//! Directories of a root that are the command's own for its time: /proc, /dev, /sys and /tmp, which are mounts
//! where something can be mounted.
//!
//! What the root has there is moved aside and put back, so that nothing that a command leaves in them stays, and
//! nothing that stands for the kernel's files is taken for the root's.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::sandbox::constant;
use crate::sandbox::device::{DEVICES, LINKS};
use crate::sandbox::place::{Kind, Root, modified};
use crate::sandbox::view::held;
use crate::sys::remove::remove_wholly;

/// The directories and their modes. Without the first two a root is not given them where it has none.
const COVERED: [(&str, u32); 4] = [("/sys", 0o755), ("/proc", 0o555), ("/dev", 0o755), ("/tmp", 0o1777)];

/// Directories that are covered.
#[derive(Default)]
pub(super) struct Covers {
    /// Beside the root, for what is moved aside; and when the directory that it is in was changed before.
    aside: Option<(PathBuf, Option<SystemTime>)>,
    covered: Vec<Covered>,
}

struct Covered {
    /// On the host.
    path: PathBuf,
    /// What was there.
    before: Option<PathBuf>,
    /// The directory's modification time before and after.
    times: Option<(SystemTime, SystemTime)>,
}

impl Covers {
    /// Covers what `root` has of these directories; with `complete` also what it has not, and all of it.
    pub(super) fn place(&mut self, root: &Path, complete: bool) -> Result<()> {
        for (name, mode) in COVERED {
            if !complete && (name == "/sys" || Root::open(root)?.find(Path::new(name)).is_err()) {
                continue;
            }
            self.cover(root, name, mode).with_context(|| format!("covering {name} of {}", root.display()))?;
        }
        Ok(())
    }

    fn cover(&mut self, root: &Path, name: &str, mode: u32) -> Result<()> {
        let inside = Root::open(root)?;
        let (path, before) = match inside.find(Path::new(name)) {
            Ok(found) => {
                let path = fs::read_link(held(&found))?;
                let kept = self.aside(root)?.join(&name[1..]);
                (path, Some(kept))
            }
            Err(nix::errno::Errno::ENOENT) => {
                let mut made = Vec::new();
                let target = inside.make(Path::new(name), Kind::Directory, &mut made)?;
                let path = fs::read_link(held(&target))?;
                made.last().map_or(Ok(()), crate::sandbox::place::Created::remove)?;
                (path, None)
            }
            Err(error) => return Err(error.into()),
        };
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        let earlier = modified(&parent);
        if let Some(kept) = &before {
            fs::rename(&path, kept).context("moving it aside")?;
        }
        self.covered.push(Covered { path: path.clone(), before, times: None });
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        match name {
            "/proc" => processes(&path)?,
            "/dev" => devices(&path)?,
            "/sys" => machine(&path)?,
            _ => {}
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if let Some(covered) = self.covered.last_mut() {
            covered.times = earlier.zip(modified(&parent));
        }
        Ok(())
    }

    /// A directory on the root's file system.
    fn aside(&mut self, root: &Path) -> Result<PathBuf> {
        if let Some((aside, _)) = &self.aside {
            return Ok(aside.clone());
        }
        let parent = root.parent().context("the root has no directory beside it")?;
        let earlier = modified(parent);
        let made = tempfile::Builder::new().prefix(".covered-").tempdir_in(parent)?.keep();
        self.aside = Some((made.clone(), earlier));
        Ok(made)
    }

    /// Puts everything back.
    pub(super) fn remove(mut self) -> Result<()> {
        for covered in self.covered.drain(..).rev() {
            covered.uncover().with_context(|| format!("putting {} back", covered.path.display()))?;
        }
        if let Some((aside, earlier)) = self.aside {
            let doing = || format!("removing {}", aside.display());
            fs::remove_dir(&aside).with_context(doing)?;
            // The root may itself stand in a tree that is a product.
            if let (Some(parent), Some(earlier)) = (aside.parent(), earlier) {
                File::open(parent).and_then(|parent| parent.set_modified(earlier)).with_context(doing)?;
            }
        }
        Ok(())
    }
}

impl Covered {
    fn uncover(&self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        // With `/tmp` beside `/proc`, one cover's time is the other's earlier one.
        let untouched = self.times.filter(|(_, after)| modified(parent).as_ref() == Some(after));
        let removed = match self.path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => remove_wholly(&self.path).map_err(std::io::Error::other),
            Ok(_) => fs::remove_file(&self.path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if let Some(before) = &self.before {
            fs::rename(before, &self.path)?;
        }
        if let Some((before, _)) = untouched {
            File::open(parent)?.set_modified(before)?;
        }
        Ok(())
    }
}

/// A name for what is given when it is asked for. It leads nowhere, so that whoever comes to it by a link of the
/// root is told from one who finds a file.
fn given(path: &Path) -> Result<()> {
    let name = path.file_name().context("no name")?;
    Ok(symlink(name, path)?)
}

/// The names of what is stated.
fn processes(proc: &Path) -> Result<()> {
    for (name, _) in constant::files_of("proc") {
        let path = proc.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        given(&path)?;
    }
    for own in ["self", "thread-self"] {
        given(&proc.join(own))?;
    }
    Ok(())
}

/// The files that are stated, which the root can hold itself.
fn machine(sys: &Path) -> Result<()> {
    for (name, text) in constant::files_of("sys") {
        let path = sys.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text)?;
        File::open(&path)?
            .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(constant::MOMENT.cast_unsigned()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
    }
    Ok(())
}

/// Devices where they can be made, and names of what is given elsewhere.
fn devices(dev: &Path) -> Result<()> {
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        let made = mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)).is_ok();
        if made && (name == "tty" || File::open(&path).is_ok()) {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
            continue;
        }
        if made {
            fs::remove_file(&path)?;
        }
        given(&path)?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        fs::create_dir(dev.join(name))?;
        fs::set_permissions(dev.join(name), fs::Permissions::from_mode(mode))?;
    }
    given(&dev.join("pts/ptmx"))
}
