//! Directories that a tool fills once and then reads under the very same path, such as apt's lists.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::entry::Claimed;
use super::listing::{self, Depth};
use super::trees::{Contents, id_name};
use super::verify::UNREADABLE;
use super::{EntryId, Store, TreeRecord};
use crate::diagnostics::Fault;
use crate::sys::remove::remove_tree;

/// Below an entry: the directory itself.
const TREE: &str = "tree";

/// A sealed directory; as long as it lives, the store does not evict it.
#[derive(Debug)]
pub struct StateDir {
    /// Where it was made and stays.
    pub path: PathBuf,
    _lock: File,
}

impl Store {
    /// The directory of a kind under a key. Where there is none, `make` fills an empty one at its
    /// final path, which stays invisible to other builds until `make` is done; meanwhile they wait.
    pub fn state_dir(&self, kind: &str, key: &EntryId, make: &mut dyn FnMut(&Path) -> Result<()>) -> Result<StateDir> {
        if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
            bail!("`{kind}` is no kind of state");
        }
        let entry = self.dir("state").join(kind).join(id_name(key)?);
        let path = entry.join(TREE);
        // Mostly it is there, and then nobody has to wait for anybody.
        if let Some((lock, sealed)) = self.open_entry::<Contents>(&entry)? {
            let Some(damage) = damage(&entry, &sealed.contents.digest, Depth::Changed)? else {
                return Ok(StateDir { path, _lock: lock });
            };
            drop(lock);
            if !self.discard(&entry)? {
                let message = format!("the store's directory {} is damaged ({damage}), and in use", entry.display());
                return Err(Fault::failed(message).hint("build again when no other build goes on").into());
            }
            self.note(format!("a directory of the store ({kind}) was damaged, and is made anew: {damage}"));
        }
        let _claim = match self.claim::<Contents>(&state_lock(kind, &key.0), &entry, &mut |_| {})? {
            Claimed::Sealed(lock, _) => return Ok(StateDir { path, _lock: lock }),
            Claimed::Ours(claim) => claim,
        };
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        let made = make(&path).and_then(|()| {
            let record = TreeRecord { detail: kind.to_owned(), ..TreeRecord::default() };
            let digest = self.write_listing(&entry, &path)?;
            self.write_record(&entry, &entry, record, Contents { digest })?;
            self.open_entry::<Contents>(&entry)?.context("the record of a new directory cannot be read back")
        });
        match made {
            Ok((lock, _)) => Ok(StateDir { path, _lock: lock }),
            Err(error) => {
                if let Err(error) = remove_tree(&entry) {
                    tracing::warn!("{error:#}");
                }
                Err(error)
            }
        }
    }
}

impl Store {
    /// What is no longer as it was sealed in a directory, every byte read.
    pub(super) fn state_damage(&self, entry: &Path) -> Result<Option<String>> {
        let Some((_lock, sealed)) = self.open_entry::<Contents>(entry)? else { return Ok(Some(UNREADABLE.to_owned())) };
        damage(entry, &sealed.contents.digest, Depth::All)
    }
}

/// What is no longer as it was sealed in a directory; `None` for a whole one.
fn damage(entry: &Path, digest: &str, depth: Depth) -> Result<Option<String>> {
    match listing::read(entry, digest)? {
        Ok(listing) => listing.lacks(&entry.join(TREE), depth),
        Err(damage) => Ok(Some(damage.to_owned())),
    }
}

/// Name of the lock under which a directory is made.
pub(super) fn state_lock(kind: &str, key: &str) -> String {
    format!("state-{kind}-{key}")
}
