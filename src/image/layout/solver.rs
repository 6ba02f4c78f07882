//! From what a recipe says to sectors.

use anyhow::Result;

use super::{Extended, Finding, Layout, Placed};
use crate::diagnostics::Severity;
use crate::image::position::{Located, Position};
use crate::image::size::exact;
use crate::image::{FilesystemKind, ImageSize, Partition, Spec, TableKind};

/// A disk that is not full before all of it is laid out.
const BOUNDLESS: u64 = 1 << 54;

/// Sectors that an msdos table can count.
const MSDOS_SECTORS: u64 = 1 << 32;

/// What starts at no multiple of this many bytes is slow on flash, and on disks with sectors of 4096
/// bytes that claim 512.
const PHYSICAL: u64 = 4096;

/// Sectors, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    start: u64,
    end: u64,
}

struct Solver<'a> {
    spec: &'a Spec,
    contents: &'a mut dyn FnMut(&str) -> Result<u64>,
    sector: u64,
    /// In sectors.
    alignment: u64,
    /// Of the disk, where the recipe says so.
    total: Option<u64>,
    /// What partitions can use.
    usable: Extent,
    placed: Vec<Extent>,
    records: Vec<u64>,
    extended_start: u64,
    findings: Vec<Finding>,
}

pub(super) fn solve(spec: &Spec, contents: &mut dyn FnMut(&str) -> Result<u64>) -> Result<(Layout, Vec<Finding>)> {
    let sector = u64::from(spec.sector_size);
    let total = match spec.size {
        ImageSize::Bytes(bytes) => Some(bytes / sector),
        ImageSize::Auto { .. } => None,
    };
    let usable = Extent {
        start: spec.first_usable(),
        end: total.map_or(BOUNDLESS, |total| total.saturating_sub(spec.sectors_behind())),
    };
    let mut solver = Solver {
        spec,
        contents,
        sector,
        alignment: (spec.alignment / sector).max(1),
        total,
        usable,
        placed: Vec::new(),
        records: Vec::new(),
        extended_start: 0,
        findings: Vec::new(),
    };
    solver.place_all()?;
    solver.verify();
    Ok(solver.finish())
}

impl Solver<'_> {
    fn find(
        &mut self,
        severity: Severity,
        index: Option<usize>,
        property: &'static str,
        message: String,
        hint: impl Into<String>,
    ) {
        self.findings.push(Finding { severity, partition: index, property, message, hint: hint.into() });
    }

    fn error(&mut self, index: usize, property: &'static str, message: String, hint: impl Into<String>) {
        self.find(Severity::Error, Some(index), property, message, hint);
    }

    fn align_up(&self, sector: u64) -> u64 {
        sector.next_multiple_of(self.alignment)
    }

    fn align_down(&self, sector: u64) -> u64 {
        sector - sector % self.alignment
    }

    /// Sectors that so many bytes take.
    fn sectors(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.sector)
    }

    fn shown(&self, sector: u64) -> String {
        exact(sector.saturating_mul(self.sector))
    }

    fn place_all(&mut self) -> Result<()> {
        let spec = self.spec;
        if self.usable.end <= self.usable.start {
            let least = self.shown(self.align_up(self.usable.start + spec.sectors_behind() + 1));
            let message = "the image is too small for its partition table".to_owned();
            self.find(Severity::Error, None, "imagesize", message, format!("it needs {least} at least"));
        }
        let mut filled = None;
        for (index, partition) in spec.partitions.iter().enumerate() {
            if partition.fill
                && let Some(other) = filled.replace(partition.name.as_str())
            {
                let message = format!("`{}` and `{other}` both take the rest of the image", partition.name);
                self.error(index, "size", message, "give one of them a size");
            }
            let start = self.start(index, partition);
            let end = self.end(index, partition, start)?;
            self.placed.push(Extent { start, end });
        }
        Ok(())
    }

    /// The first sector behind the partitions so far, in the recipe's order.
    fn cursor(&self) -> u64 {
        self.placed.last().map_or(self.usable.start, |last| last.end)
    }

    /// What a partition, or the record of a logical one, lies in: the extent that is there, else the free
    /// one around the sector.
    fn around(&self, sector: u64) -> (bool, Extent) {
        let mut free = self.usable;
        if sector < free.start {
            return (true, Extent { start: 0, end: free.start });
        }
        if sector >= free.end {
            return (true, Extent { start: free.end, end: self.total.unwrap_or(BOUNDLESS) });
        }
        for extent in &self.placed {
            if (extent.start..extent.end).contains(&sector) {
                return (true, *extent);
            }
            if extent.end <= sector {
                free.start = free.start.max(extent.end);
            } else {
                free.end = free.end.min(extent.start);
            }
        }
        (false, free)
    }

    /// Reads a position; `None` was reported.
    fn locate(&mut self, index: usize, property: &'static str, text: &str) -> Option<(Position, Located)> {
        let position: Position = match text.parse() {
            Ok(position) => position,
            Err(message) => {
                let hint = "a position is as in `1MiB`, `256MB`, `2048s`, `0%` or `100%`";
                self.error(index, property, message, hint);
                return None;
            }
        };
        let Some(total) = self.total else {
            if position.is_relative() {
                let message = format!("`{text}` means nothing while the size of the image is open");
                self.error(index, property, message, "give `size` instead, or an `imagesize`");
                return None;
            }
            return Some((position, position.locate(BOUNDLESS, self.spec.sector_size)?));
        };
        match position.locate(total, self.spec.sector_size) {
            Some(located) => Some((position, located)),
            // The end of the image is meant, where parted would want the last byte that is free.
            None if property == "end"
                && !position.is_relative()
                && position.locate(total + 1, self.spec.sector_size).is_some() =>
            {
                Some((position, Located { sector: total, radius: 0 }))
            }
            None => {
                let size = self.shown(total);
                let name = &self.spec.partitions[index].name;
                let message = format!("partition `{name}`: `{text}` is beyond the end of the image, which has {size}");
                self.error(index, property, message, "make `imagesize` larger; `100%` is the end of the image");
                None
            }
        }
    }

    fn start(&mut self, index: usize, partition: &Partition) -> u64 {
        let logical = self.spec.is_logical(index);
        let first_logical = logical && self.records.is_empty();
        let cursor = self.cursor();
        let given = match &partition.start {
            Some(text) => self.locate(index, "start", text),
            None => None,
        };
        let Some((position, located)) = given else {
            let before = u64::from(logical && !first_logical);
            let behind = u64::from(first_logical) * self.alignment;
            let start = self.past_reserved(self.align_up(cursor + before), partition, before, behind);
            if !logical {
                return start;
            }
            if first_logical {
                self.extended_start = start;
                self.records.push(start);
                return start + self.alignment;
            }
            self.records.push(start - 1);
            return start;
        };
        let start = self.snapped_start(located);
        if position.is_zero_percent() && !(start * self.sector).is_multiple_of(PHYSICAL) {
            let message = format!("`0%` is sector {start}, where nothing is aligned");
            let hint = format!("`start: {}`, or no `start` at all", self.shown(self.align_up(start)).replace(' ', ""));
            self.find(Severity::Warning, Some(index), "start", message, hint);
        } else if partition.contents.kind != FilesystemKind::None
            && self.spec.alignment >= PHYSICAL
            && !(start * self.sector).is_multiple_of(PHYSICAL)
        {
            let text = partition.start.as_deref().unwrap_or_default();
            let message = format!("`{text}` is sector {start}: the file system is not aligned, and slow on flash");
            let hint = format!("`start: {}`, or no `start` at all", self.shown(self.align_up(start)).replace(' ', ""));
            self.find(Severity::Warning, Some(index), "start", message, hint);
        }
        if !logical {
            return start;
        }
        self.logical_start(index, start, located, cursor)
    }

    /// Reserved areas in sectors, in their order on the disk.
    fn reserved(&self) -> Vec<Extent> {
        let mut areas: Vec<Extent> = self
            .spec
            .reserved
            .iter()
            .map(|area| Extent {
                start: area.offset / self.sector,
                end: area.offset.saturating_add(area.length).div_ceil(self.sector),
            })
            .collect();
        areas.sort_unstable_by_key(|area| area.start);
        areas
    }

    /// Moves the start of a partition that can be anywhere behind reserved areas that it would cover. One
    /// that takes the rest goes where more room is. `before` and `behind` are sectors that it wants in front
    /// of its start, and more than its size.
    fn past_reserved(&self, start: u64, partition: &Partition, before: u64, behind: u64) -> u64 {
        let mut start = start;
        for area in self.reserved() {
            if area.end + before <= start {
                continue;
            }
            let covers = match partition.size {
                Some(size) => start + self.sectors(size) + behind > area.start,
                None => area.start.saturating_sub(start) < self.usable.end.saturating_sub(area.end),
            };
            if covers {
                start = self.align_up(area.end + before);
            }
        }
        start
    }

    /// Moves the start of a partition to where free space starts, if that is near enough.
    fn snapped_start(&self, located: Located) -> u64 {
        let (taken, extent) = self.around(located.sector);
        let edge = if taken { extent.end } else { extent.start };
        if edge.abs_diff(located.sector) <= located.radius && edge < self.usable.end { edge } else { located.sector }
    }

    /// Finds room for the sector in front of a logical partition.
    fn logical_start(&mut self, index: usize, start: u64, located: Located, cursor: u64) -> u64 {
        let first = self.records.is_empty();
        let record = if start > cursor {
            // The first record is where the extended partition starts.
            if first && start - cursor > self.alignment { start - self.alignment } else { start - 1 }
        } else if start == cursor && located.radius > 0 {
            start
        } else {
            let name = &self.spec.partitions[index].name;
            let message = format!("no sector is free in front of the logical partition `{name}`");
            let hint = "an msdos table has only four places: from the fourth on, each partition needs a free sector \
                        in front of it; leave `start` out, and it gets one";
            if start == cursor {
                self.error(index, "start", message, hint);
            }
            start.saturating_sub(1)
        };
        if first {
            self.extended_start = record;
        }
        self.records.push(record);
        start.max(record + 1)
    }

    fn end(&mut self, index: usize, partition: &Partition, start: u64) -> Result<u64> {
        if let Some(text) = &partition.end {
            let Some((position, located)) = self.locate(index, "end", text) else { return Ok(start + self.alignment) };
            return Ok(self.snapped_end(index, start, position, located));
        }
        if let Some(size) = partition.size {
            if size == 0 {
                let message = format!("partition `{}` has no size", partition.name);
                self.error(index, "size", message, "it takes the rest of the image with `size: rest`");
            }
            return Ok(start.saturating_add(self.sectors(size)));
        }
        self.fill(index, partition, start)
    }

    fn snapped_end(&self, _index: usize, start: u64, position: Position, located: Located) -> u64 {
        // From here on, the first sector behind.
        let end = located.sector + u64::from(!position.ends_before());
        let last = end.saturating_sub(1);
        let (taken, extent) = self.around(last);
        if taken {
            let edge = extent.start;
            return if edge.abs_diff(end) <= located.radius && edge > start { edge } else { end };
        }
        let limit = self.behind(extent.end);
        if limit.abs_diff(end) <= located.radius { limit } else { end }
    }

    fn behind(&self, sector: u64) -> u64 {
        sector.min(self.usable.end)
    }

    /// The end of the partition that takes the rest.
    fn fill(&mut self, index: usize, partition: &Partition, start: u64) -> Result<u64> {
        if let ImageSize::Auto { margin, percent } = self.spec.size {
            let contents = (self.contents)(&partition.name)?;
            let wanted = contents.saturating_add(contents / 100 * u64::from(percent)).saturating_add(margin);
            return Ok(start.saturating_add(self.align_up(self.sectors(wanted).max(1))));
        }
        // What follows without a start of its own is laid against the end, or against what has one.
        let behind = &self.spec.partitions[index + 1..];
        let areas = self.reserved();
        let area = areas.iter().find(|area| area.start >= start);
        let mut limit = area.map_or(self.usable.end, |area| self.behind(area.start));
        let mut sized = Vec::new();
        for (offset, next) in behind.iter().enumerate() {
            let number = index + 1 + offset;
            let record = u64::from(self.spec.is_logical(number));
            if let Some(text) = &next.start {
                let located = text.parse::<Position>().ok().zip(self.total);
                let located = located.and_then(|(position, total)| position.locate(total, self.spec.sector_size));
                // A wrong one is reported in its turn.
                let Some(located) = located else { break };
                // Not behind what this one fills: it lies elsewhere.
                if located.sector > start {
                    limit = limit.min(located.sector - record);
                    break;
                }
                continue;
            }
            match next.size {
                // In front of the first one the extended partition starts, aligned too.
                Some(size) if record == 1 && !self.spec.is_logical(number - 1) => {
                    sized.push((self.sectors(size), self.alignment));
                }
                Some(size) => sized.push((self.sectors(size), record)),
                None if next.fill => {}
                None => {
                    let message = format!(
                        "where partition `{}` starts is open: `{}` takes all that is in front of it",
                        next.name, partition.name
                    );
                    self.error(number, "end", message, "give it `size` in the place of `end`");
                }
            }
        }
        for (length, record) in sized.into_iter().rev() {
            limit = self.align_down(limit.saturating_sub(length)).saturating_sub(record);
        }
        let end = self.align_down(limit);
        let end = if end > start { end } else { limit };
        if end <= start {
            let message = format!("nothing is left for partition `{}`, which takes the rest", partition.name);
            self.error(index, "size", message, "make `imagesize` larger, or the other partitions smaller");
            return Ok(start + 1);
        }
        Ok(end)
    }

    fn verify(&mut self) {
        for index in 0..self.placed.len() {
            self.verify_inside(index);
            self.verify_apart(index);
        }
        let last = self.placed.iter().map(|extent| extent.end).max().unwrap_or(0);
        if self.spec.table == TableKind::Msdos && last > MSDOS_SECTORS {
            let most = self.shown(MSDOS_SECTORS);
            let message = format!("an msdos table reaches {most}, and the partitions go beyond that");
            self.find(Severity::Error, None, "partitiontype", message, "`partitiontype: gpt` has no such limit");
        }
    }

    /// Whether an error of a partition was found already, which others would follow from.
    fn is_said(&self, index: usize) -> bool {
        self.findings.iter().any(|finding| finding.partition == Some(index) && finding.severity == Severity::Error)
    }

    fn verify_inside(&mut self, index: usize) {
        let Extent { start, end } = self.placed[index];
        let name = self.spec.partitions[index].name.clone();
        if self.is_said(index) {
            return;
        }
        let first = self.usable.start;
        if start < first {
            let message = format!("partition `{name}` starts at sector {start}, in the partition table");
            let at = self.shown(self.align_up(first)).replace(' ', "");
            let hint = format!("sector {first} is the first that is free, `start: {at}` the first that is aligned");
            self.error(index, "start", message, hint);
        }
        if end <= start {
            let message = format!("partition `{name}` ends at {}, before it starts", self.shown(end));
            let property = if self.spec.partitions[index].end.is_some() { "end" } else { "size" };
            self.error(index, property, message, format!("it starts at {}", self.shown(start)));
        } else if end > self.usable.end {
            let limit = self.shown(self.usable.end);
            let message = format!("partition `{name}` ends at {}, beyond what the image has: {limit}", self.shown(end));
            let wanted = self.shown(self.align_up(end + self.spec.sectors_behind())).replace(' ', "");
            let given = &self.spec.partitions[index];
            let (property, way) = match (&given.end, &given.start) {
                (Some(_), _) => ("end", "`end: 100%` is the end of the image"),
                (None, _) => ("size", "`size: rest` takes what is left"),
            };
            self.error(index, property, message, format!("{way}; or `imagesize: {wanted}`"));
        }
    }

    fn verify_apart(&mut self, index: usize) {
        let Extent { start, end } = self.placed[index];
        let name = &self.spec.partitions[index].name;
        let record = index.checked_sub(3).filter(|_| self.spec.is_logical(index)).map(|place| self.records[place]);
        for other in 0..index {
            let theirs = self.placed[other];
            let overlaps = start < theirs.end && theirs.start < end;
            let record_inside = record.is_some_and(|record| (theirs.start..theirs.end).contains(&record));
            if !(overlaps || record_inside) || end <= start || self.is_said(index) {
                continue;
            }
            let (from, to) = (self.shown(theirs.start), self.shown(theirs.end));
            let message = format!(
                "partition `{name}` overlaps `{}`, which goes from {from} to {to}",
                self.spec.partitions[other].name
            );
            let free = self.shown(self.align_up(theirs.end)).replace(' ', "");
            let property = if self.spec.partitions[index].start.is_some() { "start" } else { "size" };
            self.error(
                index,
                property,
                message,
                format!("`start: {free}`, or no `start` at all: then it follows the one before"),
            );
            return;
        }
    }

    fn finish(self) -> (Layout, Vec<Finding>) {
        let last = self.placed.iter().map(|extent| extent.end).max().unwrap_or(self.usable.start);
        let total = self.total.unwrap_or_else(|| self.align_up(last + self.spec.sectors_behind()));
        let placed = self.spec.partitions.iter().zip(&self.placed).map(|(partition, extent)| Placed {
            name: partition.name.clone(),
            number: partition.number,
            start: extent.start.saturating_mul(self.sector),
            length: extent.end.saturating_sub(extent.start).saturating_mul(self.sector),
        });
        let extended = (!self.records.is_empty()).then(|| Extended {
            start: self.extended_start * self.sector,
            length: self.placed[3..]
                .iter()
                .map(|extent| extent.end)
                .max()
                .unwrap_or(0)
                .saturating_sub(self.extended_start)
                * self.sector,
            records: self.records.iter().map(|record| record * self.sector).collect(),
        });
        let layout = Layout { size: total.saturating_mul(self.sector), partitions: placed.collect(), extended };
        (layout, self.findings)
    }
}
