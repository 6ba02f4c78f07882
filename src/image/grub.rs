//! GRUB for BIOS: its first sector and its core image, put into a disk image.
//!
//! The BIOS loads the disk's first sector (`boot.img`), which loads the first sector of the core image
//! (`diskboot.img`), which loads the rest. Each finds the next by the numbers of 512-byte sectors that
//! are written into it here. Offsets: `include/grub/i386/pc/boot.h` and `include/grub/offsets.h` of
//! GRUB 2.12.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::{FilesystemKind, Layout, Partition, Spec, TableKind};
use crate::diagnostics::Fault;

/// Bytes of a sector as the BIOS counts them.
pub const SECTOR: u64 = 512;

/// Type of a BIOS boot partition (GPT).
pub const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";

/// Bytes that the smallest core image wants: with one table and one file system it has about 29,500.
pub const LEAST_ROOM: u64 = 32 << 10;

/// As many sectors as the block list of the first one counts.
const MOST_SECTORS: u64 = 0xffff;

/// Parts of the first sector that belong to the disk: what a FAT file system would keep there, and
/// the disk's id with the partition table.
const OF_THE_DISK: [std::ops::Range<usize>; 2] = [0x03..0x5a, 0x1b8..0x1fe];

/// Number of the core image's first sector (8 bytes).
const KERNEL_SECTOR: usize = 0x5c;

/// The drive to read from; 0xff for the one that the BIOS says.
const BOOT_DRIVE: usize = 0x64;

/// A jump over a work-around for BIOSes that name the wrong drive. Disks want the work-around.
const DRIVE_CHECK: usize = 0x66;

/// In the core image's first sector: number of the next sector (8 bytes), how many (2), and where in
/// memory (2).
const BLOCK_LIST: usize = 0x1f4;

/// Whether a partition is for GRUB's core image.
pub fn is_bios_boot(partition: &Partition) -> bool {
    partition.kind.eq_ignore_ascii_case(BIOS_BOOT) || partition.flags.iter().any(|flag| flag == "bios_grub")
}

/// Where the core image goes: the name of the BIOS boot partition, `None` for the gap between an
/// msdos table and the first partition. The fault says why an image has no place for it.
pub fn place(spec: &Spec) -> Result<Option<&str>> {
    if spec.sector_size != 512 {
        let message = format!("GRUB for BIOS cannot boot from disks with sectors of {} bytes", spec.sector_size);
        return Err(Fault::recipe(message).hint("use EFI (`grub-efi` or `systemd-boot`), or `sectorsize: 512`").into());
    }
    let partition = spec.partitions.iter().find(|partition| is_bios_boot(partition));
    match (partition, spec.table) {
        (Some(partition), _) if partition.contents.kind != FilesystemKind::None => Err(Fault::recipe(format!(
            "the BIOS boot partition `{}` has a file system, which GRUB would overwrite",
            partition.name
        ))
        .hint("give it `fs: none`")
        .into()),
        (Some(partition), _) => Ok(Some(&partition.name)),
        (None, TableKind::Msdos) => Ok(None),
        (None, TableKind::Gpt) => Err(Fault::recipe("a GPT has no room for GRUB's core image outside of partitions")
            .hint(
                "add a partition with `fs: none`, `size: 1MiB` and `flags: [bios_grub]`, or use `partitiontype: msdos`",
            )
            .into()),
    }
}

/// Start and length in bytes of the place for the core image.
pub fn room(spec: &Spec, layout: &Layout, partition: Option<&str>) -> Result<(u64, u64)> {
    if let Some(name) = partition {
        let placed = layout.partition(name).with_context(|| format!("there is no partition `{name}`"))?;
        return Ok((placed.start, placed.length));
    }
    let first = layout.partitions.iter().map(|placed| placed.start).min().unwrap_or(layout.size);
    let reserved = spec.reserved.iter().map(|reserved| reserved.offset).filter(|offset| *offset >= SECTOR).min();
    let end = reserved.map_or(first, |offset| offset.min(first));
    Ok((SECTOR, end.saturating_sub(SECTOR)))
}

/// Writes `boot.img` over the first sector of an image that has its partition table already.
pub fn write_boot(image: &File, spec: &Spec, layout: &Layout, boot: &[u8], core: Option<&str>) -> Result<()> {
    let (start, _) = room(spec, layout, core)?;
    let mut table = [0; SECTOR as usize];
    image.read_exact_at(&mut table, 0).context("reading the partition table")?;
    let sector = boot_sector(boot, &table, start / SECTOR)?;
    image.write_all_at(&sector, 0).context("writing GRUB's first sector")
}

/// Writes `core.img` to its place.
pub fn write_core(image: &File, spec: &Spec, layout: &Layout, core: &[u8], partition: Option<&str>) -> Result<()> {
    let (start, length) = room(spec, layout, partition)?;
    if core.len() as u64 > length {
        let place =
            partition.map_or("the gap before the first partition".to_owned(), |name| format!("partition `{name}`"));
        let message = format!("GRUB's core image has {} bytes, {place} has room for {length}", core.len());
        let way_out = match partition {
            Some(_) => "make it larger: 1 MiB is usual",
            None => "let the first partition start at 1 MiB, as it does where no `start` is given",
        };
        return Err(Fault::failed(message).hint(way_out).into());
    }
    let core = core_image(core, start / SECTOR)?;
    image.write_all_at(&core, start).context("writing GRUB's core image")
}

/// `boot.img` for a disk whose first sector is `table`.
fn boot_sector(boot: &[u8], table: &[u8; SECTOR as usize], core: u64) -> Result<[u8; SECTOR as usize]> {
    let mut sector: [u8; SECTOR as usize] = boot
        .try_into()
        .map_err(|_| Fault::failed(format!("GRUB's boot.img has {} bytes instead of 512", boot.len())))?;
    for range in OF_THE_DISK {
        sector[range.clone()].copy_from_slice(&table[range]);
    }
    sector[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core.to_le_bytes());
    sector[BOOT_DRIVE] = 0xff;
    // Two instructions that do nothing.
    sector[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    sector[0x1fe..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

/// `core.img` for a place that starts at a sector.
fn core_image(core: &[u8], sector: u64) -> Result<Vec<u8>> {
    let rest = (core.len() as u64).saturating_sub(1) / SECTOR;
    if rest == 0 || rest > MOST_SECTORS {
        return Err(Fault::failed(format!("GRUB's core.img has {} bytes, which cannot be right", core.len())).into());
    }
    let mut core = core.to_vec();
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(sector + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&(rest as u16).to_le_bytes());
    core.resize(((rest + 1) * SECTOR) as usize, 0);
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_first_sector_keeps_the_table_and_finds_the_core() {
        let boot = [0xbb; 512];
        let mut table = [0; 512];
        table[0x1b8..0x1be].copy_from_slice(b"diskid");
        table[0x1be..0x1fe].fill(0xcc);
        let sector = boot_sector(&boot, &table, 2048).unwrap();
        assert_eq!(&sector[..3], [0xbb; 3]);
        assert_eq!(sector[3..0x5a], [0; 0x57]);
        assert_eq!(u64_at(&sector, 0x5c), 2048);
        assert_eq!(sector[0x64..0x68], [0xff, 0xbb, 0x90, 0x90]);
        assert_eq!(sector[0x68..0x1b8], [0xbb; 0x150]);
        assert_eq!(sector[0x1b8..0x1fe], table[0x1b8..0x1fe]);
        assert_eq!(sector[0x1fe..], [0x55, 0xaa]);
    }

    #[test]
    fn a_first_sector_of_another_size_is_refused() {
        assert!(boot_sector(&[0; 440], &[0; 512], 1).is_err());
    }

    #[test]
    fn the_core_says_where_its_second_sector_is_and_how_many_follow() {
        let mut core = vec![0xaa; 30186];
        core[0x1fe..0x200].copy_from_slice(&[0x20, 0x08]);
        let written = core_image(&core, 2048).unwrap();
        assert_eq!(u64_at(&written, 0x1f4), 2049);
        assert_eq!(written[0x1fc..0x200], [58, 0, 0x20, 0x08]);
        assert_eq!(written.len(), 59 * 512);
        assert_eq!(written[512..30186], core[512..]);
        assert!(written[30186..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_core_of_whole_sectors_gets_no_further_one() {
        assert_eq!(core_image(&[0; 1024], 1).unwrap().len(), 1024);
        assert_eq!(core_image(&[0; 1025], 1).unwrap().len(), 1536);
        assert!(core_image(&[0; 512], 1).is_err());
    }
}
