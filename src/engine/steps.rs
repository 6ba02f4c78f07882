//! One step after the other.

mod named;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

use super::artifacts::{Artifacts, Promise};
use super::root::{Root, Workspace};
use super::secrets::Secrets;
use super::{Build, Lost, epoch, shell};
use crate::actions::{Action, WRITE_IMAGE};
use crate::build::event::Outcome;
use crate::build::image::{Disk, MountedImage};
use crate::build::protected::{self, NONE};
use crate::build::{BuildContext, Event, Reporter, interrupted, ostree};
use crate::diagnostics::{Fault, FaultKind};
use crate::image::{Spec, Strategy};
use crate::plan::{self, Course, Kept, PlanStep, Resolver, RootFacts};
use crate::sandbox::{Isolation, Told};
use crate::store::{Begun, EntryId, Store, Tree, TreeRecord, set_holder, waiting_for};
use crate::sys::remove::remove_wholly;

/// Carries out a plan; `at` is the step it is at. What the store turns out not to have after all is made again, from
/// the first step on that this concerns.
pub(super) fn build(mut build: Build, reporter: &dyn Reporter, at: &mut Option<usize>) -> Result<()> {
    set_holder(build.by.clone());
    if build.shell.is_some() || runs_programs(&build)? {
        build.sandbox = build.sandbox.emulating(build.plan.architecture)?;
    }
    let store = Store::open_borrowing(&build.store, build.lender.as_deref())?;
    if build.lender.is_some() {
        // The plan was made where nobody could look into this store.
        plan::look_again(&mut build.plan, &store, &build.id_map)?;
    }
    let mut lost = BTreeSet::new();
    loop {
        let error = match attempt(&build, &store, reporter, at) {
            Ok(()) => break,
            Err(error) => error,
        };
        let Some(Lost { id, why }) = error.downcast_ref() else { return Err(error) };
        // What is left of it would be taken for all of it.
        store.drop_all(&build.id_map, id)?;
        if !lost.insert((id.clone(), why.clone())) {
            // It was made again and lost again.
            return Err(error);
        }
        let message = match *at {
            Some(step) => format!("the store's result of a step is made again, seen at step {step}: {why}"),
            None => format!("the store's result of a step is made again: {why}"),
        };
        reporter.report(Event::Warning { step: *at, message });
        plan::look_again(&mut build.plan, &store, &build.id_map)?;
    }
    // A build that is done stays done when the store cannot be tidied.
    match store.evict(None) {
        Ok(cleared) if cleared.entries > 0 => reporter.report(Event::Cleared { cleared }),
        Ok(_) => {}
        Err(error) => {
            reporter.report(Event::Warning { step: None, message: format!("making room in the store: {error:#}") });
        }
    }
    Ok(())
}

/// Goes through the steps once.
fn attempt(build: &Build, store: &Store, reporter: &dyn Reporter, at: &mut Option<usize>) -> Result<()> {
    let scratch = store.scratch()?;
    let mut run = Run {
        root: Root::new(store, &build.id_map, build.checkpoints, &scratch.path)?,
        root_steps: Vec::new(),
        artifacts: Artifacts::new(store, &scratch.path)?,
        resolver: Resolver::new(&build.plan, store, &build.id_map, &build.artifact_dir),
        downloads: BTreeMap::new(),
        writes: BTreeMap::new(),
        origins: Vec::new(),
        checked_origins: 0,
        secrets: Secrets::new(&build.plan),
        environment: build
            .environment
            .iter()
            .chain(&build.plan.environment)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        scratch: scratch.path.clone(),
        store,
        build,
        reporter,
    };
    let steps = run.steps()?;
    let mut done = Vec::new();
    for (mut step, action, course) in steps {
        *at = Some(step.number);
        run.step(&mut step, action.as_ref(), course).map_err(|error| placed(error, &step))?;
        done.push((step, action));
    }
    *at = None;
    if let Some(shell) = &build.shell {
        return match mounted_at_the_end(build)? {
            Some(spec) => run.shell_in_image(spec, shell),
            None => shell::in_root(&mut run.root, &run.root_steps, build, &run.environment, shell, reporter),
        };
    }
    if build.until.is_none() {
        let promises = promises(&done);
        let _place = match run.artifacts.publish(&build.artifact_dir, &promises, reporter)? {
            Ok(place) => place,
            Err(id) => return Err(Lost { id, why: DAMAGED.into() }.into()),
        };
        for (step, action) in &done {
            run.published(step, action.as_ref()).map_err(|error| plan::at(error, step))?;
        }
    }
    Ok(())
}

/// An error with the place of the step; what is [`Lost`] is for nobody to read yet.
fn placed(error: anyhow::Error, step: &PlanStep) -> anyhow::Error {
    if error.is::<Lost>() { error } else { plan::at(error, step) }
}

/// Why artifacts of the store are of no use.
const DAMAGED: &str = "its artifacts are gone or damaged";

/// The files that steps say they leave, but for those that later ones take away.
fn promises(steps: &[(PlanStep, Box<dyn Action>)]) -> Vec<Promise> {
    let mut promises: Vec<Promise> = Vec::new();
    for (step, action) in steps {
        let removed: Vec<PathBuf> = action.removes().iter().map(|path| normal(path)).collect();
        promises.retain(|promise| !removed.contains(&promise.path));
        promises.extend(action.artifacts().iter().map(|path| Promise { path: normal(path), step: step.number }));
    }
    promises
}

/// "./a//b" as "a/b".
fn normal(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

/// Whether any step runs programs of the target's architecture.
fn runs_programs(build: &Build) -> Result<bool> {
    for step in &build.plan.steps {
        if step.action()?.needs().emulation {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The image that is mounted in the place of the root when the last step of a build is done.
fn mounted_at_the_end(build: &Build) -> Result<Option<&Spec>> {
    let last = build.until.unwrap_or(usize::MAX);
    for step in build.plan.steps.iter().filter(|step| step.number <= last).rev() {
        if step.mounted {
            return Ok(step.image.as_ref());
        }
        if step.action == WRITE_IMAGE {
            let mounted = |spec: &&Spec| spec.strategy == Strategy::Mounted && !spec.deploys.is_empty();
            return Ok(step.image.as_ref().filter(mounted));
        }
        if step.action()?.changes().root {
            break;
        }
    }
    Ok(None)
}

/// Mounts the image among the artifacts; `scratch` is made.
fn mount(spec: &Spec, artifacts: &Path, scratch: &Path, read_only: bool) -> Result<MountedImage> {
    let (at, nodes) = (scratch.join("root"), scratch.join("nodes"));
    fs::create_dir_all(&at).and_then(|()| fs::create_dir(&nodes)).context("making a place for the mounted image")?;
    let slot = spec.deploys.last().and_then(|deploy| deploy.slot.as_deref());
    MountedImage::mount(spec, slot, &artifacts.join(&spec.name), &at, &nodes, read_only)
}

/// The system that steps work in, in a root: that itself, or the deployment that is started first.
fn system(root: &Path) -> Result<PathBuf> {
    Ok(if ostree::is_sysroot(root) { root.join(ostree::deployment(root)?) } else { root.to_owned() })
}

/// What later steps want to know of a system.
fn facts(system: &Path) -> Result<RootFacts> {
    // A configuration that cannot be read is a fault of the step that wants it, if one does.
    let pacman = crate::actions::pacman::without_databases(system).unwrap_or_default();
    Ok(RootFacts { apt_sources: crate::build::apt::sources_of_root(system)?, pacman })
}

/// The state of a build between steps.
struct Run<'a> {
    root: Root<'a>,
    /// Ids of the steps that make the root at this point of the plan, whether or not it was made.
    root_steps: Vec<EntryId>,
    artifacts: Artifacts<'a>,
    resolver: Resolver<'a>,
    downloads: BTreeMap<String, PathBuf>,
    /// Bytes that steps keep for the image.
    writes: BTreeMap<usize, PathBuf>,
    /// Trees of downloads, held as long as the build goes on.
    origins: Vec<Tree>,
    /// How many of these are known to be as they were sealed.
    checked_origins: usize,
    secrets: Secrets,
    environment: BTreeMap<String, String>,
    scratch: PathBuf,
    store: &'a Store,
    build: &'a Build,
    reporter: &'a dyn Reporter,
}

/// A step, what it does, and what becomes of it.
type Ahead = (PlanStep, Box<dyn Action>, Course);

impl Run<'_> {
    /// The steps to be looked at, each with its course as far as it is known before anything runs.
    fn steps(&self) -> Result<Vec<Ahead>> {
        let last = self.build.until.unwrap_or(usize::MAX);
        let mut steps = Vec::new();
        for step in self.build.plan.steps.iter().filter(|step| step.number <= last) {
            steps.push((step.clone(), step.action()?));
        }
        let facts: Vec<_> =
            steps.iter().map(|(step, action)| step.facts(action.as_ref(), |id| self.store.has_outputs(id))).collect();
        let mut courses = plan::courses(&facts);
        if self.build.shell.is_some() {
            let in_image = mounted_at_the_end(self.build)?.is_some();
            for (plan::Facts { changes, kept, .. }, course) in facts.iter().zip(&mut courses) {
                let wanted = changes.root || changes.origin || changes.write || (in_image && changes.artifacts);
                *course = match (wanted, kept) {
                    (_, Kept::Whole) => Course::Restore,
                    (true, _) => Course::Run,
                    (false, _) => Course::Skip,
                };
            }
        }
        Ok(steps.into_iter().zip(courses).map(|((step, action), course)| (step, action, course)).collect())
    }

    /// A shell in the mounted image as it stands; what it changes is thrown away with the build's copy.
    fn shell_in_image(&mut self, spec: &Spec, shell: &str) -> Result<()> {
        self.materialise()?;
        let image = mount(spec, &self.artifacts.staging, &self.scratch.join("mounted-for-shell"), false)?;
        shell::run(&image.path, Told::Mounts, self.build, &self.environment, shell, self.reporter)?;
        image.unmount()
    }

    fn step(&mut self, step: &mut PlanStep, action: &dyn Action, course: Course) -> Result<()> {
        if interrupted() {
            return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
        }
        if course == Course::Skip {
            // What comes after it follows its id all the same.
            if step.id.is_none() && !self.resolver.lacks_facts(action) {
                self.resolve(step, action)?;
            }
            self.finished(step, Outcome::NotNeeded, 0.0, String::new());
            self.pass(step, action, None);
            return Ok(());
        }
        if let Some(tree) = action.artifact_tree() {
            self.artifacts.tree(tree);
        }
        if action.makes_root() {
            self.root.forget()?;
            self.root_steps.clear();
            self.secrets.restored(&BTreeMap::new());
        }
        if self.resolver.keeps_nothing() {
            step.id = None;
        }
        let open = step.id.is_none();
        if (course == Course::Run || open) && self.resolver.lacks_facts(action) {
            self.look_at_root(step)?;
        }
        if open {
            self.resolve(step, action)?;
        }
        let started = Instant::now();
        // What stands in the plan is done as it says there; what is resolved only now is a hit or not.
        let cached = match course {
            _ if open && !step.hit => None,
            Course::Run if !open => None,
            Course::RestoreArtifacts => Some(self.cached(step, action, true)?),
            _ => Some(self.cached(step, action, false)?),
        };
        match cached {
            Some((detail, facts)) => {
                self.name_known_secrets(step);
                self.finished(step, Outcome::Cached, started.elapsed().as_secs_f64(), detail);
                self.pass(step, action, facts);
            }
            None => {
                if !open {
                    self.confirm(step, action)?;
                }
                self.reporter.report(Event::StepStarted { step: step.number });
                let (facts, detail) = self.run(step, action)?;
                self.resolver.made(step, action);
                self.store.persist()?;
                self.finished(step, Outcome::Ran, started.elapsed().as_secs_f64(), detail);
                self.pass(step, action, facts);
            }
        }
        Ok(())
    }

    /// Goes past a step.
    fn pass(&mut self, step: &PlanStep, action: &dyn Action, facts: Option<RootFacts>) {
        if step.changes(action).root {
            if action.makes_root() {
                self.root_steps.clear();
            }
            // A step that nobody wanted to be resolved leaves a root that nobody can have.
            self.root_steps.push(step.id.clone().unwrap_or_else(|| EntryId(String::new())));
        }
        self.resolver.advance(step, action, facts);
    }

    /// Gives a step its id that had none in the plan.
    fn resolve(&mut self, step: &mut PlanStep, action: &dyn Action) -> Result<()> {
        let (reporter, number) = (self.reporter, step.number);
        self.resolver.resolve(step, action, &mut |message| {
            reporter.report(Event::Progress { step: number, message: message.to_owned(), fraction: None });
        })?;
        if self.resolver.releases() != &self.build.plan.releases {
            self.reporter.report(Event::Asked { releases: self.resolver.releases().clone() });
        }
        Ok(())
    }

    /// Runs a step and seals what it made.
    fn run(&mut self, step: &PlanStep, action: &dyn Action) -> Result<(Option<RootFacts>, String)> {
        let id = step.id.as_ref().context("a step without an id was reached")?;
        let changes = step.changes(action);
        if changes.origin || changes.write {
            return Ok((None, self.origin(step, action)?));
        }
        let number = step.number;
        self.settle_origins()?;
        if action.reads_artifacts() || changes.artifacts || step.mounted {
            self.materialise()?;
        }
        let made_on = self.made_on(step, action);
        let before = self.artifacts.snapshot()?;
        let workspace = if changes.root {
            match self.begin(step, id)? {
                Some(workspace) => {
                    self.root.protect(&workspace)?;
                    Some(workspace)
                }
                None => return self.made_elsewhere(step, action, &made_on),
            }
        } else if action.reads_root() || step.mounted {
            Some(self.view(step, action)?)
        } else {
            None
        };
        let (clock, started) = (SystemTime::now(), Instant::now());
        let own = self.scratch.join(format!("step-{number}"));
        fs::create_dir(&own).context("making a place for the step")?;
        if let Some(workspace) = workspace.as_ref().filter(|_| changes.artifacts && !changes.root && !step.mounted) {
            self.name_secrets(step, workspace.path())?;
        }
        let nowhere = self.scratch.join("root");
        let path = workspace.as_ref().map_or(nowhere.as_path(), Workspace::path).to_owned();
        let disk = workspace.as_ref().and_then(Workspace::disk).cloned();
        let done = self.act(step, action, &path, disk.as_ref(), &own);
        if let (Err(error), Some(workspace)) = (&done, &workspace)
            && let Some(shell) = &self.build.debug_shell
            && !interrupted()
        {
            self.reporter.report(Event::Warning { step: Some(number), message: format!("{error:#}") });
            let told = if workspace.disk().is_some() { Told::Mounts } else { Told::Constant };
            shell::run(workspace.path(), told, self.build, &self.environment, shell, self.reporter)?;
        }
        let (detail, _) = done?;
        if step.inputs.iter().any(|input| input.what.starts_with("file ")) && !self.resolver.keeps_nothing() {
            // What was read in the meantime may be neither what it was nor what it is.
            self.unchanged(step, action)?;
        }
        remove_wholly(&own).context("removing the step's scratch directory")?;
        let (recipe, step_shown) = self.names(step);
        let mut record =
            TreeRecord { detail: detail.clone(), recipe, step: step_shown, made_on, ..TreeRecord::default() };
        let mut facts = None;
        if let Some(workspace) = workspace {
            let settled = step.epoch.unwrap_or_default();
            if action.changes().root {
                workspace.written().into_iter().try_for_each(|written| epoch::settle(written, clock, settled))?;
                if workspace.disk().is_none() {
                    for written in workspace.written() {
                        record.protected.extend(protected::take(written)?);
                    }
                }
            }
            if action.changes().root {
                self.secrets.written(&step.action, workspace.written())?;
            }
            if step.mounted && action.changes().root {
                self.name_secrets(step, workspace.path())?;
            }
            if changes.root {
                record.secrets = self.secrets.record();
            }
            // A disk without a deployment yet has no system to ask.
            if action.changes().root
                && let Ok(system) = system(workspace.path())
            {
                let known = self::facts(&system)?;
                known.remember(self.store, id);
                record.apt_sources.clone_from(&known.apt_sources);
                record.pacman.clone_from(&known.pacman);
                facts = Some(known);
            }
            record.seconds = started.elapsed().as_secs_f64();
            if changes.root && changes.artifacts {
                // Before the layer: whoever waits for that finds these, too.
                self.artifacts.save(id, &before, &record)?;
            }
            match changes.root {
                true => self.root.seal(id, workspace, record.clone())?,
                false => self.root.discard(workspace)?,
            }
            if let Some(spec) = step.image.as_ref().filter(|_| step.mounted && action.changes().root) {
                crate::build::image::extract_partitions(spec, &self.artifacts.staging)?;
            }
        }
        if changes.artifacts && !changes.root {
            self.artifacts.save(id, &before, &record)?;
        }
        Ok((facts, detail))
    }

    /// A root for a step that changes it; `None` where another build has made the step's result meanwhile.
    fn begin(&mut self, step: &PlanStep, id: &EntryId) -> Result<Option<Workspace>> {
        let (number, reporter) = (step.number, self.reporter);
        self.root.begin(id, &self.root_steps, &mut |holder| {
            reporter.report(Event::Progress {
                step: number,
                message: waiting_for("waiting for another build that makes the same", holder),
                fraction: None,
            });
        })
    }

    /// A root that is not kept: to be looked at, to be spoilt, or that of the mounted image.
    fn view(&mut self, step: &PlanStep, action: &dyn Action) -> Result<Workspace> {
        let image = step.image.as_ref();
        match image.filter(|_| step.mounted) {
            Some(spec) => {
                let scratch = self.scratch.join(format!("mounted-{}", step.number));
                Ok(Workspace::Mounted(mount(spec, &self.artifacts.staging, &scratch, !action.changes().root)?))
            }
            None if action.spoils_root(image, self.can_mount()) => self.root.throwaway(&self.root_steps),
            None => self.root.view(&self.root_steps),
        }
    }

    /// Runs a step that keeps files for later ones, such as a download; its scratch directory becomes a
    /// tree of the store.
    fn origin(&mut self, step: &PlanStep, action: &dyn Action) -> Result<String> {
        let id = step.id.as_ref().context("a step without an id was reached")?;
        let pending = match self.store.begin(&self.build.id_map, id, &mut |holder| {
            let message = waiting_for("waiting for another build that makes the same", holder);
            self.reporter.report(Event::Progress { step: step.number, message, fraction: None });
        })? {
            Begun::Sealed(tree) => {
                let detail = tree.record.detail.clone();
                self.keep_origin(step, action, tree);
                return Ok(detail);
            }
            Begun::Pending(pending) => pending,
        };
        self.settle_origins()?;
        if action.reads_artifacts() || step.mounted {
            self.materialise()?;
        }
        let view = if action.changes().write { Some(self.view(step, action)?) } else { None };
        let nowhere = self.scratch.join("root");
        let root = view.as_ref().map_or(nowhere.as_path(), Workspace::path).to_owned();
        let (detail, origin) = self.act(step, action, &root, None, &pending.path.clone())?;
        if let Some(view) = view {
            self.root.discard(view)?;
        }
        let origin = origin.context("the step left nothing")?;
        let (recipe, step_shown) = self.names(step);
        let record = TreeRecord { detail: detail.clone(), recipe, step: step_shown, origin, ..TreeRecord::default() };
        let tree = pending.seal(record)?;
        self.keep_origin(step, action, tree);
        Ok(detail)
    }

    /// What a listing of the store calls a step: its recipe, its number and action.
    fn names(&self, step: &PlanStep) -> (String, String) {
        let plan = &self.build.plan;
        (plan.recipe.clone(), format!("{}/{} {}", step.number, plan.steps.len(), step.action))
    }

    /// What is to be done once all artifacts are in their places.
    fn published(&self, step: &PlanStep, action: &dyn Action) -> Result<()> {
        let own = self.scratch.join(format!("published-{}", step.number));
        fs::create_dir(&own).context("making a place for what is done last")?;
        let nowhere = self.scratch.join("root");
        let cx = self.context(step, &nowhere, None, &own);
        action.published(&cx).map_err(|error| self.store.explain_work(error))
    }

    fn can_mount(&self) -> bool {
        self.build.sandbox.isolation == Isolation::Namespaces
    }

    fn act(
        &self,
        step: &PlanStep,
        action: &dyn Action,
        root: &Path,
        disk: Option<&Disk>,
        own: &Path,
    ) -> Result<(String, Option<PathBuf>)> {
        let system = if action.works_on_disk() { root.to_owned() } else { system(root)? };
        let mut cx = self.context(step, &system, disk, own);
        action.run(&mut cx).map_err(|error| self.store.explain_work(error))?;
        Ok((cx.detail, cx.origin))
    }

    /// What an action works in.
    fn context<'c>(
        &'c self,
        step: &'c PlanStep,
        root: &'c Path,
        disk: Option<&'c Disk>,
        own: &'c Path,
    ) -> BuildContext<'c> {
        BuildContext {
            step: step.number,
            root,
            protected: if step.mounted { &NONE } else { self.root.protected() },
            disk,
            architecture: self.build.plan.architecture,
            recipe_dir: &step.recipe_dir,
            recipe_files: &self.build.plan.recipe_files,
            products: &self.build.plan.products,
            artifacts: &self.artifacts.staging,
            artifact_dir: &self.build.artifact_dir,
            downloads: &self.downloads,
            image: step.image.as_ref(),
            writes: &self.writes,
            scratch: own,
            origin: None,
            store: self.store,
            sandbox: &self.build.sandbox,
            reporter: self.reporter,
            environment: &self.environment,
            variables: &step.variables,
            render: crate::recipe::render_file,
            source_date_epoch: step.epoch.unwrap_or_default(),
            inputs: &step.inputs,
            previous: step.previous.as_ref(),
            detail: String::new(),
        }
    }

    fn finished(&self, step: &PlanStep, outcome: Outcome, seconds: f64, detail: String) {
        for message in self.store.notes() {
            self.reporter.report(Event::Warning { step: Some(step.number), message });
        }
        self.reporter.report(Event::StepFinished { step: step.number, outcome, seconds, detail });
        if let Some(id) = &step.id {
            self.reporter.report(Event::Resolved { step: step.number, id: id.clone(), inputs: step.inputs.clone() });
        }
    }
}
