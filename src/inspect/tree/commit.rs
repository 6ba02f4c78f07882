//! Commits of OSTree repositories.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::catalogue::Catalogue;
use super::{Entry, EntryKind, Tree};
use crate::ostree::Repository;
use crate::ostree::object::{File, Meta};

/// A commit's tree. Its `usr/etc` is there as `etc`, where a system that is deployed has it.
pub struct Commit {
    repository: Repository,
    files: Catalogue<String>,
    /// The objects that it consists of, and how large each is in the repository.
    pub objects: BTreeMap<String, u64>,
}

impl Commit {
    /// Reads the list of what is in a commit.
    pub fn open(repository: Repository, checksum: &str) -> Result<Self> {
        let commit = repository.commit(checksum)?;
        let mut it = Self { repository, files: Catalogue::new(), objects: BTreeMap::new() };
        it.count(checksum, "commit");
        it.count(&commit.meta, "dirmeta");
        it.directory(Path::new(""), &commit.tree)?;
        Ok(it)
    }

    fn count(&mut self, checksum: &str, kind: &str) {
        let size = self.repository.size(checksum, kind);
        self.objects.insert(format!("{checksum}.{kind}"), size);
    }

    fn directory(&mut self, at: &Path, tree: &str) -> Result<()> {
        self.count(tree, "dirtree");
        let directory = self.repository.directory(tree)?;
        for (name, checksum) in directory.files {
            self.count(&checksum, "file");
            let file = File::open(&self.repository, &checksum)?;
            let kind = match &file.target {
                Some(target) => EntryKind::Link(target.into()),
                None => EntryKind::File,
            };
            let entry = Entry {
                path: at.join(name),
                kind,
                mode: file.meta.mode & 0o7777,
                owner: Some((file.meta.uid, file.meta.gid)),
                size: file.size,
            };
            self.files.add(entry, checksum);
        }
        for (name, tree, meta) in directory.directories {
            self.count(&meta, "dirmeta");
            let meta = Meta::of_directory(&self.repository, &meta)?;
            let path = match at.join(name) {
                path if path == Path::new("usr/etc") => PathBuf::from("etc"),
                path => path,
            };
            let entry = Entry {
                path: path.clone(),
                kind: EntryKind::Directory,
                mode: meta.mode & 0o7777,
                owner: Some((meta.uid, meta.gid)),
                size: 0,
            };
            self.files.add(entry, String::new());
            self.directory(&path, &tree)?;
        }
        Ok(())
    }
}

impl Tree for Commit {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        Ok(self.files.list(directory))
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let (_, checksum) = self.files.get(file).with_context(|| format!("{} is not there", file.display()))?;
        Ok(Box::new(File::open(&self.repository, checksum)?.reader()))
    }
}
