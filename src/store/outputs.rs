//! Artifacts of steps: images, archives, whatever a build leaves beside the root.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::copy::copy_file;
use super::digest::{contents_digest, sha256};
use super::lock::{MakeLock, check_cancelled};
use super::trees::id_name;
use super::verify::UNREADABLE;
use super::{EntryId, Store, TreeRecord, random_name};

/// Below an entry: the files themselves.
const FILES: &str = "files";
/// Beside an entry's record: where its files were put, and what they looked like then.
const PLACED: &str = "placed.json";
/// How many places are remembered.
const PLACES: usize = 64;

/// What an entry consists of, in the order in which it was saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    /// The names that were saved.
    names: Vec<PathBuf>,
    /// These and, where they are directories, all that is below.
    parts: Vec<Part>,
    /// Artifacts of earlier steps that the step took away.
    removed: Vec<PathBuf>,
}

/// What a step did to the artifacts.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// Files and links that it made or changed: size, and SHA-256 in lower-case hex (of a link, of its target).
    pub files: BTreeMap<PathBuf, (u64, String)>,
    /// Artifacts of earlier steps that it took away.
    pub removed: Vec<PathBuf>,
    /// What was sealed beside them.
    pub record: TreeRecord,
}

impl Outputs {
    fn new(manifest: &Manifest, record: TreeRecord) -> Self {
        let files = manifest.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Directory { .. } => None,
            PartKind::Link(target) => Some((part.path.clone(), (0, sha256_of_link(target)))),
            PartKind::File { size, sha256, .. } => Some((part.path.clone(), (*size, sha256.clone()))),
        });
        Self { files: files.collect(), removed: manifest.removed.clone(), record }
    }
}

fn sha256_of_link(target: &Path) -> String {
    hex::encode(Sha256::digest(target.as_os_str().as_encoded_bytes()))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    path: PathBuf,
    kind: PartKind,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PartKind {
    Directory { mode: u32 },
    Link(PathBuf),
    File { digest: String, size: u64, sha256: String },
}

impl Part {
    /// Whether it is known to be at a path; directories may be there in any case.
    fn stands(&self, at: &Path, placed: &HashSet<&Seen>) -> bool {
        match &self.kind {
            PartKind::Directory { .. } => false,
            PartKind::Link(target) => std::fs::read_link(at).ok().as_ref() == Some(target),
            PartKind::File { .. } => Seen::at(at).is_some_and(|seen| placed.contains(&seen)),
        }
    }
}

/// A file as it was when its contents were known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Seen {
    path: PathBuf,
    stat: [i64; 7],
}

impl Seen {
    fn at(path: &Path) -> Option<Self> {
        let stat = std::fs::symlink_metadata(path).ok()?;
        let numbers = [
            stat.dev() as i64,
            stat.ino() as i64,
            stat.size() as i64,
            stat.mtime(),
            stat.mtime_nsec(),
            stat.ctime(),
            stat.ctime_nsec(),
        ];
        Some(Self { path: path.to_owned(), stat: numbers })
    }

    /// What stays the same when a file is moved: not its path and ctime.
    fn unmoved(&self) -> [i64; 5] {
        let [device, inode, size, modified, nanoseconds, ..] = self.stat;
        [device, inode, size, modified, nanoseconds]
    }
}

impl Store {
    /// Whether [`Store::restore_outputs`] would find something.
    pub fn has_outputs(&self, id: &EntryId) -> bool {
        self.output_dir(id).ok().and_then(|dir| self.open_entry::<Manifest>(&dir).ok()).is_some_and(|e| e.is_some())
    }

    /// What a step did to the artifacts, if the store has it; its files are looked at when they are
    /// [restored](Store::restore_outputs).
    pub fn outputs(&self, id: &EntryId) -> Result<Option<Outputs>> {
        let sealed = self.open_entry::<Manifest>(&self.output_dir(id)?)?;
        Ok(sealed.map(|(_lock, sealed)| Outputs::new(&sealed.contents, sealed.record)))
    }

    /// What is no longer as it was sealed in the artifacts of a step, every byte read.
    pub(super) fn outputs_damage(&self, id: &EntryId) -> Result<Option<String>> {
        let dir = self.output_dir(id)?;
        let Some((_lock, sealed)) = self.open_entry::<Manifest>(&dir)? else { return Ok(Some(UNREADABLE.to_owned())) };
        for part in &sealed.contents.parts {
            check_cancelled()?;
            // Links and modes of directories are in the record itself.
            let PartKind::File { digest, .. } = &part.kind else { continue };
            let stored = dir.join(FILES).join(&part.path);
            if !stored.is_file() {
                return Ok(Some(format!("`{}` is gone", part.path.display())));
            }
            if hex::encode(contents_digest(&stored)?) != *digest {
                return Ok(Some(format!("`{}` has other contents", part.path.display())));
            }
        }
        Ok(None)
    }

    /// Drops artifacts of a step that are of no use; false where another build holds them.
    pub fn drop_outputs(&self, id: &EntryId) -> Result<bool> {
        self.discard(&self.output_dir(id)?)
    }

    /// Sealed artifacts of a step: restores them into the directory `into` (reflink where the file
    /// system can, else copy, sparse files kept) and returns their paths relative to it; `None`
    /// where the store does not have them. Damaged entries are dropped and count as absent. Files
    /// that still stand there as they were restored or [noted](Store::note_outputs) are left alone.
    pub fn restore_outputs(&self, id: &EntryId, into: &Path) -> Result<Option<Vec<PathBuf>>> {
        Ok(self.restore(id, into, into)?.map(|(names, _)| names))
    }

    /// The same, but into a directory beside `places`, and only what does not stand in its place already; returns
    /// the files and links that do.
    pub fn restore_outputs_beside(&self, id: &EntryId, places: &Path, beside: &Path) -> Result<Option<Vec<PathBuf>>> {
        Ok(self.restore(id, places, beside)?.map(|(_, standing)| standing))
    }

    fn restore(&self, id: &EntryId, places: &Path, into: &Path) -> Result<Option<(Vec<PathBuf>, Vec<PathBuf>)>> {
        let dir = self.output_dir(id)?;
        let Some((lock, sealed)) = self.open_entry::<Manifest>(&dir)? else { return Ok(None) };
        let manifest = sealed.contents;
        let real = |path: &Path| path.canonicalize().with_context(|| format!("opening {}", path.display()));
        let (places, into) = (real(places)?, real(into)?);
        let placed = read_placed(&dir);
        let known: HashSet<&Seen> = placed.iter().collect();
        let mut standing = Vec::new();
        for part in &manifest.parts {
            check_cancelled()?;
            if part.stands(&places.join(&part.path), &known) {
                standing.push(part.path.clone());
                continue;
            }
            let to = into.join(&part.path);
            if part.stands(&to, &known) {
                continue;
            }
            if !restore_part(&dir.join(FILES).join(&part.path), part, &to, self.is_precarious())? {
                drop(lock);
                self.discard(&dir)?;
                return Ok(None);
            }
        }
        note(&dir, &into, &manifest, placed);
        Ok(Some((manifest.names, standing)))
    }

    /// Seals artifacts of a step: `files` are relative to `from`, and stay there; `removed` are those of
    /// earlier steps that it took away.
    pub fn save_outputs(
        &self,
        id: &EntryId,
        from: &Path,
        files: &[PathBuf],
        removed: &[PathBuf],
        record: &TreeRecord,
    ) -> Result<Outputs> {
        let scratch = self.scratch()?;
        // Explained while what was written is still there: a moment later there is room again.
        self.try_save_outputs(id, from, files, removed, record, &scratch.path).map_err(|error| self.explain(error))
    }

    fn try_save_outputs(
        &self,
        id: &EntryId,
        from: &Path,
        files: &[PathBuf],
        removed: &[PathBuf],
        record: &TreeRecord,
        scratch: &Path,
    ) -> Result<Outputs> {
        let target = self.output_dir(id)?;
        let _claim = MakeLock::take(self.dir("locks").join(format!("output-{id}")), &mut |_| {})?;
        let entry = scratch.join("entry");
        std::fs::create_dir_all(entry.join(FILES)).with_context(|| format!("making {}", entry.display()))?;
        let mut found = Vec::new();
        let mut saved = HashSet::new();
        for file in files {
            if !file.components().all(|part| matches!(part, Component::Normal(_))) {
                bail!("`{}` is not a path below the artifacts", file.display());
            }
            for parent in file.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                if !parent.as_os_str().is_empty() && saved.insert(parent.to_owned()) {
                    found.push(Found::at(from, parent.to_owned())?);
                }
            }
            // A link is kept as one, wherever it leads.
            for below in walkdir::WalkDir::new(from.join(file)).follow_root_links(false).sort_by_file_name() {
                let below = below.with_context(|| format!("reading the artifact {}", file.display()))?;
                let relative = below.path().strip_prefix(from)?;
                if saved.insert(relative.to_owned()) {
                    found.push(Found::at(from, relative.to_owned())?);
                }
            }
        }
        for directory in found.iter().filter(|found| found.stat.is_dir()) {
            let copy = entry.join(FILES).join(&directory.path);
            std::fs::create_dir(&copy).with_context(|| format!("making {}", copy.display()))?;
        }
        // A repository has tens of thousands of small files.
        let parts: Result<Vec<Part>> =
            found.into_par_iter().map(|found| found.save(from, &entry.join(FILES))).collect();
        let manifest = Manifest { names: files.to_vec(), parts: parts?, removed: removed.to_vec() };
        let outputs = Outputs::new(&manifest, record.clone());
        // Where they stand now, they are as good as restored.
        note(&entry, from, &manifest, Vec::new());
        self.write_record(&entry, &target, record.clone(), &manifest)?;
        while target.exists() {
            // The same step ran again: its new outputs take the place of the old ones.
            if !self.discard(&target)? {
                // Somebody restores the old ones just now: those stay for later builds, these are published.
                return Ok(outputs);
            }
        }
        std::fs::rename(&entry, &target).with_context(|| format!("sealing {}", target.display()))?;
        Ok(outputs)
    }

    /// Remembers that the outputs of a step, just saved or restored, now stand in `dir` unchanged
    /// (moved there, say), so that [`Store::restore_outputs`] into it has nothing to copy.
    pub fn note_outputs(&self, id: &EntryId, dir: &Path) -> Result<()> {
        let entry = self.output_dir(id)?;
        let Some((_lock, sealed)) = self.open_entry::<Manifest>(&entry)? else { return Ok(()) };
        let dir = dir.canonicalize().with_context(|| format!("opening {}", dir.display()))?;
        let placed = read_placed(&entry);
        let known: HashSet<[i64; 5]> = placed.iter().map(Seen::unmoved).collect();
        for part in &sealed.contents.parts {
            let PartKind::File { digest, .. } = &part.kind else { continue };
            let path = dir.join(&part.path);
            let moved = Seen::at(&path).is_some_and(|seen| known.contains(&seen.unmoved()));
            if !moved && (!path.is_file() || hex::encode(contents_digest(&path)?) != *digest) {
                return Ok(());
            }
        }
        note(&entry, &dir, &sealed.contents, placed);
        Ok(())
    }

    fn output_dir(&self, id: &EntryId) -> Result<PathBuf> {
        Ok(self.dir("outputs").join(id_name(id)?))
    }
}

/// Something to be saved.
struct Found {
    /// Below the artifacts.
    path: PathBuf,
    stat: Metadata,
}

impl Found {
    fn at(from: &Path, path: PathBuf) -> Result<Self> {
        let stat = std::fs::symlink_metadata(from.join(&path))
            .with_context(|| format!("saving the artifact {}", path.display()))?;
        Ok(Self { path, stat })
    }

    /// Copies it, if it is a file, to where its directory is there already.
    fn save(self, from: &Path, files: &Path) -> Result<Part> {
        check_cancelled()?;
        let Self { path, stat } = self;
        let (source, copy) = (from.join(&path), files.join(&path));
        let context = || format!("saving the artifact {}", path.display());
        let kind = if stat.is_dir() {
            PartKind::Directory { mode: stat.mode() & 0o7777 }
        } else if stat.is_symlink() {
            PartKind::Link(std::fs::read_link(&source).with_context(context)?)
        } else if stat.is_file() {
            copy_file(&source, &copy).with_context(context)?;
            // The digest that people know is no faster for holes and has a processor of its own.
            let (digest, sha256) = rayon::join(|| contents_digest(&copy), || sha256(&copy));
            let (digest, sha256) = (hex::encode(digest.with_context(context)?), sha256.with_context(context)?);
            PartKind::File { digest, size: stat.len(), sha256 }
        } else {
            bail!("the artifact {} is neither a file nor a directory nor a link", path.display());
        };
        Ok(Part { path, kind })
    }
}

/// Puts one part in its place; false where the store's copy is damaged.
fn restore_part(stored: &Path, part: &Part, to: &Path, precarious: bool) -> Result<bool> {
    let context = || format!("restoring {}", to.display());
    match &part.kind {
        PartKind::Directory { mode } => {
            if !to.is_dir() {
                std::fs::create_dir(to).with_context(context)?;
                std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(*mode))
                    .with_context(context)?;
            }
        }
        PartKind::Link(target) => {
            let fresh = temporary(to);
            std::os::unix::fs::symlink(target, &fresh).with_context(context)?;
            std::fs::rename(&fresh, to).with_context(context)?;
        }
        PartKind::File { digest, size, .. } => {
            if std::fs::metadata(stored).map_or(true, |stat| stat.len() != *size) {
                return Ok(false);
            }
            if hex::encode(contents_digest(stored).with_context(context)?) != *digest {
                return Ok(false);
            }
            let fresh = temporary(to);
            let on_disk = || if precarious { std::fs::File::open(&fresh)?.sync_all() } else { Ok(()) };
            let copied = copy_file(stored, &fresh).and_then(|()| on_disk()).and_then(|()| std::fs::rename(&fresh, to));
            if copied.is_err() {
                let _ = std::fs::remove_file(&fresh);
            }
            copied.with_context(context)?;
        }
    }
    Ok(true)
}

fn temporary(to: &Path) -> PathBuf {
    to.with_file_name(format!(".debforge-{}", random_name()))
}

fn read_placed(entry: &Path) -> Vec<Seen> {
    std::fs::read(entry.join(PLACED)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Best effort: without it, the next restoring copies once more.
fn note(entry: &Path, dir: &Path, manifest: &Manifest, mut placed: Vec<Seen>) {
    let before = placed.clone();
    let files = manifest.parts.iter().filter(|part| matches!(part.kind, PartKind::File { .. }));
    let now: Vec<Seen> = files.filter_map(|part| Seen::at(&dir.join(&part.path))).collect();
    {
        let paths: HashSet<&Path> = now.iter().map(|seen| seen.path.as_path()).collect();
        placed.retain(|old| !paths.contains(old.path.as_path()));
    }
    placed.extend(now);
    if placed == before {
        return;
    }
    let excess = placed.len().saturating_sub(PLACES.max(manifest.parts.len()));
    placed.drain(..excess);
    let fresh = entry.join(format!("{PLACED}.{}", random_name()));
    let text = serde_json::to_vec(&placed).unwrap_or_default();
    if std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, entry.join(PLACED))).is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
}
