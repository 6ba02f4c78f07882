//! What the engine's process can really do here: tried, not guessed from versions.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::diagnostics::Fault;
use crate::sandbox::{Command, Exit, Forbidden, Input, Isolation, Sandbox, Told, View, in_initial_user_namespace};

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// Where the store is.
    pub(super) store: PathBuf,
}

/// What was found; where something does not work, the reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Findings {
    /// Whether a command runs in the sandbox.
    pub(super) sandbox: Result<(), Refusal>,
    /// Whether the store's file system takes overlays, and if so whether with `userxattr`.
    pub(super) overlay: Result<bool, String>,
    /// Whether the store's file system shares extents between copies.
    pub(super) reflink: bool,
}

/// Why a command does not run in the sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// Whether the kernel forbids it here; else it is not known what would have been.
    pub(super) forbidden: bool,
}

impl Refusal {
    fn of(error: &anyhow::Error) -> Self {
        Self { why: format!("{error:#}"), forbidden: error.downcast_ref::<Forbidden>().is_some() }
    }

    /// That it is not known, and what to do.
    pub(super) fn unknown(&self) -> Fault {
        Fault::machine(format!("it could not be found out whether this machine keeps commands apart: {}", self.why))
            .hint("try again; when it stays so, `--backend uml` builds in a machine of its own")
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// Tries everything, inside the engine's process.
pub(super) fn answer(question: &Question, isolation: Isolation) -> Findings {
    let sandbox = try_sandbox(isolation, &question.store).map_err(|error| Refusal::of(&error));
    let at = question.store.join(format!(".probe-{}", std::process::id()));
    let made = fs::create_dir(&at).with_context(|| format!("writing to the store {}", question.store.display()));
    let overlay = match (&made, isolation) {
        (Err(error), _) => Err(format!("{error:#}")),
        (Ok(()), Isolation::Chroot) => Err("mounting is forbidden".into()),
        (Ok(()), Isolation::Namespaces) => try_overlay(&at).map_err(|error| format!("{error:#}")),
    };
    let reflink = made.is_ok() && try_reflink(&at).unwrap_or(false);
    // Nothing is mounted below any more: an overlay that could not be taken down keeps its directory.
    if !at.join("merged/file").exists() {
        let _ = fs::remove_dir_all(&at);
    }
    Findings { sandbox, overlay, reflink }
}

/// Runs a command. Where nothing can be mounted, it is one that is given what it finds in a root.
fn try_sandbox(isolation: Isolation, store: &Path) -> Result<()> {
    let root = Some(store.to_owned()).filter(|_| isolation == Isolation::Chroot);
    let command = Command {
        argv: vec!["true".into()],
        environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        directory: None,
        view: View::Host { root, writable: Vec::new() },
        binds: Vec::new(),
        network: false,
        input: Input::Null,
        uniform: None,
        remounts: false,
        told: Told::Constant,
    };
    match Sandbox::new(isolation).run(&command, &mut |_, _| {})? {
        Exit::Code(0) => Ok(()),
        exit => bail!("`true` ended with {exit:?}"),
    }
}

/// An overlay that a build would use: written to, and with something of a lower layer removed.
fn try_overlay(at: &Path) -> Result<bool> {
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(at.join(name))?;
    }
    fs::write(at.join("lower/file"), "lower")?;
    fs::create_dir(at.join("lower/directory"))?;
    let userxattr = !in_initial_user_namespace();
    let merged = at.join("merged");
    let mut options = ["lower", "upper", "work"].map(|name| format!("{name}dir={}", escape(&at.join(name)))).join(",");
    // As builds mount it; else unmounting waits until the disk has all that was ever written to it.
    options.push_str(",volatile");
    if userxattr {
        options.push_str(",userxattr");
    }
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("mounting an overlay")?;
    let tried = (|| {
        fs::remove_dir(merged.join("directory"))?;
        fs::create_dir(merged.join("directory"))?;
        fs::remove_file(merged.join("file"))
    })();
    umount2(&merged, MntFlags::MNT_DETACH).context("unmounting an overlay")?;
    tried.context("working on an overlay")?;
    Ok(userxattr)
}

/// A path among overlay's mount options.
fn escape(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:")
}

fn try_reflink(at: &Path) -> Result<bool> {
    let (from, to) = (at.join("from"), at.join("to"));
    fs::write(&from, vec![1u8; 65536])?;
    let (from, to) = (File::open(&from)?, File::create(&to)?);
    Ok(crate::sys::file::share_extents(from.as_fd(), to.as_fd()).is_ok())
}
