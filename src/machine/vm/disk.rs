//! The disk that a machine's store is on: a sparse file in this machine's store, kept from build to build.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::host::find_program;
use crate::diagnostics::Fault;
use crate::store::{DiskLock, Store, Waiting};

/// A disk that no other build uses meanwhile. What it has is the same whatever runs the machine.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    _lock: DiskLock,
}

impl Disk {
    /// Takes the disk, making it where there is none; `waiting` is called once where another build has it.
    pub(super) fn take(store: &Store, size: u64, waiting: Waiting<'_>) -> Result<Self> {
        let lock = store.lock_machine_disk(waiting)?;
        let path = store.machine_disk();
        match path.metadata() {
            Ok(meta) if meta.len() == size => {}
            Ok(meta) if meta.len() < size => grow(&path, size)?,
            // A smaller one takes the place of a larger: what it holds can be made again.
            _ => {
                let _ = std::fs::remove_file(store.machine_contents());
                make(&path, size)?;
            }
        }
        Ok(Self { path, _lock: lock })
    }

    /// Bytes that it takes of this machine's disk.
    pub(super) fn allocated(&self) -> u64 {
        self.path.metadata().map_or(0, |meta| meta.blocks() * 512)
    }
}

/// Makes an empty one under another name, and gives it its own when it is whole.
fn make(path: &Path, size: u64) -> Result<()> {
    let directory = path.parent().context("a disk without a directory")?;
    let fresh = tempfile::NamedTempFile::new_in(directory).context("making a disk for the machine")?;
    fresh.as_file().set_len(size).context("making a disk for the machine")?;
    // No room for root alone, and inode tables that are written when they are used. The journal is what
    // makes a machine that is switched off at any moment start again.
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    let words = ["-q", "-F", "-t", "ext4", "-m", "0", "-L", "debforge", "-J", "size=32", "-i", "32768", "-E", options];
    run("mke2fs", words.iter().map(AsRef::as_ref).chain([fresh.path()]))?;
    fresh.persist(path).with_context(|| format!("making {}", path.display()))?;
    Ok(())
}

fn grow(path: &Path, size: u64) -> Result<()> {
    let file = File::options().write(true).open(path).with_context(|| format!("opening {}", path.display()))?;
    file.set_len(size).with_context(|| format!("growing {}", path.display()))?;
    // A journal that was not played back stands in the way of both.
    run("e2fsck", [Path::new("-fp"), path]).or_else(|_| run("e2fsck", [Path::new("-fy"), path]))?;
    run("resize2fs", [path])
}

fn run<'a>(name: &str, arguments: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let Some(program) = find_program(name) else {
        return Err(Fault::machine(format!("{name} is missing, which makes the machine's disk"))
            .hint("sudo apt install e2fsprogs")
            .into());
    };
    let output = Command::new(program).args(arguments).output().with_context(|| format!("starting {name}"))?;
    // Of e2fsck, 1 says that it mended something.
    if output.status.success() || (name == "e2fsck" && output.status.code() == Some(1)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault::failed(format!("{name} could not make the machine's disk ({})", output.status))
        .tail(said.lines().map(str::to_owned).collect())
        .into())
}
