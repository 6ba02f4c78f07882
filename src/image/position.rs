//! Positions on a disk as parted reads them: `1MB`, `256M`, `0%`, `100%`, `2048s`, `-1MiB`.
//!
//! A recipe for debos means by them what `parted -a none mkpart` makes of them, so this is libparted's
//! arithmetic (`ped_unit_parse_custom` and `snap_to_boundaries` of parted 3.5): a position in a decimal
//! unit or in percent stands for a range of half a unit either way, in which it moves to the edge of
//! what is there already; one in bytes, sectors or a binary unit is exact. An end names the last sector
//! of a partition, but in a binary unit the first behind it.

use std::str::FromStr;

use super::size::{Decimal, unit};

/// A position as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    decimal: Decimal,
    unit: Unit,
    from_end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Percent,
    Sectors,
    /// So many bytes.
    Bytes(u64),
}

/// A position on a disk of a certain size, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    /// The sector; the disk's last one for what is beyond it by less than the radius.
    pub(super) sector: u64,
    /// How far it may move either way.
    pub(super) radius: u64,
}

impl Position {
    /// Whether it depends on how large the disk is.
    pub fn is_relative(self) -> bool {
        self.from_end || self.unit == Unit::Percent
    }

    /// Whether it is `0%`, parted's word for the first sector that is free.
    pub fn is_zero_percent(self) -> bool {
        self.unit == Unit::Percent && self.decimal.number == 0
    }

    /// Whether an end at it is the first sector behind the partition.
    pub(super) fn ends_before(self) -> bool {
        matches!(self.unit, Unit::Bytes(unit) if unit > 1 && unit.is_power_of_two())
    }

    /// Where it is on a disk of so many sectors; `None` outside of it.
    pub(super) fn locate(self, sectors: u64, sector_size: u32) -> Option<Located> {
        let bytes = match self.unit {
            Unit::Percent => sectors.checked_mul(u64::from(sector_size))? / 100,
            Unit::Sectors => u64::from(sector_size),
            Unit::Bytes(bytes) => bytes,
        };
        let radius = if bytes.is_power_of_two() && self.unit != Unit::Percent {
            0
        } else {
            bytes.div_ceil(u64::from(sector_size) * 2).saturating_sub(1)
        };
        let offset = self.decimal.times(bytes)? / i128::from(sector_size);
        let sector = if self.from_end { i128::from(sectors).checked_sub(offset)? } else { offset };
        let last = i128::from(sectors.checked_sub(1)?);
        let clipped = sector.clamp(0, last);
        if (sector - clipped).abs() > i128::from(radius) {
            return None;
        }
        Some(Located { sector: u64::try_from(clipped).ok()?, radius })
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a position");
        let trimmed = text.trim();
        let (from_end, digits) = match trimmed.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, trimmed),
        };
        let (decimal, rest) = Decimal::parse(digits).ok_or_else(wrong)?;
        let unit = match rest.trim_start() {
            "%" => Unit::Percent,
            "s" | "S" => Unit::Sectors,
            // parted's unit where nobody says one.
            "" => Unit::Bytes(1_000_000),
            name => Unit::Bytes(unit(name).ok_or_else(wrong)?),
        };
        Ok(Self { decimal, unit, from_end })
    }
}
