//! Removing directories, never through a mount point.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file;

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// Nothing is left.
    Wholly,
    /// Files of mapped owners are left, for a process in their user namespace.
    Partly,
}

/// Removes a directory from where a file is to be; whatever else is there stays.
pub fn make_way(path: &Path) {
    if path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
        && let Err(error) = remove_tree(path)
    {
        tracing::warn!("{error:#}");
    }
}

/// Removes a file or directory with all that is below it. Mounts below it in this namespace are
/// unmounted first; what cannot be unmounted is an error, and nothing below it is touched.
pub fn remove_tree(path: &Path) -> Result<Removed> {
    unmount_below(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("refusing to remove {}", path.display());
    };
    let context = || format!("removing {}", path.display());
    let parent = match Dir::open(parent, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::ENOENT) => return Ok(Removed::Wholly),
        Err(error) => return Err(error).with_context(context),
    };
    let name = CString::new(name.as_bytes()).with_context(context)?;
    let stat = match fstatat(&parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::ENOENT) => return Ok(Removed::Wholly),
        Err(error) => return Err(error).with_context(context),
    };
    Removal { device: stat.st_dev, top: None, lifted: 0 }.remove(parent.as_fd(), &name, 0).with_context(context)
}

/// The same where nothing may be left.
pub fn remove_wholly(path: &Path) -> Result<()> {
    match remove_tree(path)? {
        Removed::Wholly => Ok(()),
        Removed::Partly => bail!("removing {}: not all of it is ours to remove", path.display()),
    }
}

/// Levels of directories that are open at once, of the thousand files that a process may have open. What is deeper is
/// moved up first.
const LEVELS: usize = 100;

/// A removal on its way.
struct Removal {
    device: libc::dev_t,
    /// The directory that is removed.
    top: Option<OwnedFd>,
    /// How many directories were moved up into it.
    lifted: usize,
}

impl Removal {
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, level: usize) -> Result<Removed> {
        let unlink = || unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
        let removed = match unlink() {
            Err(Errno::EPERM) if unprotect(parent, name) => unlink(),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => return Ok(Removed::Wholly),
            // Directories answer EISDIR on Linux, EPERM by POSIX.
            Err(Errno::EISDIR | Errno::EPERM | Errno::EACCES) => {}
            Err(error) => return Err(error.into()),
        }
        let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(Removed::Wholly),
            Err(Errno::EACCES | Errno::EPERM) => return Ok(Removed::Partly),
            Err(error) => return Err(error.into()),
        };
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFDIR {
            return Ok(Removed::Partly);
        }
        if stat.st_dev != self.device {
            bail!("{} is a mount point", name.to_string_lossy());
        }
        let mut dir = match open_dir(parent, name) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Ok(Removed::Wholly),
            Err(Errno::EACCES | Errno::EPERM) => return Ok(Removed::Partly),
            Err(error) => return Err(error.into()),
        };
        if level == LEVELS
            && let Some(lifted) = self.lift(parent, name)?
        {
            return Ok(lifted);
        }
        if level == 0 {
            self.top = Some(dir.as_fd().try_clone_to_owned()?);
        }
        let mut result = Removed::Wholly;
        loop {
            let lifted = self.lifted;
            for child in names_in(&mut dir) {
                if self.remove(dir.as_fd(), &child, level + 1)? == Removed::Partly {
                    result = Removed::Partly;
                }
            }
            // What was moved up is there now.
            if level > 0 || self.lifted == lifted {
                break;
            }
        }
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(result),
            Err(Errno::EACCES | Errno::EPERM | Errno::ENOTEMPTY) => Ok(Removed::Partly),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a directory up to the top, under a name that nobody else gives; `None` where that cannot be done, as with
    /// one of an overlay's lower directories.
    fn lift(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<Removed>> {
        let Some(top) = &self.top else { bail!("{} is too deep", name.to_string_lossy()) };
        static LIFTED: AtomicUsize = AtomicUsize::new(0);
        let number = LIFTED.fetch_add(1, Ordering::Relaxed);
        let up = CString::new(format!(".debforge-lifted-{}-{number}", std::process::id()))?;
        match renameat(parent, name, top, up.as_c_str()) {
            Ok(()) => {
                self.lifted += 1;
                Ok(Some(Removed::Wholly))
            }
            Err(Errno::ENOENT) => Ok(Some(Removed::Wholly)),
            Err(Errno::EACCES | Errno::EPERM) => Ok(Some(Removed::Partly)),
            Err(Errno::EXDEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn names_in(dir: &mut Dir) -> Vec<CString> {
    dir.iter()
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_owned()))
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .collect()
}

/// Takes from a file and its directory what chattr(1) keeps from being removed; whether there was any.
fn unprotect(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let take = |file: BorrowedFd<'_>| match file::flags(file) {
        Ok(Some(all)) if all & file::PROTECTED != 0 => file::set_flags(file, all & !file::PROTECTED).is_ok(),
        _ => false,
    };
    let own = openat(parent, name, flags, Mode::empty()).is_ok_and(|file| take(file.as_fd()));
    take(parent) || own
}

fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<Dir> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // Searching and writing need their bits too; overlay's work directory has none at all.
    let writable = Mode::S_IRWXU;
    match Dir::openat(parent, name, flags, Mode::empty()) {
        Ok(dir) => {
            let stat = nix::sys::stat::fstat(&dir)?;
            if stat.st_mode & Mode::S_IRWXU.bits() != Mode::S_IRWXU.bits() {
                // Best effort: where it matters, removing what is inside says so.
                let _ = nix::sys::stat::fchmod(&dir, writable);
            }
            Ok(dir)
        }
        Err(Errno::EACCES) => {
            fchmodat(parent, name, writable, FchmodatFlags::FollowSymlink)?;
            Dir::openat(parent, name, flags, Mode::empty())
        }
        Err(error) => Err(error),
    }
}

/// Mount points at or below a directory in this mount namespace, in the order they were mounted.
fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let Ok(table) = std::fs::read("/proc/thread-self/mountinfo") else { return Vec::new() };
    // proc(5): the fifth field is the mount point, with space, tab, newline and backslash as octal.
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .filter(|point| point.starts_with(path))
        .collect()
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\' && tail.len() >= 3)
            .then(|| std::str::from_utf8(&tail[..3]).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok()))
            .flatten();
        match octal {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

fn unmount_below(path: &Path) -> Result<()> {
    let mounts = mounts_below(path);
    for point in mounts.iter().rev() {
        umount2(point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", point.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_escapes_of_mountinfo_are_read() {
        assert_eq!(unescape(br"/a\040b\134c\012"), b"/a b\\c\n");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
    }

    #[test]
    fn a_tree_with_unreadable_directories_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", top.join("a/link")).unwrap();
        let none = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(top.join("a/b"), none).unwrap();
        assert_eq!(remove_tree(&top).unwrap(), Removed::Wholly);
        assert!(!top.exists());
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn a_tree_deeper_than_a_path_is_long_is_removed_with_few_files_open() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut at = Dir::open(&top, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for level in 0..5000 {
            openat(&at, "file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR).unwrap();
            // Each level could be searched, and not written to.
            let mode = if level % 500 == 499 { Mode::S_IRUSR | Mode::S_IXUSR } else { Mode::S_IRWXU };
            nix::sys::stat::mkdirat(&at, "directory", Mode::S_IRWXU).unwrap();
            let next = Dir::openat(&at, "directory", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            if level > 0 {
                nix::sys::stat::fchmod(&at, mode).unwrap();
            }
            at = next;
        }
        // A stack of a thread's usual size, as tests have it, is enough, too.
        assert_eq!(remove_tree(&top).unwrap(), Removed::Wholly);
        assert!(!top.exists());
    }

    #[test]
    fn a_tree_with_protected_files_is_removed() {
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/file"), "x").unwrap();
        for (name, protection) in [("a/file", 0x10), ("a/b", 0x20), ("a", 0x10)] {
            let file = std::fs::File::open(top.join(name)).unwrap();
            let Ok(Some(all)) = file::flags(file.as_fd()) else { return eprintln!("skipped: no flags here") };
            if file::set_flags(file.as_fd(), all | protection).is_err() {
                return eprintln!("skipped: no flags without privileges");
            }
        }
        assert!(std::fs::remove_dir_all(&top).is_err());
        assert_eq!(remove_tree(&top).unwrap(), Removed::Wholly);
        assert!(!top.exists());
    }

    #[test]
    fn what_is_mounted_below_is_unmounted_and_stays_whole() {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            eprintln!("skipped: no mount namespace without privileges");
            return;
        }
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        // On the same device, where only the mount table tells.
        let (kept, top) = (dir.join("kept"), dir.join("top"));
        for path in [&kept, &top.join("a/bind"), &top.join("with space")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(kept.join("file"), "x").unwrap();
        mount(Some(&kept), &top.join("a/bind"), none, MsFlags::MS_BIND, none).unwrap();
        mount(Some(&kept), &top.join("with space"), none, MsFlags::MS_BIND, none).unwrap();
        assert_eq!(mounts_below(&top).len(), 2);
        assert_eq!(remove_tree(&top).unwrap(), Removed::Wholly);
        assert!(!top.exists());
        assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"x");
    }
}
