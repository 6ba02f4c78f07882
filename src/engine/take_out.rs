//! The files of a file system that only the kernel can read, as an archive.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::build::image::{Loop, Part};
use crate::diagnostics::Fault;

/// Mounts the file system in `image` and packs its files into `archive`, which is made.
pub(super) fn take_out(image: &Path, kind: &str, archive: &Path) -> Result<()> {
    // Beside the archive, where a killed process leaves nothing that is not cleared away.
    let place = tempfile::tempdir_in(archive.parent().context("an archive without a directory")?);
    let place = place.context("making a mount point")?;
    let length = image.metadata().with_context(|| format!("opening {}", image.display()))?.len();
    let part = Part { image, offset: 0, length, read_only: true, sector_size: 512, partitioned: false };
    let device = Loop::attach(&part, place.path())?;
    let at = place.path().join("files");
    std::fs::create_dir(&at)?;
    // What a journal has beside cannot be played back from a device that is only read.
    let options = match kind {
        "xfs" => "norecovery,nouuid",
        "f2fs" => "norecovery",
        _ => "",
    };
    mount(Some(&device.node), &at, Some(kind), MsFlags::MS_RDONLY, Some(options))
        .with_context(|| format!("mounting {kind}"))?;
    let packed = pack(&at, archive);
    umount2(&at, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {kind}"))?;
    device.detach()?;
    packed
}

fn pack(from: &Path, archive: &Path) -> Result<()> {
    let output = Command::new("tar")
        .args(["--create", "--sparse", "--numeric-owner", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(from)
        .arg(".")
        .output()
        .context("starting tar")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault::failed(format!("tar could not read all files ({})", output.status))
        .tail(said.lines().map(str::to_owned).collect())
        .into())
}
