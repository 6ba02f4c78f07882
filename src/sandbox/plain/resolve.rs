//! What a path of a command leads to: a file of its root, or one that only the kernel has.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::Mode;

use crate::sandbox::constant;
use crate::sandbox::device::{DEVICES, LINKS};
use crate::sandbox::supervisor::Caller;
use crate::sys::notify::Call;

/// Links followed before a path counts as circular, as the kernel has it (path_resolution(7)).
pub(super) const MOST_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// To what the root has, or to nothing: the kernel knows.
    Root,
    /// Into /proc, to what is the kernel's own, by its name in the command's view.
    Process(PathBuf),
    /// Into /proc, to a file that is stated: its name in the command's view and its text.
    Stated(PathBuf, &'static [u8]),
    /// Into /proc, to a directory of the cover, by its name in the command's view.
    Directory(PathBuf),
    /// Into /proc, to nothing.
    Nothing,
    /// To a device, by its name in /dev.
    Device(OsString),
}

/// Whether the root has a file at an absolute path, so that nothing of the kernel's is meant: what is given in
/// /proc and /dev is not there for those who look for files, nor what links lead to it.
pub(super) fn is_there(root: &OwnedFd, path: &Path, follow: bool) -> bool {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if relative.as_os_str().is_empty() {
        return true;
    }
    let last = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | last).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    match openat2(root, relative, how) {
        Ok(_) => true,
        Err(error) => !matches!(error, Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR),
    }
}

/// Whether an absolute path begins in a directory that the kernel fills.
pub(super) fn is_kernels(path: &Path) -> bool {
    matches!(path.components().nth(1), Some(Component::Normal(name)) if name == "proc" || name == "dev")
}

/// A path of a call as one from the caller's root; `None` for what lies outside of it. `directory` is the argument
/// that says what it is relative to.
pub(super) fn absolute(
    root: &Path,
    call: &Call,
    caller: &Caller<'_>,
    directory: Option<usize>,
    path: PathBuf,
) -> Option<PathBuf> {
    if path.is_absolute() {
        return Some(path);
    }
    let pid = caller.pid();
    let base = match directory.map_or(libc::AT_FDCWD, |position| call.arguments[position] as i32) {
        libc::AT_FDCWD => format!("/proc/{pid}/cwd"),
        fd => format!("/proc/{pid}/fd/{fd}"),
    };
    let base = caller.as_itself(|| std::fs::read_link(base)).ok()?;
    // A directory of /proc that was given.
    if base.starts_with("/proc") && !root.starts_with("/proc") {
        return Some(base.join(path));
    }
    Some(Path::new("/").join(base.strip_prefix(root).ok()?).join(path))
}

/// Follows an absolute path in a root.
pub(super) fn follow(root: &OwnedFd, path: &Path, last: bool) -> Found {
    let mut left: VecDeque<OsString> = parts(path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        if next == Path::new("/proc") {
            return process(left, last);
        }
        let target = if at == Path::new("/dev") {
            let linked = LINKS.iter().find(|(link, _)| name == *link && (last || !left.is_empty()));
            match linked {
                Some((_, target)) => Some(PathBuf::from(target)),
                None if is_device(&name) && left.is_empty() => return Found::Device(name),
                None => read_link(root, &next, last || !left.is_empty()),
            }
        } else if at == Path::new("/dev/pts") && left.is_empty() && is_number(&name) {
            return Found::Device(Path::new("pts").join(name).into());
        } else {
            read_link(root, &next, last || !left.is_empty())
        };
        match target {
            None => at = next,
            Some(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Found::Root;
                }
                if target.is_absolute() {
                    at = "/".into();
                }
                for part in parts(&target).into_iter().rev() {
                    left.push_front(part);
                }
            }
        }
    }
    Found::Root
}

/// A link's target; `None` for what is none, or is not to be followed.
fn read_link(root: &OwnedFd, path: &Path, wanted: bool) -> Option<PathBuf> {
    let relative = path.strip_prefix("/").ok().filter(|_| wanted)?;
    readlinkat(root, relative).ok().map(PathBuf::from)
}

fn process(left: VecDeque<OsString>, last: bool) -> Found {
    let mut path = PathBuf::from("/proc");
    let mut left = left.into_iter().peekable();
    while let Some(name) = left.next() {
        if name == ".." {
            path.pop();
            continue;
        }
        let followed = last || left.peek().is_some();
        if path == Path::new("/proc") && name == "net" && followed {
            path.push("self");
        }
        path.push(name);
    }
    match constant::lookup(&path) {
        None => Found::Root,
        Some(_) if path == Path::new("/proc") => Found::Directory(path),
        Some(constant::Answer::Own) => Found::Process(path),
        Some(constant::Answer::File(text)) => Found::Stated(path, text),
        Some(constant::Answer::Directory) => Found::Directory(path),
        Some(constant::Answer::Nothing) => Found::Nothing,
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn is_device(name: &OsStr) -> bool {
    DEVICES.iter().any(|(device, _, _)| name == *device) || name == "ptmx"
}

fn is_number(name: &OsStr) -> bool {
    !name.is_empty() && name.as_bytes().iter().all(u8::is_ascii_digit)
}

/// Opens a directory of a root by its path there.
pub(super) fn directory(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat2(root, relative, OpenHow::new().flags(flags).mode(Mode::empty()).resolve(ResolveFlag::RESOLVE_IN_ROOT))
}

/// A path of ours to a file below an open directory.
pub(super) fn beside(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_the_root_lead_to_the_kernels_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc", "dev", "proc", "dev/shm"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        for (link, target) in [
            ("etc/mtab", "../proc/self/mounts"),
            ("etc/masked", "/dev/null"),
            ("etc/input", "/dev/fd/0"),
            ("etc/circle", "circle"),
            ("sys", "etc/../proc"),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        let root = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let found = |path: &str| follow(&root, Path::new(path), true);
        assert_eq!(found("/etc/mtab"), Found::Process("/proc/self/mounts".into()));
        assert_eq!(found("/etc/masked"), Found::Device("null".into()));
        assert_eq!(found("/etc/input"), Found::Process("/proc/self/fd/0".into()));
        assert_eq!(found("/dev/./../dev/stdout"), Found::Process("/proc/self/fd/1".into()));
        assert_eq!(found("/dev/pts/3"), Found::Device("pts/3".into()));
        assert_eq!(found("/sys/self/../net/dev"), Found::Process("/proc/self/net/dev".into()));
        assert!(matches!(found("/sys/cpuinfo"), Found::Stated(..)));
        assert_eq!(found("/proc/kcore"), Found::Nothing);
        for path in ["/", "/etc/passwd", "/etc/circle", "/dev/shm/file", "/dev", "/proc/../etc", "/dev/sda"] {
            assert_eq!(found(path), Found::Root, "{path}");
        }
        assert_eq!(follow(&root, Path::new("/etc/mtab"), false), Found::Root);
        assert!(!is_there(&root, Path::new("/etc/mtab"), true) && is_there(&root, Path::new("/etc/mtab"), false));
    }
}
