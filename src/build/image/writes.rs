//! Bytes that are put over an image when its file systems are made.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::build::BuildContext;
use crate::build::inside::Inside;
use crate::diagnostics::Fault;
use crate::image::{Layout, Write, WriteSource, WriteTarget, sparse};

/// Bytes of a sector for the BIOS, whatever the disk says.
const SECTOR: u64 = 512;
/// Where GRUB's first sector keeps the number of the core image's first one (8 bytes; GRUB's
/// include/grub/i386/pc/boot.h, `GRUB_BOOT_MACHINE_KERNEL_SECTOR`).
const CORE_SECTOR: usize = 0x5c;
/// A jump that is taken out, so that the drive that some BIOSes say wrongly is looked at again
/// (`GRUB_BOOT_MACHINE_DRIVE_CHECK`).
const DRIVE_CHECK: usize = 0x66;
/// From here on the first sector is the disk's id and its partition table.
const TABLE: usize = 0x1b8;
/// Where the core image's first sector keeps the number of its second one (8 bytes; the last of its
/// block lists, of 12 bytes).
const BLOCK_LIST: usize = 512 - 12;

/// Puts the bytes over the image, in order.
pub fn apply(cx: &BuildContext<'_>, image: &File, layout: &Layout, writes: &[Write]) -> Result<()> {
    for write in writes {
        one(cx, image, layout, write).with_context(|| format!("writing `{}` into the image", write.name))?;
    }
    Ok(())
}

fn one(cx: &BuildContext<'_>, image: &File, layout: &Layout, write: &Write) -> Result<()> {
    let source = open(cx, &write.source)?;
    let length = source.metadata()?.len();
    match &write.target {
        WriteTarget::At { partition, offset } => {
            let (start, room) = area(layout, partition.as_deref())?;
            if offset + length > room {
                let whole = partition.as_ref().map_or("the image".to_owned(), |name| format!("`{name}`"));
                return Err(Fault::failed(format!(
                    "`{}` has {length} bytes and would end {} bytes behind the end of {whole}",
                    write.name,
                    offset + length - room
                ))
                .into());
            }
            sparse::clear(image, start + offset, length)?;
            Ok(sparse::copy_into(&source, image, start + offset, length)?)
        }
        WriteTarget::GrubBoot { core } => {
            let mut sector = [0; SECTOR as usize];
            (&source).read_exact(&mut sector)?;
            let (start, _) = core_area(layout, core.as_deref())?;
            sector[CORE_SECTOR..CORE_SECTOR + 8].copy_from_slice(&(start / SECTOR).to_le_bytes());
            sector[DRIVE_CHECK..DRIVE_CHECK + 2].fill(0x90);
            image.read_exact_at(&mut sector[TABLE..510], TABLE as u64)?;
            Ok(image.write_all_at(&sector, 0)?)
        }
        WriteTarget::GrubCore { partition } => {
            let (start, room) = core_area(layout, partition.as_deref())?;
            if length > room {
                return Err(Fault::failed(format!(
                    "GRUB's core image has {length} bytes, and there are {room} for it"
                ))
                .hint("make the BIOS boot partition larger (1 MiB is plenty), or start the first partition at 1 MiB")
                .into());
            }
            let mut core = Vec::new();
            (&source).read_to_end(&mut core)?;
            let list = core.get_mut(BLOCK_LIST..BLOCK_LIST + 8).context("the core image is too short")?;
            list.copy_from_slice(&(start / SECTOR + 1).to_le_bytes());
            Ok(image.write_all_at(&core, start)?)
        }
    }
}

fn open(cx: &BuildContext<'_>, source: &WriteSource) -> Result<File> {
    match source {
        WriteSource::Step(step) => {
            let path = cx.writes.get(step).with_context(|| format!("step {step} kept nothing"))?;
            File::open(path).with_context(|| format!("opening what step {step} kept"))
        }
        WriteSource::Root(path) => Inside::open(cx.root)?.read(path),
    }
}

/// Start and length of a partition, or of the whole image.
fn area(layout: &Layout, partition: Option<&str>) -> Result<(u64, u64)> {
    let Some(name) = partition else { return Ok((0, layout.size)) };
    let placed = layout.partition(name).with_context(|| format!("the image has no partition `{name}`"))?;
    Ok((placed.start, placed.length))
}

/// Where GRUB's core image goes: a partition, or the sectors between the table and the first one.
fn core_area(layout: &Layout, partition: Option<&str>) -> Result<(u64, u64)> {
    if partition.is_some() {
        return area(layout, partition);
    }
    let first = layout.partitions.iter().map(|placed| placed.start).min().unwrap_or(layout.size);
    Ok((SECTOR, first.saturating_sub(SECTOR)))
}

/// Copies a part of the image to a file of its own, holes kept.
pub fn extract(image: &File, offset: u64, length: u64, to: &Path) -> Result<()> {
    let doing = || format!("writing {}", to.display());
    let file = File::create(to).with_context(doing)?;
    file.set_len(length).with_context(doing)?;
    sparse::copy_range(image, offset, &file, 0, length).with_context(doing)
}
