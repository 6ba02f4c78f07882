//! From a recipe to a plan: every input resolved to a digest, every step with its id.
//!
//! A plan is plain JSON. The engine carries it out, here or on another machine, and comes back to
//! [`Resolver`] for the steps whose inputs only the root itself can tell (which repositories an
//! earlier script wrote into it).

mod history;
mod needed;
mod order;
pub mod products;
mod resolve;
mod step_id;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::store::Elsewhere;
pub use history::{History, HistoryStep};
pub use needed::{Course, Facts, Kept, courses};
pub use order::{mounted, needs, step_count};
pub use resolve::{Resolver, RootFacts};

use crate::actions::{self, Action, Changes};
use crate::build::Input;
use crate::build::inputs::ReleaseState;
use crate::debian::Architecture;
use crate::diagnostics::{Fault, Place};
use crate::image::Spec;
use crate::recipe::Recipe;
use crate::store::{EntryId, IdMap, Store};

/// Date of files that are written before any repository has told one: the first that FAT can hold.
const EPOCH_WITHOUT_REPOSITORY: i64 = 315_532_800;

/// What is to be done, complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// Of this format.
    pub version: u32,
    /// The recipe as the user named it.
    pub recipe: String,
    /// The files that the recipe was read from.
    pub recipe_files: Vec<PathBuf>,
    /// What earlier builds of it left in the artifact directory.
    #[serde(default)]
    pub products: Vec<PathBuf>,
    /// What is built.
    pub architecture: Architecture,
    /// Of disk images, in bytes.
    pub sector_size: u32,
    /// `-e` variables; part of every step's id.
    pub environment: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH` where the user gave one.
    pub epoch: Option<i64>,
    /// Set by `--no-cache` and `--from`: from this step on nothing of the store is used.
    pub fresh: Option<Fresh>,
    /// What no other plan has: the state of inputs that nobody can tell.
    pub moment: String,
    /// The steps, in order.
    pub steps: Vec<PlanStep>,
    /// State of the system whose programs do the work; empty where no step may see all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<Input>,
    /// States of all repositories that were looked at, by "URI SUITE".
    pub releases: BTreeMap<String, ReleaseState>,
}

/// See [`Plan::fresh`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fresh {
    /// Number of the first step that is run again.
    pub from: usize,
    /// Makes the ids of these steps unlike all others.
    pub salt: String,
}

/// One step of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlanStep {
    /// From 1.
    pub number: usize,
    /// Name of the action.
    pub action: String,
    /// Its properties, defaults filled in.
    pub properties: Value,
    /// The image as the steps before it describe it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Spec>,
    /// Whether it works in the mounted image rather than in the root.
    #[serde(default)]
    pub mounted: bool,
    /// A few words on it.
    pub summary: String,
    /// Where the recipe asks for it.
    pub place: Option<Place>,
    /// Where it describes the parts that a fault may be about: of an image that is written, each partition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Place>,
    /// Directory of the recipe file it stands in.
    pub recipe_dir: PathBuf,
    /// Variables of that recipe.
    pub variables: BTreeMap<String, String>,
    /// All that its result depends on, as far as it is known.
    pub inputs: Vec<Input>,
    /// Id of what came before it, as far as its result depends on that; `None` as long as it is not known.
    #[serde(default)]
    pub previous: Option<EntryId>,
    /// Its id; `None` until the steps before it have been run.
    pub id: Option<EntryId>,
    /// Date of what it writes, in seconds since 1970; `None` as long as there is no id.
    pub epoch: Option<i64>,
    /// Whether the store has its result.
    pub hit: bool,
    /// Why it is to be run; empty for a hit.
    pub reason: String,
}

impl PlanStep {
    /// What it does.
    pub fn action(&self) -> Result<Box<dyn Action>> {
        let kind = actions::find_step(&self.action)
            .ok_or_else(|| Fault::recipe(format!("the plan asks for an unknown action `{}`", self.action)))?;
        (kind.decode)(self.properties.clone()).map_err(|error| {
            Fault::recipe(format!("the plan's step {} ({}): {}", self.number, self.action, error.message)).into()
        })
    }
}

impl PlanStep {
    /// What it changes where it works: in a mounted image the root is part of an artifact.
    pub fn changes(&self, action: &dyn Action) -> Changes {
        let changes = action.changes();
        if self.mounted && changes.root {
            return Changes { root: false, artifacts: true, ..changes };
        }
        changes
    }

    /// What its course depends on; `keeps` says whether the store has what a step did to the artifacts.
    pub fn facts(&self, action: &dyn Action, keeps: impl Fn(&EntryId) -> bool) -> Facts {
        Facts {
            changes: self.changes(action),
            // What a step depends on that has no id yet, only the root can tell.
            reads_root: (action.reads_root() && !self.mounted) || self.id.is_none(),
            makes_root: action.makes_root(),
            kept: match &self.id {
                _ if self.hit => Kept::Whole,
                Some(id) if keeps(id) => Kept::Artifacts,
                _ => Kept::Nothing,
            },
        }
    }

    /// Whether it depends on all earlier steps rather than on the root alone.
    pub fn follows_all(&self, action: &dyn Action) -> bool {
        self.mounted || action.reads_artifacts()
    }
}

impl Plan {
    /// What a build would do with each step, as far as it is known before anything runs.
    pub fn courses(&self, keeps: impl Fn(&EntryId) -> bool) -> Result<Vec<Course>> {
        let facts = self.steps.iter().map(|step| Ok(step.facts(step.action()?.as_ref(), &keeps)));
        Ok(courses(&facts.collect::<Result<Vec<_>>>()?))
    }
}

/// What planning needs to know beside the recipe.
pub struct Request<'a> {
    /// The store.
    pub store: &'a Store,
    /// Whose trees count.
    pub id_map: &'a IdMap,
    /// What another store has, in whose machine the plan will be carried out; else this one's counts.
    pub elsewhere: Option<&'a Elsewhere>,
    /// Where artifacts go and come from.
    pub artifact_dir: &'a Path,
    /// `-e` variables.
    pub environment: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH` where the user gave one.
    pub epoch: Option<i64>,
    /// Number of the first step that is run again whatever the store has.
    pub fresh_from: Option<usize>,
    /// Told what is being fetched.
    pub progress: &'a mut dyn FnMut(&str),
}

/// Plans a recipe: fetches what it leaves open, and says for each step whether the store has it.
pub fn plan(recipe: &Recipe, request: Request<'_>) -> Result<Plan> {
    let history = History::recall(request.store, &recipe.path, recipe.architecture);
    let mut plan = Plan {
        version: 1,
        recipe: recipe.path.display().to_string(),
        recipe_files: recipe.files.clone(),
        products: products::recall(request.store, &recipe.path, request.artifact_dir),
        architecture: recipe.architecture,
        sector_size: recipe.sector_size,
        environment: request.environment,
        epoch: request.epoch,
        fresh: request.fresh_from.map(|from| Fresh { from, salt: salt() }),
        moment: salt(),
        steps: Vec::with_capacity(recipe.steps.len()),
        host: host(recipe)?,
        releases: BTreeMap::new(),
    };
    let mut resolver = Resolver::new(&plan, request.store, request.id_map, request.artifact_dir);
    if let Some(elsewhere) = request.elsewhere {
        resolver = resolver.elsewhere(elsewhere);
    }
    for (mut step, action) in order::order(recipe) {
        resolver.resolve(&mut step, action, request.progress).map_err(|error| at(error, &step))?;
        if step.id.is_none() && action.nature().reads.repositories {
            resolver.preview(&step, action, request.progress).map_err(|error| at(error, &step))?;
        }
        if !step.hit {
            step.reason = history.reason(&step, plan.fresh.as_ref(), plan.steps.last());
        }
        resolver.advance(&step, action, None);
        plan.steps.push(step);
    }
    plan.releases = resolver.into_releases();
    Ok(plan)
}

/// Finds out anew for each step of a plan whether the store has its result.
pub fn look_again(plan: &mut Plan, store: &Store, map: &IdMap) -> Result<()> {
    for step in &mut plan.steps {
        let changes = step.changes(step.action()?.as_ref());
        step.hit = match &step.id {
            Some(id) => in_store(store, map, id, changes)?,
            None => false,
        };
    }
    Ok(())
}

/// Adds the recipe's place to an error that has none: that of the part that it is about, else the step's.
pub fn at(error: anyhow::Error, step: &PlanStep) -> anyhow::Error {
    let mut fault = crate::diagnostics::fault_of(&error);
    let part = fault.part.as_ref().and_then(|part| step.parts.get(part));
    fault.place = fault.place.or_else(|| part.or(step.place.as_ref()).cloned());
    fault.into()
}

/// Whether the store has all that a step of this id would make.
fn in_store(store: &Store, map: &IdMap, id: &EntryId, changes: Changes) -> Result<bool> {
    let tree = !(changes.root || changes.origin || changes.write) || store.tree(map, id)?.is_some();
    Ok(!changes.outside && tree && (!changes.artifacts || store.has_outputs(id)))
}

/// What steps may see of the host's system. It is looked at once: where a machine carries the plan out, it looks
/// another way from inside.
fn host(recipe: &Recipe) -> Result<Vec<Input>> {
    if !recipe.steps.iter().any(|step| step.action.nature().reads.host) {
        return Ok(Vec::new());
    }
    let parts = crate::debian::system::state().context("looking at the host's system")?;
    Ok(parts.into_iter().map(|(what, state)| Input { what: what.to_owned(), state }).collect())
}

fn salt() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", now.as_nanos(), std::process::id())
}
