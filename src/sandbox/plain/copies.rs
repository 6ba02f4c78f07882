//! Stand-ins for bind mounts where nothing may be mounted: copies in the root, taken away (and
//! where writable, copied back) after the command.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cover::Covers;
use crate::sandbox::place::{Created, Kind, Root};
use crate::sandbox::{Bind, View};
use crate::sys::remove::remove_wholly;

/// What was put into the root for one command.
#[derive(Default)]
pub(in crate::sandbox) struct Copies {
    placed: Vec<Placed>,
    covers: Covers,
    created: Vec<Created>,
}

/// One bind's stand-in.
struct Placed {
    source: PathBuf,
    /// On the host.
    copy: PathBuf,
    read_only: bool,
    /// Files of a writable directory when it was copied, by which it is known what was removed.
    files: HashSet<PathBuf>,
}

impl Copies {
    /// Puts everything in place; what fails takes back what was done.
    pub(in crate::sandbox) fn place(view: &View, binds: &[Bind]) -> Result<Self> {
        let mut copies = Self::default();
        let result = copies.place_all(view, binds);
        if let Err(error) = result {
            let _ = copies.release();
            return Err(error);
        }
        Ok(copies)
    }

    fn place_all(&mut self, view: &View, binds: &[Bind]) -> Result<()> {
        let at = match view {
            View::Chroot { root } => {
                self.covers.place(root, true)?;
                root.as_path()
            }
            View::Host { root, .. } | View::HostPrograms { root, .. } => {
                root.iter().try_for_each(|root| self.covers.place(root, false))?;
                Path::new("/")
            }
        };
        let root = Root::open(at)?;
        for bind in binds {
            self.bind(&root, bind).with_context(|| {
                format!("making {} visible without mounts at {}", bind.source.display(), bind.target.display())
            })?;
        }
        Ok(())
    }

    fn bind(&mut self, root: &Root, bind: &Bind) -> Result<()> {
        let kind = Kind::of(&bind.source)?;
        let before = self.created.len();
        let target = root.make(&bind.target, kind, &mut self.created)?;
        let copy = fs::read_link(crate::sandbox::view::held(&target))?;
        if self.created.len() == before && !empty(&copy)? {
            // In place already, as for a file of the host that the host's view shows anyway.
            if same(&copy, &bind.source)? {
                return Ok(());
            }
            bail!("{} is not empty, and only a mount could cover it", copy.display());
        }
        copy_over(&bind.source, &copy)?;
        let files = if bind.read_only { HashSet::new() } else { files_below(&copy) };
        self.placed.push(Placed { source: bind.source.clone(), copy, read_only: bind.read_only, files });
        Ok(())
    }

    /// Copies back and takes away.
    pub(in crate::sandbox) fn release(self) -> Result<()> {
        for placed in self.placed.iter().rev() {
            if !placed.read_only {
                placed.carry_back().with_context(|| format!("copying changes back to {}", placed.source.display()))?;
            }
            clear(&placed.copy).with_context(|| format!("removing the copy {}", placed.copy.display()))?;
        }
        for made in self.created.iter().rev() {
            made.remove()?;
        }
        self.covers.remove()
    }
}

impl Placed {
    fn carry_back(&self) -> Result<()> {
        copy_back(&self.copy, &self.source)?;
        for gone in self.files.iter().filter(|file| self.copy.join(file).symlink_metadata().is_err()) {
            match fs::remove_file(self.source.join(gone)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Paths of all files of a directory, relative to it.
fn files_below(directory: &Path) -> HashSet<PathBuf> {
    walkdir::WalkDir::new(directory)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| entry.path().strip_prefix(directory).ok().map(Path::to_owned))
        .filter(|path| !path.as_os_str().is_empty())
        .collect()
}

fn empty(path: &Path) -> Result<bool> {
    let meta = path.symlink_metadata()?;
    Ok(if meta.is_dir() { fs::read_dir(path)?.next().is_none() } else { meta.len() == 0 })
}

fn same(one: &Path, other: &Path) -> Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Copies a file or tree over what stands at `to`. Nothing is linked: a command of root's could write to the original.
fn copy_over(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        // The mount point stays the same file, by which it is known when it is removed.
        fs::write(to, fs::read(from)?)?;
        fs::set_permissions(to, from.metadata()?.permissions())?;
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_over(&source, &target)?;
            fs::set_permissions(&target, source.metadata()?.permissions())?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

/// With the modification time, by which a change is seen later.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(from.metadata()?.modified()?)?;
    Ok(())
}

/// Carries what the command changed in the copy to the original: whole files under their names at once.
fn copy_back(copy: &Path, original: &Path) -> Result<()> {
    if !copy.is_dir() {
        fs::write(original, fs::read(copy)?)?;
        return Ok(());
    }
    for entry in fs::read_dir(copy)? {
        let entry = entry?;
        let (from, to) = (entry.path(), original.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&to)?;
            copy_back(&from, &to)?;
        } else if kind.is_file() && differs(&from, &to)? {
            let part = original.join(format!(".{}.debforge", entry.file_name().display()));
            copy_file(&from, &part)?;
            fs::rename(&part, &to)?;
        }
    }
    Ok(())
}

fn differs(one: &Path, other: &Path) -> Result<bool> {
    let one = one.metadata()?;
    Ok(match other.metadata() {
        Ok(other) => one.len() != other.len() || one.modified()? != other.modified()?,
        Err(_) => true,
    })
}

/// Empties a copy; its mount point goes with the others.
fn clear(copy: &Path) -> Result<()> {
    let Ok(meta) = copy.symlink_metadata() else { return Ok(()) };
    if !meta.is_dir() {
        fs::write(copy, "")?;
        return Ok(());
    }
    for entry in fs::read_dir(copy)? {
        let path = entry?.path();
        remove_wholly(&path).map_err(std::io::Error::other)?;
    }
    Ok(())
}
