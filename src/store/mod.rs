//! The store: sealed trees (root layers, unpacked downloads), step outputs, downloads, packages.
//!
//! An entry is either sealed and whole or invisible, also after `kill -9` or a power cut; locked
//! per entry, so that builds share it; bounded in size, least recently used first out.

pub mod digest;
pub mod fetch;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// A BLAKE3 digest that names an entry: 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub String);

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the owners of files in trees are to be read: trees of different id maps are never mixed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdMap(pub String);

/// How the root's state after each step is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpoints {
    /// Each step writes to the upper directory of an overlay mount.
    Overlay {
        /// In a user namespace overlay keeps its marks in `user.overlay.*`.
        userxattr: bool,
    },
    /// A plain directory, copied with shared extents before each step.
    Reflink,
    /// A plain directory that every step works on; nothing to go back to.
    None,
}

/// Facts sealed beside a tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TreeRecord {
    /// What to show for a cached step: "78 packages, 111 MB".
    pub detail: String,
    /// Seconds that making it took.
    pub seconds: f64,
    /// apt repositories that the root is set up for after the step, as one deb822 text.
    pub apt_sources: String,
    /// Where a download or unpacked archive stands inside the tree; empty for root layers.
    pub origin: PathBuf,
}

/// The store at one place of the disk.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// `$DEBFORGE_STORE`, else `debforge` below the XDG cache directory.
    pub fn default_location() -> PathBuf {
        if let Some(path) = std::env::var_os("DEBFORGE_STORE").filter(|p| !p.is_empty()) {
            return path.into();
        }
        let cache = std::env::var_os("XDG_CACHE_HOME").filter(|p| !p.is_empty()).map(PathBuf::from);
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| "/root".into());
        cache.unwrap_or_else(|| home.join(".cache")).join("debforge")
    }

    /// Opens a store, making it where there is none.
    pub fn open(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root)?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// Where it stands.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// A sealed tree; as long as it lives, the store does not evict it.
#[derive(Debug)]
pub struct Tree {
    /// Its name.
    pub id: EntryId,
    /// The directory with its files, for an overlay's `lowerdir` or for reading.
    pub path: PathBuf,
    /// What was sealed beside it.
    pub record: TreeRecord,
}

/// A tree that is being made; dropped unsealed, it is removed.
#[derive(Debug)]
pub struct PendingTree {
    /// Its name.
    pub id: EntryId,
    /// An empty directory for its files (an overlay's `upperdir`).
    pub path: PathBuf,
    /// An empty directory beside it on the same file system (an overlay's `workdir`).
    pub work: PathBuf,
}

/// What [`Store::begin`] found.
#[derive(Debug)]
pub enum Begun {
    /// Another build sealed it while this one waited.
    Sealed(Tree),
    /// It is to be made; other builds that want it wait.
    Pending(PendingTree),
}

impl Store {
    /// A sealed tree, if the store has it; marks it as used now.
    pub fn tree(&self, _map: &IdMap, _id: &EntryId) -> Result<Option<Tree>> {
        Ok(None)
    }

    /// Claims the making of a tree. Where another build is making it, `waiting` is called once and
    /// this waits for it; if that build fails or dies, the claim passes on.
    pub fn begin(&self, _map: &IdMap, _id: &EntryId, _waiting: &mut dyn FnMut()) -> Result<Begun> {
        anyhow::bail!("the store is not there yet")
    }

    /// Sealed artifacts of a step: restores them into the directory `into` (reflink where the file
    /// system can, else copy, sparse files kept) and returns their paths relative to it; `None`
    /// where the store does not have them. Damaged entries are dropped and count as absent.
    pub fn restore_outputs(&self, _id: &EntryId, _into: &Path) -> Result<Option<Vec<PathBuf>>> {
        Ok(None)
    }

    /// Whether [`Store::restore_outputs`] would find something.
    pub fn has_outputs(&self, _id: &EntryId) -> bool {
        false
    }

    /// Seals artifacts of a step: `files` are relative to `from`, and stay there.
    pub fn save_outputs(&self, _id: &EntryId, _from: &Path, _files: &[PathBuf], _record: &TreeRecord) -> Result<()> {
        Ok(())
    }

    /// Keeps a small fact under a key: best effort, bounded in number.
    pub fn remember(&self, _key: &str, _value: &serde_json::Value) {}

    /// A fact that was kept.
    pub fn recall(&self, _key: &str) -> Option<serde_json::Value> {
        None
    }

    /// A directory for one build's work, on the store's file system; removed when dropped, and by
    /// the next [`Store::open`] where its owner was killed.
    pub fn scratch(&self) -> Result<Scratch> {
        anyhow::bail!("the store is not there yet")
    }
}

impl PendingTree {
    /// Makes the tree visible to all builds, under its name, at once.
    pub fn seal(self, _record: TreeRecord) -> Result<Tree> {
        anyhow::bail!("the store is not there yet")
    }
}

/// See [`Store::scratch`].
#[derive(Debug)]
pub struct Scratch {
    /// The directory.
    pub path: PathBuf,
}

/// The root of a build, mounted from its layers; unmounted when dropped.
#[derive(Debug)]
pub struct MountedRoot {
    /// Where the files are.
    pub path: PathBuf,
}

impl MountedRoot {
    /// Mounts `upper` on top of `lower` (bottom first) at the directory `at`, durable writes left
    /// to the kernel (`volatile`) where it can.
    pub fn overlay(_lower: &[&Path], _upper: &PendingTree, _at: &Path, _userxattr: bool) -> Result<Self> {
        anyhow::bail!("the store is not there yet")
    }

    /// Mounts layers to be looked at, read-only. With one layer this is a bind mount.
    pub fn read_only(_lower: &[&Path], _at: &Path, _userxattr: bool) -> Result<Self> {
        anyhow::bail!("the store is not there yet")
    }

    /// Unmounts, reporting what goes wrong (dropping does the same silently).
    pub fn unmount(self) -> Result<()> {
        Ok(())
    }
}
