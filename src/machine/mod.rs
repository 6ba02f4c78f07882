//! Where a build runs, and the processes that debforge starts as itself.

pub mod atomic;
mod identity;
pub mod local;
mod probe;
mod process;
pub mod qemu;
mod take_out;
pub mod vm;

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use self::local::Local;
use crate::build::Event;
use crate::engine::{Build, Job};
use crate::store::{Elsewhere, IdMap, Store};

pub use crate::debian::host::find_program;
pub use process::interruptible;
pub use take_out::take_out;

/// Where a build runs.
#[derive(Debug)]
pub enum Machine {
    /// Here, in namespaces.
    Local(Local),
    /// In a machine of its own.
    Virtual(Box<vm::Machine>),
}

impl Machine {
    /// "local, rootless (uid 1000 → 100000+65536)".
    pub fn description(&self) -> &str {
        match self {
            Self::Local(local) => &local.description,
            Self::Virtual(machine) => &machine.description,
        }
    }

    /// What is weaker here than elsewhere, one line each.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Local(local) => &local.notes,
            Self::Virtual(machine) => &machine.notes,
        }
    }

    /// Which trees of the store can be used.
    pub fn id_map(&self) -> IdMap {
        match self {
            Self::Local(local) => local.id_map.clone(),
            Self::Virtual(_) => vm::id_map(),
        }
    }

    /// What the store has that builds there use, where it is not this machine's.
    pub fn elsewhere(&self, store: &Store) -> Option<Elsewhere> {
        match self {
            Self::Local(_) => None,
            Self::Virtual(_) => Some(vm::contents(store)),
        }
    }

    /// Has a build carried out, which is handed over as for this machine's own engine. Its last event is
    /// [`Event::Finished`], unless the machine itself fails: then there is an error.
    pub fn build(&self, store: &Store, build: Build, on_event: &mut dyn FnMut(Event)) -> Result<()> {
        match self {
            Self::Local(local) => {
                let build = Build {
                    sandbox: local.sandbox.clone(),
                    checkpoints: local.checkpoints,
                    id_map: local.id_map.clone(),
                    ..build
                };
                local::start(local, &serde_json::to_value(Job::Build(Box::new(build)))?, on_event)
            }
            Self::Virtual(machine) => machine.build(store, build, on_event),
        }
    }
}

/// Runs the hidden subcommand that the arguments (without the program's name) are for, if they
/// are: `__sandbox FD`, `__engine JOB EVENTS`, `__guest ORDERS` and `__binfmt`. Gives the process's exit code.
pub fn hidden(arguments: &[OsString]) -> Option<i32> {
    let mut words = arguments.iter().map(|argument| argument.to_str().unwrap_or_default());
    // The kernel hands over words of its command line that it does not know, before those that are for us.
    if let [.., name, orders] = arguments
        && name == vm::guest::NAME
    {
        return Some(vm::guest::main(Path::new(orders)));
    }
    let name = words.next()?;
    let numbers: Vec<i32> = words.map_while(|word| word.parse().ok()).collect();
    match (name, numbers.as_slice()) {
        ("__sandbox", [job]) => Some(crate::sandbox::init(*job)),
        ("__binfmt", []) => Some(crate::sandbox::binfmt::helper()),
        ("__engine", [job, events]) => Some(process::engine(*job, *events)),
        _ => None,
    }
}
