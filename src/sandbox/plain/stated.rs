//! Files whose text is stated, as the kernel has them: each path a file of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;

use super::answer::how;
use super::calls::{Act, Asked};
use super::carry_out::{self, Shown, code};
use crate::sandbox::constant;
use crate::sandbox::supervisor::{Caller, Verdict};
use crate::sandbox::view::held;
use crate::sys::notify::Call;

/// What was asked for so far.
#[derive(Default)]
pub(super) struct StatedFiles {
    files: HashMap<PathBuf, OwnedFd>,
}

impl StatedFiles {
    /// A call about a file, by its name in the command's view.
    pub(super) fn answer(
        &mut self,
        call: &Call,
        caller: &Caller<'_>,
        asked: Asked,
        named: &Path,
        text: &[u8],
    ) -> Result<Verdict, Errno> {
        let arguments = call.arguments;
        let here = held(self.file(named, text)?);
        let here = here.as_path();
        match asked.act {
            Act::Open(flags) => open(here, arguments[flags] as i32),
            Act::OpenHow(at) => open(here, how(caller, arguments[at])?[0] as i32),
            Act::Stat(to) => carry_out::stat(caller, here, true, Shown::AsIs, arguments[to]),
            Act::StatExtended(flags, mask, to) => {
                carry_out::stat_extended(caller, here, true, Shown::AsIs, [flags, mask, to].map(|at| arguments[at]))
            }
            Act::Access(mode) => access(arguments[mode] as i32),
            Act::FileSystem(to) => carry_out::file_system(caller, Path::new("/proc"), arguments[to]),
            Act::ReadLink(..) => Err(Errno::EINVAL),
            Act::GetAttribute => Err(Errno::ENODATA),
            Act::ListAttributes => Ok(Verdict::Value(0)),
            Act::Execute => Err(Errno::EACCES),
            Act::Enter | Act::Root => Err(Errno::ENOTDIR),
            Act::Link(..) => Err(Errno::EXDEV),
            Act::Mode(_) | Act::Owner(..) | Act::Times(_) | Act::Length(_) => Err(Errno::EROFS),
            Act::SetAttribute | Act::RemoveAttribute => Err(Errno::EROFS),
        }
    }

    /// The file of a path, made when it is first asked for.
    fn file(&mut self, named: &Path, text: &[u8]) -> Result<&OwnedFd, Errno> {
        if !self.files.contains_key(named) {
            self.files.insert(named.to_owned(), sealed(text)?);
        }
        self.files.get(named).ok_or(Errno::EIO)
    }
}

/// A file in memory that nobody can change any more.
fn sealed(text: &[u8]) -> Result<OwnedFd, Errno> {
    let mut file = File::from(memfd_create("stated", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(text).map_err(code)?;
    fchmod(&file, Mode::from_bits_truncate(0o444))?;
    let moment = TimeSpec::new(constant::MOMENT, 0);
    futimens(&file, &moment, &moment)?;
    let all = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(all))?;
    Ok(file.into())
}

/// Opens it anew, so that each who opens it begins at its beginning.
fn open(here: &Path, flags: i32) -> Result<Verdict, Errno> {
    if flags & libc::O_DIRECTORY != 0 {
        return Err(Errno::ENOTDIR);
    }
    if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 {
        return Err(Errno::EEXIST);
    }
    if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
        return Err(Errno::EROFS);
    }
    let kept = OFlag::from_bits_truncate(flags) & (OFlag::O_NONBLOCK | OFlag::O_NOATIME);
    let file = nix::fcntl::open(here, kept | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(Verdict::File(file, flags & libc::O_CLOEXEC != 0))
}

fn access(mode: i32) -> Result<Verdict, Errno> {
    match mode {
        mode if mode & libc::W_OK != 0 => Err(Errno::EROFS),
        mode if mode & libc::X_OK != 0 => Err(Errno::EACCES),
        _ => Ok(Verdict::Value(0)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn each_path_is_a_file_of_its_own_that_stays_the_same() {
        let mut files = StatedFiles::default();
        let mut about = |name: &str| File::from(files.file(Path::new(name), b"text").unwrap().try_clone().unwrap());
        let (one, again, other) = (about("/proc/a"), about("/proc/a"), about("/proc/b"));
        let [one, again, other] = [one, again, other].map(|file| file.metadata().unwrap());
        assert_eq!((one.dev(), one.ino()), (again.dev(), again.ino()));
        assert_ne!(one.ino(), other.ino());
        assert_eq!((one.len(), one.mode() & 0o777, one.mtime()), (4, 0o444, constant::MOMENT));
        let place = held(files.file(Path::new("/proc/a"), b"").unwrap());
        let written = File::options().write(true).open(place).and_then(|mut file| file.write_all(b"x"));
        assert!(written.is_err());
    }
}
