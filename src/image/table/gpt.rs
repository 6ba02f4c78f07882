//! GUID partition tables (UEFI specification, chapter 5).

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, read_header_from_arbitrary_device};
use gpt::mbr::ProtectiveMBR;
use gpt::partition::{Partition, file_read_partitions};
use gpt::partition_types::{OperatingSystem, Type};
use uuid::Uuid;

use super::{Entry, Table};
use crate::image::{Layout, Spec, TableKind};

/// Entries of a table, and the bytes of each, as everybody makes them.
const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;

fn block_size(sector_size: u32) -> Result<LogicalBlockSize> {
    LogicalBlockSize::try_from(u64::from(sector_size))
        .with_context(|| format!("a GPT cannot be made for sectors of {sector_size} bytes"))
}

pub(super) fn write(image: &File, spec: &Spec, layout: &Layout) -> Result<()> {
    let block = block_size(spec.sector_size)?;
    let sector = u64::from(spec.sector_size);
    let total = layout.size / sector;
    let behind = spec.sectors_behind();
    ensure!(total > spec.first_usable() + behind, "the image is too small for a GPT");
    ensure!(spec.partitions.len() <= ENTRIES as usize, "a GPT has {ENTRIES} partitions at most");
    let primary = Header {
        signature: "EFI PART".into(),
        revision: (1, 0),
        header_size_le: 92,
        crc32: 0,
        reserved: 0,
        current_lba: 1,
        backup_lba: total - 1,
        first_usable: spec.first_usable(),
        last_usable: total - behind - 1,
        disk_guid: Uuid::parse_str(&spec.disk_id).context("the disk's GUID")?,
        part_start: spec.gpt_entries(),
        num_parts: ENTRIES,
        part_size: ENTRY_SIZE,
        crc32_parts: 0,
    };
    let backup =
        Header { current_lba: primary.backup_lba, backup_lba: 1, part_start: total - behind, ..primary.clone() };
    let mut device = image;
    for header in [&primary, &backup] {
        Partition::write_zero_entries_to_device(&mut device, 0, ENTRIES.into(), header.part_start, block, ENTRY_SIZE)?;
        for (partition, placed) in spec.partitions.iter().zip(&layout.partitions) {
            let entry = Partition {
                part_type_guid: Type {
                    guid: Uuid::parse_str(&partition.kind)
                        .with_context(|| format!("the type of partition `{}`", partition.name))?,
                    os: OperatingSystem::None,
                },
                part_guid: Uuid::parse_str(&partition.uuid)
                    .with_context(|| format!("the GUID of partition `{}`", partition.name))?,
                first_lba: placed.start / sector,
                last_lba: (placed.end() / sector).saturating_sub(1),
                flags: partition.attributes.iter().fold(0, |bits, bit| bits | 1 << bit),
                name: partition.label.clone(),
            };
            let index = u64::from(partition.number).checked_sub(1).context("partitions are counted from 1")?;
            entry.write_to_device(&mut device, index, header.part_start, block, ENTRY_SIZE)?;
        }
    }
    primary.clone().write_primary(&mut device, block)?;
    backup.clone().write_backup(&mut device, block)?;
    let protected = u32::try_from(total - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(protected).update_conservative(&mut device)?;
    Ok(())
}

pub(super) fn read(image: &File, sector_size: u32) -> Result<Option<Table>> {
    let mut signature = [0; 8];
    if image.read_exact_at(&mut signature, u64::from(sector_size)).is_err() || &signature != b"EFI PART" {
        return Ok(None);
    }
    let block = block_size(sector_size)?;
    let sector = u64::from(sector_size);
    let mut device = image;
    let header = read_header_from_arbitrary_device(&mut device, block)?;
    // The crate takes these for granted.
    ensure!(header.part_size == ENTRY_SIZE, "its entries have {} bytes, not {ENTRY_SIZE}", header.part_size);
    ensure!(header.num_parts <= 4096, "it has {} entries", header.num_parts);
    let entries = file_read_partitions(&mut device, &header, block)?;
    let entries = entries.into_iter().filter(|(_, entry)| entry.is_used()).map(|(number, entry)| Entry {
        number,
        start: entry.first_lba.saturating_mul(sector),
        length: entry.last_lba.saturating_add(1).saturating_sub(entry.first_lba).saturating_mul(sector),
        kind: entry.part_type_guid.guid.to_string(),
        uuid: entry.part_guid.to_string(),
        attributes: (0..64).filter(|bit| entry.flags >> bit & 1 == 1).collect(),
        label: entry.name,
        active: false,
    });
    Ok(Some(Table {
        kind: TableKind::Gpt,
        disk_id: header.disk_guid.to_string(),
        sector_size,
        records: Vec::new(),
        entries: entries.collect(),
    }))
}
