//! A root for machines that debforge builds itself, so that the tools of the machine around do not matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::debian::Architecture;
use crate::diagnostics::Fault;
use crate::say;
use crate::store::Store;

/// What it is made from.
const RECIPE: &str = include_str!("machine-root.yaml");

/// Suites whose tools are known to do.
const SUITES: [&str; 4] = ["bookworm", "trixie", "forky", "sid"];

/// The suite where this machine has none of those.
const SUITE: &str = "trixie";

/// A root, as a file system in a file.
#[derive(Debug, Clone)]
pub struct MachineRoot {
    /// An ext4.
    pub image: PathBuf,
    /// dpkg's database in it: versions of tools are part of what steps depend on.
    pub status: PathBuf,
}

impl MachineRoot {
    /// The root that the store has, else a new one, built by this program where it can. `foreign`: with
    /// emulators of other architectures.
    pub fn find(store: &Store, foreign: bool) -> Result<Self> {
        let (suite, foreign) = (suite(), if foreign { "yes" } else { "no" });
        let name = blake3::hash(format!("{RECIPE}\0{suite}\0{foreign}").as_bytes()).to_hex()[..16].to_owned();
        let place = store.machines().join(format!("root-{name}"));
        let root = Self { image: place.with_extension("ext4"), status: place.with_extension("status") };
        if !root.image.exists() || !root.status.exists() {
            root.build(store, suite, foreign)?;
        }
        // The store drops what was not used for longest. Best effort: a store may be one to read only.
        let used = fs::File::open(&root.image).and_then(|image| image.set_modified(SystemTime::now()));
        used.unwrap_or_else(|error| tracing::debug!("{}: {error}", root.image.display()));
        Ok(root)
    }

    fn build(&self, store: &Store, suite: &str, foreign: &str) -> Result<()> {
        let scratch = store.scratch()?;
        let recipe = scratch.path.join("machine-root.yaml");
        fs::write(&recipe, RECIPE).context("writing the recipe of the machine's root")?;
        say!("the root of machines is built first, once");
        let variable = |name: &str, value: &str| ["-t".to_owned(), format!("{name}:{value}")];
        let status = Command::new(super::own_program()?)
            .arg("build")
            .arg(&recipe)
            .args(variable("suite", suite))
            .args(variable("foreign", foreign))
            .args(variable("architecture", Architecture::host().name()))
            .arg("--artifactdir")
            .arg(&scratch.path)
            .arg("--store")
            .arg(store.root())
            .stdout(std::process::Stdio::null())
            .status()
            .context("starting debforge")?;
        if !status.success() {
            return Err(Fault::failed("the root of machines could not be built")
                .hint("without `--machine-root` machines use the programs of this one")
                .into());
        }
        say!();
        for (name, place) in [("status", &self.status), ("root.ext4", &self.image)] {
            fs::rename(scratch.path.join(name), place).with_context(|| format!("keeping {}", place.display()))?;
        }
        Ok(())
    }

    /// dpkg's database in it.
    pub(super) fn packages(&self) -> Result<String> {
        fs::read_to_string(&self.status).with_context(|| format!("reading {}", self.status.display()))
    }

    /// Where it has the emulator of an architecture.
    pub fn emulator(architecture: Architecture) -> PathBuf {
        let ending = if suite() == "bookworm" { "-static" } else { "" };
        Path::new("/usr/bin").join(format!("qemu-{}{ending}", architecture.qemu()))
    }
}

/// That of this machine where it is a Debian, so that its program finds the libraries that it was built with.
fn suite() -> &'static str {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let own = own.map(|name| name.trim_matches('"'));
    SUITES.into_iter().find(|suite| Some(*suite) == own).unwrap_or(SUITE)
}
