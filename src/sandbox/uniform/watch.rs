//! Answers a command's calls, one after the other.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};

use super::Uniform;
use super::caller::{self, Memory, Place};
use super::calls::{Asked, asked};
use super::inodes::Inodes;
use super::listing::Listing;
use crate::sys::file::{Told, statx};
use crate::sys::notify::{Call, Listener};

/// What is to be done with a call.
enum Verdict {
    /// The kernel carries it out.
    Pass,
    /// It gives this.
    Value(i64),
}

/// Watches over a command.
pub(super) struct Watch {
    listener: Listener,
    /// The tree's top, as it was given and without links.
    tops: [PathBuf; 2],
    memory: Memory,
    inodes: Inodes,
    /// Directories that are being read, by process and descriptor.
    listings: HashMap<(i32, i32), Listing>,
    /// Threads and their processes.
    processes: HashMap<i32, i32>,
    /// Whether the kernel is to carry out everything: the command's memory is out of reach.
    passive: bool,
}

impl Watch {
    /// `passive` where nothing can be answered: every call passes.
    pub(super) fn new(listener: Listener, uniform: &Uniform, passive: bool) -> Self {
        let top = uniform.top.clone();
        let real = top.canonicalize().unwrap_or_else(|_| top.clone());
        Self {
            listener,
            tops: [top, real],
            memory: Memory::default(),
            inodes: Inodes::default(),
            listings: HashMap::new(),
            processes: HashMap::new(),
            passive,
        }
    }

    /// Answers until nobody asks any more.
    pub(super) fn run(mut self) {
        loop {
            let call = match self.listener.next() {
                Ok(Some(call)) => call,
                Ok(None) => continue,
                Err(_) => return,
            };
            let sent = match self.judge(&call) {
                Ok(Verdict::Pass) => self.listener.pass(&call),
                Ok(Verdict::Value(value)) => self.listener.answer(&call, Ok(value)),
                Err(error) => self.listener.answer(&call, Err(error)),
            };
            // Without an answer the command would wait for ever; without a listener its calls fail.
            if sent.is_err() {
                return;
            }
        }
    }

    fn judge(&mut self, call: &Call) -> Result<Verdict, Errno> {
        let Some(asked) = asked(call.number).filter(|_| !self.passive) else { return Ok(Verdict::Pass) };
        let [first, second, third, fourth, fifth, _] = call.arguments;
        // The kernel takes 32 bits of descriptors and flags.
        let [fd, flags] = [first, fourth].map(|argument| argument as i32);
        match asked {
            Asked::Close => {
                let process = self.process(call.pid)?;
                self.listings.remove(&(process, fd));
                Ok(Verdict::Pass)
            }
            Asked::Seek => {
                let process = self.process(call.pid)?;
                match self.listings.get_mut(&(process, fd)) {
                    Some(listing) => listing.seek(second.cast_signed(), third as i32).map(Verdict::Value),
                    None => Ok(Verdict::Pass),
                }
            }
            Asked::Names => self.names(call, fd, second, third as u32 as usize),
            Asked::Path { follow } => {
                let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                self.about(call, libc::AT_FDCWD, first, flags, second)
            }
            Asked::Open => match self.in_tree(caller::open(call.pid, fd)?) {
                Some(place) => self.told(call, &place, 0, second),
                None => Ok(Verdict::Pass),
            },
            Asked::At => self.about(call, fd, second, flags, third),
            Asked::Extended => {
                let (flags, mask) = (third as i32, fourth as u32);
                let Some(place) = self.file(call, fd, second, flags)? else { return Ok(Verdict::Pass) };
                let flags = followed(&place, flags) | flags & libc::AT_STATX_SYNC_TYPE;
                let mut told = statx(&place.reached, flags, mask | libc::STATX_BASIC_STATS).map_err(code)?;
                self.inodes.settle_extended(&mut told);
                self.give(call, fifth, told.bytes())?;
                Ok(Verdict::Value(0))
            }
            Asked::Attributes { follow } => {
                let Some(place) = self.file(call, libc::AT_FDCWD, first, 0)? else { return Ok(Verdict::Pass) };
                self.attributes(call, &place, follow, second, third as usize)
            }
            Asked::OpenAttributes => match self.in_tree(caller::open(call.pid, fd)?) {
                Some(place) => self.attributes(call, &place, true, second, third as usize),
                None => Ok(Verdict::Pass),
            },
        }
    }

    /// getdents64(2).
    fn names(&mut self, call: &Call, fd: i32, buffer: u64, room: usize) -> Result<Verdict, Errno> {
        let Some(place) = self.in_tree(caller::open(call.pid, fd)?) else { return Ok(Verdict::Pass) };
        let key = (self.process(call.pid)?, fd);
        if !self.listings.contains_key(&key) {
            let listing = Listing::read(&place.reached, &mut self.inodes).map_err(code)?;
            self.listings.insert(key, listing);
        }
        let listing = self.listings.get_mut(&key).ok_or(Errno::EBADF)?;
        let bytes = listing.fill(room)?;
        self.give(call, buffer, &bytes)?;
        Ok(Verdict::Value(bytes.len() as i64))
    }

    /// stat(2) and its kin.
    fn about(&mut self, call: &Call, directory: i32, path: u64, flags: i32, buffer: u64) -> Result<Verdict, Errno> {
        match self.file(call, directory, path, flags)? {
            Some(place) => self.told(call, &place, flags, buffer),
            None => Ok(Verdict::Pass),
        }
    }

    fn told(&mut self, call: &Call, place: &Place, flags: i32, buffer: u64) -> Result<Verdict, Errno> {
        let flags = AtFlags::from_bits_truncate(followed(place, flags));
        let mut told = nix::sys::stat::fstatat(AT_FDCWD, &place.reached, flags)?;
        self.inodes.settle(&mut told);
        self.give(call, buffer, told.bytes())?;
        Ok(Verdict::Value(0))
    }

    /// listxattr(2) and its kin.
    fn attributes(
        &mut self,
        call: &Call,
        place: &Place,
        follow: bool,
        buffer: u64,
        room: usize,
    ) -> Result<Verdict, Errno> {
        let list = if follow { xattr::list_deref } else { xattr::list };
        let mut names: Vec<_> = list(&place.reached).map_err(code)?.collect();
        names.sort();
        let bytes: Vec<u8> = names.iter().flat_map(|name| name.as_bytes().iter().copied().chain([0])).collect();
        if room > 0 {
            if bytes.len() > room {
                return Err(Errno::ERANGE);
            }
            self.give(call, buffer, &bytes)?;
        }
        Ok(Verdict::Value(bytes.len() as i64))
    }

    /// The file that a call names, if it is one of the tree.
    fn file(&mut self, call: &Call, directory: i32, path: u64, flags: i32) -> Result<Option<Place>, Errno> {
        let path = match path {
            // An open file itself, as newer kernels take it.
            0 if flags & libc::AT_EMPTY_PATH != 0 => PathBuf::new(),
            path => self.memory.path(call.pid, path)?,
        };
        if !self.listener.waits(call) {
            return Ok(None);
        }
        if path.as_os_str().is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
            return Ok(None);
        }
        Ok(self.in_tree(caller::place(call.pid, directory, &path)?))
    }

    fn in_tree(&self, place: Place) -> Option<Place> {
        self.tops.iter().any(|top| place.named.starts_with(top)).then_some(place)
    }

    fn give(&mut self, call: &Call, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.memory.write(call.pid, at, bytes)
    }

    fn process(&mut self, thread: i32) -> Result<i32, Errno> {
        if let Some(process) = self.processes.get(&thread) {
            return Ok(*process);
        }
        let process = caller::process_of(thread).ok_or(Errno::EIO)?;
        self.processes.insert(thread, process);
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
