//! What a root gets while processes run in it, and must not keep.

mod copies;
mod daemons;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use self::daemons::Held;
use super::inside::{Attributes, Inside, Kind, Slot};
use crate::diagnostics::Fault;
use crate::image::Spec;
use crate::sys::file::{self, protection};

/// What processes find in a root beside what is its own.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// Whether they have the network.
    pub network: bool,
    /// Whether they are maintainer scripts: then start-stop-daemon does nothing.
    pub scripts: bool,
    /// The image that the root goes to.
    pub image: Option<&'a Spec>,
}

/// Forbids services to start (invoke-rc.d(8)), gives the resolver the host's name servers, and has
/// update-grub ask no devices, and keeps maintainer scripts from starting daemons; put back as it was by [`RootGuard::release`], or when dropped.
///
/// Directories are found inside the root and then held open: whatever links the root has, and
/// whatever the processes make of it, no file outside is touched.
pub(super) struct RootGuard {
    root: Inside,
    files: Vec<Placed>,
    daemons: Option<Held>,
    /// Whether processes are maintainer scripts.
    scripts: bool,
    /// When it was set.
    since: SystemTime,
}

/// Where name servers stand.
const RESOLVER: &str = "/etc/resolv.conf";

/// One file that stands in for what was there.
struct Placed {
    /// As the root knows it.
    path: PathBuf,
    slot: Slot,
    directory: File,
    ours: Vec<u8>,
    before: Before,
    directory_time: Option<SystemTime>,
}

enum Before {
    Nothing,
    Link(OsString),
    /// `flags` are those of chattr(1) that protect it.
    File {
        contents: Vec<u8>,
        attributes: Attributes,
        flags: u32,
    },
}

impl RootGuard {
    /// Puts the files in place, as far as the root has the directories for them.
    pub(super) fn set(root: &Path, surroundings: Surroundings<'_>) -> Result<Self> {
        let Surroundings { network, scripts, image } = surroundings;
        let root_inside = Inside::open(root)?;
        let mut guard = Self { root: root_inside, files: Vec::new(), daemons: None, scripts, since: SystemTime::now() };
        if scripts {
            guard.daemons = Held::set(&guard.root)?;
        }
        guard.place("usr/sbin", "policy-rc.d", b"#!/bin/sh\nexit 101\n".to_vec(), 0o755)?;
        if network && let Ok(resolver) = fs::read("/etc/resolv.conf") {
            guard.place("etc", "resolv.conf", resolver, 0o644)?;
        }
        if let Some(image) = image
            && let Some(script) = super::bootloader::update_grub(image, root)?
        {
            // No package has it there, and it comes before the root's own in everybody's PATH.
            guard.place("usr/local/sbin", "update-grub", script.into_bytes(), 0o755)?;
        }
        Ok(guard)
    }

    /// Puts everything back that the processes did not change themselves.
    pub(super) fn release(mut self) -> Result<()> {
        for placed in std::mem::take(&mut self.files) {
            if placed.path == Path::new(RESOLVER) {
                copies::take_back(&self.root, &placed, self.scripts.then_some(self.since))?;
            }
            placed.restore(&self.root)?;
        }
        self.daemons.take().map_or(Ok(()), |held| held.release(&self.root))
    }

    fn place(&mut self, directory: &str, name: &str, ours: Vec<u8>, mode: u32) -> Result<()> {
        let directory = Path::new(directory);
        let opened = match self.root.directory(directory, OFlag::O_RDONLY) {
            Ok(opened) => File::from(opened),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("opening /{}", directory.display())),
        };
        let directory_time = opened.metadata().and_then(|meta| meta.modified()).ok();
        let slot = self.root.slot(&directory.join(name))?;
        let Some(before) = Before::of(&slot)? else { return Ok(()) };
        let path = Path::new("/").join(directory).join(name);
        if let Before::File { flags: 1.., .. } = before {
            protect(&slot, 0)?;
        }
        write(&slot, &ours).map_err(|error| {
            let directory = Path::new("/").join(directory);
            let of_root = self.root.held().join(directory.strip_prefix("/").unwrap_or(&directory));
            match protection(&of_root) {
                Ok(Some(_)) => Fault::failed(format!(
                    "{} is protected (chattr(1)), and while programs run in the root {} is another",
                    directory.display(),
                    path.display()
                ))
                .hint("protect it in the last step that runs programs in the root")
                .into(),
                _ => error,
            }
        })?;
        slot.set_mode(mode)?;
        if let Before::File { flags: flags @ 1.., .. } = before {
            // So it is found, and so it is left: what processes change of it is for the file itself.
            protect(&slot, flags)?;
        }
        self.files.push(Placed { path, slot, directory: opened, ours, before, directory_time });
        Ok(())
    }
}

impl Drop for RootGuard {
    fn drop(&mut self) {
        for placed in std::mem::take(&mut self.files) {
            let _ = placed.restore(&self.root);
        }
        if let Some(held) = self.daemons.take() {
            let _ = held.release(&self.root);
        }
    }
}

impl Before {
    /// What is there; `None` for what is better left alone, as a directory or a pipe.
    fn of(slot: &Slot) -> Result<Option<Self>> {
        Ok(match slot.kind()? {
            None => Some(Self::Nothing),
            Some(Kind::Link) => Some(Self::Link(slot.link_target()?.into())),
            Some(Kind::File) => {
                Some(Self::File { contents: read(slot)?, attributes: slot.attributes()?, flags: protection_of(slot)? })
            }
            Some(_) => None,
        })
    }
}

impl Placed {
    fn restore(self, root: &Inside) -> Result<()> {
        let untouched = self.slot.kind()? == Some(Kind::File) && read(&self.slot)? == self.ours;
        if !untouched {
            return Ok(());
        }
        let flags = protection_of(&self.slot)?;
        if flags != 0 {
            protect(&self.slot, 0)?;
        }
        let stays = matches!(self.before, Before::File { .. });
        match self.before {
            // A package that came meanwhile has it among the alternatives, whose link gave way to the file.
            Before::Nothing => match alternative(root, &self.path)? {
                Some(link) => self.slot.create_link(link.as_os_str())?,
                None => self.slot.remove()?,
            },
            Before::Link(target) => self.slot.create_link(&target)?,
            Before::File { contents, attributes, .. } => {
                write(&self.slot, &contents)?;
                self.slot.apply(&attributes)?;
                if flags != 0 {
                    protect(&self.slot, flags)?;
                }
            }
        }
        if flags != 0 && !stays {
            let path = self.path.display();
            return Err(Fault::failed(format!(
                "{path} was protected (chattr(1)) as it is only while programs run, for the root has no such file"
            ))
            .hint("write the file first, then protect it")
            .into());
        }
        if let Some(time) = self.directory_time {
            let shown = self.slot.shown();
            self.directory
                .set_modified(time)
                .with_context(|| format!("dating the directory of {}", shown.display()))?;
        }
        Ok(())
    }
}

/// Where the link of an alternative leads that is at this path (update-alternatives(1): its database has the link's path
/// in the second line).
fn alternative(root: &Inside, path: &Path) -> Result<Option<PathBuf>> {
    let Some(name) = path.file_name() else { return Ok(None) };
    let database = Path::new("/var/lib/dpkg/alternatives").join(name);
    if root.kind(&database)? != Some(Kind::File) {
        return Ok(None);
    }
    let mut text = String::new();
    root.read(&database)?.read_to_string(&mut text).with_context(|| format!("reading {}", database.display()))?;
    let is_it = text.lines().nth(1).is_some_and(|link| Path::new(link) == path);
    Ok(is_it.then(|| Path::new("/etc/alternatives").join(name)))
}

fn read(slot: &Slot) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    slot.open_file()?.read_to_end(&mut contents).with_context(|| format!("reading {}", slot.shown().display()))?;
    Ok(contents)
}

/// Flags that protect a file.
fn protection_of(slot: &Slot) -> Result<u32> {
    let flags = file::flags(slot.open_file()?.as_fd());
    let flags = flags.with_context(|| format!("reading the flags of {}", slot.shown().display()))?;
    Ok(flags.unwrap_or_default() & file::PROTECTED)
}

/// Gives a file these of the flags that protect it, and takes the others.
fn protect(slot: &Slot, flags: u32) -> Result<()> {
    file::set_protection(slot.open_file()?.as_fd(), flags)
        .with_context(|| format!("protecting {}", slot.shown().display()))
}

fn write(slot: &Slot, contents: &[u8]) -> Result<()> {
    slot.create_file()?.write_all(contents).with_context(|| format!("writing {}", slot.shown().display()))
}
