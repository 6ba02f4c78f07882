//! Whether machines start here: tried with one that does nothing, and remembered until this machine starts
//! anew or the kernel of the machine changes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::outside::{Machine, Options, find};
use super::{Hypervisor, kernel};
use crate::debian::Architecture;
use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::machine::qemu::{Accelerator, program};
use crate::store::Store;

/// A kind of machine that works here.
#[derive(Debug)]
pub struct Working {
    /// The machine.
    pub machine: Machine,
    /// How long its first process took to start.
    pub start: Duration,
}

/// The kinds of machines, the fastest first.
pub const KINDS: [Hypervisor; 3] = [Hypervisor::Kvm, Hypervisor::Uml, Hypervisor::Qemu];

/// A machine of a kind that has been seen to start here; a fault says why there is none.
pub fn working(
    hypervisor: Hypervisor,
    options: Options,
    store: &Store,
    progress: &mut dyn FnMut(&str),
) -> Result<Working> {
    let machine = find(hypervisor, options, store, progress)?;
    let kernel = machine.kernel();
    let (image, release) = (&kernel.image, &kernel.release);
    let kernel = format!("{}\0{release}\0{}", image.display(), stamp(image));
    let key = format!("machine\0{}\0{kernel}\0{}", hypervisor.name(), boot_id());
    let known = store.recall(&key);
    let seconds = known.as_ref().and_then(|fact| fact.get("seconds")?.as_f64());
    if let Some(seconds) = seconds {
        return Ok(Working { machine, start: Duration::from_secs_f64(seconds) });
    }
    if let Some(why) = known.as_ref().and_then(|fact| fact.get("fault")?.as_str()) {
        return Err(Fault::machine(why).into());
    }
    match machine.try_start(store) {
        Ok(start) => {
            store.remember(&key, &json!({ "seconds": start.as_secs_f64() }));
            Ok(Working { machine, start })
        }
        Err(error) => {
            let fault = fault_of(&error);
            // An interrupted probe has found out nothing.
            if fault.kind != FaultKind::Interrupted {
                store.remember(&key, &json!({ "fault": fault.message }));
            }
            Err(Fault { kind: FaultKind::Machine, ..fault }.into())
        }
    }
}

/// The same without fetching anything for it.
pub fn known_to_work(hypervisor: Hypervisor, store: &Store) -> Result<Working> {
    let (kind, package) = match hypervisor {
        Hypervisor::Uml => (kernel::Kind::Uml, "user-mode-linux"),
        Hypervisor::Kvm | Hypervisor::Qemu => (kernel::Kind::Linux, "linux-image"),
    };
    if hypervisor == Hypervisor::Kvm {
        kvm(store)?;
    }
    if !kernel::is_at_hand(kind, store) {
        return Err(Fault::machine(format!(
            "not tried: no kernel is installed, and the first build fetches {package}"
        ))
        .hint(format!("`debforge build RECIPE -b {}` does", hypervisor.name()))
        .into());
    }
    working(hypervisor, Options { at_hand: true, ..Options::default() }, store, &mut |_| {})
}

/// What a machine's processor runs by: KVM where a kernel has been seen to start by it, since there are machines where
/// no more than a boot sector does. A kernel is fetched for that, where none is at hand.
pub fn accelerator(
    architecture: Architecture,
    qemu: &Path,
    store: &Store,
    progress: &mut dyn FnMut(&str),
) -> Accelerator {
    match Accelerator::find(architecture, qemu, store) {
        Accelerator::Kvm => match working(Hypervisor::Kvm, Options::default(), store, progress) {
            Ok(_) => Accelerator::Kvm,
            Err(error) => Accelerator::Tcg(Some(fault_of(&error).message)),
        },
        emulated => emulated,
    }
}

/// Whether KVM runs anything here; a fault says why not.
pub(super) fn kvm(store: &Store) -> Result<()> {
    let host = Architecture::host();
    match Accelerator::find(host, &program(host)?, store) {
        Accelerator::Kvm => Ok(()),
        Accelerator::Tcg(why) => {
            let why = why.unwrap_or_else(|| "it is not there".into());
            Err(Fault::machine(format!("KVM does not work here: {why}"))
                .hint("`-b qemu` emulates a processor, `-b uml` needs none")
                .into())
        }
    }
}

impl Machine {
    /// Starts a machine that does nothing, and says how long its first process took.
    fn try_start(&self, store: &Store) -> Result<Duration> {
        let scratch = store.scratch()?;
        let started = Instant::now();
        let mut alive = None;
        self.run(self.idle(store, &scratch.path)?, &mut |message| {
            if let crate::machine::process::Message::Alive = message {
                alive.get_or_insert_with(|| started.elapsed());
            }
        })?;
        alive.context("the machine ended without a word")
    }
}

fn stamp(path: &Path) -> String {
    std::fs::metadata(path).map(|stat| format!("{}-{}", stat.size(), stat.mtime())).unwrap_or_default()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}
