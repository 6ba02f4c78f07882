//! Sealed trees: root layers and unpacked downloads.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::entry::{Claimed, Sealed};
use super::listing::{Depth, Verdict};
use super::lock::{MakeLock, Waiting};
use super::scratch::Scratch;
use super::{EntryId, IdMap, Store, TreeRecord};

/// Below an entry: the files themselves.
const TREE: &str = "tree";

/// What a record says of the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Contents {
    /// See [`Tree::digest`].
    pub(super) digest: String,
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
    /// Of all its files: names, contents, owners, modes, dates and attributes; BLAKE3, in hex.
    pub digest: String,
    _lock: File,
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
    store: Store,
    /// The entry as it is to be.
    entry: PathBuf,
    /// Where it will stand.
    target: PathBuf,
    // Dropped in this order: the files are gone before another build gets the claim.
    _scratch: Scratch,
    _claim: MakeLock,
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
    pub fn tree(&self, map: &IdMap, id: &EntryId) -> Result<Option<Tree>> {
        let dir = self.tree_dir(map, id)?;
        let Some((lock, sealed)) = self.open_entry::<Contents>(&dir)? else { return Ok(None) };
        let tree = Tree::opened(id, &dir, lock, sealed);
        if !tree.path.is_dir() {
            drop(tree);
            self.discard(&dir)?;
            return Ok(None);
        }
        Ok(Some(tree))
    }

    /// What is no longer as it was sealed in a tree; `None` for a whole one. Files that look untouched are not read.
    pub fn damage(&self, tree: &Tree) -> Result<Option<String>> {
        self.tree_damage(tree, Depth::Changed)
    }

    pub(super) fn tree_damage(&self, tree: &Tree, depth: Depth) -> Result<Option<String>> {
        let entry = tree.path.parent().context("a tree without a place")?;
        Ok(match self.compare_listing(entry, &tree.path, &tree.digest, depth)? {
            Verdict::Whole | Verdict::Touched => None,
            Verdict::Damaged(what) => Some(what),
        })
    }

    /// Drops a tree that is of no use; false where another build holds it.
    pub fn drop_tree(&self, map: &IdMap, tree: Tree) -> Result<bool> {
        let dir = self.tree_dir(map, &tree.id)?;
        drop(tree);
        self.discard(&dir)
    }

    /// Claims the making of a tree. Where another build is making it, `waiting` is called once and
    /// this waits for it; if that build fails or dies, the claim passes on.
    pub fn begin(&self, map: &IdMap, id: &EntryId, waiting: Waiting<'_>) -> Result<Begun> {
        let target = self.tree_dir(map, id)?;
        let claim = match self.claim::<Contents>(&format!("tree-{}-{id}", map_name(map)), &target, waiting)? {
            Claimed::Ours(claim) => claim,
            Claimed::Sealed(lock, sealed) => return Ok(Begun::Sealed(Tree::opened(id, &target, lock, *sealed))),
        };
        let scratch = self.scratch()?;
        let entry = scratch.path.join("entry");
        let (path, work) = (entry.join(TREE), scratch.path.join("work"));
        for dir in [&entry, &path, &work] {
            std::fs::create_dir(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        // Whatever the umask: it becomes the root directory of the system.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        let (id, store) = (id.clone(), self.clone());
        Ok(Begun::Pending(PendingTree { id, path, work, store, entry, target, _scratch: scratch, _claim: claim }))
    }

    /// Drops all that is kept under an id; what another build holds stays.
    pub fn drop_all(&self, map: &IdMap, id: &EntryId) -> Result<()> {
        self.discard(&self.tree_dir(map, id)?)?;
        self.drop_outputs(id).map(drop)
    }

    fn tree_dir(&self, map: &IdMap, id: &EntryId) -> Result<PathBuf> {
        Ok(self.dir("trees").join(map_name(map)).join(id_name(id)?))
    }
}

impl Tree {
    fn opened(id: &EntryId, entry: &Path, lock: File, sealed: Sealed<Contents>) -> Self {
        let Sealed { record, contents: Contents { digest }, .. } = sealed;
        Self { id: id.clone(), path: entry.join(TREE), record, digest, _lock: lock }
    }
}

impl PendingTree {
    /// Makes the tree visible to all builds, under its name, at once.
    pub fn seal(self, record: TreeRecord) -> Result<Tree> {
        let digest = self.store.write_listing(&self.entry, &self.path)?;
        self.store.write_record(&self.entry, &self.target, record, Contents { digest })?;
        let parent = self.target.parent().context("a tree without a place")?;
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        // Open before it is visible, so that nobody evicts it in between.
        let opened = self.store.open_new_entry::<Contents>(&self.entry, &self.target)?;
        let (lock, sealed) = opened.context("the record of a new tree cannot be read back")?;
        std::fs::rename(&self.entry, &self.target).with_context(|| format!("sealing {}", self.target.display()))?;
        Ok(Tree::opened(&self.id, &self.target, lock, sealed))
    }
}

/// Directory of an id map: as it is where that is a plain short name, else its digest.
fn map_name(map: &IdMap) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '+' | '_' | ',');
    match !map.0.is_empty() && map.0.len() <= 40 && map.0.chars().all(plain) {
        true => map.0.clone(),
        false => format!("map-{}", &blake3::hash(map.0.as_bytes()).to_hex()[..16]),
    }
}

/// An id as a file name.
pub(super) fn id_name(id: &EntryId) -> Result<&Path> {
    if id.0.is_empty() || !id.0.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("`{id}` is not the name of an entry of the store");
    }
    Ok(Path::new(&id.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::entry::RECORD;

    fn id(number: usize) -> EntryId {
        EntryId(format!("{number:064x}"))
    }

    fn begin(store: &Store, number: usize) -> PendingTree {
        match store.begin(&IdMap("root".into()), &id(number), &mut |_| panic!("nobody else is here")).unwrap() {
            Begun::Pending(tree) => tree,
            Begun::Sealed(_) => panic!("sealed already"),
        }
    }

    #[test]
    fn a_tree_is_absent_until_it_is_sealed_and_whole_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let map = IdMap("root".into());
        let pending = begin(&store, 1);
        std::fs::write(pending.path.join("file"), "text").unwrap();
        assert!(store.tree(&map, &id(1)).unwrap().is_none());
        let record = TreeRecord { detail: "one file".into(), ..TreeRecord::default() };
        let sealed = pending.seal(record).unwrap();
        assert_eq!(std::fs::read(sealed.path.join("file")).unwrap(), b"text");
        let again = store.tree(&map, &id(1)).unwrap().unwrap();
        assert_eq!(again.record.detail, "one file");
        assert_eq!(again.path, sealed.path);
        assert_eq!(std::fs::read_dir(store.dir("scratch")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(store.dir("locks")).unwrap().count(), 0);
    }

    #[test]
    fn a_dropped_claim_leaves_nothing_and_passes_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let pending = begin(&store, 1);
        std::fs::write(pending.path.join("file"), "text").unwrap();
        drop(pending);
        assert_eq!(std::fs::read_dir(store.dir("scratch")).unwrap().count(), 0);
        assert!(begin(&store, 1).path.read_dir().unwrap().next().is_none());
    }

    #[test]
    fn trees_of_different_id_maps_are_different_trees() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        begin(&store, 1).seal(TreeRecord::default()).unwrap();
        assert!(store.tree(&IdMap("1000:100000+65536".into()), &id(1)).unwrap().is_none());
        assert!(store.tree(&IdMap("../root".into()), &id(1)).unwrap().is_none());
    }

    #[test]
    fn a_tree_of_another_boot_counts_only_if_it_was_synced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let map = IdMap("root".into());
        for number in [1, 2] {
            let tree = begin(&store, number).seal(TreeRecord::default()).unwrap();
            let entry = tree.path.parent().unwrap().to_owned();
            let text = std::fs::read_to_string(entry.join(RECORD)).unwrap();
            let mut record: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
            record["boot"] = "another".into();
            let text = crate::store::entry::record_text(&entry, record.to_string().as_bytes());
            std::fs::write(entry.join(RECORD), text).unwrap();
            if number == 2 {
                std::fs::write(entry.join(crate::store::entry::SYNCED), "").unwrap();
            }
        }
        assert!(store.tree(&map, &id(1)).unwrap().is_none());
        assert!(!store.tree_dir(&map, &id(1)).unwrap().exists());
        assert!(store.tree(&map, &id(2)).unwrap().is_some());
    }

    #[test]
    fn the_second_build_waits_and_gets_what_the_first_made() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let pending = begin(&store, 1);
        let (said, hears) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let map = IdMap("root".into());
                store.begin(&map, &id(1), &mut |_| said.send(()).unwrap()).unwrap()
            });
            hears.recv().unwrap();
            let first = pending.seal(TreeRecord::default()).unwrap();
            match second.join().unwrap() {
                Begun::Sealed(tree) => assert_eq!(tree.path, first.path),
                Begun::Pending(_) => panic!("made twice"),
            }
        });
        assert!(hears.try_recv().is_err(), "said to be waiting more than once");
    }
}
