//! Looking at every byte of the store.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::evict::{Kind, Listed};
use super::files::sha256_of;
use super::listing::Depth;
use super::lock::check_cancelled;
use super::{EntryId, IdMap, Store};

/// What looking at every byte came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verified {
    /// Entries that are as they were sealed.
    pub whole: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Entries that are not.
    pub damaged: Vec<Damaged>,
    /// Entries that nothing is known to compare with: unfinished downloads and disks of machines, whose own
    /// store looks after itself.
    pub unchecked: usize,
}

/// An entry that is not as it was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Damaged {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub id: String,
    /// What its maker said of it.
    pub detail: String,
    /// What is wrong with it.
    pub why: String,
    /// Whether it was removed; else a build uses it.
    pub removed: bool,
}

impl Store {
    /// Compares all entries with what was sealed, byte for byte, and removes those that are damaged.
    pub fn verify(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        for entry in self.entries()? {
            check_cancelled()?;
            match self.fault_of(&entry) {
                Ok(Some(None)) => {
                    verified.whole += 1;
                    verified.bytes += entry.size;
                }
                Ok(None) => verified.unchecked += 1,
                Ok(Some(Some(why))) => verified.damaged.push(self.damaged(&entry, why)?),
                // A read that fails is the disk's, or somebody's who may not read: nothing to be removed for.
                Err(error)
                    if crate::diagnostics::fault_of(&error).kind == crate::diagnostics::FaultKind::Interrupted =>
                {
                    return Err(error);
                }
                Err(error) => {
                    let why = format!("cannot be read: {error:#}");
                    verified.damaged.push(Damaged { removed: false, ..Damaged::of(&entry, why) });
                }
            }
        }
        Ok(verified)
    }

    fn damaged(&self, entry: &Listed, why: String) -> Result<Damaged> {
        Ok(Damaged { removed: self.remove_damaged(entry)?, ..Damaged::of(entry, why) })
    }

    /// What is wrong with an entry; `None` where that cannot be known.
    fn fault_of(&self, entry: &Listed) -> Result<Option<Option<String>>> {
        let id = EntryId(entry.id.clone());
        Ok(match entry.kind {
            Kind::Tree => {
                let map = entry.path().parent().and_then(|map| map.file_name()).unwrap_or_default();
                let map = IdMap(map.to_string_lossy().into_owned());
                Some(match self.tree(&map, &id)? {
                    Some(tree) => self.tree_damage(&tree, Depth::All)?,
                    None => Some(UNREADABLE.to_owned()),
                })
            }
            Kind::Output => Some(self.outputs_damage(&id)?),
            Kind::Download | Kind::Package => {
                let same = sha256_of(entry.path())? == entry.id;
                Some((!same).then(|| "has other contents".to_owned()))
            }
            Kind::State => Some(self.state_damage(entry.path())?),
            Kind::Partial | Kind::Machine => None,
        })
    }
}

/// Of records.
pub(super) const UNREADABLE: &str = "its record is damaged, of another entry, or of an older debforge";

impl Damaged {
    fn of(entry: &Listed, why: String) -> Self {
        Self { kind: entry.kind, id: entry.id.clone(), detail: entry.detail.clone(), why, removed: true }
    }
}
