//! Work on files below a root directory that no path can leave.
//!
//! A target root is somebody else's system: `var/run` is a link to `/run` that means the target's
//! `/run`, and an archive may have put a link anywhere. So every path is resolved as if the root were
//! `/`, and whatever is done is done to a name in a directory that is already open.

mod resolve;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::diagnostics::Fault;
use crate::sys::file::protection;
use crate::sys::label;

/// A directory that paths cannot leave.
#[derive(Debug)]
pub struct Inside {
    root: OwnedFd,
}

/// A name in an open directory: what is there, if anything, is never followed when it is a link.
#[derive(Debug)]
pub struct Slot {
    directory: OwnedFd,
    name: OsString,
    /// As the target knows it, for messages.
    shown: PathBuf,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Special,
}

/// What a file is beside its contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions with setuid, setgid and sticky bits; without meaning for links.
    pub mode: u32,
    /// Seconds since 1970 and nanoseconds; now where `None`.
    pub modified: Option<(i64, u32)>,
    /// Extended attributes, capabilities and ACLs among them.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Kind {
    /// The kind of a mode as stat(2) gives it.
    pub fn of(mode: u32) -> Self {
        match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Self::File,
            SFlag::S_IFDIR => Self::Directory,
            SFlag::S_IFLNK => Self::Link,
            _ => Self::Special,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Link => "a link",
            Self::Special => "a device, pipe or socket",
        })
    }
}

/// The path as the target knows it: absolute, without `.` and empty parts.
pub fn shown(path: &Path) -> PathBuf {
    let mut all = PathBuf::from("/");
    all.extend(path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir)));
    all
}

impl Inside {
    /// A path that leads to the root as long as this is open, for what only looks.
    pub fn held(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }

    /// Takes a directory of the host as root.
    pub fn open(root: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(root, flags, Mode::empty())
            .with_context(|| format!("opening the directory {}", root.display()))?;
        Ok(Self { root })
    }

    /// The name at the end of a path; the directories before it must be there. Its last part may not
    /// be `..`.
    pub fn slot(&self, path: &Path) -> Result<Slot> {
        let shown = shown(path);
        let (parent, name) = match (shown.parent(), shown.file_name()) {
            (Some(parent), Some(name)) => (parent, name.to_owned()),
            (None, _) => (Path::new("."), OsString::from(".")),
            (Some(_), None) => bail!("{} does not end in a name", shown.display()),
        };
        let directory = resolve::open(self.root.as_fd(), parent, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .with_context(|| format!("opening the directory {}", parent.display()))?;
        Ok(Slot { directory, name, shown })
    }

    /// A directory, links followed inside the root: to do something to a name in it.
    pub fn directory(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        resolve::open(self.root.as_fd(), path, flags | OFlag::O_DIRECTORY)
    }

    /// What is at a path, links followed inside the root; `None` where there is nothing.
    pub fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        Ok(self.stat(path, OFlag::empty())?.map(|stat| Kind::of(stat.st_mode)))
    }

    /// The same without following a link at the path's end.
    pub fn link_kind(&self, path: &Path) -> Result<Option<Kind>> {
        Ok(self.stat(path, OFlag::O_NOFOLLOW)?.map(|stat| Kind::of(stat.st_mode)))
    }

    fn stat(&self, path: &Path, flags: OFlag) -> Result<Option<FileStat>> {
        match resolve::open(self.root.as_fd(), path, OFlag::O_PATH | flags) {
            Ok(found) => Ok(Some(fstat(&found).with_context(|| format!("looking at {}", shown(path).display()))?)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {}", shown(path).display())),
        }
    }

    /// A regular file to be read, links followed inside the root.
    pub fn read(&self, path: &Path) -> Result<File> {
        let doing = || format!("opening {}", shown(path).display());
        // A pipe would block for ever.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::from(resolve::open(self.root.as_fd(), path, flags).with_context(doing)?);
        match Kind::of(fstat(&file).with_context(doing)?.st_mode) {
            Kind::File => Ok(file),
            other => bail!("{} is {other}, not a file", shown(path).display()),
        }
    }

    /// Where a path leads, links followed inside the root: relative to it, without links or `..`.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let doing = || format!("looking for {}", shown(path).display());
        let found = resolve::open(self.root.as_fd(), path, OFlag::O_PATH).with_context(doing)?;
        let at = fs::read_link(descriptor(&found)).with_context(doing)?;
        let top = fs::read_link(descriptor(&self.root)).with_context(doing)?;
        Ok(at.strip_prefix(&top).with_context(doing)?.to_owned())
    }

    /// The same as a path of the host; `None` where nothing is there.
    pub fn find(&self, path: &Path) -> Result<Option<PathBuf>> {
        if self.kind(path)?.is_none() {
            return Ok(None);
        }
        let top = fs::read_link(descriptor(&self.root)).context("looking for the root")?;
        Ok(Some(top.join(self.resolve(path)?)))
    }

    /// A path of the host that leads to what is at `path`, for as long as the returned descriptor lives.
    pub fn host_path(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let found = resolve::open(self.root.as_fd(), path, OFlag::O_PATH)
            .with_context(|| format!("opening {}", shown(path).display()))?;
        let host = descriptor(&found);
        Ok((found, host))
    }

    /// Makes a directory and those above it where they are missing (root's, 0755). Links to
    /// directories on the way are followed inside the root.
    pub fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut so_far = PathBuf::from("/");
        for part in path.components() {
            match part {
                Component::Normal(name) => so_far.push(name),
                Component::ParentDir => so_far.push(".."),
                _ => continue,
            }
            match self.kind(&so_far)? {
                Some(Kind::Directory) => {}
                Some(other) => {
                    return Err(Fault::failed(format!("{} is {other}, not a directory", so_far.display())).into());
                }
                None => self.slot(&so_far)?.create_dir()?,
            }
        }
        Ok(())
    }
}

impl Slot {
    /// As the target knows it.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// stat(2) of what is there, links not followed.
    pub fn stat(&self) -> Result<Option<FileStat>> {
        match fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {}", self.shown.display())),
        }
    }

    /// What is there, links not followed.
    pub fn kind(&self) -> Result<Option<Kind>> {
        Ok(self.stat()?.map(|stat| Kind::of(stat.st_mode)))
    }

    /// Where the link that is there points.
    pub fn link_target(&self) -> Result<PathBuf> {
        Ok(readlinkat(&self.directory, self.name.as_os_str())
            .with_context(|| format!("reading the link {}", self.shown.display()))?
            .into())
    }

    /// Makes a directory (0755) where there is nothing.
    pub fn create_dir(&self) -> Result<()> {
        match mkdirat(&self.directory, self.name.as_os_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) => self.set_mode(0o755),
            Err(Errno::EEXIST) if self.kind()? == Some(Kind::Link) => {
                let target = self.link_target()?;
                Err(Fault::failed(format!(
                    "{} is a link to {}, which is not there",
                    self.shown.display(),
                    target.display()
                ))
                .into())
            }
            Err(error) => Err(error).with_context(|| format!("making the directory {}", self.shown.display())),
        }
    }

    /// A new file (0600) to be written, in place of what was there.
    pub fn create_file(&self) -> Result<File> {
        self.remove()?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.directory, self.name.as_os_str(), flags, Mode::from_bits_truncate(0o600))
            .with_context(|| format!("making {}", self.shown.display()))?;
        Ok(file.into())
    }

    /// The regular file that is there, to be read.
    pub fn open_file(&self) -> Result<File> {
        // What is no file after all does not make this wait.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.directory, self.name.as_os_str(), flags, Mode::empty())
            .with_context(|| format!("opening {}", self.shown.display()))?;
        Ok(file.into())
    }

    /// A link in place of what was there.
    pub fn create_link(&self, target: &OsStr) -> Result<()> {
        self.remove()?;
        symlinkat(target, &self.directory, self.name.as_os_str())
            .with_context(|| format!("making the link {}", self.shown.display()))
    }

    /// A further name of an existing file, in place of what was there.
    pub fn create_hard_link(&self, existing: &Slot) -> Result<()> {
        if let (Some(here), Some(there)) = (self.stat()?, existing.stat()?)
            && (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
        {
            return Ok(());
        }
        self.remove()?;
        linkat(&existing.directory, existing.name.as_os_str(), &self.directory, self.name.as_os_str(), AtFlags::empty())
            .with_context(|| format!("linking {} to {}", self.shown.display(), existing.shown.display()))
    }

    /// A device or pipe in place of what was there; an error of its own kind where the kernel forbids it.
    pub fn create_node(&self, kind: SFlag, device: u64) -> Result<()> {
        self.remove()?;
        mknodat(&self.directory, self.name.as_os_str(), kind, Mode::from_bits_truncate(0o600), device)
            .with_context(|| format!("making the device {}", self.shown.display()))
    }

    /// Moves what is there to another name of the same file system.
    pub fn rename(&self, to: &Slot) -> Result<()> {
        nix::fcntl::renameat(&self.directory, self.name.as_os_str(), &to.directory, to.name.as_os_str())
            .with_context(|| format!("moving {} to {}", self.shown.display(), to.shown.display()))
    }

    /// Removes what is there, if anything; a directory must be empty.
    pub fn remove(&self) -> Result<()> {
        let name = self.name.as_os_str();
        let error = match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EISDIR) => match unlinkat(&self.directory, name, UnlinkatFlags::RemoveDir) {
                Ok(()) => return Ok(()),
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                    return Err(Fault::failed(format!(
                        "{} is a directory with files in it, and is not replaced by anything else",
                        self.shown.display()
                    ))
                    .into());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        let is_protected = |path: &Path| protection(path).is_ok_and(|letters| letters.is_some());
        let (file, directory) = (self.through_directory(), descriptor(&self.directory).join("."));
        if error == Errno::EPERM && (is_protected(&file) || is_protected(&directory)) {
            return Err(Fault::failed(format!(
                "{} cannot be replaced: it, or its directory, is protected (chattr(1))",
                self.shown.display()
            ))
            .hint("take the protection off before, with `chattr -i` or `-a` in a `run`, or protect it afterwards")
            .into());
        }
        Err(error).with_context(|| format!("replacing {}", self.shown.display()))
    }

    /// Sets the owner.
    pub fn set_owner(&self, uid: u32, gid: u32) -> Result<()> {
        let (uid_, gid_) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match fchownat(&self.directory, self.name.as_os_str(), uid_, gid_, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::EINVAL) => Err(Fault::machine(format!(
                "{} belongs to {uid}:{gid}, which this build's user namespace does not have",
                self.shown.display()
            ))
            .hint("give the user more subordinate ids in /etc/subuid and /etc/subgid, or build as root")
            .into()),
            result => result.with_context(|| format!("giving {} to {uid}:{gid}", self.shown.display())),
        }
    }

    /// Sets the permissions; does nothing to a link, which has none.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        let doing = || format!("setting the mode of {}", self.shown.display());
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found =
            nix::fcntl::openat(&self.directory, self.name.as_os_str(), flags, Mode::empty()).with_context(doing)?;
        if Kind::of(fstat(&found).with_context(doing)?.st_mode) == Kind::Link {
            return Ok(());
        }
        fs::set_permissions(descriptor(&found), fs::Permissions::from_mode(mode)).with_context(doing)
    }

    /// Sets the time of the last change.
    pub fn set_modified(&self, seconds: i64, nanoseconds: u32) -> Result<()> {
        let time = TimeSpec::new(seconds, nanoseconds.into());
        utimensat(&self.directory, self.name.as_os_str(), &time, &time, UtimensatFlags::NoFollowSymlink)
            .with_context(|| format!("dating {}", self.shown.display()))
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, name: &OsStr, value: &[u8]) -> Result<()> {
        xattr::set(self.through_directory(), name, value)
            .with_context(|| format!("setting the attribute {} of {}", name.to_string_lossy(), self.shown.display()))
    }

    /// Its extended attributes, sorted by name; none where the file system has none.
    pub fn xattrs(&self) -> Result<Vec<(OsString, Vec<u8>)>> {
        xattrs(&self.through_directory()).with_context(|| format!("reading attributes of {}", self.shown.display()))
    }

    /// All attributes of what is there.
    pub fn attributes(&self) -> Result<Attributes> {
        let stat = self.stat()?.with_context(|| format!("{} is gone", self.shown.display()))?;
        Ok(Attributes {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            modified: Some((stat.st_mtime, stat.st_mtime_nsec as u32)),
            xattrs: self.xattrs()?,
        })
    }

    /// Sets all attributes, in the order in which none undoes another: a new owner clears setuid bits
    /// and capabilities, and an ACL's mask is part of the mode.
    pub fn apply(&self, attributes: &Attributes) -> Result<()> {
        self.set_owner(attributes.uid, attributes.gid)?;
        self.set_mode(attributes.mode)?;
        for (name, value) in &attributes.xattrs {
            self.set_xattr(name, value)?;
        }
        if let Some((seconds, nanoseconds)) = attributes.modified {
            self.set_modified(seconds, nanoseconds)?;
        }
        Ok(())
    }

    /// A path of the host whose last part is a name in our open directory: for calls that take a path
    /// and do not follow a link at its end.
    fn through_directory(&self) -> PathBuf {
        descriptor(&self.directory).join(&self.name)
    }
}

/// Extended attributes of a file of the host, links not followed, sorted by name; none where the file
/// system has none. Overlayfs's own marks are not the file's, nor is a label that the host's kernel gave it.
pub fn xattrs(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for name in names.filter(|name| !is_overlay_mark(name) && !label::is_hosts(name)) {
        if let Some(value) = xattr::get(path, &name)? {
            all.push((name, value));
        }
    }
    all.sort();
    Ok(all)
}

/// Whether an attribute is overlayfs's own.
pub fn is_overlay_mark(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

fn descriptor(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}
