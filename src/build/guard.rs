//! What a root gets while processes run in it, and must not keep.

mod daemons;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use self::daemons::Held;
use super::inside::{Attributes, Inside, Kind, Slot};
use crate::diagnostics::Fault;
use crate::image::Spec;
use crate::sys::file::protection;

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
}

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
    File { contents: Vec<u8>, attributes: Attributes },
}

impl RootGuard {
    /// Puts the files in place, as far as the root has the directories for them.
    pub(super) fn set(root: &Path, surroundings: Surroundings<'_>) -> Result<Self> {
        let Surroundings { network, scripts, image } = surroundings;
        let mut guard = Self { root: Inside::open(root)?, files: Vec::new(), daemons: None };
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
        write(&slot, &ours).map_err(|error| {
            let of_root = |path: &Path| self.root.held().join(path.strip_prefix("/").unwrap_or(path));
            let protected = [path.as_path(), Path::new("/").join(directory).as_path()]
                .into_iter()
                .find(|path| protection(&of_root(path)).is_ok_and(|letters| letters.is_some()))
                .map(|path| path.display().to_string());
            match protected {
                None => error,
                Some(protected) => Fault::failed(format!(
                    "{protected} is protected (chattr(1)), and while programs run in the root {} is another",
                    path.display()
                ))
                .hint("protect it in the last step that runs programs in the root")
                .into(),
            }
        })?;
        slot.set_mode(mode)?;
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
            Some(Kind::File) => Some(Self::File { contents: read(slot)?, attributes: slot.attributes()? }),
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
        match self.before {
            // A package that came meanwhile has it among the alternatives, whose link gave way to the file.
            Before::Nothing => match alternative(root, &self.path)? {
                Some(link) => self.slot.create_link(link.as_os_str())?,
                None => self.slot.remove()?,
            },
            Before::Link(target) => self.slot.create_link(&target)?,
            Before::File { contents, attributes } => {
                write(&self.slot, &contents)?;
                self.slot.apply(&attributes)?;
            }
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

fn write(slot: &Slot, contents: &[u8]) -> Result<()> {
    slot.create_file()?.write_all(contents).with_context(|| format!("writing {}", slot.shown().display()))
}
