//! Master boot records, and the records in front of logical partitions.
//!
//! The chain of records is walked and written here, by byte, since the crate counts bytes of them in 32
//! bits.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use mbrman::{BOOT_ACTIVE, BOOT_INACTIVE, CHS, MBRHeader, MBRPartitionEntry};

use super::{Entry, Table, types};
use crate::image::{Layout, Partition, Placed, Spec, TableKind};

/// Bytes of a record.
const RECORD: usize = 512;

/// The first logical partition.
const FIRST_LOGICAL: u32 = 5;

/// More of them are a circle.
const MOST_LOGICAL: u32 = 128;

/// The place of a sector on a disk of 255 heads and 63 sectors, which some firmware still looks at; the
/// last one for what is beyond.
fn chs(lba: u64) -> CHS {
    const HEADS: u64 = 255;
    const SECTORS: u64 = 63;
    let cylinder = lba / (HEADS * SECTORS);
    if cylinder > 1023 {
        return CHS::new(1023, 254, 63);
    }
    CHS::new(cylinder as u16, (lba / SECTORS % HEADS) as u8, (lba % SECTORS + 1) as u8)
}

/// An entry for `sectors` from `start`, as it counts from `base`.
fn entry(kind: u8, active: bool, start: u64, sectors: u64, base: u64) -> Result<MBRPartitionEntry> {
    let counted = |sectors: u64| u32::try_from(sectors).context("an msdos table cannot count so many sectors");
    Ok(MBRPartitionEntry {
        boot: if active { BOOT_ACTIVE } else { BOOT_INACTIVE },
        first_chs: chs(start),
        sys: kind,
        last_chs: chs((start + sectors).saturating_sub(1)),
        starting_lba: counted(start - base)?,
        sectors: counted(sectors)?,
    })
}

fn bytes_of(record: &MBRHeader) -> Result<[u8; RECORD]> {
    let mut bytes = [0; RECORD];
    record.write_into(&mut Cursor::new(&mut bytes[..])).context("encoding a record")?;
    Ok(bytes)
}

pub(super) fn write(image: &File, spec: &Spec, layout: &Layout) -> Result<()> {
    let sector = u64::from(spec.sector_size);
    let mut id: [u8; 4] = hex::decode(&spec.disk_id).ok().and_then(|id| id.try_into().ok()).context("the disk's id")?;
    id.reverse();
    let mut main = MBRHeader::new(id);
    image.read_exact_at(&mut main.bootstrap_code, 0).context("reading the boot code")?;
    let own = |partition: &Partition, placed: &Placed, base: u64| {
        let kind = u8::from_str_radix(&partition.kind, 16)
            .with_context(|| format!("the type of partition `{}`", partition.name))?;
        let active = partition.flags.iter().any(|flag| flag == "boot");
        entry(kind, active, placed.start / sector, placed.length / sector, base)
    };
    let parts: Vec<_> = spec.partitions.iter().zip(&layout.partitions).collect();
    let logical = match &layout.extended {
        Some(extended) => {
            let (start, sectors) = (extended.start / sector, extended.length / sector);
            main[4] = entry(types::EXTENDED, false, start, sectors, 0)?;
            &parts[parts.len() - extended.records.len()..]
        }
        None => &[],
    };
    for (partition, placed) in &parts[..parts.len() - logical.len()] {
        ensure!((1..=4).contains(&partition.number), "an msdos table has four places");
        main[partition.number as usize] = own(partition, placed, 0)?;
    }
    image.write_all_at(&bytes_of(&main)?, 0)?;
    let Some(extended) = &layout.extended else { return Ok(()) };
    for (index, (partition, placed)) in logical.iter().enumerate() {
        let at = extended.records[index];
        let mut record = MBRHeader::new([0; 4]);
        record[1] = own(partition, placed, at / sector)?;
        if let (Some(next), Some((_, following))) = (extended.records.get(index + 1), logical.get(index + 1)) {
            let sectors = (following.end() - next) / sector;
            // As Linux and parted have it: these count from the extended partition, and say so by 05.
            record[2] = entry(0x05, false, next / sector, sectors, extended.start / sector)?;
        }
        image.write_all_at(&bytes_of(&record)?, at)?;
    }
    Ok(())
}

pub(super) fn read(image: &File, first: &[u8; RECORD], sector_size: u32) -> Result<Option<Table>> {
    // Something else may have the same signature: a FAT file system on the whole disk.
    let Ok(main) = MBRHeader::read_from(&mut Cursor::new(&first[..])) else { return Ok(None) };
    let sector = u64::from(sector_size);
    let size = image.metadata().context("looking at the image")?.len();
    let used = || main.iter().filter(|(_, entry)| entry.is_used());
    let fits = |entry: &MBRPartitionEntry| {
        entry.starting_lba > 0 && entry.sectors > 0 && (size == 0 || u64::from(entry.starting_lba) * sector < size)
    };
    if used().next().is_none() && !first[..446].iter().all(|byte| *byte == 0) && main.disk_signature == [0; 4]
        || !used().all(|(_, entry)| fits(entry))
        || is_boot_sector(first)
    {
        return Ok(None);
    }
    let mut id = main.disk_signature;
    id.reverse();
    let id = hex::encode(id);
    let found = |number: u32, entry: &MBRPartitionEntry, base: u64| Entry {
        number,
        start: (base + u64::from(entry.starting_lba)) * sector,
        length: u64::from(entry.sectors) * sector,
        kind: format!("{:02x}", entry.sys),
        uuid: format!("{id}-{number:02x}"),
        label: String::new(),
        attributes: Vec::new(),
        active: entry.is_active(),
    };
    let mut entries: Vec<Entry> = used().map(|(number, entry)| found(number as u32, entry, 0)).collect();
    let mut records = Vec::new();
    if let Some((_, extended)) = used().find(|(_, entry)| entry.is_extended()) {
        let start = u64::from(extended.starting_lba);
        let mut at = start;
        for number in FIRST_LOGICAL..FIRST_LOGICAL + MOST_LOGICAL {
            let mut bytes = [0; RECORD];
            if image.read_exact_at(&mut bytes, at * sector).is_err() {
                break;
            }
            let Ok(record) = MBRHeader::read_from(&mut Cursor::new(&bytes[..])) else { break };
            if record[1].is_used() {
                entries.push(found(number, &record[1], at));
                records.push(at * sector);
            }
            if record[2].starting_lba == 0 {
                break;
            }
            at = start + u64::from(record[2].starting_lba);
        }
    }
    Ok(Some(Table { kind: TableKind::Msdos, disk_id: id, sector_size, records, entries }))
}

/// Whether a sector starts a FAT or NTFS file system: a jump, and a sector size where those have it.
fn is_boot_sector(first: &[u8; RECORD]) -> bool {
    let jumps = (first[0] == 0xeb && first[2] == 0x90) || first[0] == 0xe9;
    let sector_size = u16::from_le_bytes([first[11], first[12]]);
    jumps
        && sector_size.is_power_of_two()
        && (512..=4096).contains(&sector_size)
        && first[13].is_power_of_two()
        && first[16] <= 2
        && (&first[54..59] == b"FAT12"
            || &first[54..59] == b"FAT16"
            || &first[82..87] == b"FAT32"
            || &first[3..7] == b"NTFS")
}
