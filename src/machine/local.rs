//! This machine, in namespaces of the engine's own.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use super::identity::{Identity, Range};
use super::probe::{Findings, Question, Refusal};
use super::process::{self, Job, Message};
use crate::build::Event;
use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::sandbox::{Isolation, Sandbox, in_initial_user_namespace, unfenced};
use crate::store::{Checkpoints, IdMap};

/// How builds run here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Local {
    /// How commands are run.
    pub sandbox: Sandbox,
    /// How the root's state after each step is kept.
    pub checkpoints: Checkpoints,
    /// Which trees of the store can be used.
    pub id_map: IdMap,
    /// Who the engine is.
    pub identity: Identity,
    /// "local, rootless (uid 1000 → 100000+65536)".
    pub description: String,
    /// What is weaker here than elsewhere, one line each.
    pub notes: Vec<String>,
}

impl Local {
    /// Whether file systems on devices can be mounted: as root of the machine alone.
    pub fn mounts_devices(&self) -> bool {
        self.identity == Identity::Root
            && self.sandbox.isolation == Isolation::Namespaces
            && in_initial_user_namespace()
    }
}

/// Finds the strongest way to build here by trying; `store_root` is made where it is not there. A
/// fault says what the machine lacks and how to get it.
pub fn probe(store_root: &Path) -> Result<Local> {
    let identity = Identity::current()?;
    std::fs::create_dir_all(store_root).with_context(|| format!("making the store {}", store_root.display()))?;
    let store = store_root.canonicalize().with_context(|| format!("opening the store {}", store_root.display()))?;
    let findings = ask(&identity, Isolation::Namespaces, &store)?;
    let refusal = match &findings.sandbox {
        Ok(()) => return Ok(local(identity, Isolation::Namespaces, &findings, Vec::new())),
        // What is not known is no reason to go on with less.
        Err(refusal) if !refusal.forbidden => return Err(refusal.unknown().into()),
        Err(refusal) => &refusal.why,
    };
    match identity {
        Identity::Root => {
            let why = refusal;
            let findings = ask(&identity, Isolation::Chroot, &store)?;
            if let Err(error) = &findings.sandbox {
                return Err(Fault::machine(format!(
                    "commands can neither run in namespaces ({why}) nor plain ({error})"
                ))
                .hint("run as root with CAP_SYS_CHROOT, or as an ordinary user")
                .into());
            }
            let note = format!(
                "namespaces are forbidden here ({why}): build processes share this container's processes and network"
            );
            let mut notes = vec![note];
            notes.extend(unfenced().map(|what| {
                format!("this kernel keeps what scripts of the target do from this container's {what} only as far as their paths tell (it has no Landlock, or an old one)")
            }));
            Ok(local(identity, Isolation::Chroot, &findings, notes))
        }
        Identity::Mapped { .. } | Identity::Alone { .. } => Err(no_user_namespace(refusal).into()),
    }
}

/// Whether a process of this identity can be kept in namespaces; why not.
///
/// An error is that it could not be found out.
pub(super) fn try_confining(identity: &Identity, store: &Path) -> Result<Result<(), String>> {
    match ask(identity, Isolation::Namespaces, store)?.sandbox {
        Ok(()) => Ok(Ok(())),
        Err(refusal) if refusal.forbidden => Ok(Err(refusal.why)),
        Err(refusal) => Err(refusal.unknown().into()),
    }
}

fn ask(identity: &Identity, isolation: Isolation, store: &Path) -> Result<Findings> {
    let (mut findings, mut forbidden) = (None, None);
    let ran =
        process::run(
            identity,
            isolation,
            &Job::Probe(Question { store: store.into() }),
            &mut |message| match message {
                Message::Findings(found) => findings = Some(found),
                Message::Forbidden(why) => forbidden = Some(why),
                _ => {}
            },
        );
    if let Some(why) = forbidden {
        let sandbox = Err(Refusal { why: why.clone(), forbidden: true });
        return Ok(Findings { sandbox, overlay: Err(why), reflink: false });
    }
    if let Err(error) = ran {
        let fault = fault_of(&error);
        // A fault that names its way out stays as it is.
        if fault.kind == FaultKind::Interrupted || !fault.hints.is_empty() {
            return Err(error);
        }
        return Err(Fault { tail: fault.tail, ..Refusal { why: fault.message, forbidden: false }.unknown() }.into());
    }
    findings.context("the engine did not say what it can do")
}

fn local(identity: Identity, isolation: Isolation, findings: &Findings, mut notes: Vec<String>) -> Local {
    let checkpoints = match &findings.overlay {
        Ok(userxattr) => Checkpoints::Overlay { userxattr: *userxattr },
        Err(why) if findings.reflink => {
            notes.push(format!(
                "no overlays in the store ({why}): the root is copied with shared extents before each step"
            ));
            Checkpoints::Reflink
        }
        Err(why) => {
            notes.push(format!(
                "no overlays and no shared extents in the store ({why}): no checkpoints, a change reruns all steps"
            ));
            Checkpoints::None
        }
    };
    let how = match isolation {
        Isolation::Namespaces => "",
        Isolation::Chroot => ", without namespaces",
    };
    Local {
        sandbox: Sandbox::new(isolation),
        checkpoints,
        id_map: map_of(&identity, checkpoints),
        description: format!("local, {}{how}", identity.describe()),
        identity,
        notes,
    }
}

/// Layers of an overlay are of no use where roots are whole, and the other way round.
fn map_of(identity: &Identity, checkpoints: Checkpoints) -> IdMap {
    let IdMap(owners) = identity.id_map();
    match checkpoints {
        Checkpoints::Overlay { .. } => IdMap(owners),
        Checkpoints::Reflink => IdMap(format!("{owners}-copies")),
        Checkpoints::None => IdMap(format!("{owners}-plain")),
    }
}

/// Switches by which machines forbid user namespaces, what sets each right, and the forbidding value.
const SWITCHES: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl user.max_user_namespaces=65536"),
];

fn no_user_namespace(why: &str) -> Fault {
    let fault = Fault::machine(format!("this machine does not let ordinary users build: {why}"));
    let switch = SWITCHES
        .iter()
        .find(|(file, forbidding, _)| std::fs::read_to_string(file).is_ok_and(|value| value.trim() == *forbidding));
    match switch {
        Some((_, _, remedy)) => fault.hint(*remedy),
        None => fault.hint("in a container: allow user namespaces in it, or run debforge in it as root"),
    }
}

/// Runs a job in the engine (see [`crate::engine::serve`]), which is root over the store's trees
/// there, and hands over the events of the build.
pub fn start(local: &Local, job: &serde_json::Value, on_event: &mut dyn FnMut(Event)) -> Result<()> {
    let job = Job::Serve(job.clone());
    process::run(&local.identity, local.sandbox.isolation, &job, &mut |message| {
        if let Message::Event(event) = message {
            on_event(event);
        }
    })
}
