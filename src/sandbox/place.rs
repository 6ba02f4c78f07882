//! Paths inside a root: never out of it, whatever links the root has.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use serde::{Deserialize, Serialize};

/// Links followed before a path counts as circular, as the kernel has it (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What a mount point has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl Kind {
    /// That of an existing path.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let meta = path.metadata().with_context(|| format!("looking at {}", path.display()))?;
        Ok(if meta.is_dir() { Self::Directory } else { Self::File })
    }
}

/// Something that was made for a command to be mounted on, and goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Created {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The directory's modification time before and after.
    times: Option<(SystemTime, SystemTime)>,
}

impl Created {
    /// Something that was just made in a directory whose modification time was `before`.
    pub(super) fn just_now(path: &Path, before: Option<SystemTime>) -> Result<Self> {
        let meta = path.symlink_metadata()?;
        let after = path.parent().and_then(modified);
        Ok(Self { path: path.into(), device: meta.dev(), inode: meta.ino(), times: before.zip(after) })
    }

    /// Device of the file system that it is on.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// Takes it away again, unless something else has come in its place; the directory's
    /// modification time is put back if nothing else has changed the directory.
    pub(super) fn remove(&self) -> Result<()> {
        let doing = || format!("removing the mount point {}", self.path.display());
        let Ok(meta) = self.path.symlink_metadata() else { return Ok(()) };
        if (meta.dev(), meta.ino()) != (self.device, self.inode) {
            return Ok(());
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let unchanged = self.times.filter(|(_, after)| modified(parent).as_ref() == Some(after));
        if meta.is_dir() {
            match std::fs::remove_dir(&self.path) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
                other => other.with_context(doing)?,
            }
        } else if meta.len() == 0 {
            std::fs::remove_file(&self.path).with_context(doing)?;
        }
        if let Some((before, _)) = unchanged {
            File::open(parent).and_then(|parent| parent.set_modified(before)).with_context(doing)?;
        }
        Ok(())
    }
}

pub(super) fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}

/// A directory that paths are resolved in.
pub(super) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())
            .with_context(|| format!("opening the root {}", path.display()))?;
        Ok(Self { fd, path: path.into() })
    }

    /// As shown in messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An existing file or directory, as the root's own processes would find it.
    pub(super) fn find(&self, path: &Path) -> nix::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // EAGAIN: something was renamed meanwhile.
        loop {
            match openat2(&self.fd, relative, how) {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
    }

    /// The same, made with its parents where it is not there.
    pub(super) fn make(&self, path: &Path, kind: Kind, created: &mut Vec<Created>) -> Result<OwnedFd> {
        self.make_following(path, kind, created, MOST_LINKS)
            .with_context(|| format!("making {} in {}", path.display(), self.path.display()))
    }

    fn make_following(&self, path: &Path, kind: Kind, created: &mut Vec<Created>, links: usize) -> Result<OwnedFd> {
        match self.find(path) {
            Err(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { bail!("not a path to a file") };
        if path.components().any(|part| part == Component::ParentDir) {
            bail!("a path with `..` in it");
        }
        let parent_fd = self.make_following(parent, Kind::Directory, created, links)?;
        if let Ok(target) = readlinkat(&parent_fd, name) {
            if links == 0 {
                return Err(Errno::ELOOP.into());
            }
            let target = parent.join(target);
            return self.make_following(&normalise(&target), kind, created, links - 1);
        }
        let held = PathBuf::from(format!("/proc/self/fd/{}", parent_fd.as_raw_fd()));
        let before = modified(&held);
        match kind {
            Kind::Directory => mkdirat(&parent_fd, name, Mode::from_bits_truncate(0o755))?,
            Kind::File => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&parent_fd, name, flags, Mode::from_bits_truncate(0o644))?;
            }
        }
        let made = openat(&parent_fd, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        created.push(Created::just_now(&std::fs::read_link(&held)?.join(name), before)?);
        Ok(made)
    }
}

/// Takes `.` and `..` out of an absolute path by its text, and never above `/`. Only for links to
/// what is not there, whose directories are then made as directories.
fn normalise(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn absolute_links_and_dots_stay_in_the_root() -> Result<()> {
        let outside = tempfile::tempdir()?;
        let root = tempfile::tempdir()?;
        symlink(outside.path(), root.path().join("link"))?;
        symlink("../../../../../..", root.path().join("up"))?;
        let mut created = Vec::new();
        let root_fd = Root::open(root.path())?;
        root_fd.make(Path::new("/link/file"), Kind::File, &mut created)?;
        root_fd.make(Path::new("/up/made/deep"), Kind::Directory, &mut created)?;
        assert_eq!(std::fs::read_dir(outside.path())?.count(), 0);
        assert!(root.path().join("made/deep").is_dir());
        let inside = root.path().join(outside.path().strip_prefix("/")?);
        assert!(inside.join("file").is_file());
        Ok(())
    }

    #[test]
    fn what_was_made_goes_again_and_leaves_the_time_of_its_directory() -> Result<()> {
        let root = tempfile::tempdir()?;
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc)?;
        symlink("../run/resolve/stub.conf", etc.join("resolv.conf"))?;
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::open(root.path())?.set_modified(then)?;
        let mut created = Vec::new();
        Root::open(root.path())?.make(Path::new("/etc/resolv.conf"), Kind::File, &mut created)?;
        assert!(root.path().join("run/resolve/stub.conf").is_file());
        for made in created.iter().rev() {
            made.remove()?;
        }
        assert!(!root.path().join("run").exists());
        assert_eq!(root.path().metadata()?.modified()?, then);
        Ok(())
    }

    #[test]
    fn what_was_filled_or_replaced_meanwhile_stays() -> Result<()> {
        let root = tempfile::tempdir()?;
        let mut created = Vec::new();
        Root::open(root.path())?.make(Path::new("/a/file"), Kind::File, &mut created)?;
        std::fs::write(root.path().join("a/file"), "text")?;
        for made in created.iter().rev() {
            made.remove()?;
        }
        assert_eq!(std::fs::read_to_string(root.path().join("a/file"))?, "text");
        Ok(())
    }
}
