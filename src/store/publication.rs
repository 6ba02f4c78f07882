//! Artifacts on their way into the artifact directory: made ready beside their places, on the same file system, and
//! put there one right after the other, by one build at a time. A failure on the way takes back what was done.
//!
//! What a killed build left beside the places is removed by the next that publishes into the same directory, or that
//! opens the same store; where it was killed among the last renames, these are done first. A build in a machine
//! takes its locks in another kernel, which does not show them to this one; so it holds them by making their files,
//! and for as long as the process that watches over the machine runs.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::entry::BOOT;
use super::lock::{MakeLock, Tried, Waiting, wait};
use super::{Holder, Store, random_name};
use crate::diagnostics::Fault;
use crate::sys::remove::remove_tree;

/// What the names of debforge's own files in an artifact directory begin with, and the name of the lock.
const OWN: &str = ".debforge-publishing";
/// In the directory of a publication: the artifacts.
const FILES: &str = "files";
/// In the same: what is put where, present while that is done.
const MOVES: &str = "moves.json";

/// Whether a file of this name in an artifact directory is there only while something is published.
pub fn is_of_publication(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(OWN.as_bytes())
}

/// Artifacts that are made ready beside their places.
#[derive(Debug)]
pub struct Publication {
    into: PathBuf,
    /// All that is its own.
    top: PathBuf,
    _lock: Held,
    /// Where the store finds it when this process is killed.
    _note: MakeLock,
}

/// The exclusive right to change an artifact directory.
#[derive(Debug)]
pub struct Place {
    publication: Publication,
    _lock: Held,
}

/// That somebody may publish into a directory whom this kernel does not see.
#[derive(Debug)]
pub struct Awaited {
    into: PathBuf,
    note: Option<MakeLock>,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut left = fs::read_dir(&self.into).into_iter().flatten().flatten();
        if left.any(|entry| is_of_publication(&entry.file_name()))
            && let Some(note) = self.note.take()
        {
            // Its owner counts as running while the front does: whoever opens the store next finds it.
            note.leave();
        }
    }
}

/// Renames that are being done.
#[derive(Debug, Serialize, Deserialize)]
struct Moves {
    /// The run of the kernel: after a power cut nothing is known of the files' bytes.
    boot: String,
    moves: Vec<Move>,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
struct Move {
    /// The path of a file, or of a directory that is not there yet.
    path: PathBuf,
    /// Device and inode of what is put there.
    file: (u64, u64),
}

impl Store {
    /// Begins to publish into a directory; what builds before left there is tidied.
    pub fn publication(&self, into: &Path) -> Result<Publication> {
        let into = into.canonicalize().with_context(|| format!("opening {}", into.display()))?;
        loop {
            let name = random_name();
            let note = self.dir("publications").join(&name);
            // A sweep may take and remove a lock's file in the moment before it is locked.
            let Some(lock) = MakeLock::try_take(note.clone())? else { continue };
            self.write_into(&note, &into)?;
            tidy(&into, false);
            let top = into.join(format!("{OWN}-{name}"));
            let held = Held::try_take(&lock_of(&top)).map_err(|error| unready(error, &into))?;
            let Some(held) = held else { continue };
            let publication = Publication { into, top, _lock: held, _note: lock };
            publication.make().map_err(|error| unready(error, &publication.into))?;
            return Ok(publication);
        }
    }

    /// Sees to it that what a machine leaves in an artifact directory is tidied when it is gone.
    pub fn await_publication(&self, into: &Path) -> Result<Awaited> {
        let into = into.canonicalize().with_context(|| format!("opening {}", into.display()))?;
        tidy(&into, false);
        loop {
            let note = self.dir("publications").join(random_name());
            let Some(lock) = MakeLock::try_take(note.clone())? else { continue };
            self.write_into(&note, &into)?;
            return Ok(Awaited { into, note: Some(lock) });
        }
    }

    fn write_into(&self, note: &Path, into: &Path) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        fs::write(note, into.as_os_str().as_bytes())
            .with_context(|| format!("writing {}", note.display()))
            .map_err(|error| self.explain(error))
    }
}

fn unready(error: anyhow::Error, into: &Path) -> anyhow::Error {
    let refused = error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem));
    if !refused {
        return error;
    }
    Fault::failed(format!("{} cannot be written", into.display()))
        .tail(vec![format!("{error:#}")])
        .hint("name another directory for the artifacts with `--artifactdir`: what was built is kept")
        .into()
}

impl Publication {
    fn make(&self) -> Result<()> {
        let doing = || format!("making {}", self.top.display());
        fs::create_dir(&self.top).with_context(doing)?;
        // Nobody else's business before it is whole.
        fs::set_permissions(&self.top, fs::Permissions::from_mode(0o700)).with_context(doing)?;
        fs::create_dir(self.files()).with_context(doing)
    }

    /// Where artifacts are made ready, under the paths that they will have in the artifact directory.
    pub fn files(&self) -> PathBuf {
        self.top.join(FILES)
    }

    /// Waits until nobody else changes the artifact directory.
    pub fn place(self, waiting: Waiting<'_>) -> Result<Place> {
        let lock = Held::take(&self.into.join(OWN), waiting)?;
        // What a killed build has begun comes before what is done now.
        tidy(&self.into, true);
        Ok(Place { publication: self, _lock: lock })
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.top) {
            tracing::warn!("{error:#}");
        }
    }
}

impl Place {
    /// Puts what is ready under these paths into the artifact directory: all of it, or, where that fails, nothing.
    pub fn put(&self, paths: &[&Path]) -> Result<()> {
        let Publication { into, top, .. } = &self.publication;
        let files = self.publication.files();
        let mut moves: Vec<Move> = Vec::new();
        for path in paths {
            let path = unit(into, path)?;
            if moves.iter().rev().all(|one| one.path != path) {
                let stat = files.join(&path).symlink_metadata();
                let stat = stat.with_context(|| format!("putting {} into its place", path.display()))?;
                moves.push(Move { path, file: (stat.dev(), stat.ino()) });
            }
        }
        let moves = Moves { boot: BOOT.clone(), moves };
        let list = top.join(MOVES);
        let fresh = list.with_extension("new");
        fs::write(&fresh, serde_json::to_vec(&moves)?)
            .and_then(|()| fs::rename(&fresh, &list))
            .with_context(|| format!("writing {}", list.display()))?;
        let mut done = Vec::new();
        for Move { path, .. } in &moves.moves {
            let (from, to) = (files.join(path), into.join(path));
            match put(&from, &to) {
                Ok(way) => done.push((from, to, way)),
                Err(error) => {
                    done.into_iter().rev().for_each(|(from, to, way)| take_back(&from, &to, way));
                    let _ = fs::remove_file(&list);
                    return Err(error).with_context(|| format!("putting {} into its place", to.display()));
                }
            }
        }
        fs::remove_file(&list).with_context(|| format!("removing {}", list.display()))
    }
}

/// What is renamed for a file to get its place: the file, or the first directory on the way to it that is not there
/// yet, which so is seen with all that is in it. Fails where something else is in the way.
fn unit(into: &Path, path: &Path) -> Result<PathBuf> {
    let mut below = PathBuf::new();
    let parts: Vec<Component<'_>> = path.components().collect();
    for (number, part) in parts.iter().enumerate() {
        below.push(part);
        let at = into.join(&below);
        let last = number + 1 == parts.len();
        let wrong = match at.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(below),
            Err(error) => return Err(error).with_context(|| format!("looking at {}", at.display())),
            Ok(stat) if last && stat.is_dir() => "a directory, and a file is to take its place",
            Ok(_) if !last && !at.is_dir() => "no directory, and one is to take its place",
            Ok(_) => continue,
        };
        return Err(Fault::failed(format!("{} is {wrong}", at.display()))
            .hint(
                "nothing was published: move it away, or name another directory with `--artifactdir`, and build again",
            )
            .into());
    }
    Ok(below)
}

/// How something came to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// What was there is now where it came from.
    Exchanged,
    /// Nothing was there.
    New,
    /// What was there is gone: this file system exchanges nothing.
    Replaced,
}

fn put(from: &Path, to: &Path) -> Result<Way, Errno> {
    let rename = |flags| renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
    match rename(RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(Way::Exchanged),
        Err(Errno::ENOENT) => rename(RenameFlags::empty()).map(|()| Way::New),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            let way = if to.symlink_metadata().is_ok() { Way::Replaced } else { Way::New };
            nix::fcntl::renameat(AT_FDCWD, from, AT_FDCWD, to).map(|()| way)
        }
        Err(error) => Err(error),
    }
}

fn take_back(from: &Path, to: &Path, way: Way) {
    let back = match way {
        Way::Exchanged => put(from, to).map(drop),
        Way::New => nix::fcntl::renameat(AT_FDCWD, to, AT_FDCWD, from),
        Way::Replaced => Ok(()),
    };
    if let Err(error) = back {
        tracing::warn!("taking {} back: {error}", to.display());
    }
}

/// Tidies what killed builds left in an artifact directory; whether all of it is gone. `placed`: we have the right to
/// change the directory.
fn tidy(into: &Path, placed: bool) -> bool {
    // From within a machine nobody can tell what still runs outside.
    if Holder::own().in_machine {
        return true;
    }
    let mut all = true;
    for entry in fs::read_dir(into).into_iter().flatten().flatten() {
        let path = entry.path();
        if !is_of_publication(&entry.file_name()) || (placed && path.file_name() == Some(OsStr::new(OWN))) {
            continue;
        }
        if !path.is_dir() {
            let top = path.with_extension("");
            if path == into.join(OWN) || (path == lock_of(&top) && !top.exists()) {
                drop(Held::try_take(&path));
            }
            continue;
        }
        let Ok(Some(lock)) = Held::try_take(&lock_of(&path)) else { continue };
        if path.join(MOVES).exists() {
            let right = if placed { Ok(None) } else { Held::try_take(&into.join(OWN)).map(Some) };
            if !matches!(right, Ok(None | Some(Some(_)))) {
                all = false;
                lock.leave();
                continue;
            }
            if let Err(error) = go_on(into, &path) {
                tracing::warn!("{error:#}");
            }
        }
        if let Err(error) = remove_tree(&path) {
            tracing::warn!("{error:#}");
        }
        drop(lock);
    }
    all
}

/// Does the renames that a killed build had begun.
fn go_on(into: &Path, top: &Path) -> Result<()> {
    let doing = || format!("publishing what a killed build had ready in {}", top.display());
    let moves: Moves = serde_json::from_slice(&fs::read(top.join(MOVES)).with_context(doing)?).with_context(doing)?;
    if moves.boot != *BOOT {
        return Ok(());
    }
    for Move { path, file } in moves.moves {
        let from = top.join(FILES).join(&path);
        if from.symlink_metadata().is_ok_and(|stat| (stat.dev(), stat.ino()) == file) {
            put(&from, &into.join(&path)).with_context(doing)?;
        }
    }
    Ok(())
}

/// Tidies the directories in which builds of this store were killed while they published.
pub(super) fn sweep(notes: &Path) {
    use std::os::unix::ffi::OsStringExt;
    for entry in fs::read_dir(notes).into_iter().flatten().flatten() {
        let Ok(Some(lock)) = MakeLock::try_take(entry.path()) else { continue };
        let into = PathBuf::from(std::ffi::OsString::from_vec(fs::read(entry.path()).unwrap_or_default()));
        if !into.is_absolute() || tidy(&into, false) {
            drop(lock);
        } else {
            lock.leave();
        }
    }
}

fn lock_of(top: &Path) -> PathBuf {
    top.with_extension("lock")
}

/// A lock in an artifact directory.
#[derive(Debug)]
enum Held {
    /// Locked in this kernel.
    Here(MakeLock),
    /// Held from within a machine.
    There(#[allow(dead_code, reason = "it is held, not read")] ByName),
}

/// A lock whose file's being there is all that holds it.
#[derive(Debug)]
struct ByName(PathBuf);

impl Held {
    fn take(path: &Path, waiting: Waiting<'_>) -> Result<Self> {
        wait(path, waiting, || Ok(Self::try_take(path)?.map_or(Tried::Busy, Tried::Taken)))
    }

    fn try_take(path: &Path) -> Result<Option<Self>> {
        let own = Holder::own();
        if own.in_machine {
            return Self::by_name(path);
        }
        let Some(lock) = MakeLock::try_take(path.to_owned())? else { return Ok(None) };
        if Holder::of(path).is_some_and(|holder| holder.in_machine && holder.runs()) {
            lock.leave();
            return Ok(None);
        }
        lock.sign();
        Ok(Some(Self::Here(lock)))
    }

    fn by_name(path: &Path) -> Result<Option<Self>> {
        let doing = || format!("making the lock {}", path.display());
        let fresh = path.with_file_name(format!("{OWN}-{}.lock", random_name()));
        Holder::sign(&fs::File::create_new(&fresh).with_context(doing)?);
        let linked = fs::hard_link(&fresh, path);
        let _ = fs::remove_file(&fresh);
        match linked {
            Ok(()) => Ok(Some(Self::There(ByName(path.to_owned())))),
            // Somebody has it; or tidied away what was not signed yet.
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error).with_context(doing),
        }
    }

    fn leave(self) {
        if let Self::Here(lock) = self {
            lock.leave();
        }
    }
}

impl Drop for ByName {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a build that was killed among its renames left: `a` is in its place, `b` is not.
    fn killed(into: &Path, boot: &str) -> PathBuf {
        let top = into.join(format!("{OWN}-1"));
        let files = top.join(FILES);
        fs::create_dir_all(&files).unwrap();
        for name in ["a", "b"] {
            fs::write(into.join(name), "old").unwrap();
            fs::write(files.join(name), "new").unwrap();
        }
        let id = |name: &str| files.join(name).metadata().map(|stat| (stat.dev(), stat.ino())).unwrap();
        let moves = ["a", "b"].map(|name| Move { path: name.into(), file: id(name) });
        let moves = Moves { boot: boot.into(), moves: moves.into() };
        fs::write(top.join(MOVES), serde_json::to_vec(&moves).unwrap()).unwrap();
        put(&files.join("a"), &into.join("a")).unwrap();
        top
    }

    fn texts(into: &Path) -> [String; 2] {
        ["a", "b"].map(|name| fs::read_to_string(into.join(name)).unwrap())
    }

    fn names(into: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(into).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn renames_that_a_killed_build_began_are_done() {
        let dir = tempfile::tempdir().unwrap();
        killed(dir.path(), &BOOT);
        fs::write(dir.path().join(OWN), "").unwrap();
        assert!(tidy(dir.path(), false));
        assert_eq!(texts(dir.path()), ["new", "new"]);
        assert_eq!(names(dir.path()), ["a", "b"]);
    }

    #[test]
    fn after_a_power_cut_nothing_more_is_published() {
        let dir = tempfile::tempdir().unwrap();
        killed(dir.path(), "another");
        assert!(tidy(dir.path(), false));
        assert_eq!(texts(dir.path()), ["new", "old"]);
        assert_eq!(names(dir.path()), ["a", "b"]);
    }

    #[test]
    fn what_a_living_build_has_stays() {
        let dir = tempfile::tempdir().unwrap();
        let top = killed(dir.path(), &BOOT);
        let _lock = Held::try_take(&lock_of(&top)).unwrap().unwrap();
        assert!(tidy(dir.path(), false));
        assert_eq!(texts(dir.path()), ["new", "old"]);
        assert!(top.exists());
    }

    #[test]
    fn a_killed_build_s_renames_wait_for_those_of_a_living_one() {
        let dir = tempfile::tempdir().unwrap();
        let top = killed(dir.path(), &BOOT);
        let right = Held::try_take(&dir.path().join(OWN)).unwrap().unwrap();
        assert!(!tidy(dir.path(), false));
        assert!(top.exists());
        assert!(tidy(dir.path(), true));
        assert_eq!(texts(dir.path()), ["new", "new"]);
        drop(right);
        assert_eq!(names(dir.path()), ["a", "b"]);
    }

    #[test]
    fn a_lock_that_is_held_from_within_a_machine_lasts_as_long_as_who_watches_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OWN);
        let sign = |pid: u32| {
            let holder = Holder::of_process(pid).in_machine();
            fs::write(&path, serde_json::to_vec(&holder).unwrap()).unwrap();
        };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        sign(child.id());
        assert!(Held::try_take(&path).unwrap().is_none());
        tidy(dir.path(), false);
        assert!(path.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Held::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn of_two_in_machines_one_has_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OWN);
        let held = Held::by_name(&path).unwrap().unwrap();
        assert!(Held::by_name(&path).unwrap().is_none());
        drop(held);
        assert!(Held::by_name(&path).unwrap().is_some());
        assert!(names(dir.path()).is_empty());
    }
}
