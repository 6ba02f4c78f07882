//! Ids step by step, while planning and again while building.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::step_id::{self, Identity};
use super::{EPOCH_WITHOUT_REPOSITORY, Fresh, Plan, PlanStep, in_store};
use crate::actions::Action;
use crate::build::inputs::ReleaseState;
use crate::build::{Input, InputContext};
use crate::store::{Elsewhere, EntryId, IdMap, Store};

/// What later steps want to know of a root after a step. Kept longer than the root's layers. Only the root
/// itself tells them: nothing stands for what is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RootFacts {
    /// apt's sources in it, as one deb822 text.
    pub apt_sources: String,
    /// pacman's repositories that it has no database of, as one configuration; empty where there are none.
    #[serde(default)]
    pub pacman: String,
}

impl RootFacts {
    /// Of the empty root that stands before the first step.
    fn of_nothing() -> Self {
        Self { apt_sources: String::new(), pacman: String::new() }
    }

    /// Keeps the facts of the root that the step `id` leaves.
    pub fn remember(&self, store: &Store, id: &EntryId) {
        if let Ok(value) = serde_json::to_value(self) {
            store.remember(&key(id), &value);
        }
    }

    fn recall(store: &Store, id: &EntryId) -> Option<Self> {
        serde_json::from_value(store.recall(&key(id))?).ok()
    }
}

/// 3: with pacman's repositories. 2: of a mounted image, and of the deployment in a root of OSTree's, the system that steps work in tells them.
fn key(id: &EntryId) -> String {
    format!("root-3-{id}")
}

fn salt_key(plain: &EntryId) -> String {
    format!("salt-{plain}")
}

/// Walks a plan's steps and knows, at each, what came before.
pub struct Resolver<'a> {
    plan: Plan,
    store: &'a Store,
    map: &'a IdMap,
    artifact_dir: &'a Path,
    /// Ids of the root as it stands and of all steps so far; `None` once a step's id is not known.
    heads: Option<Heads>,
    epoch: i64,
    planned_artifacts: Vec<String>,
    /// Whether what is made from here on is of no use to later builds.
    keeps_nothing: bool,
    /// Which store is asked for hits, where it is not this one.
    elsewhere: Option<&'a Elsewhere>,
}

struct Heads {
    root: EntryId,
    all: EntryId,
    /// Of the root as it stands, or of the mounted image; `None` where they are to be asked.
    facts: Option<RootFacts>,
}

impl<'a> Resolver<'a> {
    /// Before the first step of a plan.
    pub fn new(plan: &Plan, store: &'a Store, map: &'a IdMap, artifact_dir: &'a Path) -> Self {
        let plan = Plan { steps: Vec::new(), ..plan.clone() };
        let (epoch, facts) = (plan.epoch.unwrap_or(EPOCH_WITHOUT_REPOSITORY), Some(RootFacts::of_nothing()));
        let heads = Some(Heads { root: step_id::nothing(), all: step_id::nothing(), facts });
        Self {
            plan,
            store,
            map,
            artifact_dir,
            heads,
            epoch,
            planned_artifacts: Vec::new(),
            keeps_nothing: false,
            elsewhere: None,
        }
    }

    /// The same, with hits in another store.
    pub fn elsewhere(self, elsewhere: &'a Elsewhere) -> Self {
        Self { elsewhere: Some(elsewhere), ..self }
    }

    /// Fills in a step's inputs, id, epoch and whether the store has it. Where the root before it
    /// is not known yet they stay open. An id that stands in a plan is not found anew: two answers could differ.
    pub fn resolve(&mut self, step: &mut PlanStep, action: &dyn Action, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let Some(heads) = &self.heads else { return Ok(()) };
        if self.lacks_facts(action) {
            return Ok(());
        }
        let nothing = step_id::nothing();
        let previous = match step.changes(action) {
            // What is downloaded follows from its address and digest alone.
            changes if changes.origin => nothing,
            _ if step.follows_all(action) => heads.all.clone(),
            _ => heads.root.clone(),
        };
        step.inputs = self.inputs(step, action, &previous, progress)?;
        step.previous = Some(previous.clone());
        if self.plan.epoch.is_none() {
            self.epoch = self.epoch.max(newest(&step.inputs, &self.plan.releases));
        }
        let identity = self.identity(step, action, &previous, self.epoch);
        let plain = identity.id();
        // What was last asked to be run anew stays in the place of what was there before.
        let salt = self.anew(step).or_else(|| Some(self.store.recall(&salt_key(&plain))?.as_str()?.to_owned()));
        let id = match &salt {
            Some(salt) => Identity { salt: Some(salt), ..identity }.id(),
            None => plain,
        };
        let changes = step.changes(action);
        step.hit = match self.elsewhere {
            Some(elsewhere) => {
                let tree = changes.root || changes.origin || changes.write;
                !changes.outside && elsewhere.has(&id, tree, changes.artifacts)
            }
            None => in_store(self.store, self.map, &id, changes)?,
        };
        step.epoch = Some(self.epoch);
        step.id = Some(id);
        Ok(())
    }

    /// Looks at what is known already of what a step reads that has to wait for its root: the recipe's own
    /// repositories, keys and files are found wanting before anything runs.
    pub fn preview(&mut self, step: &PlanStep, action: &dyn Action, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let nothing = step_id::nothing();
        let facts = Some(RootFacts::of_nothing());
        let heads = self.heads.replace(Heads { root: nothing.clone(), all: nothing.clone(), facts });
        let seen = self.inputs(step, action, &nothing, progress);
        self.heads = heads;
        seen.map(drop)
    }

    /// Collects what a step reads.
    fn inputs(
        &mut self,
        step: &PlanStep,
        action: &dyn Action,
        previous: &EntryId,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<Input>> {
        let facts = self.heads.as_ref().and_then(|heads| heads.facts.as_ref());
        let mut cx = InputContext {
            architecture: self.plan.architecture,
            recipe_dir: &step.recipe_dir,
            artifact_dir: self.artifact_dir,
            variables: &step.variables,
            render: crate::recipe::render_file,
            recipe_files: &self.plan.recipe_files,
            products: &self.plan.products,
            store: self.store,
            planned_artifacts: &self.planned_artifacts,
            image: step.image.as_ref(),
            apt_sources: facts.map(|facts| facts.apt_sources.as_str()),
            pacman: facts.map(|facts| facts.pacman.as_str()),
            moment: &self.plan.moment,
            releases: &mut self.plan.releases,
            progress,
            previous,
            inputs: Vec::new(),
        };
        action.inputs(&mut cx)?;
        let mut inputs = cx.inputs;
        if action.nature().reads.host {
            inputs.extend(self.plan.host.iter().cloned());
        }
        Ok(inputs)
    }

    /// What of a step's inputs is not as the plan has it; their names.
    pub fn changed(&mut self, step: &PlanStep, action: &dyn Action) -> Result<Vec<String>> {
        // What is fetched is checked against the plan when it is there.
        let (Some(previous), false) = (&step.previous, step.changes(action).origin) else { return Ok(Vec::new()) };
        let now = self.inputs(step, action, &previous.clone(), &mut |_| {})?;
        let odd = |some: &[Input], others: &[Input]| -> Vec<String> {
            some.iter().filter(|input| !others.contains(input)).map(|input| input.what.clone()).collect()
        };
        let mut changed = odd(&now, &step.inputs);
        changed.extend(odd(&step.inputs, &now));
        changed.sort();
        changed.dedup();
        Ok(changed)
    }

    fn identity<'s>(
        &'s self,
        step: &'s PlanStep,
        action: &dyn Action,
        previous: &'s EntryId,
        epoch: i64,
    ) -> Identity<'s> {
        Identity {
            previous,
            action: &step.action,
            version: action.nature().version,
            properties: &step.properties,
            inputs: &step.inputs,
            image: step.image.as_ref().filter(|_| action.nature().reads.image),
            architecture: self.plan.architecture,
            sector_size: self.plan.sector_size,
            environment: &self.plan.environment,
            epoch,
            salt: None,
        }
    }

    /// The salt of a step that is asked to be run anew.
    fn anew(&self, step: &PlanStep) -> Option<String> {
        self.plan.fresh.as_ref().filter(|fresh| step.number >= fresh.from).map(|fresh| fresh.salt.clone())
    }

    /// A step has been run: if it was asked to be run anew, later builds take its result rather than the one
    /// before.
    pub fn made(&mut self, step: &PlanStep, action: &dyn Action) {
        if self.keeps_nothing {
            return;
        }
        let (Some(salt), Some(previous), Some(epoch)) = (self.anew(step), &step.previous, step.epoch) else { return };
        let plain = self.identity(step, action, previous, epoch).id();
        self.store.remember(&salt_key(&plain), &salt.into());
    }

    /// Gives steps from `number` on ids that no other build has: what they read changes while they are run.
    pub fn keep_nothing(&mut self, number: usize) {
        let salt = format!("not kept {}", self.plan.moment);
        self.plan.fresh = Some(Fresh { from: number, salt });
        self.keeps_nothing = true;
    }

    /// Whether that was said.
    pub fn keeps_nothing(&self) -> bool {
        self.keeps_nothing
    }

    /// Goes past a step. `facts` are those of the root it has just made; `None` looks for what was
    /// remembered of it.
    pub fn advance(&mut self, step: &PlanStep, action: &dyn Action, facts: Option<RootFacts>) {
        self.planned_artifacts.extend(action.artifacts());
        let removed = action.removes();
        self.planned_artifacts.retain(|artifact| !removed.contains(artifact));
        let Some(id) = &step.id else {
            self.heads = None;
            return;
        };
        // Also of steps whose ids were known before: what comes after them is dated no earlier.
        self.epoch = self.epoch.max(step.epoch.unwrap_or(i64::MIN));
        let Some(heads) = &mut self.heads else { return };
        heads.all = step_id::after(&heads.all, id);
        if step.changes(action).root {
            heads.root = id.clone();
        }
        if action.changes().root {
            heads.facts = facts.or_else(|| RootFacts::recall(self.store, id));
        }
    }

    /// Whether the next step depends on facts that only the root before it can tell.
    pub fn lacks_facts(&self, action: &dyn Action) -> bool {
        action.nature().reads.repositories && self.heads.as_ref().is_some_and(|heads| heads.facts.is_none())
    }

    /// Takes the facts of the root that stands before the next step.
    pub fn learn(&mut self, facts: RootFacts) {
        if let Some(heads) = &mut self.heads {
            heads.facts = Some(facts);
        }
    }

    /// All repository states that were looked at so far.
    pub fn releases(&self) -> &BTreeMap<String, ReleaseState> {
        &self.plan.releases
    }

    /// All repository states that were looked at.
    pub fn into_releases(self) -> BTreeMap<String, ReleaseState> {
        self.plan.releases
    }
}

/// The newest date among the repositories that a step reads.
fn newest(inputs: &[crate::build::Input], releases: &BTreeMap<String, ReleaseState>) -> i64 {
    inputs
        .iter()
        .filter_map(|input| input.what.strip_prefix("repository "))
        .filter_map(|repository| releases.get(repository))
        .map(|release| release.date)
        .max()
        .unwrap_or(i64::MIN)
}
