//! Where a step's processes run: namespaces, mounts, chroot, seccomp.
//!
//! The engine itself already lives in its own user and mount namespace (see `machine::local`);
//! each command gets pid, ipc, uts and mount namespaces of its own, which die with it.

pub mod binfmt;
pub mod constant;
mod cover;
mod descendants;
mod device;
mod fence;
mod filter;
mod init;
mod limits;
mod lines;
mod mounts;
mod place;
mod plain;
mod powers;
mod run;
mod sockets;
mod stated;
mod supervisor;
mod uniform;
mod view;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use constant::Told;
pub use fence::missing as unfenced;
pub use uniform::Uniform;

/// What keeps a command apart from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Own mount, pid, ipc, uts (and on request network) namespaces.
    Namespaces,
    /// `chroot` alone, for containers where `unshare` and `mount` are forbidden.
    Chroot,
}

/// What a command sees as its file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The target root and nothing else: a private /dev, /proc of the command's own pid namespace in which
    /// the machine is a stated one, hardly any /sys, fresh /tmp and /dev/shm.
    Chroot {
        /// The target root on the host.
        root: PathBuf,
    },
    /// The host's system read-only, a private /tmp, /proc and /sys as for [`View::Chroot`], and `writable` as they are. Where `root` is
    /// given it is writable and prepared as for [`View::Chroot`], so that a program such as apt
    /// can chroot into it.
    Host {
        /// The target root on the host, or where a bind shows it.
        root: Option<PathBuf>,
        /// Other host paths that stay writable.
        writable: Vec<PathBuf>,
    },
    /// As [`View::Host`], but of the host's system programs alone, and what dpkg knows of them: all else is empty,
    /// /etc too.
    HostPrograms {
        /// The target root on the host, or where a bind shows it.
        root: Option<PathBuf>,
        /// Other host paths that stay writable.
        writable: Vec<PathBuf>,
        /// A directory with what is to be in /etc. Where something can be mounted, it is bound there.
        settings: PathBuf,
        /// What is left out of what binds show, where nothing can be mounted; elsewhere binds are made of the rest.
        hidden: Vec<PathBuf>,
    },
}

/// Something of the host made visible to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// File or directory on the host.
    pub source: PathBuf,
    /// Absolute; inside the root for [`View::Chroot`], as seen from the host for [`View::Host`]
    /// (so it may lie below the root's path). Created for the command, removed after it.
    pub target: PathBuf,
    /// Whether the command may not write to it.
    pub read_only: bool,
}

/// What a command reads from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Nothing.
    #[default]
    Null,
    /// This text.
    Text(String),
    /// The user's terminal, also for output: an interactive shell.
    Terminal,
}

/// A command and its surroundings, complete: nothing is inherited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program, then arguments. The program is looked up in the view's PATH.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// Working directory in the view; `/` where `None`.
    pub directory: Option<PathBuf>,
    /// What it sees.
    pub view: View,
    /// What is made visible to it beside the view.
    pub binds: Vec<Bind>,
    /// Whether it has the host's network; else only a loopback of its own.
    pub network: bool,
    /// What it reads from.
    pub input: Input,
    /// A tree that it sees the same on every host, as far as the kernel lets that be done; where it does
    /// not, [`Stream::Note`] has the reason.
    pub uniform: Option<Uniform>,
    /// Whether it may change how a file system is mounted (`mount -o remount`) that others see too. Where
    /// it is root's, most of them are the host's. It is one that has a device, and is told of it and of what is mounted.
    pub remounts: bool,
    /// What it is told of the machine.
    pub told: Told,
}

/// Where a line about a command came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// The sandbox: what it could not do for the command.
    Note,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal; 9 without our doing is most often the kernel's out-of-memory killer.
    Signal(i32),
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// A command was not started because the kernel forbids what would keep it apart, rather than because something
/// went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(pub String);

/// Whether a code of the kernel's says that something is not to be had here, and will not be the next time either.
pub(crate) fn forbids(code: Errno) -> bool {
    // ENOSPC is a limit of namespaces (user_namespaces(7)).
    matches!(
        code,
        Errno::EPERM
            | Errno::EACCES
            | Errno::ENOSYS
            | Errno::EINVAL
            | Errno::EOPNOTSUPP
            | Errno::ENOSPC
            | Errno::EUSERS
    )
}

/// Runs commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sandbox {
    /// What keeps commands apart from the host here.
    pub isolation: Isolation,
    /// The emulator that was registered for this build alone, if any; see [`Sandbox::emulating`].
    #[serde(skip)]
    pub binfmt: Option<Arc<binfmt::PrivateBinfmt>>,
}

impl Sandbox {
    /// A sandbox for programs that run here without more ado.
    pub fn new(isolation: Isolation) -> Self {
        Self { isolation, binfmt: None }
    }
}

/// The program that runs the sandbox's inner side: this one, unless [`use_program`] said otherwise.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Names the debforge program, for callers (tests) that are another program themselves.
pub fn use_program(path: impl Into<PathBuf>) {
    let path = path.into();
    PROGRAM.get_or_init(|| path);
}

/// A path to the debforge program.
pub(crate) fn program() -> &'static Path {
    PROGRAM.get_or_init(|| "/proc/self/exe".into())
}

/// The hidden subcommand that a sandboxed command starts as: reads its job from the inherited
/// descriptor `fd`, sets everything up and watches over the command. Gives the exit code of this
/// process, not of the command, which is reported to [`Sandbox::run`].
pub fn init(fd: i32) -> i32 {
    match init::run(fd) {
        Ok(()) => 0,
        Err(_) => 70,
    }
}

/// Whether ids mean here what they mean to the machine.
pub(crate) fn in_initial_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map");
    map.map_or(true, |map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
