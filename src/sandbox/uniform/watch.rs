//! Answers what a command asks about its tree.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::Pid;

use super::Uniform;
use super::caller::{self, Place};
use super::calls::{self, Asked, asked};
use super::inodes::Inodes;
use super::listing::Listing;
use crate::sandbox::supervisor::{Caller, Handler, Verdict, Wanted};
use crate::sys::file::{Told, statx};
use crate::sys::notify::Call;

/// Watches over a command that is to see its files numbered and in order.
pub(in crate::sandbox) struct Numbered {
    /// The tree's top, as it was given and without links.
    tops: [PathBuf; 2],
    attributes_only: bool,
    labelled: bool,
    inodes: Inodes,
    /// Directories that are being read, by process and descriptor.
    listings: HashMap<(i32, i32), Listing>,
    /// Threads and their processes.
    processes: HashMap<i32, i32>,
}

impl Handler for Numbered {
    fn calls(&self) -> Vec<Wanted> {
        calls::wanted(self.attributes_only)
    }

    fn begin(&mut self, child: Pid) -> anyhow::Result<()> {
        caller::reach(child.as_raw())
    }

    fn required(&self) -> bool {
        false
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let Some(asked) = asked(call.number) else { return Ok(Verdict::Pass) };
        let [first, second, third, fourth, fifth, _] = call.arguments;
        // The kernel takes 32 bits of descriptors and flags.
        let [fd, flags] = [first, fourth].map(|argument| argument as i32);
        match asked {
            Asked::Close => {
                let process = self.process(caller)?;
                self.listings.remove(&(process, fd));
                Ok(Verdict::Pass)
            }
            Asked::Seek => {
                let process = self.process(caller)?;
                match self.listings.get_mut(&(process, fd)) {
                    Some(listing) => listing.seek(second.cast_signed(), third as i32).map(Verdict::Value),
                    None => Ok(Verdict::Pass),
                }
            }
            Asked::Names => self.names(caller, fd, second, third as u32 as usize),
            Asked::Path { follow } => {
                let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                self.about(caller, libc::AT_FDCWD, first, flags, second)
            }
            Asked::Open => match self.in_tree(caller::open(caller.pid(), fd)?) {
                Some(place) => self.told(caller, &place, 0, second),
                None => Ok(Verdict::Pass),
            },
            Asked::At => self.about(caller, fd, second, flags, third),
            Asked::Extended => {
                let (flags, mask) = (third as i32, fourth as u32);
                let Some(place) = self.file(caller, fd, second, flags)? else { return Ok(Verdict::Pass) };
                let flags = followed(&place, flags) | flags & libc::AT_STATX_SYNC_TYPE;
                let mut told = statx(&place.reached, flags, mask | libc::STATX_BASIC_STATS).map_err(code)?;
                self.inodes.settle_extended(&mut told);
                caller.write(fifth, told.bytes())?;
                Ok(Verdict::Value(0))
            }
            Asked::Attributes { follow } => {
                let Some(place) = self.file(caller, libc::AT_FDCWD, first, 0)? else { return Ok(Verdict::Pass) };
                self.attributes(caller, &place, follow, second, third as usize)
            }
            Asked::OpenAttributes => match self.in_tree(caller::open(caller.pid(), fd)?) {
                Some(place) => self.attributes(caller, &place, true, second, third as usize),
                None => Ok(Verdict::Pass),
            },
        }
    }
}

impl Numbered {
    pub(in crate::sandbox) fn new(uniform: &Uniform) -> Self {
        let top = uniform.top.clone();
        let real = top.canonicalize().unwrap_or_else(|_| top.clone());
        Self {
            tops: [top, real],
            attributes_only: uniform.attributes_only,
            labelled: uniform.labelled,
            inodes: Inodes::default(),
            listings: HashMap::new(),
            processes: HashMap::new(),
        }
    }

    /// getdents64(2).
    fn names(&mut self, caller: &Caller<'_>, fd: i32, buffer: u64, room: usize) -> Result<Verdict, Errno> {
        let Some(place) = self.in_tree(caller::open(caller.pid(), fd)?) else { return Ok(Verdict::Pass) };
        let key = (self.process(caller)?, fd);
        if !self.listings.contains_key(&key) {
            let listing = Listing::read(&place.reached, &mut self.inodes).map_err(code)?;
            self.listings.insert(key, listing);
        }
        let listing = self.listings.get_mut(&key).ok_or(Errno::EBADF)?;
        let bytes = listing.fill(room)?;
        caller.write(buffer, &bytes)?;
        Ok(Verdict::Value(bytes.len() as i64))
    }

    /// stat(2) and its kin.
    fn about(
        &mut self,
        caller: &Caller<'_>,
        directory: i32,
        path: u64,
        flags: i32,
        buffer: u64,
    ) -> Result<Verdict, Errno> {
        match self.file(caller, directory, path, flags)? {
            Some(place) => self.told(caller, &place, flags, buffer),
            None => Ok(Verdict::Pass),
        }
    }

    fn told(&mut self, caller: &Caller<'_>, place: &Place, flags: i32, buffer: u64) -> Result<Verdict, Errno> {
        let flags = AtFlags::from_bits_truncate(followed(place, flags));
        let mut told = nix::sys::stat::fstatat(AT_FDCWD, &place.reached, flags)?;
        self.inodes.settle(&mut told);
        caller.write(buffer, told.bytes())?;
        Ok(Verdict::Value(0))
    }

    /// listxattr(2) and its kin.
    fn attributes(
        &mut self,
        caller: &Caller<'_>,
        place: &Place,
        follow: bool,
        buffer: u64,
        room: usize,
    ) -> Result<Verdict, Errno> {
        let list = if follow { xattr::list_deref } else { xattr::list };
        let mut names: Vec<_> = list(&place.reached).map_err(code)?.collect();
        names.retain(|name| !self.labelled || !crate::sys::label::is_label(name));
        names.sort();
        let bytes: Vec<u8> = names.iter().flat_map(|name| name.as_bytes().iter().copied().chain([0])).collect();
        if room > 0 {
            if bytes.len() > room {
                return Err(Errno::ERANGE);
            }
            caller.write(buffer, &bytes)?;
        }
        Ok(Verdict::Value(bytes.len() as i64))
    }

    /// The file that a call names, if it is one of the tree.
    fn file(&mut self, caller: &Caller<'_>, directory: i32, path: u64, flags: i32) -> Result<Option<Place>, Errno> {
        let path = match path {
            // An open file itself, as newer kernels take it.
            0 if flags & libc::AT_EMPTY_PATH != 0 => PathBuf::new(),
            path => caller.path(path)?,
        };
        if !caller.waits() {
            return Ok(None);
        }
        if path.as_os_str().is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
            return Ok(None);
        }
        Ok(self.in_tree(caller::place(caller.pid(), directory, &path)?))
    }

    fn in_tree(&self, place: Place) -> Option<Place> {
        self.tops.iter().any(|top| place.named.starts_with(top)).then_some(place)
    }

    fn process(&mut self, caller: &Caller<'_>) -> Result<i32, Errno> {
        if let Some(process) = self.processes.get(&caller.pid()) {
            return Ok(*process);
        }
        let process = caller.process()?;
        self.processes.insert(caller.pid(), process);
        Ok(process)
    }
}

/// Flags with which our own call looks at the file itself.
fn followed(place: &Place, flags: i32) -> i32 {
    if place.open { 0 } else { flags & (libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT) }
}

fn code(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
