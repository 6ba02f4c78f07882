//! Opening a path as if the root were `/`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// How often a resolution is tried again that another process's renames disturbed (openat2(2), EAGAIN).
const MOST_TRIES: usize = 64;

/// Opens a path below `root`. Absolute links and `..` stay below it: `/` and what is above it is the
/// root itself. With [`OFlag::O_NOFOLLOW`] a link at the very end is not followed.
///
/// This never creates anything.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_CLOEXEC;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if kernel_resolves() { open_by_kernel(root, path, flags) } else { open_by_walking(root, path, flags) }
}

/// Whether there is an openat2(2) (Linux 5.6) and this container's filter lets it through.
fn kernel_resolves() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(here) = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) else { return false };
        open_by_kernel(here.as_fd(), Path::new("."), OFlag::O_PATH | OFlag::O_CLOEXEC).is_ok()
    })
}

fn open_by_kernel(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..MOST_TRIES {
        result = openat2(root, path, how);
        if !matches!(result, Err(Errno::EAGAIN | Errno::EINTR)) {
            break;
        }
    }
    result
}

/// The same a component at a time: no step of it follows a link, so nothing that another process
/// swaps in leads out of the root.
fn open_by_walking(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let reopen = |fd: BorrowedFd<'_>, flags| openat(fd, ".", flags, Mode::empty());
    let mut above: Vec<OwnedFd> = vec![reopen(root, OFlag::O_PATH | OFlag::O_CLOEXEC)?];
    let mut ahead: VecDeque<OsString> = parts(path);
    let must_be_directory = path.as_os_str().as_bytes().ends_with(b"/");
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let here = above.last().ok_or(Errno::ENOENT)?.as_fd();
        let last = ahead.is_empty();
        let found =
            openat(here, name.as_os_str(), OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFLNK && (!last || must_be_directory || !flags.contains(OFlag::O_NOFOLLOW)) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP);
            }
            let target = readlinkat(&found, "")?;
            if Path::new(&target).is_absolute() {
                above.truncate(1);
            }
            for part in parts(Path::new(&target)).into_iter().rev() {
                ahead.push_front(part);
            }
        } else if last && kind != SFlag::S_IFDIR {
            return openat(here, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty());
        } else if kind == SFlag::S_IFDIR {
            above.push(found);
        } else {
            return Err(Errno::ENOTDIR);
        }
    }
    reopen(above.last().ok_or(Errno::ENOENT)?.as_fd(), flags)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;

    type Open = fn(BorrowedFd<'_>, &Path, OFlag) -> Result<OwnedFd, Errno>;

    /// `outside` and, beside it, a root with links of all kinds.
    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::create_dir_all(root.join("outside")).unwrap();
        fs::write(dir.path().join("outside"), "host").unwrap();
        fs::write(root.join("usr/lib/file"), "in the root").unwrap();
        symlink("/usr/lib", root.join("lib")).unwrap();
        symlink("../../../../../usr/lib", root.join("usr/up")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("lib/file", root.join("chain")).unwrap();
        let fd = nix::fcntl::open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    fn read(fd: OwnedFd) -> String {
        std::io::read_to_string(fs::File::from(fd)).unwrap()
    }

    #[rstest]
    fn finds_the_same_file_by_every_way(
        #[values(open_by_kernel, open_by_walking)] open: Open,
        #[values(
            "usr/lib/file",
            "/usr/lib/file",
            "lib/file",
            "usr/up/file",
            "slash/slash/lib/file",
            "chain",
            "../../usr/lib/file"
        )]
        path: &str,
    ) {
        let (_dir, root) = tree();
        let file = open(root.as_fd(), Path::new(path), OFlag::O_RDONLY | OFlag::O_CLOEXEC).unwrap();
        assert_eq!(read(file), "in the root");
    }

    #[rstest]
    fn never_leaves_the_root(#[values(open_by_kernel, open_by_walking)] open: Open) {
        let (_dir, root) = tree();
        // Both names are a directory inside the root and a file outside of it.
        for path in ["out", "../outside", "/../outside", "slash/../../outside", "usr/up/../../../outside"] {
            let fd = open(root.as_fd(), Path::new(path), OFlag::O_PATH | OFlag::O_CLOEXEC).unwrap();
            assert_eq!(fstat(&fd).unwrap().st_mode & SFlag::S_IFMT.bits(), SFlag::S_IFDIR.bits(), "{path}");
        }
    }

    #[rstest]
    fn says_why_there_is_nothing(#[values(open_by_kernel, open_by_walking)] open: Open) {
        let (_dir, root) = tree();
        for (path, flags, errno) in [
            ("nothing", OFlag::O_PATH, Errno::ENOENT),
            ("loop", OFlag::O_PATH, Errno::ELOOP),
            ("usr/lib/file/below", OFlag::O_PATH, Errno::ENOTDIR),
            ("usr/lib/file", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Errno::ENOTDIR),
            ("chain", OFlag::O_RDONLY | OFlag::O_NOFOLLOW, Errno::ELOOP),
        ] {
            assert_eq!(open(root.as_fd(), Path::new(path), flags).unwrap_err(), errno, "{path}");
        }
    }
}
