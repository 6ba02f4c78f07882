//! All that a step's result depends on, collected before it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::context::RenderFile;
use crate::debian::Architecture;
use crate::image::Spec;
use crate::store::{EntryId, Store};

/// One thing that a step reads, and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// "file overlays/ssh/sshd_config", "repository URI SUITE", "tool apt": what it is, without
    /// paths of this machine. Shown as the reason when it changed.
    pub what: String,
    /// Its digest or version.
    pub state: String,
}

/// An action's surroundings while its inputs are collected.
pub struct InputContext<'a> {
    /// What is built.
    pub architecture: Architecture,
    /// Directory of the recipe file that the action stands in.
    pub recipe_dir: &'a Path,
    /// Where artifacts of earlier builds are.
    pub artifact_dir: &'a Path,
    /// Variables of the recipe, for files that are rendered.
    pub variables: &'a BTreeMap<String, String>,
    /// Renders files that an `overlay` copies as templates.
    pub render: RenderFile,
    /// The files that the recipe was read from. Steps that can see its whole directory do not depend
    /// on them: what the recipe says to a step is in the step's properties.
    pub recipe_files: &'a [PathBuf],
    /// What earlier builds left in the artifact directory, which is not what stands beside the recipe.
    pub products: &'a [PathBuf],
    /// For digests and fetched files.
    pub store: &'a Store,
    /// Files that earlier steps of this plan leave in the artifact directory (their contents follow
    /// from those steps' ids, so they are not digested).
    pub planned_artifacts: &'a [String],
    /// `apt_sources` of the root that the step starts from, once that root was made; always there for an
    /// action whose nature is to read them.
    pub apt_sources: Option<&'a str>,
    /// pacman's repositories of which that root has no database, as one configuration; likewise.
    pub pacman: Option<&'a str>,
    /// The image as the steps before this one describe it.
    pub image: Option<&'a Spec>,
    /// What no other plan has: the state of what nobody can tell.
    pub moment: &'a str,
    /// Fetched repository states of this plan, by "URI SUITE".
    pub releases: &'a mut BTreeMap<String, ReleaseState>,
    /// Where progress of fetching goes.
    pub progress: &'a mut dyn FnMut(&str),
    /// Id of the root before the step, or, for one that follows all, of all steps before it.
    pub previous: &'a EntryId,
    /// What was collected so far.
    pub inputs: Vec<Input>,
}

/// The state of one suite of a repository at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReleaseState {
    /// SHA-256 of InRelease (or Release); the file itself is in the store under it.
    pub sha256: String,
    /// Its `Date`, in seconds since 1970; before all others where it has none.
    pub date: i64,
    /// `Date` of what the server has now, where that is older and this stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lags: Option<i64>,
}

impl ReleaseState {
    /// What there is to say of it to the user, given its name ("URI SUITE").
    pub fn warning(&self, suite: &str) -> Option<String> {
        let day = |moment| jiff::Timestamp::from_second(moment).unwrap_or_default().strftime("%Y-%m-%d %H:%M");
        let (known, now) = (day(self.date), day(self.lags?));
        Some(format!("{suite} went back to its state of {now} (UTC): the one of {known}, seen before, stays in force"))
    }
}

impl InputContext<'_> {
    /// Adds something with its state.
    pub fn add(&mut self, what: impl Into<String>, state: impl Into<String>) {
        self.inputs.push(Input { what: what.into(), state: state.into() });
    }

    /// Adds something whose state cannot be told: it counts as another in every plan.
    pub fn add_unknown(&mut self, what: impl Into<String>) {
        let moment = self.moment.to_owned();
        self.add(what, moment);
    }

    /// Whether an earlier step of this plan leaves this artifact, or something below or above it.
    pub fn is_planned(&self, artifact: &str) -> bool {
        let artifact = Path::new(artifact);
        self.planned_artifacts.iter().map(Path::new).any(|planned| {
            artifact.as_os_str().is_empty() || planned.starts_with(artifact) || artifact.starts_with(planned)
        })
    }

    /// Adds a file or directory, one input per file, named by `shown` (its path in the recipe).
    pub fn add_tree(&mut self, shown: &str, path: &Path) -> Result<()> {
        let entries = self.store.digest_tree(path).with_context(|| format!("reading {}", path.display()))?;
        for entry in entries {
            let shown = if entry.path.as_os_str().is_empty() {
                shown.to_owned()
            } else {
                PathBuf::from(shown).join(&entry.path).display().to_string()
            };
            self.add(format!("file {shown}"), entry.digest);
        }
        Ok(())
    }
}
