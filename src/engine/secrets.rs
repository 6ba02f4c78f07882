//! Private keys that a build makes, looked for where a product is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::build::secrets::find;
use crate::plan::Plan;

/// Actions that bring what the author has: the secrets in it are meant.
const GIVEN: [&str; 3] = ["overlay", "unpack", "ostree-deploy"];

/// The secrets of a root so far.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Whether the build has made each, rather than got it from the author.
    known: BTreeMap<String, bool>,
    /// Those that the recipe says are meant.
    keep: BTreeSet<String>,
    /// Those that the user knows of.
    said: BTreeSet<String>,
}

impl Secrets {
    /// Before the first step of a plan.
    pub(super) fn new(plan: &Plan) -> Self {
        let keeps = plan.steps.iter().filter_map(|step| step.properties.get("keep")?.as_array()).flatten();
        Self { keep: keeps.filter_map(|path| Some(path.as_str()?.to_owned())).collect(), ..Self::default() }
    }

    /// Takes up what a step has written to directories.
    pub(super) fn written<'p>(&mut self, action: &str, places: impl IntoIterator<Item = &'p Path>) -> Result<()> {
        let made = !GIVEN.contains(&action);
        for place in places {
            for path in find(place)? {
                self.known.entry(path).or_insert(made);
            }
        }
        Ok(())
    }

    /// What is to be kept with a root.
    pub(super) fn record(&self) -> BTreeMap<String, bool> {
        self.known.clone()
    }

    /// Goes on from a root that was kept.
    pub(super) fn restored(&mut self, record: &BTreeMap<String, bool>) {
        self.known.clone_from(record);
    }

    /// What to say before a product is made of a root; nothing twice.
    pub(super) fn warning(&mut self, root: &Path) -> Result<Option<String>> {
        let suspects = self.known.iter().filter(|(path, made)| **made && !self.keep.contains(*path));
        let suspects: BTreeSet<&String> =
            suspects.map(|(path, _)| path).filter(|path| !self.said.contains(*path)).collect();
        if suspects.is_empty() {
            return Ok(None);
        }
        let there: Vec<String> = find(root)?.into_iter().filter(|path| suspects.contains(path)).collect();
        self.said.extend(there.iter().cloned());
        if there.is_empty() {
            return Ok(None);
        }
        Ok(Some(format!(
            "the build has made {}, which all copies of the product will share; `first-boot` has systems make their own \
             where that is known, and lists under `keep` what is meant",
            there.join(", ")
        )))
    }
}
