//! Artifacts of a build: gathered in a directory of its own, put in their places when it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::build::{Event, Reporter};
use crate::diagnostics::Fault;
use crate::store::{EntryId, Store, TreeRecord, copy_file, is_disk_full};
use crate::sys::file::data_ranges;

/// What a step did to the artifacts, kept beside its outputs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Effect {
    /// Files it made or changed, with size and SHA-256.
    files: BTreeMap<PathBuf, (u64, String)>,
    /// Files of earlier steps that it removed.
    removed: Vec<PathBuf>,
    /// What to show for it.
    detail: String,
}

/// An artifact as it will be published.
struct Artifact {
    /// The step that made it.
    made_by: EntryId,
    /// Whether it stands in the staging directory, or only in the store.
    staged: bool,
    size: u64,
    sha256: String,
}

/// The artifacts of one build.
pub(super) struct Artifacts<'a> {
    store: &'a Store,
    /// Where steps write them.
    pub(super) staging: PathBuf,
    files: BTreeMap<PathBuf, Artifact>,
    /// The steps so far.
    order: Vec<EntryId>,
    /// Directories whose files are one artifact for people.
    trees: BTreeSet<PathBuf>,
}

/// The staging directory at one moment.
pub(super) struct Snapshot(BTreeMap<PathBuf, (u64, u64, SystemTime)>);

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

    /// Whether the store has what a step did to the artifacts.
    pub(super) fn keeps(&self, id: &EntryId) -> bool {
        self.store.has_outputs(id) && self.effect(id).is_some()
    }

    /// Counts a cached step's artifacts in; returns what to show for it, `None` where they are gone.
    pub(super) fn restore(&mut self, id: &EntryId) -> Option<String> {
        if !self.store.has_outputs(id) {
            return None;
        }
        let effect: Effect = serde_json::from_value(self.store.recall(&key(id))?).ok()?;
        self.order.push(id.clone());
        for path in &effect.removed {
            self.files.remove(path);
        }
        for (path, (size, sha256)) in effect.files {
            self.files.insert(path, Artifact { made_by: id.clone(), staged: false, size, sha256 });
        }
        Some(effect.detail)
    }

    /// Puts what cached steps made into the staging directory, for a step that reads it.
    pub(super) fn materialise(&mut self) -> Result<()> {
        for id in self.makers(|artifact| !artifact.staged) {
            self.fetch(&id, &self.staging)?;
            self.staged(&id);
            // What a later step took away came along, and is no artifact any more.
            for path in self.effect(&id).iter().flat_map(|effect| effect.files.keys()) {
                if !self.files.contains_key(path) {
                    fs::remove_file(self.staging.join(path)).context("removing an artifact of before")?;
                }
            }
        }
        Ok(())
    }

    /// The staging directory as it stands.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let mut files = BTreeMap::new();
        for entry in WalkDir::new(&self.staging).min_depth(1) {
            let entry = entry.context("reading the artifacts")?;
            if !entry.file_type().is_dir() {
                let meta = entry.metadata().context("reading the artifacts")?;
                let path = entry.path().strip_prefix(&self.staging)?.to_owned();
                files.insert(path, (meta.ino(), meta.len(), meta.modified()?));
            }
        }
        Ok(Snapshot(files))
    }

    /// Keeps under a step's id what it did since `before`.
    pub(super) fn save(&mut self, id: &EntryId, before: &Snapshot, record: &TreeRecord) -> Result<()> {
        self.order.push(id.clone());
        let now = self.snapshot()?;
        let changed: Vec<PathBuf> = now
            .0
            .iter()
            .filter(|(path, stat)| before.0.get(*path) != Some(stat))
            .map(|(path, _)| path.clone())
            .collect();
        let removed: Vec<PathBuf> = before.0.keys().filter(|path| !now.0.contains_key(*path)).cloned().collect();
        let staging = &self.staging;
        // Both read all that was made; the digest that people know is no faster for holes and has a
        // processor of its own.
        let digests = std::thread::scope(|scope| -> Result<_> {
            let hashing = scope.spawn(|| changed.iter().map(|path| sha256(&staging.join(path))).collect::<Result<_>>());
            let saved = self.store.save_outputs(id, staging, &changed, record).context("keeping the artifacts");
            let digests: Vec<(u64, String)> = hashing.join().map_err(|_| anyhow!("the hashing thread broke off"))??;
            saved.map(|()| digests)
        })?;
        let mut effect = Effect { files: BTreeMap::new(), removed, detail: record.detail.clone() };
        for (path, (size, sha256)) in changed.into_iter().zip(digests) {
            effect.files.insert(path.clone(), (size, sha256.clone()));
            self.files.insert(path, Artifact { made_by: id.clone(), staged: true, size, sha256 });
        }
        for path in &effect.removed {
            self.files.remove(path);
        }
        self.store.remember(&key(id), &serde_json::to_value(&effect)?);
        Ok(())
    }

    /// Puts all artifacts into their places, each at once, and says so.
    pub(super) fn publish(&mut self, into: &Path, reporter: &dyn Reporter) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        // What a step made and no later one replaced or removed goes straight to its place.
        let whole: Vec<EntryId> = self.makers(|_| true).into_iter().filter(|id| self.is_whole(id)).collect();
        for id in self.makers(|artifact| !artifact.staged) {
            if whole.contains(&id) {
                self.fetch(&id, into)?;
            } else {
                self.fetch(&id, &self.staging)?;
                self.staged(&id);
            }
        }
        for (path, artifact) in &self.files {
            let target = into.join(path);
            if artifact.staged {
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
        Ok(())
    }

    fn tree_of(&self, path: &Path) -> Option<&PathBuf> {
        self.trees.iter().find(|tree| path.starts_with(tree))
    }

    /// Whether all that a step made is still as it made it.
    fn is_whole(&self, id: &EntryId) -> bool {
        self.effect(id).is_some_and(|effect| {
            effect.files.keys().all(|path| self.files.get(path).is_some_and(|artifact| artifact.made_by == *id))
        })
    }

    fn staged(&mut self, id: &EntryId) {
        for artifact in self.files.values_mut().filter(|artifact| artifact.made_by == *id) {
            artifact.staged = true;
        }
    }

    fn effect(&self, id: &EntryId) -> Option<Effect> {
        serde_json::from_value(self.store.recall(&key(id))?).ok()
    }

    /// The steps that made some of the artifacts, in their order.
    fn makers(&self, which: impl Fn(&Artifact) -> bool) -> Vec<EntryId> {
        let made = |id: &EntryId| self.files.values().any(|artifact| artifact.made_by == *id && which(artifact));
        self.order.iter().filter(|id| made(id)).cloned().collect()
    }

    fn fetch(&self, id: &EntryId, into: &Path) -> Result<()> {
        self.store
            .restore_outputs(id, into)
            .context("restoring cached artifacts")?
            .context("cached artifacts are no longer in the store: build again")?;
        Ok(())
    }
}

fn key(id: &EntryId) -> String {
    format!("outputs-{id}")
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

fn sha256(path: &Path) -> Result<(u64, String)> {
    let meta = path.symlink_metadata()?;
    if meta.is_symlink() {
        let target = fs::read_link(path)?;
        return Ok((0, hex::encode(Sha256::digest(target.as_os_str().as_encoded_bytes()))));
    }
    let doing = || format!("reading {}", path.display());
    let file = fs::File::open(path).with_context(doing)?;
    let (mut hasher, mut buffer, zeros) = (Sha256::new(), vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    // What is a hole need not be read, only counted.
    let ends = std::iter::once((meta.len(), meta.len()));
    for (start, end) in data_ranges(&file, meta.len()).with_context(doing)?.into_iter().chain(ends) {
        while at < start {
            let part = (start - at).min(zeros.len() as u64);
            hasher.update(&zeros[..part as usize]);
            at += part;
        }
        while at < end {
            let part = (end - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..part], at).with_context(doing)?;
            hasher.update(&buffer[..part]);
            at += part as u64;
        }
    }
    Ok((meta.len(), hex::encode(hasher.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_as_zeros() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut plain = vec![0; (5 << 20) + 123];
        for at in [0, (2 << 20) + 77, plain.len() - 1] {
            plain[at] = 7;
            file.as_file().write_all_at(&[7], at as u64).unwrap();
        }
        let expected = (plain.len() as u64, hex::encode(Sha256::digest(&plain)));
        assert_eq!(sha256(file.path()).unwrap(), expected);
        file.as_file().set_len((6 << 20) + 1).unwrap();
        plain.resize((6 << 20) + 1, 0);
        assert_eq!(sha256(file.path()).unwrap().1, hex::encode(Sha256::digest(&plain)));
    }
}
