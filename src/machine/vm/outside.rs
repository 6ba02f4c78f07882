//! A machine as the front sees it: found to work, then asked to build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use super::kernel::{self, Kernel, Wanted};
use super::network::{self, proxy};
use super::{Hypervisor, MachineRoot, Start, probe};
use crate::build::Event;
use crate::debian::Architecture;
use crate::debian::host::find_program;
use crate::diagnostics::Fault;
use crate::engine::{Build, Job};
use crate::image::{FilesystemKind, Strategy};
use crate::machine::local::{self, Identity};
use crate::machine::process::{self, Job as Task, Message};
use crate::plan::Plan;
use crate::sandbox::{Isolation, Sandbox, binfmt};
use crate::store::{Checkpoints, Elsewhere, IdMap, Store};

/// Memory where nobody said how much, in MiB.
const MEMORY: u64 = 2048;
/// The least that a kernel, the engine and apt get along with, in MiB.
const LEAST_MEMORY: u64 = 256;
/// Most that a machine's disk may hold where nobody said how much.
const DISK: u64 = 64 << 30;
/// Less than this holds no build.
const LEAST_DISK: u64 = 1 << 30;

/// Modules that every build needs.
const ALWAYS: [&str; 1] = ["overlay"];
/// Modules for whatever is mounted from a file; file systems ask for the sums by name.
const MOUNTING: [&str; 3] = ["loop", "crc32_generic", "crc32c_generic"];
/// Modules for images that are mounted.
const IMAGES: [&str; 11] = [
    "ext4",
    "btrfs",
    "xfs",
    "f2fs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "nls_utf8",
    "erofs",
    "squashfs",
];
/// The module that foreign programs need.
const FOREIGN: &str = "binfmt_misc";

/// What users say of a machine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// In MiB.
    pub memory: Option<u64>,
    /// Number of processors.
    pub processors: Option<u32>,
    /// Most that its disk may hold, in bytes.
    pub disk_size: Option<u64>,
    /// A kernel of the user's own.
    pub kernel: Option<PathBuf>,
    /// A root of its own.
    pub root: Option<MachineRoot>,
    /// Whether nothing is to be fetched for it.
    pub at_hand: bool,
}

/// A machine that can be started.
#[derive(Debug)]
pub struct Machine {
    hypervisor: Hypervisor,
    identity: Identity,
    isolation: Isolation,
    kernel: Kernel,
    options: Options,
    /// "uml, user-mode-linux 6.1um-4, 2048 MiB".
    pub description: String,
    /// What is weaker here than elsewhere, one line each.
    pub notes: Vec<String>,
}

/// Finds what it takes to run machines of a kind; a fault with the way out where something is missing.
pub fn find(
    hypervisor: Hypervisor,
    options: Options,
    store: &Store,
    progress: &mut dyn FnMut(&str),
) -> Result<Machine> {
    if let Some(memory) = options.memory.filter(|memory| *memory < LEAST_MEMORY) {
        return Err(Fault::recipe(format!("a machine with {memory} MiB of memory cannot build anything"))
            .hint(format!("it takes {LEAST_MEMORY} MiB at least, and apt in large suites 1 GiB"))
            .into());
    }
    if options.disk_size.is_some_and(|size| size < LEAST_DISK) {
        return Err(Fault::recipe("the machine's disk is too small to build anything")
            .hint("`--scratchsize 20G`, for instance; it takes only what it holds")
            .into());
    }
    let host = Architecture::host();
    let kind = match hypervisor {
        Hypervisor::Uml if host != Architecture::Amd64 => {
            return Err(Fault::machine(format!("there is no UML for {host}, only for amd64"))
                .hint("`-b kvm` and `-b qemu` run on it")
                .into());
        }
        Hypervisor::Uml => {
            find_program(network::HELPER).ok_or_else(network::missing)?;
            kernel::Kind::Uml
        }
        Hypervisor::Kvm => {
            probe::kvm(store)?;
            kernel::Kind::Linux
        }
        Hypervisor::Qemu => {
            crate::machine::qemu::program(host)?;
            kernel::Kind::Linux
        }
    };
    let wanted = match &options.kernel {
        Some(image) => Wanted::Given(image),
        None if options.at_hand => Wanted::AtHand,
        None => Wanted::Best,
    };
    let kernel = kernel::find(kind, host, wanted, store, progress)?;
    let kernel = match hypervisor {
        Hypervisor::Qemu => kernel.unpacked(store)?,
        Hypervisor::Uml | Hypervisor::Kvm => kernel,
    };
    let (identity, isolation, mut notes) = confinement(store.root())?;
    notes.extend(kernel.note.clone());
    let memory = options.memory.unwrap_or(MEMORY);
    Ok(Machine {
        hypervisor,
        identity,
        isolation,
        description: format!(
            "{}, {}, {memory} MiB{}",
            hypervisor.name(),
            kernel.description,
            if options.root.is_some() { ", a root of its own" } else { "" }
        ),
        kernel,
        options,
        notes,
    })
}

/// How the machine's own process is kept apart from this machine.
fn confinement(store: &Path) -> Result<(Identity, Isolation, Vec<String>)> {
    let identity = Identity::for_a_process();
    match local::try_confining(&identity, store)? {
        Ok(()) => Ok((identity, Isolation::Namespaces, Vec::new())),
        Err(why) => {
            let note = format!("namespaces are forbidden here ({why}): the machine's own process sees what you see");
            Ok((Identity::Root, Isolation::Chroot, vec![note]))
        }
    }
}

/// Owners of files in the stores of machines.
pub fn id_map() -> IdMap {
    IdMap("root".into())
}

/// What the store of machines is known to have.
pub fn contents(store: &Store) -> Elsewhere {
    Elsewhere::read(&store.machine_contents())
}

impl Machine {
    /// See [`crate::machine::Machine::build`].
    pub fn build(&self, store: &Store, build: Build, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        let start = self.start(store, build)?;
        let mut known = contents(store);
        let done = self.run(start, &mut |message| match message {
            Message::Event(event) => {
                note(&mut known, &event);
                on_event(event);
            }
            Message::Facts(facts) => store.adopt_facts(&facts),
            Message::Contents(contents) => known = contents,
            _ => {}
        });
        done.and(store.write_contents(&store.machine_contents(), &known))
    }

    /// Has another job done than a build, in a directory that both sides see: `job` is told where the guest
    /// does. File systems of a kind can be mounted there.
    pub fn work(
        &self,
        store: &Store,
        directory: &Path,
        kind: &str,
        job: &dyn Fn(&Path) -> Job,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let wanted = ALWAYS.iter().chain(&MOUNTING).copied().chain([kind]);
        let start = Start {
            modules: wanted.map(str::to_owned).collect(),
            work: Some(directory.to_owned()),
            job: serde_json::to_value(job(Path::new(super::prepare::WORK)))?,
            ..self.idle(store, directory)?
        };
        self.run(start, &mut |message| {
            if let Message::Event(event) = message {
                on_event(event);
            }
        })
    }

    /// Runs a machine to its end, in the watch of a process of its own.
    pub(super) fn run(&self, start: Start, on_message: &mut dyn FnMut(Message)) -> Result<()> {
        process::run(&self.identity, self.isolation, &Task::Machine(Box::new(start)), on_message)
    }

    /// Whether it has programs of its own.
    pub fn has_root(&self) -> bool {
        self.options.root.is_some()
    }

    /// Has the versions of its own programs count, where it has some.
    pub fn use_tools(&self) -> Result<()> {
        if let Some(root) = &self.options.root {
            crate::debian::host::use_tools_of(root.packages()?);
        }
        Ok(())
    }

    /// Its kernel, for people.
    pub fn kernel_shown(&self) -> &str {
        &self.kernel.description
    }

    /// Its kernel.
    pub(super) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// A machine that has nothing to do.
    pub(super) fn idle(&self, store: &Store, artifact_dir: &Path) -> Result<Start> {
        Ok(Start {
            hypervisor: self.hypervisor,
            kernel: self.kernel.image.clone(),
            libraries: self.kernel.libraries.clone(),
            own_kernel: self.options.kernel.is_some(),
            modules_dir: self.kernel.modules.clone(),
            modules: ALWAYS.map(str::to_owned).to_vec(),
            root: self.options.root.as_ref().map(|root| root.image.clone()),
            memory: self.memory(),
            processors: self.processors(),
            disk_size: self.options.disk_size.unwrap_or(DISK).next_multiple_of(4096),
            store: store.root().to_owned(),
            artifact_dir: artifact_dir.to_owned(),
            work: None,
            visible: Vec::new(),
            network: false,
            emulator: None,
            environment: BTreeMap::new(),
            job: serde_json::to_value(Job::Idle)?,
        })
    }

    fn memory(&self) -> u64 {
        self.options.memory.unwrap_or(MEMORY)
    }

    fn processors(&self) -> u32 {
        let all = || std::thread::available_parallelism().map_or(1, |number| u32::try_from(number.get()).unwrap_or(1));
        self.options.processors.unwrap_or_else(all)
    }

    fn start(&self, store: &Store, build: Build) -> Result<Start> {
        std::fs::create_dir_all(&build.artifact_dir)
            .with_context(|| format!("making {}", build.artifact_dir.display()))?;
        let artifact_dir = build.artifact_dir.canonicalize()?;
        let plan = &build.plan;
        let emulator = match &self.options.root {
            Some(_) if plan.architecture == Architecture::host() => None,
            Some(_) => Some(MachineRoot::emulator(plan.architecture)),
            None => binfmt::needed_emulator(plan.architecture)?,
        };
        let emulator = emulator.map(|by| (plan.architecture, by));
        let mut wanted: Vec<&str> = ALWAYS.to_vec();
        let images = plan.steps.iter().filter_map(|step| step.image.as_ref());
        for image in images.filter(|image| image.strategy == Strategy::Mounted) {
            wanted.extend(MOUNTING.iter().chain(&IMAGES));
            let kinds = image.partitions.iter().map(|partition| partition.contents.kind);
            wanted.extend(kinds.filter(|kind| kind.is_kernels()).filter_map(FilesystemKind::fstab_type));
        }
        wanted.sort_unstable();
        wanted.dedup();
        if emulator.is_some() {
            wanted.push(FOREIGN);
        }
        let environment = build.environment.iter().map(|(name, value)| (name.clone(), proxy(name, value))).collect();
        let network = plan.steps.iter().any(|step| step.action().is_ok_and(|action| action.needs().network));
        let visible = visible(plan, &[store.root(), &artifact_dir]);
        let build = Build {
            lender: Some(super::prepare::LENDER.into()),
            sandbox: Sandbox::new(Isolation::Namespaces),
            checkpoints: Checkpoints::Overlay { userxattr: false },
            id_map: id_map(),
            artifact_dir: artifact_dir.clone(),
            by: build.by.clone().in_machine(),
            environment,
            ..build
        };
        Ok(Start {
            modules: wanted.into_iter().map(str::to_owned).collect(),
            visible,
            network,
            emulator,
            environment: build.environment.clone(),
            job: serde_json::to_value(Job::Build(Box::new(build)))?,
            ..self.idle(store, &artifact_dir)?
        })
    }
}

/// Keeps up with what the machine's store has, for a machine that ends without a word.
fn note(known: &mut Elsewhere, event: &Event) {
    if let Event::Resolved { id, .. } = event {
        known.trees.insert(id.0.clone());
        known.outputs.insert(id.0.clone());
    }
}

/// Directories that the steps of a plan read; what is debforge's `own` is not looked through.
fn visible(plan: &Plan, own: &[&Path]) -> Vec<PathBuf> {
    let mut all = BTreeSet::new();
    for step in &plan.steps {
        all.insert(step.recipe_dir.clone());
        above(&step.properties, &step.recipe_dir, &mut all);
        if step.action == "run" {
            all.extend(crate::actions::run::linked_directories(&step.recipe_dir, own));
        }
    }
    all.into_iter().filter_map(|path| path.canonicalize().ok()).collect()
}

/// What properties name beside the recipe's directory (`../overlay`).
fn above(value: &serde_json::Value, recipe_dir: &Path, all: &mut BTreeSet<PathBuf>) {
    match value {
        serde_json::Value::String(text) if Path::new(text).components().any(|part| part == Component::ParentDir) => {
            // Behind a script there are its arguments.
            for text in [text.as_str(), text.split_whitespace().next().unwrap_or_default()] {
                let path = recipe_dir.join(text);
                if path.is_dir() {
                    all.insert(path);
                } else if let Some(parent) = path.parent().filter(|_| path.is_file()) {
                    all.insert(parent.to_owned());
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| above(value, recipe_dir, all)),
        serde_json::Value::Object(values) => values.values().for_each(|value| above(value, recipe_dir, all)),
        _ => {}
    }
}
