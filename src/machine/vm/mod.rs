//! Builds in a machine of their own: UML, or QEMU with or without KVM.
//!
//! ```text
//! front ── engine process of this machine ── sandbox ── linux.uml or qemu
//!          (watches: `watch`)                             │ kernel, then
//!                                                         └ debforge as first process (`guest`)
//!                                                            └ engine process, as on any machine
//! ```
//!
//! The front makes the plan and hands it to a process that watches over the machine; that one prepares a
//! disk for the store, a directory with the orders for the guest, and whatever the guest is to see of this
//! machine. The guest's first process is this program again: it runs the engine on the same plan, and its
//! messages come back over a line of their own.

mod channel;
mod console;
mod disk;
pub mod guest;
mod initramfs;
mod kernel;
mod lines;
mod modules;
mod network;
mod orders;
mod outside;
mod pieces;
mod prepare;
mod probe;
mod program;
mod qemu;
mod relay;
mod root;
mod surroundings;
mod uml;
mod virtiofs;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use self::network::proxy;
pub use self::outside::{Machine, Options, contents, find, id_map};
pub use self::probe::{KINDS, Working, accelerator, known_to_work, working};
pub use self::root::MachineRoot;
pub(super) use self::watch::watch;
use crate::debian::Architecture;
use crate::store::Holder;

/// What runs a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hypervisor {
    /// User-mode Linux: a kernel as a program.
    Uml,
    /// QEMU with this machine's processor.
    Kvm,
    /// QEMU, which emulates one.
    Qemu,
}

impl Hypervisor {
    /// As users name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

/// A machine that is to carry out a plan, complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Start {
    /// What runs it.
    pub hypervisor: Hypervisor,
    /// Its kernel.
    pub kernel: PathBuf,
    /// Directory with its own loader and C library, where it does not have this machine's.
    pub libraries: Option<PathBuf>,
    /// Whether the user named it.
    pub own_kernel: bool,
    /// Where its modules are, if it has any.
    pub modules_dir: Option<PathBuf>,
    /// Names of the modules that the build wants.
    pub modules: Vec<String>,
    /// A root of its own, as an ext4 in a file; else it uses the programs of this machine.
    pub root: Option<PathBuf>,
    /// In MiB.
    pub memory: u64,
    /// Number of processors; UML has one.
    pub processors: u32,
    /// Most that its disk may hold, in bytes.
    pub disk_size: u64,
    /// The store of this machine.
    pub store: PathBuf,
    /// Where artifacts go; the guest may write to it.
    pub artifact_dir: PathBuf,
    /// Another directory that it may write to, which it sees at [`prepare::WORK`].
    pub work: Option<PathBuf>,
    /// Other directories that the guest sees.
    pub visible: Vec<PathBuf>,
    /// Whether it has a network.
    pub network: bool,
    /// Architecture whose programs it has to emulate, and by what.
    pub emulator: Option<(Architecture, PathBuf)>,
    /// Environment of the engine.
    pub environment: BTreeMap<String, String>,
    /// What the engine is to do; see [`crate::engine::Job`].
    pub job: serde_json::Value,
}

impl Start {
    /// Whose build it is, if it is one.
    fn by(&self) -> Option<Holder> {
        serde_json::from_value(self.job.get("by")?.clone()).ok()
    }
}

/// Names of a machine's devices in the guest.
struct Devices {
    /// The disk with the store.
    disk: &'static str,
    /// The disk with a root of its own.
    root: &'static str,
    /// The line to the machine around it.
    channel: &'static str,
    /// The terminal for shells.
    terminal: &'static str,
    /// The network interface.
    interface: &'static str,
}

/// This program, as a file that a machine can be shown.
fn own_program() -> Result<PathBuf> {
    let named = crate::sandbox::program();
    let path = if named == Path::new("/proc/self/exe") { std::env::current_exe() } else { named.canonicalize() };
    path.context("finding debforge's own program")
}
