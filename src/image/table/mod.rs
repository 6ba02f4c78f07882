//! Partition tables, written to and read from a file.

mod gpt;
mod mbr;
pub mod types;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{Extended, Layout, Partition, Placed, Spec, TableKind};

/// A partition table as it is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Table {
    /// What it is.
    pub kind: TableKind,
    /// GUID (gpt) or 8 hex digits (msdos) of the disk.
    pub disk_id: String,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Where the sector is that describes each logical partition (msdos), in bytes from the start of the
    /// disk.
    #[serde(skip)]
    pub records: Vec<u64>,
    /// By their numbers. The extended partition of an msdos table is among them.
    pub entries: Vec<Entry>,
}

/// A partition in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// 1 and up.
    pub number: u32,
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub length: u64,
    /// A GUID (gpt) or two hex digits (msdos).
    pub kind: String,
    /// What the kernel calls PARTUUID.
    pub uuid: String,
    /// GPT name.
    pub label: String,
    /// GPT attribute bits that are set.
    pub attributes: Vec<u8>,
    /// Whether it is the one to boot from (msdos).
    pub active: bool,
}

impl Entry {
    /// Whether it is the one around the logical partitions (msdos).
    pub fn is_extended(&self) -> bool {
        matches!(self.kind.as_str(), "05" | "0f" | "85")
    }
}

/// Writes the partition table of an image whose file has its size already. Boot code in the first
/// sector stays, as does everything between the table and the partitions.
pub fn write(image: &File, spec: &Spec, layout: &Layout) -> Result<()> {
    let size = image.metadata().context("looking at the image")?.len();
    ensure!(size == layout.size, "the image has {size} bytes, its layout {}", layout.size);
    match spec.table {
        TableKind::Gpt => gpt::write(image, spec, layout),
        TableKind::Msdos => mbr::write(image, spec, layout),
    }
    .context("writing the partition table")
}

/// Where the partitions of an image are that was written before: as its table has them, whatever a new
/// look at the specification would come to.
pub fn layout_of(image: &File, spec: &Spec) -> Result<Layout> {
    let table = read(image, Some(spec.sector_size))?.context("the image has lost its partition table")?;
    let placed = |partition: &Partition| {
        let entry = table.entries.iter().find(|entry| entry.number == partition.number);
        let entry = entry.with_context(|| format!("the image has lost its partition `{}`", partition.name))?;
        Ok(Placed { name: partition.name.clone(), number: partition.number, start: entry.start, length: entry.length })
    };
    let partitions = spec.partitions.iter().map(placed).collect::<Result<_>>()?;
    let extended = table.entries.iter().find(|entry| entry.is_extended());
    Ok(Layout {
        size: image.metadata().context("looking at the image")?.len(),
        partitions,
        extended: extended.map(|entry| Extended {
            start: entry.start,
            length: entry.length,
            records: table.records.clone(),
        }),
    })
}

/// Reads the partition table of a disk; `None` where there is none. The sector size of an msdos table
/// cannot be told: 512 where nobody says it.
pub fn read(image: &File, sector_size: Option<u32>) -> Result<Option<Table>> {
    let mut first = [0; 512];
    match image.read_exact_at(&mut first, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other.context("reading the first sector")?,
    }
    for candidate in [512, 4096] {
        if sector_size.is_none_or(|size| size == candidate)
            && let Some(table) = gpt::read(image, candidate).context("reading the partition table")?
        {
            return Ok(Some(table));
        }
    }
    mbr::read(image, &first, sector_size.unwrap_or(512)).context("reading the partition table")
}
