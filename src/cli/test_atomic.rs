//! `debforge test-atomic`: has an atomic system updated and rolled back in a virtual machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::boot::{AccelArg, FirmwareArg};
use super::build::carry_out;
use super::machine::mebibytes;
use super::recipe::{RecipeArgs, RecipeOptions};
use crate::diagnostics::{Fault, fault_of};
use crate::inspect::{Source, Workplace};
use crate::machine::atomic::stages::{self, Outcome, STAGES, Stage};
use crate::machine::atomic::{Disk, Hardware, Origin, System, Test, Updates};
use crate::machine::qemu::{self, Accelerator, Code, Preparation};
use crate::ostree::Repository;
use crate::ostree::repository::is_checksum;
use crate::plan::{Plan, PlanStep};
use crate::recipe::Recipe;
use crate::report::{self, StageReport, Stopped, Style};
use crate::say;

/// Test that an atomic system starts, takes an update, and finds its way back.
///
/// RECIPE_A makes a disk image that an OSTree commit is deployed to, RECIPE_B the commit that this system is updated
/// to. Both are built, and a copy of the image is started in a virtual machine, which fetches the update over HTTP.
/// An edited file of /etc and a mark in /var have to be there after each start.
///
/// Nothing of what is tested is changed: in the copy's /etc, a service runs the commands of the test. What the
/// machine says and what it was told is in a log.
///
/// The exit code is 0 when all held, and 1 when something did not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recipe of the image, with `ostree-deploy`.
    #[arg(value_name = "RECIPE_A", required_unless_present = "image")]
    first: Option<PathBuf>,

    /// Recipe of the commit that the image is updated to, with `ostree-commit`.
    #[arg(value_name = "RECIPE_B", required_unless_present = "image")]
    second: Option<PathBuf>,

    /// Test an image that is built already.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["first", "second"], requires_all = ["repository", "update"])]
    image: Option<PathBuf>,

    /// Repository with the image's commit and that of the update.
    #[arg(long, value_name = "DIR", requires = "image")]
    repository: Option<PathBuf>,

    /// Branch or commit that the image is updated to.
    #[arg(long, value_name = "NAME", requires = "image")]
    update: Option<String>,

    /// Hand the kernel to QEMU, without firmware and boot loader.
    #[arg(long, conflicts_with_all = ["firmware", "secure_boot"])]
    fast: bool,

    /// Run only this stage and those that it needs; several may be named.
    #[arg(long = "stage", value_name = "NAME", value_parser = STAGES.map(|stage| stage.name).to_vec())]
    stages: Vec<String>,

    /// What starts the image.
    #[arg(long, value_enum, default_value = "auto")]
    firmware: FirmwareArg,

    /// How the tested machine's processor runs.
    #[arg(long, value_enum, default_value = "auto")]
    accel: AccelArg,

    /// Start only what is signed, with Microsoft's keys as computers are sold with.
    #[arg(long)]
    secure_boot: bool,

    /// Memory of the tested machine, such as 2G [default: 1G].
    #[arg(long, value_name = "SIZE")]
    guest_memory: Option<String>,

    /// Seconds that the system may take to start, and a command in it to be done.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,

    /// Keep the log here [default: a file in the store].
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Show the output of the builds' steps.
    #[arg(short, long)]
    verbose: bool,

    /// Print events as JSON, one a line.
    #[arg(long, conflicts_with = "verbose")]
    json: bool,

    #[command(flatten)]
    with: RecipeOptions,
}

/// What is tested.
struct Subject {
    disk: Disk,
    origin: Origin,
    updates: Updates,
    /// The commit that the system is updated to, and its branch.
    to: (String, String),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    crate::machine::interruptible()?;
    let style = match (args.json, super::interactive()) {
        (true, _) => Style::Json,
        (false, true) => Style::Terminal,
        (false, false) => Style::Plain,
    };
    let memory = args.guest_memory.as_deref().map(mebibytes).transpose()?;
    let store = args.with.store.open()?;
    let scratch = store.scratch()?;
    let subject = match &args.image {
        Some(image) => args.built(image, &scratch.path)?,
        None => args.build(style, &scratch.path)?,
    };
    let Subject { disk, origin, updates, to } = subject;
    let architecture = disk.bootable.architecture().context("the image does not show what machine it is for")?;
    let program = qemu::program(architecture)?;
    let firmware = if args.fast { None } else { Some(args.code(architecture, &disk, &scratch.path)?) };
    let accelerator = args.accel.accelerator(architecture, &program, &store);
    let how = firmware.as_ref().map_or("kernel", |code| code.name);
    let what = format!("testing {} → {} · {architecture}, {how}", short(&origin.commit), short(&to.0));
    let note = match &accelerator {
        Accelerator::Tcg(Some(why)) => Some(format!("without KVM, so slow: {why}")),
        _ => None,
    };
    disk.add_agent(&origin, &scratch.path)?;
    let hardware = Hardware { architecture, accelerator, memory, processors: None, firmware };
    let log = match &args.log {
        Some(path) => (File::create(path).with_context(|| format!("writing {}", path.display()))?, path.clone()),
        None => report::log_file(&store.root().join("logs")).map(|(path, file)| (file, path))?,
    };
    let patience = Duration::from_secs(args.timeout);
    let system = System::new(disk, hardware, scratch.path.clone(), patience, log);
    let mut test = Test::new(system, origin, to, updates)?;
    let chosen = stages::chosen(&args.stages);
    let titles = chosen.iter().map(|stage| (stage.name, stage.title)).collect();
    if let Some(note) = note.filter(|_| !args.json) {
        say!("{}", report::note(&note));
    }
    let mut report = StageReport::start(style, &what, titles)?;
    let mut fault = None;
    for stage in chosen {
        report.begin()?;
        let stopped = carry_out_stage(stage, &mut test);
        report.end(&stopped)?;
        if let Stopped::Failed(found) = stopped {
            fault = Some(found);
            break;
        }
    }
    report.finish(fault.as_ref())?;
    fault.map_or(Ok(0), |fault| Err(fault.into()))
}

fn carry_out_stage(stage: &Stage, test: &mut Test) -> Stopped {
    match stage.run(test) {
        Ok(Outcome::Passed(detail)) => Stopped::Passed(detail),
        Ok(Outcome::Skipped(why)) => Stopped::Skipped(why),
        Err(error) => Stopped::Failed(fault_of(&error)),
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

impl Args {
    /// What is there already.
    fn built(&self, image: &Path, scratch: &Path) -> Result<Subject> {
        let path = self.repository.as_deref().context("no repository")?;
        let name = self.update.as_deref().context("no update")?;
        let repository = opened(path)?;
        let commit = repository.resolve(name)?;
        let (disk, origin) = self.disk(image, scratch)?;
        let branch = if is_checksum(name) { origin.branch.clone() } else { name.to_owned() };
        let updates = Updates::make(scratch, origin.verified)?;
        for wanted in [&origin.commit, &commit] {
            updates.add(&repository, wanted)?;
        }
        Ok(Subject { disk, origin, updates, to: (commit, branch) })
    }

    /// What two recipes make.
    fn build(&self, style: Style, scratch: &Path) -> Result<Subject> {
        let (first, second) = self.first.as_ref().zip(self.second.as_ref()).context("no recipes")?;
        let mut with = self.with.clone();
        with.artifactdir.get_or_insert(scratch.join("artifacts"));
        let args = |recipe: &PathBuf| RecipeArgs { recipe: recipe.clone(), with: with.clone() };
        let artifacts = std::path::absolute(with.artifactdir.as_deref().unwrap_or(Path::new(".")))?;
        // Faults of both are said before anything is built.
        if !has(&args(first).load()?, "ostree-deploy") {
            return Err(Fault::recipe(format!("{} deploys no OSTree commit", first.display()))
                .hint("its disk image is made by `image-partition`, `ostree-deploy` and `bootloader`")
                .into());
        }
        if !has(&args(second).load()?, "ostree-commit") {
            return Err(Fault::recipe(format!("{} makes no OSTree commit", second.display()))
                .hint("the system is updated to what its `ostree-commit` makes")
                .into());
        }
        let plan = self.build_one(&args(first), style)?;
        let deploy = last(&plan, "ostree-deploy")?;
        let image = deploy.image.as_ref().ok_or_else(|| {
            Fault::recipe(format!("{} deploys to a tree, not to a disk image", first.display()))
                .hint("`image-partition` before `ostree-deploy` describes the image")
        })?;
        let (disk, origin) = self.disk(&artifacts.join(&image.name), scratch)?;
        let updates = Updates::make(scratch, origin.verified)?;
        // Before the second recipe's `prune` may remove it.
        updates.add(&opened(&artifacts.join(text(deploy, "repository")?))?, &origin.commit)?;
        let plan = self.build_one(&args(second), style)?;
        let commit = last(&plan, "ostree-commit")?;
        let repository = opened(&artifacts.join(text(commit, "repository")?))?;
        let branch = text(commit, "branch")?.to_owned();
        let to = repository.resolve(&branch)?;
        updates.add(&repository, &to)?;
        Ok(Subject { disk, origin, updates, to: (to, branch) })
    }

    /// Builds a recipe as `debforge build` does.
    fn build_one(&self, args: &RecipeArgs, style: Style) -> Result<Plan> {
        let ready = args.ready()?;
        let plan = ready.plan(args, None)?;
        carry_out(&ready, args, plan.clone(), style, self.verbose, |_| {})?;
        if style != Style::Json {
            say!();
        }
        Ok(plan)
    }

    /// A throwaway copy of an image, and what is deployed on it.
    fn disk(&self, image: &Path, scratch: &Path) -> Result<(Disk, Origin)> {
        let workplace = Workplace::new(|| self.with.store.open()?.scratch());
        let source = Source::open(image, &workplace)?;
        let disk = Disk::copy(&source, scratch.join("disk.img"))?;
        let origin = disk.origin()?;
        Ok((disk, origin))
    }

    fn code(&self, architecture: crate::debian::Architecture, disk: &Disk, scratch: &Path) -> Result<Code> {
        let firmware = self.firmware.firmware(architecture, &disk.bootable, self.secure_boot);
        let code = Code::find(architecture, firmware, self.secure_boot, &scratch.join("variables.fd"))?;
        if let Some((template, copy)) = code.template() {
            Preparation::command([Path::new("cp"), template, copy]).carry_out()?;
        }
        Ok(code)
    }
}

fn opened(path: &Path) -> Result<Repository> {
    let found = Repository::open(path)?;
    found.ok_or_else(|| Fault::recipe(format!("{} is no OSTree repository", path.display())).into())
}

fn has(recipe: &Recipe, action: &str) -> bool {
    recipe.steps.iter().any(|step| step.kind == action)
}

/// The last step with an action.
fn last<'a>(plan: &'a Plan, action: &str) -> Result<&'a PlanStep> {
    plan.steps.iter().rfind(|step| step.action == action).with_context(|| format!("the plan has no `{action}`"))
}

/// A property of a step that is a text.
fn text<'a>(step: &'a PlanStep, property: &str) -> Result<&'a str> {
    step.properties[property].as_str().with_context(|| format!("the step {} has no `{property}`", step.action))
}
