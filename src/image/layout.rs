//! Where the parts of an image lie: pure arithmetic.

mod solver;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Spec, TableKind};
use crate::diagnostics::{Fault, Severity};

/// An image in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layout {
    /// Of the whole image.
    pub size: u64,
    /// In the order of [`Spec::partitions`].
    pub partitions: Vec<Placed>,
    /// The partition around the logical ones (msdos with more than four).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended: Option<Extended>,
}

/// A partition in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Placed {
    /// As in the recipe.
    pub name: String,
    /// 1 and up.
    pub number: u32,
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub length: u64,
}

/// The extended partition of an msdos table; its number is 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Extended {
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub length: u64,
    /// Where the sector is that describes each logical partition, in their order, in bytes from the start
    /// of the disk.
    pub records: Vec<u64>,
}

/// Something wrong or doubtful with a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Index in [`Spec::partitions`]; `None`: it is about the image.
    pub partition: Option<usize>,
    /// Property of the partition or of the image, where one is to blame.
    pub property: &'static str,
    /// Lower-case, one sentence.
    pub message: String,
    /// The way out.
    pub hint: String,
}

/// Entries that a GPT has at least (UEFI specification, 5.3.1: 16,384 bytes are reserved for them).
const GPT_ENTRIES: u64 = 16_384;

impl Layout {
    /// Lays a specification out. `contents` is what the file system of a partition wants at least, in
    /// bytes, for images that are as large as their contents; it is not asked for others.
    pub fn of(spec: &Spec, contents: &mut dyn FnMut(&str) -> Result<u64>) -> Result<Self> {
        let (layout, findings) = Self::solve(spec, contents)?;
        match findings.into_iter().find(|finding| finding.severity == Severity::Error) {
            Some(finding) => {
                let partition = finding.partition.and_then(|index| spec.partitions.get(index));
                let fault = Fault::recipe(finding.message).hint(finding.hint);
                Err(Fault { part: partition.map(|partition| partition.name.clone()), ..fault }.into())
            }
            None => Ok(layout),
        }
    }

    /// The same with all that is wrong; then the layout is what comes closest.
    pub fn solve(spec: &Spec, contents: &mut dyn FnMut(&str) -> Result<u64>) -> Result<(Self, Vec<Finding>)> {
        solver::solve(spec, contents)
    }

    /// A partition by its name.
    pub fn partition(&self, name: &str) -> Option<&Placed> {
        self.partitions.iter().find(|partition| partition.name == name)
    }
}

impl Placed {
    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

impl Spec {
    /// Sector in which a GPT's entries start.
    pub fn gpt_entries(&self) -> u64 {
        self.gpt_gap.div_ceil(u64::from(self.sector_size)).max(2)
    }

    /// How many sectors a GPT's entries take.
    pub fn gpt_entry_sectors(&self) -> u64 {
        GPT_ENTRIES.div_ceil(u64::from(self.sector_size))
    }

    /// The first sector that a partition can have.
    pub fn first_usable(&self) -> u64 {
        match self.table {
            TableKind::Gpt => self.gpt_entries() + self.gpt_entry_sectors(),
            TableKind::Msdos => 1,
        }
    }

    /// How many sectors at the end of the disk belong to the table: a GPT has a copy there.
    pub fn sectors_behind(&self) -> u64 {
        match self.table {
            TableKind::Gpt => self.gpt_entry_sectors() + 1,
            TableKind::Msdos => 0,
        }
    }

    /// Whether the partition of this index is a logical one.
    pub fn is_logical(&self, index: usize) -> bool {
        self.table == TableKind::Msdos && self.partitions.len() > 4 && index >= 3
    }
}
