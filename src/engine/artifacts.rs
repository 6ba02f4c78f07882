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
use crate::store::{EntryId, MadeOn, Outputs, Store, TreeRecord, copy_file, is_disk_full};

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

    /// Puts all artifacts into their places, each at once, and says so. First it is seen that they are those of
    /// the plan: what was promised is there, and nothing changed since the step that made it was done. Gives the
    /// step whose artifacts the store turned out not to have; then nothing is in its place yet, or only what is
    /// right.
    pub(super) fn publish(
        &mut self,
        into: &Path,
        promises: &[Promise],
        reporter: &dyn Reporter,
    ) -> Result<Option<EntryId>> {
        self.check(promises)?;
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        // What a step made and no later one replaced or removed goes straight to its place.
        let whole: Vec<EntryId> = self.makers(|_| true).into_iter().filter(|id| self.is_whole(id)).collect();
        for id in self.makers(|artifact| artifact.staged.is_none()) {
            let there = if whole.contains(&id) { self.fetch(&id, into)? } else { self.stage(&id)? };
            if !there {
                return Ok(Some(id));
            }
        }
        for (path, artifact) in &self.files {
            let target = into.join(path);
            if artifact.staged.is_some() {
                place(&self.staging.join(path), &target, self.store.is_precarious())
                    .map_err(|error| unplaced(error, &target))?;
            }
            if self.tree_of(path).is_none() {
                let (size, sha256) = (artifact.size, artifact.sha256.clone());
                reporter.report(Event::Artifact { path: target, size, sha256 });
            }
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
        for id in &whole {
            self.store.note_outputs(id, into)?;
        }
        Ok(None)
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
        return Fault::failed(format!("the disk that {} goes to is full", target.display()))
            .hint("make room on it, or name another directory with `--artifactdir`, and build again: nothing is lost")
            .into();
    }
    error.context(format!("putting {} into its place", target.display()))
}

/// Moves a file, over another file system by a copy under a temporary name, which is on the disk before
/// it gets its own where the machine may be switched off at any moment.
fn place(from: &Path, to: &Path, precarious: bool) -> Result<()> {
    let directory = to.parent().context("an artifact without a directory")?;
    fs::create_dir_all(directory)?;
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    if from.symlink_metadata()?.is_symlink() {
        let link = tempfile::Builder::new()
            .make_in(directory, |path| std::os::unix::fs::symlink(fs::read_link(from)?, path))?;
        link.persist(to)?;
        return Ok(());
    }
    // Named by what makes it, so that nobody else's file is in the way; holes stay holes.
    let temporary = tempfile::Builder::new().make_in(directory, |path| copy_file(from, path))?;
    if precarious {
        fs::File::open(temporary.path())?.sync_all()?;
    }
    temporary.persist(to)?;
    Ok(())
}
