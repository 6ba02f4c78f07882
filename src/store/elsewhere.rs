//! What the store of a machine has, as known outside of it, where its disk cannot be looked into.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{EntryId, Kind, Store};

/// Ids of another store's entries. A hint: the machine looks again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Elsewhere {
    /// Root layers and unpacked downloads.
    pub trees: BTreeSet<String>,
    /// Artifacts of steps.
    pub outputs: BTreeSet<String>,
}

impl Elsewhere {
    /// What was last written to a file; nothing where there is none.
    pub fn read(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Whether all is there that a step with this id makes.
    pub fn has(&self, id: &EntryId, tree: bool, outputs: bool) -> bool {
        (!tree || self.trees.contains(&id.0)) && (!outputs || self.outputs.contains(&id.0))
    }
}

impl Store {
    /// What this store has, for those outside.
    pub fn contents(&self) -> Result<Elsewhere> {
        let mut contents = Elsewhere::default();
        for entry in self.entries()? {
            match entry.kind {
                Kind::Tree => contents.trees.insert(entry.id),
                Kind::Output => contents.outputs.insert(entry.id),
                _ => continue,
            };
        }
        Ok(contents)
    }

    /// Writes a small file of this store's surroundings, seen wholly or not at all.
    pub fn write_contents(&self, path: &Path, contents: &Elsewhere) -> Result<()> {
        self.write_atomically(path, &serde_json::to_vec(contents)?)
    }
}
