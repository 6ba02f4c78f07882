//! A stand-in for start-stop-daemon(8) while maintainer scripts run: init scripts that are called past invoke-rc.d
//! start nothing either.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use walkdir::WalkDir;

use super::super::inside::{Inside, Kind, Slot};
use crate::diagnostics::Fault;

const NAME: &str = "start-stop-daemon";
/// Where the program may be, one a link to the other where /usr is merged; and its name there meanwhile. They differ: a
/// package that comes to have it by the other path has dpkg remove what is under the old one, wherever that leads.
const PLACES: [(&str, &str); 2] =
    [("/usr/sbin", "start-stop-daemon.debforge"), ("/sbin", "start-stop-daemon.debforge-old")];

/// As debootstrap and mmdebstrap have it, it takes everything for done.
const STAND_IN: &[u8] = b"#!/bin/sh\necho 'start-stop-daemon: no daemon is started or stopped in a build' >&2\n";

/// dpkg's, three lines each: the path, where it leads, and the package it is for or a colon (dpkg-divert(1)).
const DIVERSIONS: &str = "/var/lib/dpkg/diversions";
/// What dpkg-divert leaves when it has written the other.
const DIVERSIONS_BEFORE: &str = "/var/lib/dpkg/diversions-old";

/// What was there before.
pub(super) struct Held {
    /// Where the program went.
    put: Vec<PathBuf>,
    directory_times: Vec<(&'static str, SystemTime)>,
    diversions: Option<Diversions>,
}

struct Diversions {
    contents: Option<Vec<u8>>,
    /// Whether dpkg-divert had written before.
    written: bool,
}

impl Held {
    /// Puts the stand-in in place; `None` where the root has no such program. What dpkg would unpack over it, an
    /// upgrade of its own, it is told to put where the program is.
    pub(super) fn set(root: &Inside) -> Result<Option<Self>> {
        let mut held = Self { put: Vec::new(), directory_times: Vec::new(), diversions: None };
        for (directory, _) in PLACES {
            if let Ok(opened) = root.directory(Path::new(directory), OFlag::O_RDONLY)
                && let Ok(time) = File::from(opened).metadata().and_then(|meta| meta.modified())
            {
                held.directory_times.push((directory, time));
            }
        }
        for (path, aside) in PLACES.map(paths) {
            // By another name of the directory it may be in place already.
            let there = match root.link_kind(&path)? {
                Some(Kind::File) => read(root, &path)? != STAND_IN,
                kind => kind == Some(Kind::Link),
            };
            if there {
                let slot = root.slot(&path)?;
                slot.rename(&root.slot(&aside)?)?;
                write(&slot, STAND_IN, 0o755)?;
                held.put.push(aside);
            }
        }
        if held.put.is_empty() {
            return Ok(None);
        }
        held.diversions = Diversions::add(root)?;
        Ok(Some(held))
    }

    /// Gives the program its place again: the one that was there, or the one that came meanwhile.
    pub(super) fn release(self, root: &Inside) -> Result<()> {
        let [(path, aside), (other_path, other_aside)] = PLACES.map(paths);
        let [here, there] = PLACES.map(|(directory, _)| root.resolve(Path::new(directory)).ok());
        if here.is_some() && here == there {
            self.settle(root, &path, &[aside, other_aside])?;
        } else {
            self.settle(root, &path, &[aside])?;
            self.settle(root, &other_path, &[other_aside])?;
        }
        if let Some(diversions) = &self.diversions {
            diversions.release(root)?;
        }
        for (directory, time) in self.directory_times {
            if let Ok(opened) = root.directory(Path::new(directory), OFlag::O_RDONLY) {
                File::from(opened).set_modified(time).with_context(|| format!("dating {directory}"))?;
            }
        }
        Ok(())
    }

    /// Puts what is under one of these names in the place of the stand-in.
    fn settle(&self, root: &Inside, path: &Path, asides: &[PathBuf]) -> Result<()> {
        let mut left = Vec::new();
        for aside in asides {
            if root.link_kind(aside)?.is_some() {
                left.push(aside);
            }
        }
        // What came meanwhile under another name is newer.
        left.sort_by_key(|aside| self.put.contains(aside));
        let kind = root.link_kind(path)?;
        let free = kind.is_none() || kind == Some(Kind::File) && read(root, path)? == STAND_IN;
        let mut left = left.into_iter();
        if free {
            match left.next() {
                Some(aside) => root.slot(aside)?.rename(&root.slot(path)?)?,
                // No package has it any more.
                None if kind.is_some() => root.slot(path)?.remove()?,
                None => {}
            }
        }
        // A script has put another there, or an upgrade has. One that has moved ours meant the program.
        let mut moved = if free { Vec::new() } else { stand_ins(root, path)? };
        for aside in left {
            match moved.pop() {
                Some(place) => root.slot(aside)?.rename(&root.slot(&place)?)?,
                None => root.slot(aside)?.remove()?,
            }
        }
        match moved.pop() {
            None => Ok(()),
            Some(place) => Err(Fault::failed(format!(
                "a package's script has made copies of {}, which is none while packages are installed: {}",
                path.display(),
                place.display()
            ))
            .hint("copy it in a `run` with `chroot: true`, where it is the program itself")
            .into()),
        }
    }
}

/// Files that are the stand-in under other names, wherever they are in the root.
fn stand_ins(root: &Inside, path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let top = root.held();
    for entry in WalkDir::new(&top).same_file_system(true).sort_by_file_name() {
        let entry = entry.context("looking for start-stop-daemon")?;
        let of_its_size = || entry.metadata().is_ok_and(|meta| meta.len() == STAND_IN.len() as u64);
        if !entry.file_type().is_file() || !of_its_size() {
            continue;
        }
        let below = Path::new("/").join(entry.path().strip_prefix(&top)?);
        if below != path && read(root, &below)? == STAND_IN {
            found.push(below);
        }
    }
    // Beside the program first, taken from behind.
    found.sort_by_key(|place| place.parent() == path.parent());
    Ok(found)
}

impl Diversions {
    /// Adds ours; `None` where dpkg has no database, or a strange one.
    fn add(root: &Inside) -> Result<Option<Self>> {
        let path = Path::new(DIVERSIONS);
        let contents = match root.link_kind(path)? {
            Some(Kind::File) => Some(read(root, path)?),
            None if root.kind(Path::new("/var/lib/dpkg"))? == Some(Kind::Directory) => None,
            _ => return Ok(None),
        };
        // What goes elsewhere already, an upgrade does not put in our way; and dpkg takes no second diversion.
        let known = contents.as_deref().unwrap_or_default();
        if known
            .split(|byte| *byte == b'\n')
            .any(|line| PLACES.map(paths).iter().any(|(at, _)| line == at.as_os_str().as_bytes()))
        {
            return Ok(None);
        }
        let slot = root.slot(path)?;
        let before = Self { written: root.link_kind(Path::new(DIVERSIONS_BEFORE))?.is_some(), contents };
        let mut all = before.contents.clone().unwrap_or_default();
        for (path, aside) in PLACES.map(paths) {
            all.extend(format!("{}\n{}\n:\n", path.display(), aside.display()).into_bytes());
        }
        write_as_before(&slot, &all)?;
        Ok(Some(before))
    }

    fn release(&self, root: &Inside) -> Result<()> {
        let path = Path::new(DIVERSIONS);
        if root.link_kind(path)? != Some(Kind::File) {
            return Ok(());
        }
        let left = without_ours(&read(root, path)?);
        let slot = root.slot(path)?;
        let written = self.written || root.link_kind(Path::new(DIVERSIONS_BEFORE))?.is_some();
        if left.is_empty() && self.contents.is_none() && !written {
            return slot.remove();
        }
        write_as_before(&slot, &left)
    }
}

/// The program's path in a place, and the one that it has meanwhile.
fn paths((directory, aside): (&str, &str)) -> (PathBuf, PathBuf) {
    (Path::new(directory).join(NAME), Path::new(directory).join(aside))
}

/// The database without the diversions that lead to where the program is.
fn without_ours(database: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = database.split_inclusive(|byte| *byte == b'\n').collect();
    let ours = |entry: &[&[u8]]| {
        let to = entry.get(1).map(|to| to.trim_ascii_end());
        PLACES.map(paths).iter().any(|(_, aside)| to == Some(aside.as_os_str().as_bytes()))
    };
    lines.chunks(3).filter(|entry| !ours(entry)).flatten().copied().flatten().copied().collect()
}

/// Replaces a file and keeps what else is known of it.
fn write_as_before(slot: &Slot, contents: &[u8]) -> Result<()> {
    let attributes = slot.kind()?.map(|_| slot.attributes()).transpose()?;
    write(slot, contents, 0o644)?;
    attributes.map_or(Ok(()), |attributes| slot.apply(&attributes))
}

fn write(slot: &Slot, contents: &[u8], mode: u32) -> Result<()> {
    let doing = || format!("writing {}", slot.shown().display());
    slot.create_file()?.write_all(contents).with_context(doing)?;
    slot.set_mode(mode)
}

fn read(root: &Inside, path: &Path) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    root.slot(path)?.open_file()?.read_to_end(&mut contents).with_context(|| format!("reading {}", path.display()))?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const PROGRAM: &str = "usr/sbin/start-stop-daemon";

    /// A root whose /sbin is a link, with the program and a diversion.
    fn root() -> (tempfile::TempDir, Inside) {
        let root = tempfile::tempdir().unwrap();
        for directory in ["usr/sbin", "var/lib/dpkg"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        symlink("usr/sbin", root.path().join("sbin")).unwrap();
        fs::write(root.path().join(PROGRAM), "the program").unwrap();
        fs::set_permissions(root.path().join(PROGRAM), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(root.path().join("var/lib/dpkg/diversions"), "/a\n/a.real\nx\n").unwrap();
        let inside = Inside::open(root.path()).unwrap();
        (root, inside)
    }

    /// Paths with modes, times and contents.
    fn state(root: &Path) -> Vec<String> {
        let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(Result::unwrap);
        let shown = entries.map(|entry| {
            let meta = entry.metadata().unwrap();
            let contents = if meta.is_file() { fs::read_to_string(entry.path()).unwrap() } else { String::new() };
            let (mode, time) = (meta.permissions().mode(), meta.modified().unwrap());
            // The database's own directory is dated by whatever else dpkg does.
            let time = (!entry.path().ends_with("dpkg")).then_some(time);
            format!("{} {mode:o} {time:?} {contents}", entry.path().display())
        });
        shown.collect()
    }

    #[test]
    fn all_is_as_it_was() {
        let (root, inside) = root();
        let before = state(root.path());
        let held = Held::set(&inside).unwrap().unwrap();
        assert_eq!(fs::read(root.path().join(PROGRAM)).unwrap(), STAND_IN);
        held.release(&inside).unwrap();
        assert_eq!(state(root.path()), before);
    }

    /// Where the program is meanwhile, of the root's /usr/sbin and of its /sbin.
    const ASIDE: &str = "usr/sbin/start-stop-daemon.debforge";
    const ASIDE_OLD: &str = "sbin/start-stop-daemon.debforge-old";

    fn assert_settled(root: &Path, program: &str) {
        assert_eq!(fs::read_to_string(root.join(PROGRAM)).unwrap(), program);
        assert_eq!(fs::read_dir(root.join("usr/sbin")).unwrap().count(), 1);
    }

    #[test]
    fn an_upgrade_is_what_stays() {
        // dpkg unpacks to where the diversion of the package's path leads.
        for aside in [ASIDE, ASIDE_OLD] {
            let (root, inside) = root();
            let held = Held::set(&inside).unwrap().unwrap();
            fs::write(root.path().join(aside), "the new program").unwrap();
            held.release(&inside).unwrap();
            assert_settled(root.path(), "the new program");
        }
    }

    #[test]
    fn diversions_that_scripts_make_stay() {
        let (root, inside) = root();
        let held = Held::set(&inside).unwrap().unwrap();
        let database = root.path().join("var/lib/dpkg/diversions");
        let text = fs::read_to_string(&database).unwrap();
        fs::write(&database, format!("/b\n/b.real\n:\n{text}")).unwrap();
        held.release(&inside).unwrap();
        assert_eq!(fs::read_to_string(&database).unwrap(), "/b\n/b.real\n:\n/a\n/a.real\nx\n");
    }

    #[test]
    fn directories_may_be_merged_meanwhile() {
        let (root, inside) = root();
        fs::remove_file(root.path().join("sbin")).unwrap();
        fs::create_dir(root.path().join("sbin")).unwrap();
        fs::rename(root.path().join(PROGRAM), root.path().join("sbin/start-stop-daemon")).unwrap();
        let held = Held::set(&inside).unwrap().unwrap();
        for name in [NAME, PLACES[1].1] {
            fs::rename(root.path().join("sbin").join(name), root.path().join("usr/sbin").join(name)).unwrap();
        }
        fs::remove_dir(root.path().join("sbin")).unwrap();
        symlink("usr/sbin", root.path().join("sbin")).unwrap();
        held.release(&inside).unwrap();
        assert_settled(root.path(), "the program");
    }

    #[test]
    fn without_a_merged_usr_it_may_come_by_the_other_path() {
        let (root, inside) = root();
        fs::remove_file(root.path().join("sbin")).unwrap();
        fs::create_dir(root.path().join("sbin")).unwrap();
        fs::rename(root.path().join(PROGRAM), root.path().join("sbin/start-stop-daemon")).unwrap();
        let held = Held::set(&inside).unwrap().unwrap();
        fs::write(root.path().join(ASIDE), "the new program").unwrap();
        fs::remove_file(root.path().join(ASIDE_OLD)).unwrap();
        held.release(&inside).unwrap();
        assert_settled(root.path(), "the new program");
        assert_eq!(fs::read_dir(root.path().join("sbin")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_script_puts_there_stays() {
        let (root, inside) = root();
        let held = Held::set(&inside).unwrap().unwrap();
        fs::write(root.path().join(PROGRAM), "another").unwrap();
        held.release(&inside).unwrap();
        assert_settled(root.path(), "another");
    }

    #[test]
    fn a_script_that_moves_the_program_has_moved_it() {
        let (root, inside) = root();
        let held = Held::set(&inside).unwrap().unwrap();
        let at = |name: &str| root.path().join("usr/sbin").join(name);
        fs::rename(at(NAME), at("moved")).unwrap();
        fs::write(at(NAME), "a wrapper").unwrap();
        held.release(&inside).unwrap();
        assert_eq!(fs::read_to_string(at("moved")).unwrap(), "the program");
        assert_eq!(fs::metadata(at("moved")).unwrap().permissions().mode() & 0o7777, 0o750);
        assert_eq!(fs::read_to_string(at(NAME)).unwrap(), "a wrapper");
        let held = Held::set(&inside).unwrap().unwrap();
        fs::create_dir(root.path().join("opt")).unwrap();
        fs::copy(at(NAME), root.path().join("opt/copy")).unwrap();
        fs::rename(at(NAME), at("orig")).unwrap();
        fs::write(at(NAME), "another").unwrap();
        assert!(held.release(&inside).unwrap_err().to_string().contains("/opt/copy"));
    }

    #[test]
    fn a_root_that_diverts_it_keeps_its_own_diversions() {
        let (root, inside) = root();
        let database = root.path().join("var/lib/dpkg/diversions");
        let text = "/sbin/start-stop-daemon\n/sbin/start-stop-daemon.distrib\n:\n";
        fs::write(&database, text).unwrap();
        let held = Held::set(&inside).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&database).unwrap(), text);
        held.release(&inside).unwrap();
        assert_eq!(fs::read_to_string(&database).unwrap(), text);
        assert_settled(root.path(), "the program");
    }

    #[test]
    fn a_root_without_the_program_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sbin")).unwrap();
        assert!(Held::set(&Inside::open(root.path()).unwrap()).unwrap().is_none());
    }
}
