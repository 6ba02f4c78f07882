//! The process whose calls are answered: its memory, and what its paths name.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nix::errno::Errno;

/// What the kernel lets no path be longer than (linux/limits.h, `PATH_MAX`).
const LONGEST_PATH: usize = 4096;
/// No page is smaller, so that what is read up to its end is there.
const PAGE: u64 = 4096;

/// Memory of the callers' threads.
#[derive(Debug, Default)]
pub(super) struct Memory {
    open: HashMap<i32, File>,
}

impl Memory {
    /// Opens a process's memory.
    fn of(pid: i32) -> io::Result<File> {
        File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
    }

    /// A path that the process has at an address; it ends with a zero.
    pub(super) fn path(&mut self, pid: i32, mut at: u64) -> Result<PathBuf, Errno> {
        let mut bytes = Vec::new();
        while bytes.len() < LONGEST_PATH {
            let mut chunk = [0; 256];
            let length = chunk.len().min((PAGE - at % PAGE) as usize);
            let chunk = &mut chunk[..length];
            self.access(pid, |memory| memory.read_at(chunk, at))?;
            match chunk.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    bytes.extend_from_slice(&chunk[..end]);
                    return Ok(OsStr::from_bytes(&bytes).into());
                }
                None => bytes.extend_from_slice(chunk),
            }
            at += length as u64;
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Writes to an address of the process.
    pub(super) fn write(&mut self, pid: i32, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes.len() {
            done += self.access(pid, |memory| memory.write_at(&bytes[done..], at + done as u64))?;
        }
        Ok(())
    }

    /// Reads or writes; how much. A process that has become another program has other memory, and the
    /// file of before is at its end.
    fn access(&mut self, pid: i32, mut work: impl FnMut(&File) -> io::Result<usize>) -> Result<usize, Errno> {
        if let Some(memory) = self.open.get(&pid)
            && let Ok(count @ 1..) = work(memory)
        {
            return Ok(count);
        }
        let memory = Self::of(pid).map_err(|_| Errno::EIO)?;
        let done = work(&memory);
        self.open.insert(pid, memory);
        match done {
            Ok(count @ 1..) => Ok(count),
            _ => Err(Errno::EFAULT),
        }
    }
}

/// An open file of a process, as a path of ours that leads to the very file.
fn descriptor(pid: i32, fd: i32) -> PathBuf {
    match fd {
        libc::AT_FDCWD => format!("/proc/{pid}/cwd").into(),
        fd => format!("/proc/{pid}/fd/{fd}").into(),
    }
}

/// Makes sure that a process's memory and files can be reached.
pub(super) fn reach(pid: i32) -> anyhow::Result<()> {
    let doing = "reaching into its memory";
    Memory::of(pid).context(doing)?;
    let root = std::fs::read_link(format!("/proc/{pid}/root")).context(doing)?;
    ensure!(root == Path::new("/"), "it has another root");
    Ok(())
}

/// What a path of a process is: `named` for people to read and to compare, `reached` for our own calls.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) named: PathBuf,
    pub(super) reached: PathBuf,
    /// Whether it is an open file, to which `reached` is a link.
    pub(super) open: bool,
}

/// An open file of a process.
pub(super) fn open(pid: i32, fd: i32) -> Result<Place, Errno> {
    place(pid, fd, Path::new(""))
}

/// A path that is relative to a directory of the process. We have the same root as the process.
pub(super) fn place(pid: i32, directory: i32, path: &Path) -> Result<Place, Errno> {
    if path.is_absolute() {
        return Ok(Place { named: path.into(), reached: path.into(), open: false });
    }
    let base = descriptor(pid, directory);
    let named = std::fs::read_link(&base).map_err(|_| Errno::EBADF)?;
    if path.as_os_str().is_empty() {
        return Ok(Place { named, reached: base, open: true });
    }
    Ok(Place { named: named.join(path), reached: base.join(path), open: false })
}

/// Number of the process that a thread belongs to.
pub(super) fn process_of(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
