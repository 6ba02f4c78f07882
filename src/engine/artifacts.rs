//! Artifacts of a build: gathered in a directory of its own, put in their places when it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::build::{Event, Reporter};
use crate::diagnostics::Fault;
use crate::store::size::full;
use crate::store::{EntryId, MadeOn, Outputs, Place, Store, TreeRecord, copy_file, is_disk_full, waiting_for};

/// An artifact as it will be published.
struct Artifact {
    /// The step that made it.
    made_by: EntryId,
    /// What it looked like in the staging directory when its contents were known; `None` where it is only in
    /// the store.
    staged: Option<Look>,
    size: u64,
    sha256: String,
}

/// The artifacts of one build.
pub(super) struct Artifacts<'a> {
    store: &'a Store,
    /// Where steps write them.
    pub(super) staging: PathBuf,
    files: BTreeMap<PathBuf, Artifact>,
    /// The steps so far, and what each did.
    order: Vec<(EntryId, Outputs)>,
    /// Directories whose files are one artifact for people.
    trees: BTreeSet<PathBuf>,
}

/// Inode, size and mtime of a file.
type Look = (u64, u64, SystemTime);

/// The staging directory at one moment.
pub(super) struct Snapshot(BTreeMap<PathBuf, Look>);

/// A file that a step of the plan says it leaves.
pub(super) struct Promise {
    /// Below the artifact directory; a directory stands for what is in it.
    pub(super) path: PathBuf,
    /// Number of the step.
    pub(super) step: usize,
}

impl<'a> Artifacts<'a> {
    pub(super) fn new(store: &'a Store, scratch: &Path) -> Result<Self> {
        let staging = scratch.join("artifacts");
        fs::create_dir(&staging).context("making a place for artifacts")?;
        Ok(Self { store, staging, files: BTreeMap::new(), order: Vec::new(), trees: BTreeSet::new() })
    }

    /// Takes all files below a directory for one artifact.
    pub(super) fn tree(&mut self, directory: &str) {
        self.trees.insert(Path::new(directory).components().collect());
    }

    /// Digest of all artifacts as they stand.
    pub(super) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("debforge artifacts 1");
        for (path, artifact) in &self.files {
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path);
            hasher.update(artifact.sha256.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Counts a cached step's artifacts in; returns what to show for it, `None` where they are gone or were made
    /// on something else.
    pub(super) fn restore(&mut self, id: &EntryId, now: &MadeOn) -> Result<Option<String>> {
        let Some(outputs) = self.store.outputs(id)? else { return Ok(None) };
        if !outputs.record.made_on.fits(now) {
            return Ok(None);
        }
        let detail = outputs.record.detail.clone();
        self.count(id, outputs, |_| None);
        Ok(Some(detail))
    }

    /// Takes in what a step did; `staged` says what its files look like in the staging directory.
    fn count(&mut self, id: &EntryId, outputs: Outputs, staged: impl Fn(&Path) -> Option<Look>) {
        for path in &outputs.removed {
            self.files.remove(path);
        }
        for (path, (size, sha256)) in &outputs.files {
            let (size, sha256, staged) = (*size, sha256.clone(), staged(path));
            self.files.insert(path.clone(), Artifact { made_by: id.clone(), staged, size, sha256 });
        }
        self.order.push((id.clone(), outputs));
    }

    /// Puts what cached steps made into the staging directory, for a step that reads it. Gives the step whose
    /// artifacts the store turned out not to have.
    pub(super) fn materialise(&mut self) -> Result<Option<EntryId>> {
        for id in self.makers(|artifact| artifact.staged.is_none()) {
            if !self.stage(&id)? {
                return Ok(Some(id));
            }
            // What a later step took away came along, and is no artifact any more.
            for path in self.outputs(&id).into_iter().flat_map(|outputs| outputs.files.keys()) {
                if !self.files.contains_key(path) {
                    fs::remove_file(self.staging.join(path)).context("removing an artifact of before")?;
                }
            }
        }
        Ok(None)
    }

    /// Copies what a step made from the store; false where that does not have it.
    fn stage(&mut self, id: &EntryId) -> Result<bool> {
        if !self.fetch(id, &self.staging)? {
            return Ok(false);
        }
        for (path, artifact) in self.files.iter_mut().filter(|(_, artifact)| artifact.made_by == *id) {
            artifact.staged = Some(look(&self.staging.join(path)).context("reading the artifacts")?);
        }
        Ok(true)
    }

    /// The staging directory as it stands.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let mut files = BTreeMap::new();
        for entry in WalkDir::new(&self.staging).min_depth(1) {
            let entry = entry.context("reading the artifacts")?;
            if !entry.file_type().is_dir() {
                let path = entry.path().strip_prefix(&self.staging)?.to_owned();
                files.insert(path, look(entry.path()).context("reading the artifacts")?);
            }
        }
        Ok(Snapshot(files))
    }

    /// Keeps under a step's id what it did since `before`.
    pub(super) fn save(&mut self, id: &EntryId, before: &Snapshot, record: &TreeRecord) -> Result<()> {
        let now = self.snapshot()?;
        let changed: Vec<PathBuf> = now
            .0
            .iter()
            .filter(|(path, stat)| before.0.get(*path) != Some(stat))
            .map(|(path, _)| path.clone())
            .collect();
        let removed: Vec<PathBuf> = before.0.keys().filter(|path| !now.0.contains_key(*path)).cloned().collect();
        let outputs =
            self.store.save_outputs(id, &self.staging, &changed, &removed, record).context("keeping the artifacts")?;
        self.count(id, outputs, |path| now.0.get(path).copied());
        Ok(())
    }

    /// Puts all artifacts into their places, one right after the other, when all are ready beside them, and says so.
    /// First it is seen that they are those of the plan: what was promised is there, and nothing changed since the
    /// step that made it was done. Gives the right to change what is there, which nobody else has meanwhile; or the step
    /// whose artifacts the store turned out not to have: then nothing is in its place yet.
    pub(super) fn publish(
        &mut self,
        into: &Path,
        promises: &[Promise],
        reporter: &dyn Reporter,
    ) -> Result<Result<Place, EntryId>> {
        self.check(promises)?;
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        let publication = self.store.publication(into).map_err(|error| without_room(error, into))?;
        let ready = publication.files();
        // What a step made and no later one replaced or removed comes straight from the store.
        let whole: Vec<EntryId> = self.makers(|_| true).into_iter().filter(|id| self.is_whole(id)).collect();
        let unstaged = self.makers(|artifact| artifact.staged.is_none());
        let (direct, others): (Vec<_>, Vec<_>) = unstaged.into_iter().partition(|id| whole.contains(id));
        for id in others {
            if !self.stage(&id)? {
                return Ok(Err(id));
            }
        }
        if let Err(lost) = self.beside(&direct, into, &ready)? {
            return Ok(Err(lost));
        }
        for (path, _) in self.files.iter().filter(|(_, artifact)| artifact.staged.is_some()) {
            make_ready(&self.staging, &ready, path, self.store.is_precarious())
                .map_err(|error| unplaced(error, &into.join(path)))?;
        }
        let place = publication.place(&mut |holder| {
            let what = format!("waiting for another build that publishes into {}", into.display());
            reporter.report(Event::Warning { step: None, message: waiting_for(&what, holder) });
        })?;
        // Another build may have replaced meanwhile what stood there.
        let standing = match self.beside(&direct, into, &ready)? {
            Ok(standing) => standing,
            Err(lost) => return Ok(Err(lost)),
        };
        let paths: Vec<&Path> =
            self.files.keys().map(PathBuf::as_path).filter(|path| !standing.contains(*path)).collect();
        place.put(&paths).map_err(|error| without_room(error, into))?;
        for id in &whole {
            self.store.note_outputs(id, into)?;
        }
        self.say(into, reporter);
        Ok(Ok(place))
    }

    /// Copies what steps made from the store to where it is made ready, but for what stands in its place; that, or
    /// the step whose artifacts the store does not have.
    fn beside(&self, ids: &[EntryId], into: &Path, ready: &Path) -> Result<Result<BTreeSet<PathBuf>, EntryId>> {
        let mut standing = BTreeSet::new();
        for id in ids {
            match self.store.restore_outputs_beside(id, into, ready).map_err(|error| unplaced(error, into))? {
                Some(paths) => standing.extend(paths),
                None => return Ok(Err(id.clone())),
            }
        }
        Ok(Ok(standing))
    }

    /// Says what is in its place.
    fn say(&self, into: &Path, reporter: &dyn Reporter) {
        for (path, artifact) in self.files.iter().filter(|(path, _)| self.tree_of(path).is_none()) {
            let (size, sha256) = (artifact.size, artifact.sha256.clone());
            reporter.report(Event::Artifact { path: into.join(path), size, sha256 });
        }
        for tree in &self.trees {
            let files: Vec<_> = self.files.iter().filter(|(path, _)| self.tree_of(path) == Some(tree)).collect();
            let size = files.iter().map(|(_, artifact)| artifact.size).sum();
            let mut listing = Sha256::new();
            for (path, artifact) in files {
                listing.update(format!("{}  {}\n", artifact.sha256, path.display()));
            }
            reporter.report(Event::Artifact { path: into.join(tree), size, sha256: hex::encode(listing.finalize()) });
        }
    }

    /// Fails where the artifacts are not those that the plan promised.
    fn check(&self, promises: &[Promise]) -> Result<()> {
        for Promise { path, step } in promises {
            // A later step may have put it elsewhere, under another name or packed.
            let taken = self.order.iter().any(|(_, outputs)| outputs.removed.iter().any(|gone| gone.starts_with(path)));
            if !taken && !self.files.keys().any(|file| file.starts_with(path)) {
                let message = format!("step {step} was to leave {} and did not", path.display());
                return Err(Fault::failed(message).hint("nothing was published; this is a fault of debforge").into());
            }
        }
        for (path, artifact) in &self.files {
            let Some(known) = &artifact.staged else { continue };
            if look(&self.staging.join(path)).ok().as_ref() != Some(known) {
                let message = format!("{} changed after the step that made it was done", path.display());
                return Err(Fault::failed(message).hint("nothing was published: build again").into());
            }
        }
        Ok(())
    }

    fn tree_of(&self, path: &Path) -> Option<&PathBuf> {
        self.trees.iter().find(|tree| path.starts_with(tree))
    }

    /// Whether all that a step made is still as it made it.
    fn is_whole(&self, id: &EntryId) -> bool {
        self.outputs(id).is_some_and(|outputs| {
            outputs.files.keys().all(|path| self.files.get(path).is_some_and(|artifact| artifact.made_by == *id))
        })
    }

    fn outputs(&self, id: &EntryId) -> Option<&Outputs> {
        self.order.iter().rev().find(|(made_by, _)| made_by == id).map(|(_, outputs)| outputs)
    }

    /// The steps that made some of the artifacts, in their order.
    fn makers(&self, which: impl Fn(&Artifact) -> bool) -> Vec<EntryId> {
        let made = |id: &EntryId| self.files.values().any(|artifact| artifact.made_by == *id && which(artifact));
        self.order.iter().map(|(id, _)| id).filter(|id| made(id)).cloned().collect()
    }

    /// Copies what a step made from the store into a directory; false where that does not have it.
    fn fetch(&self, id: &EntryId, into: &Path) -> Result<bool> {
        Ok(self.store.restore_outputs(id, into).context("restoring cached artifacts")?.is_some())
    }
}

fn look(path: &Path) -> Result<Look> {
    let stat = path.symlink_metadata()?;
    Ok((stat.ino(), stat.len(), stat.modified()?))
}

/// Why an artifact is not in its place.
fn unplaced(error: anyhow::Error, target: &Path) -> anyhow::Error {
    if is_disk_full(&error) {
        return without_room(error, target);
    }
    error.context(format!("putting {} into its place", target.display()))
}

/// The same of a full disk; another reason is as it was.
fn without_room(error: anyhow::Error, target: &Path) -> anyhow::Error {
    if is_disk_full(&error) {
        return Fault::failed(format!("the disk that {} goes to {}", target.display(), full(target)))
            .hint("make room on it, or name another directory with `--artifactdir`, and build again: nothing is lost")
            .into();
    }
    error
}

/// Moves a file to where it is made ready, with its directories, over another file system by a copy, which is on the
/// disk before it gets its place where the machine may be switched off at any moment.
fn make_ready(staging: &Path, ready: &Path, path: &Path, precarious: bool) -> Result<()> {
    let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents.into_iter().rev().filter(|parent| !ready.join(parent).is_dir()) {
        let mode = staging.join(parent).metadata()?.permissions();
        fs::create_dir(ready.join(parent))?;
        fs::set_permissions(ready.join(parent), mode)?;
    }
    let (from, to) = (staging.join(path), ready.join(path));
    if fs::rename(&from, &to).is_ok() {
        return Ok(());
    }
    if from.symlink_metadata()?.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        return Ok(());
    }
    // Holes stay holes.
    copy_file(&from, &to)?;
    if precarious {
        fs::File::open(&to)?.sync_all()?;
    }
    Ok(())
}
