//! Files of file systems that no program reads, and only a kernel does: this one's for root, else that of a
//! machine.

use std::path::Path;

use anyhow::Result;

use super::{Machine, local, vm};
use crate::build::Event;
use crate::build::image::mounts;
use crate::diagnostics::{Fault, fault_of};
use crate::engine::Job;
use crate::store::Store;

/// Packs the files of the file system in `image` into `archive`, both in the directory `work`.
pub fn take_out(store: &Store, work: &Path, image: &str, kind: &str, archive: &str) -> Result<()> {
    let local = local::probe(store.root()).ok().filter(|local| local.mounts_devices() && mounts(kind));
    let machine = match local {
        Some(local) => Machine::Local(local),
        None => Machine::Virtual(Box::new(any(store, kind)?)),
    };
    let job = |place: &Path| Job::TakeOut { image: place.join(image), kind: kind.into(), archive: place.join(archive) };
    let mut failed = None;
    let mut on_event = |event: Event| {
        if let Event::Finished { fault, .. } = event {
            failed = fault;
        }
    };
    match &machine {
        Machine::Local(local) => local::start(local, &serde_json::to_value(job(work))?, &mut on_event)?,
        Machine::Virtual(machine) => machine.work(store, work, kind, &job, &mut on_event)?,
    }
    failed.map_or(Ok(()), |fault| Err(fault.into()))
}

/// The fastest machine that works without anything being fetched for it.
fn any(store: &Store, kind: &str) -> Result<vm::Machine> {
    let mut fault = Fault::machine(format!("only a kernel reads the files of {kind}"));
    for hypervisor in vm::KINDS {
        match vm::known_to_work(hypervisor, store) {
            Ok(working) => return Ok(working.machine),
            Err(error) => fault = fault.hint(format!("{}: {}", hypervisor.name(), fault_of(&error).message)),
        }
    }
    Err(fault.hint("as root, or with a machine (sudo apt install user-mode-linux libslirp-helper), they can be").into())
}
