//! The step loop: restore or run each step of a plan, seal its result, report.
//!
//! Runs inside the machine (see `machine`): as root of its own namespaces, or in a container as it
//! is. One [`Job`] comes in, [`Event`]s go out.

mod artifacts;
mod epoch;
mod paced;
mod root;
mod secrets;
mod shell;
mod steps;
mod take_out;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::build::{Event, Reporter};
use crate::diagnostics::{Fault, fault_of};
use crate::plan::Plan;
use crate::sandbox::Sandbox;
use crate::store::{Checkpoints, EntryId, Holder, IdMap, Store, Surplus, Tree};

/// The store does not have what it seemed to have of a step: that is to be made again. Whatever was damaged or of
/// no use is dropped by then.
#[derive(Debug, thiserror::Error)]
#[error("what the store has of the step {id} is of no use: {why}")]
struct Lost {
    id: EntryId,
    why: String,
}

impl Lost {
    /// Drops a tree; an error that says so.
    fn tree(store: &Store, map: &IdMap, tree: Tree, why: String) -> anyhow::Error {
        let id = tree.id.clone();
        Self::dropped(id, why, store.drop_tree(map, tree))
    }

    /// Drops the artifacts that are kept of a step.
    fn outputs(store: &Store, id: &EntryId, why: String) -> anyhow::Error {
        Self::dropped(id.clone(), why, store.drop_outputs(id))
    }

    fn dropped(id: EntryId, why: String, dropped: Result<bool>) -> anyhow::Error {
        match dropped {
            Ok(true) => Self { id, why }.into(),
            Ok(false) => {
                Fault::failed(format!("what the store has of a step is of no use ({why}), and held by another build"))
                    .hint("build again when that is done")
                    .into()
            }
            Err(error) => error,
        }
    }
}

/// What an engine is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Job {
    /// Carry out a plan.
    Build(Box<Build>),
    /// Remove entries of the store, as only their owner's namespace can.
    Remove {
        /// The store.
        store: PathBuf,
        /// Which.
        surplus: Surplus,
    },
    /// Look at every byte of the store, as only the owner of its entries can.
    Verify {
        /// The store.
        store: PathBuf,
    },
    /// Pack the files of a file system that only a kernel reads.
    TakeOut {
        /// The file that it is in.
        image: PathBuf,
        /// As mount(8) calls it.
        kind: String,
        /// An archive to be made.
        archive: PathBuf,
    },
    /// Nothing: a machine is only to be seen starting.
    Idle,
}

/// A plan and its surroundings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Build {
    /// What is to be done.
    pub plan: Plan,
    /// The store.
    pub store: PathBuf,
    /// In a machine of our own, the store of the machine around it; see [`Store::open_borrowing`].
    #[serde(default)]
    pub lender: Option<PathBuf>,
    /// Whose build it is, for those that wait for it.
    pub by: Holder,
    /// Where artifacts go and come from.
    pub artifact_dir: PathBuf,
    /// How commands are run.
    pub sandbox: Sandbox,
    /// How the root's states are kept.
    pub checkpoints: Checkpoints,
    /// Whose trees count.
    pub id_map: IdMap,
    /// For every process: proxies, which enter no id, beside the plan's environment.
    pub environment: std::collections::BTreeMap<String, String>,
    /// Whether it is the second plan of one build, since what the first was made from had changed.
    #[serde(default)]
    pub replanned: bool,
    /// Stop after this step, without publishing artifacts.
    pub until: Option<usize>,
    /// Open a shell in the root when that is reached.
    pub shell: Option<String>,
    /// Open this shell in the root when a step fails.
    pub debug_shell: Option<String>,
}

/// Does a job. Its last event is [`Event::Finished`]; the error is only of a job that cannot be read.
pub fn serve(job: serde_json::Value, reporter: Arc<dyn Reporter>) -> Result<()> {
    let reporter = paced::Paced::new(reporter);
    crate::store::set_cancelled(crate::build::interrupted);
    match serde_json::from_value(job).context("reading the job")? {
        Job::Build(build) => {
            let mut at = None;
            let fault = steps::build(*build, &reporter, &mut at).err().map(|error| fault_of(&error));
            reporter.report(Event::Finished { fault, step: at });
        }
        Job::TakeOut { image, kind, archive } => {
            let fault = take_out::take_out(&image, &kind, &archive).err().map(|error| fault_of(&error));
            reporter.report(Event::Finished { fault, step: None });
        }
        Job::Verify { store } => {
            let verified = Store::open(&store).and_then(|store| store.verify());
            let fault = match verified {
                Ok(verified) => {
                    reporter.report(Event::Verified { verified });
                    None
                }
                Err(error) => Some(fault_of(&error)),
            };
            reporter.report(Event::Finished { fault, step: None });
        }
        Job::Idle => reporter.report(Event::Finished { fault: None, step: None }),
        Job::Remove { store, surplus } => {
            let removed = Store::open(&store).and_then(|store| store.remove(surplus));
            let fault = match removed {
                Ok(cleared) => {
                    reporter.report(Event::Cleared { cleared });
                    None
                }
                Err(error) => Some(fault_of(&error)),
            };
            reporter.report(Event::Finished { fault, step: None });
        }
    }
    Ok(())
}
