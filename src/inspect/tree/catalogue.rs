//! A list of all files of a tree, for formats that have one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Entry, EntryKind};

/// Entries by the directory that they are in, each with what its contents are read by.
pub(super) struct Catalogue<P> {
    directories: HashMap<PathBuf, HashMap<PathBuf, (Entry, P)>>,
}

impl<P: Default> Catalogue<P> {
    pub(super) fn new() -> Self {
        Self { directories: HashMap::new() }
    }

    /// Adds a file; one that was there under the same path is gone. Directories above that nobody added
    /// are there nevertheless.
    pub(super) fn add(&mut self, entry: Entry, contents: P) {
        let Some(parent) = entry.path.parent().map(Path::to_owned) else { return };
        self.need(&parent);
        let siblings = self.directories.entry(parent).or_default();
        siblings.insert(entry.path.clone(), (entry, contents));
    }

    fn need(&mut self, directory: &Path) {
        let Some(parent) = directory.parent() else { return };
        if self.get(directory).is_none() {
            let entry =
                Entry { path: directory.to_owned(), kind: EntryKind::Directory, mode: 0o755, owner: None, size: 0 };
            self.need(parent);
            self.directories.entry(parent.to_owned()).or_default().insert(directory.to_owned(), (entry, P::default()));
        }
    }

    /// Takes a file away, with all that is below it.
    pub(super) fn remove(&mut self, path: &Path) {
        self.clear(path);
        self.directories.remove(path);
        if let Some(siblings) = path.parent().and_then(|parent| self.directories.get_mut(parent)) {
            siblings.remove(path);
        }
    }

    /// Takes away all that is in a directory.
    pub(super) fn clear(&mut self, directory: &Path) {
        self.directories.retain(|path, _| path == directory || !path.starts_with(directory));
        if let Some(files) = self.directories.get_mut(directory) {
            files.clear();
        }
    }

    /// A file and what its contents are read by.
    pub(super) fn get(&self, path: &Path) -> Option<&(Entry, P)> {
        self.directories.get(path.parent()?)?.get(path)
    }

    pub(super) fn list(&self, directory: &Path) -> Vec<Entry> {
        let entries = self.directories.get(directory).into_iter().flat_map(HashMap::values);
        entries.map(|(entry, _)| entry.clone()).collect()
    }
}
