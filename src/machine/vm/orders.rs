//! What the machine's first process is told, as a file that it finds when it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::debian::Architecture;

/// Everything that the guest has to set up, and what it does then.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Orders {
    /// Kernel modules to load first, in this order.
    pub modules: Vec<PathBuf>,
    /// What the guest sees of the machine around it, outermost first.
    pub shares: Vec<Share>,
    /// Name of a virtiofs with all that is shared, as it stands outside.
    pub outside: Option<String>,
    /// Symbolic links at the top of its root: name and target.
    pub links: Vec<(String, String)>,
    /// Device with a root of the guest's own; else what is shared makes one.
    pub root: Option<PathBuf>,
    /// Files to write in such a root: path and contents.
    pub files: Vec<(PathBuf, String)>,
    /// Device with the store.
    pub disk: PathBuf,
    /// Where the store stands.
    pub store: PathBuf,
    /// Name of the network interface; none without a network.
    pub interface: Option<String>,
    /// Line to the machine around it.
    pub channel: PathBuf,
    /// Terminal for shells.
    pub terminal: PathBuf,
    /// Size of that terminal in rows and columns.
    pub window: Option<(u16, u16)>,
    /// Architecture whose programs are to run, and what emulates them.
    pub emulator: Option<(Architecture, PathBuf)>,
    /// Environment of the engine.
    pub environment: BTreeMap<String, String>,
    /// What the engine is to do; see [`crate::engine::Job`].
    pub job: serde_json::Value,
}

/// A directory (or file system) of the machine around the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Share {
    /// How it comes into the guest.
    pub way: Way,
    /// Where it is mounted.
    pub at: PathBuf,
    /// Whether nobody writes to it.
    pub read_only: bool,
}

/// How something comes into the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// UML's hostfs: a path outside.
    Hostfs(PathBuf),
    /// 9p over virtio: the name that the machine gave it.
    Plan9(String),
    /// A directory of [`Orders::outside`].
    Within(PathBuf),
    /// A block device and its file system.
    Device(PathBuf, String),
}
