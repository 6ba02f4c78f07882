//! What is stated of the machine, mounted over a /proc.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;

use super::constant::{Answer, MOMENT, files_of, lookup};
use super::view::held;
use crate::sys;

/// Names, beside those of the stated files, of what covers what is not stated.
const NOTHING: [(&str, SFlag); 2] = [("empty-file", SFlag::S_IFREG), ("empty-directory", SFlag::S_IFDIR)];
/// Where the files are while they are mounted. A command gets another /dev afterwards.
const MEANWHILE: &str = "/dev";
/// The link to a process's own mounts.
const MOUNTS: &str = "mounts";

/// Covers all of the /proc held open that is neither of processes nor of namespaces of the command's own.
/// With `mounts`, also what processes are mounted on stays as it is.
pub(super) fn cover(proc: &OwnedFd, mounts: bool) -> Result<()> {
    let stated = Stated::new().context("stating what the machine is")?;
    for name in names(proc)? {
        if (mounts && name == MOUNTS) || lookup(&Path::new("/proc").join(&name)) == Some(Answer::Own) {
            continue;
        }
        stated.cover(proc, &name).with_context(|| format!("covering /proc/{name}"))?;
    }
    Ok(())
}

/// What /proc has beside processes.
fn names(proc: &OwnedFd) -> Result<Vec<String>> {
    let listed = std::fs::read_dir(held(proc)).context("reading /proc")?;
    let mut names = Vec::new();
    for entry in listed {
        let name = entry.context("reading /proc")?.file_name();
        if let Ok(name) = name.into_string()
            && !name.bytes().all(|byte| byte.is_ascii_digit())
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file system in memory with all stated files, mounted for as long as this lives.
struct Stated;

impl Stated {
    fn new() -> Result<Self> {
        let top = sys::mount::detached(c"tmpfs")?;
        fchmodat(&top, ".", Mode::from_bits_truncate(0o755), FchmodatFlags::FollowSymlink)?;
        fill(&top, "proc")?;
        for (name, kind) in NOTHING {
            make(&top, OsStr::new(name), kind)?;
        }
        // What is another each time can only be the kernel's own.
        let uuid = sys::mount::clone_tree(Path::new("/proc/sys/kernel/random/uuid"));
        let place = nix::fcntl::open(MEANWHILE, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        sys::mount::attach(&top, &place)?;
        let stated = Self;
        if let Ok(uuid) = uuid {
            let random = openat(&top, "sys/kernel/random", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            make(&random, OsStr::new("uuid"), SFlag::S_IFREG)?;
            let file = openat(&random, "uuid", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            sys::mount::attach(&uuid, &file)?;
        }
        Ok(stated)
    }

    /// Covers a file, directory or link in /proc with what is stated of it.
    fn cover(&self, proc: &OwnedFd, name: &str) -> Result<()> {
        let kind = fstatat(proc, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode & SFlag::S_IFMT.bits();
        let directory = kind == SFlag::S_IFDIR.bits();
        let cover = match lookup(&Path::new("/proc").join(name)) {
            Some(Answer::File(_)) if !directory => name,
            Some(Answer::Directory) if directory => name,
            _ => NOTHING[usize::from(directory)].0,
        };
        let tree = sys::mount::clone_tree(&Path::new(MEANWHILE).join(cover))?;
        sys::mount::make_read_only(&tree)?;
        let target = openat(proc, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(sys::mount::attach(&tree, &target)?)
    }
}

impl Drop for Stated {
    fn drop(&mut self) {
        let _ = umount2(MEANWHILE, MntFlags::MNT_DETACH);
    }
}

/// Fills an empty directory with the stated files of one, `proc` or `sys`.
pub(super) fn fill(top: &OwnedFd, of: &str) -> Result<()> {
    for (name, text) in files_of(of) {
        let mut directory = top.try_clone()?;
        let path = Path::new(name);
        for part in path.parent().into_iter().flat_map(Path::components) {
            directory = make(&directory, part.as_os_str(), SFlag::S_IFDIR)?;
        }
        let file = make(&directory, path.file_name().unwrap_or_default(), SFlag::S_IFREG)?;
        let mut file = File::from(file);
        file.write_all(text)?;
        let moment = TimeSpec::new(MOMENT, 0);
        futimens(&file, &moment, &moment)?;
    }
    Ok(())
}

/// Makes a file or directory, where it is not there, and opens it.
fn make(directory: &impl AsFd, name: &OsStr, kind: SFlag) -> nix::Result<OwnedFd> {
    if kind == SFlag::S_IFDIR {
        match mkdirat(directory, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error),
        }
        return openat(directory, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::from_bits_truncate(0o444))
}
