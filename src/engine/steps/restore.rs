//! What of a step's surroundings is taken from the store, and whether that is what the plan says.

use anyhow::{Context, Result};

use super::{DAMAGED, Run, facts, mount, system};
use crate::actions::Action;
use crate::build::Event;
use crate::diagnostics::{Fault, Remedy};
use crate::engine::Lost;
use crate::engine::root::Workspace;
use crate::plan::{PlanStep, RootFacts};
use crate::store::{MadeOn, Tree};

impl Run<'_> {
    /// Has the root before a step tell what the step depends on.
    pub(super) fn look_at_root(&mut self, step: &PlanStep) -> Result<()> {
        let workspace = match step.image.as_ref().filter(|_| step.mounted) {
            Some(spec) => {
                self.materialise()?;
                let scratch = self.scratch.join(format!("looked-at-{}", step.number));
                Workspace::Mounted(mount(spec, &self.artifacts.staging, &scratch, true)?)
            }
            None => self.root.view(&self.root_steps)?,
        };
        self.resolver.learn(facts(&system(workspace.path())?)?);
        self.root.discard(workspace)
    }

    /// Sees to it that a step reads what the plan says that it reads.
    ///
    /// Where something changes all the time, as a log that is written beside the recipe, a new plan is of no use:
    /// then the step is run, and neither it nor what follows is kept for later builds.
    pub(super) fn confirm(&mut self, step: &mut PlanStep, action: &dyn Action) -> Result<()> {
        let changed = self.resolver.changed(step, action)?;
        let Some(first) = changed.first() else { return Ok(()) };
        if self.build.replanned {
            let message = format!("{first} changes while the build goes on: what is made from here on is not kept");
            self.reporter.report(Event::Warning { step: Some(step.number), message });
            self.resolver.keep_nothing(step.number);
            step.id = None;
            return self.resolve(step, action);
        }
        Err(outdated(&changed).into())
    }

    /// Sees to it that what a step has read is still what the plan says.
    pub(super) fn unchanged(&mut self, step: &PlanStep, action: &dyn Action) -> Result<()> {
        let mut changed = self.resolver.changed(step, action)?;
        // Which of them are inputs follows from what the step has just made.
        changed.retain(|what| !what.starts_with("file $ARTIFACTDIR/"));
        if changed.is_empty() { Ok(()) } else { Err(outdated(&changed).into()) }
    }

    /// What a step's result would be made on now.
    pub(super) fn made_on(&self, step: &PlanStep, action: &dyn Action) -> MadeOn {
        let sees_root = (action.reads_root() || step.changes(action).root) && !step.mounted && !action.makes_root();
        let sees_artifacts = action.reads_artifacts() || step.mounted;
        MadeOn {
            root: if sees_root { self.root.digest(&self.root_steps) } else { String::new() },
            artifacts: if sees_artifacts { self.artifacts.digest() } else { String::new() },
        }
    }

    /// Takes a step's result from the store, or its artifacts alone; what to show for it.
    pub(super) fn cached(
        &mut self,
        step: &PlanStep,
        action: &dyn Action,
        artifacts_alone: bool,
    ) -> Result<(String, Option<RootFacts>)> {
        let (id, changes) = (step.id.as_ref().context("a step without an id was reached")?, step.changes(action));
        let (mut detail, mut facts) = (String::new(), None);
        let now = self.made_on(step, action);
        if changes.artifacts {
            match self.artifacts.restore(id, &now)? {
                Some(shown) => detail = shown,
                None => return Err(Lost::outputs(self.store, id, DAMAGED.into())),
            }
        }
        if artifacts_alone {
            return Ok((detail, None));
        }
        let gone = || Lost { id: id.clone(), why: "its files are gone".into() };
        if changes.origin || changes.write {
            let tree = self.store.tree(&self.build.id_map, id)?.ok_or_else(gone)?;
            detail.clone_from(&tree.record.detail);
            self.keep_origin(step, action, tree);
        }
        if changes.root {
            let record = self.root.restore(id, &now)?.ok_or_else(gone)?;
            self.secrets.restored(&record.secrets);
            facts = Some(RootFacts { apt_sources: record.apt_sources, pacman: record.pacman });
            detail = record.detail;
        }
        Ok((detail, facts))
    }

    /// Takes what another build made of a step meanwhile, whose layer is on the root already.
    pub(super) fn made_elsewhere(
        &mut self,
        step: &PlanStep,
        action: &dyn Action,
        made_on: &MadeOn,
    ) -> Result<(Option<RootFacts>, String)> {
        let id = step.id.as_ref().context("a step without an id was reached")?;
        if step.changes(action).artifacts && self.artifacts.restore(id, made_on)?.is_none() {
            // Its layer is sealed first: another build may be about to keep the rest, or was killed before.
            return Err(Lost { id: id.clone(), why: DAMAGED.into() }.into());
        }
        let record = self.root.record().context("another build's layer is not there")?;
        self.secrets.restored(&record.secrets);
        let facts = RootFacts { apt_sources: record.apt_sources.clone(), pacman: record.pacman.clone() };
        Ok((Some(facts), "made by another build".into()))
    }

    /// Puts the artifacts so far where steps see them.
    pub(super) fn materialise(&mut self) -> Result<()> {
        match self.artifacts.materialise()? {
            None => Ok(()),
            Some(id) => Err(Lost { id, why: DAMAGED.into() }.into()),
        }
    }

    /// Sees to it that downloads are what was kept of them.
    pub(super) fn settle_origins(&mut self) -> Result<()> {
        for position in self.checked_origins..self.origins.len() {
            if let Some(why) = self.store.damage(&self.origins[position])? {
                let tree = self.origins.swap_remove(position);
                return Err(Lost::tree(self.store, &self.build.id_map, tree, why));
            }
        }
        self.checked_origins = self.origins.len();
        Ok(())
    }

    pub(super) fn keep_origin(&mut self, step: &PlanStep, action: &dyn Action, tree: Tree) {
        if action.changes().write {
            self.writes.insert(step.number, tree.path.join(&tree.record.origin));
        }
        if let Some(name) = action.origin_name() {
            self.downloads.insert(name.to_owned(), tree.path.join(&tree.record.origin));
        }
        self.origins.push(tree);
    }
}

fn outdated(changed: &[String]) -> Fault {
    let first = changed.first().map(String::as_str).unwrap_or_default();
    let more = if changed.len() > 1 { format!(" and {} more", changed.len() - 1) } else { String::new() };
    Fault::failed(format!("{first}{more} changed after the build was planned"))
        .hint("build again: nothing was published; what is written during a build goes beside the recipe's directory")
        .remedy(Remedy::PlanAnew)
}
