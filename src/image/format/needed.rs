//! Which bytes of an image mean something: those that a device must have after the image was copied to
//! it, whatever was on it before.
//!
//! A hole of the image file is no answer. A table of free clusters that is all zeros, or a file's block of
//! zeros, may be a hole, and still has to be zeros on the card. So the file systems are asked what they
//! use; of the others, everything is needed, unless all of it is zeros.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::extent::{extent, number};
use crate::image::sparse::data_ranges;
use crate::image::{TableKind, table};

/// A range in bytes: start and end.
type Range = (u64, u64);

/// What of an image is needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Sorted; they may touch.
    pub ranges: Vec<Range>,
    /// Parts of which nothing could be left out.
    pub whole: Vec<String>,
}

/// Of a part that is all zeros this much is needed at either end, so that nothing that a device had there
/// is taken for a file system.
const ENDS: u64 = 1 << 20;

/// Looks at an image with a partition table, or with a file system alone.
pub fn needed(image: &File, size: u64, sector_size: u32) -> Result<Needed> {
    let mut needed = Needed::default();
    let table = match known(image, (0, size))? {
        // The boot sector of a FAT looks like a partition table.
        Some(_) => None,
        None => match table::read(image, None)? {
            Some(table) if table.kind == TableKind::Gpt => Some(table),
            _ => table::read(image, Some(sector_size))?,
        },
    };
    let mut parts: Vec<Range> = match table {
        None => vec![(0, size)],
        Some(table) => {
            let entries = table.entries.iter().filter(|entry| !entry.is_extended());
            entries.map(|entry| (entry.start, (entry.start + entry.length).min(size))).collect()
        }
    };
    parts.sort_unstable();
    let mut at = 0;
    for (index, (start, end)) in parts.into_iter().enumerate() {
        let start = start.max(at);
        needed.opaque(image, (at, start), None)?;
        if start < end {
            needed.part(image, (start, end), index + 1)?;
            at = end;
        }
    }
    needed.opaque(image, (at, size), None)?;
    needed.ranges.sort_unstable();
    Ok(needed)
}

impl Needed {
    fn part(&mut self, image: &File, part: Range, number: usize) -> Result<()> {
        let (start, end) = part;
        match known(image, part)? {
            Some(used) => self.ranges.extend(used.iter().map(|(from, to)| (start + from, (start + to).min(end)))),
            None => self.opaque(image, part, Some(number))?,
        }
        Ok(())
    }

    /// Something that nobody says anything about.
    fn opaque(&mut self, image: &File, (start, end): Range, number: Option<usize>) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        if !is_zeros(image, (start, end))? {
            self.whole.extend(number.filter(|_| end - start > 2 * ENDS).map(|number| format!("partition {number}")));
            self.ranges.push((start, end));
        } else if end - start <= 2 * ENDS {
            self.ranges.push((start, end));
        } else {
            self.ranges.extend([(start, start + ENDS), (end - ENDS, end)]);
        }
        Ok(())
    }
}

/// What a file system uses, from its start on; `None` where there is none that can be asked.
fn known(image: &File, part: Range) -> Result<Option<Vec<Range>>> {
    if let Some(length) = extent(image, part.0)? {
        return Ok(Some(vec![(0, length)]));
    }
    match ext(image, part)? {
        None => fat(image, part),
        used => Ok(used),
    }
}

fn is_zeros(image: &File, (start, end): Range) -> Result<bool> {
    let mut buffer = vec![0; 1 << 20];
    for (from, to) in data_ranges(image, end).context("looking for data")? {
        let mut at = from.max(start);
        while at < to {
            let length = buffer.len().min((to - at) as usize);
            image.read_exact_at(&mut buffer[..length], at).context("reading the image")?;
            if buffer[..length].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += length as u64;
        }
    }
    Ok(true)
}

/// Bytes of an image from some offset on.
fn bytes(image: &File, at: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    image.read_exact_at(&mut bytes, at).context("reading a file system")?;
    Ok(bytes)
}

/// What ext2, ext3 and ext4 use: all that their bitmaps say (kernel documentation, filesystems/ext4).
/// `None` where there is none, or one of a kind that mke2fs makes only when told to.
fn ext(image: &File, (start, end): Range) -> Result<Option<Vec<Range>>> {
    const UNINITIALISED: u64 = 2;
    const META_BG: u64 = 0x10;
    const BITS_64: u64 = 0x80;
    const BIGALLOC: u64 = 0x200;
    const CHECKED_GROUPS: u64 = 0x10 | 0x400;
    if end - start < 4096 {
        return Ok(None);
    }
    let head = bytes(image, start + 1024, 1024)?;
    let field = |at: usize, length: usize| number(&head[at..at + length]);
    let (incompatible, read_only) = (field(0x60, 4), field(0x64, 4));
    if field(0x38, 2) != 0xef53 || incompatible & META_BG != 0 || read_only & BIGALLOC != 0 || field(0x18, 4) > 6 {
        return Ok(None);
    }
    let block = 1024 << field(0x18, 4);
    let wide = incompatible & BITS_64 != 0;
    let count = field(4, 4) | if wide { field(0x150, 4) << 32 } else { 0 };
    let (first, per_group) = (field(0x14, 4), field(0x20, 4));
    if per_group == 0 || per_group > block * 8 || count <= first || count * block > end - start {
        return Ok(None);
    }
    let groups = (count - first).div_ceil(per_group);
    let descriptor = if wide { field(0xfe, 2).max(64) } else { 32 };
    let inode_size = if field(0x4c, 4) == 0 { 128 } else { field(0x58, 2) };
    let inode_table = (field(0x28, 4) * inode_size).div_ceil(block);
    let descriptors = bytes(image, start + (first + 1) * block, groups * descriptor)?;
    let mut used = Used::new(count, block);
    // The first superblock and what stands before it.
    used.add(0, first + 1);
    let table = (groups * descriptor).div_ceil(block) + field(0xce, 2);
    for group in 0..groups {
        let at = (group * descriptor) as usize;
        let read = |low: usize, high: usize| {
            number(&descriptors[at + low..at + low + 4])
                | if wide { number(&descriptors[at + high..at + high + 4]) << 32 } else { 0 }
        };
        let (block_bitmap, inode_bitmap, inodes) = (read(0, 0x20), read(4, 0x24), read(8, 0x28));
        let begin = first + group * per_group;
        let length = per_group.min(count - begin);
        used.add(block_bitmap, 1);
        used.add(inode_bitmap, 1);
        used.add(inodes, inode_table);
        let flags = number(&descriptors[at + 0x12..at + 0x14]);
        if read_only & CHECKED_GROUPS != 0 && flags & UNINITIALISED != 0 {
            // Nothing but copies of the superblock and the descriptors, perhaps: they are counted whether
            // they are there or not.
            used.add(begin, (1 + table).min(length));
            continue;
        }
        if block_bitmap >= count {
            return Ok(None);
        }
        let bitmap = bytes(image, start + block_bitmap * block, block)?;
        for bit in 0..length {
            if bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 1 {
                used.add(begin + bit, 1);
            }
        }
    }
    Ok(Some(used.ranges()))
}

/// What FAT uses: all before its clusters, and those that are not free (Microsoft's "FAT: General Overview
/// of On-Disk Format"). `None` where there is none.
fn fat(image: &File, (start, end): Range) -> Result<Option<Vec<Range>>> {
    if end - start < 4096 {
        return Ok(None);
    }
    let head = bytes(image, start, 512)?;
    let field = |at: usize, length: usize| number(&head[at..at + length]);
    let named = head[54..].starts_with(b"FAT1") || head[82..].starts_with(b"FAT32");
    let (sector, per_cluster) = (field(11, 2), field(13, 1));
    if head[510..] != [0x55, 0xaa] || !named || !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
        return Ok(None);
    }
    let (reserved, fats, entries) = (field(14, 2), field(16, 1), field(17, 2));
    let sectors = if field(19, 2) == 0 { field(32, 4) } else { field(19, 2) };
    let fat_sectors = if field(22, 2) == 0 { field(36, 4) } else { field(22, 2) };
    let data = reserved + fats * fat_sectors + (entries * 32).div_ceil(sector);
    if per_cluster == 0 || fats == 0 || data >= sectors || sectors * sector > end - start {
        return Ok(None);
    }
    let clusters = (sectors - data) / per_cluster;
    let bits = match clusters {
        0..4085 => 12,
        4085..65525 => 16,
        _ => 32,
    };
    let table = bytes(image, start + reserved * sector, fat_sectors * sector)?;
    let is_free = |cluster: u64| {
        let at = (cluster * bits / 8) as usize;
        let Some(entry) = table.get(at..at + if bits == 32 { 4 } else { 2 }) else { return false };
        match (bits, number(entry)) {
            (12, entry) if cluster % 2 == 1 => entry >> 4 == 0,
            (12, entry) => entry & 0xfff == 0,
            (16, entry) => entry == 0,
            (_, entry) => entry & 0x0fff_ffff == 0,
        }
    };
    let mut used = Used::new(sectors, sector);
    used.add(0, data);
    for cluster in 0..clusters {
        if !is_free(cluster + 2) {
            used.add(data + cluster * per_cluster, per_cluster);
        }
    }
    Ok(Some(used.ranges()))
}

/// Units of a file system that are used.
struct Used {
    unit: u64,
    used: Vec<bool>,
}

impl Used {
    fn new(units: u64, unit: u64) -> Self {
        Self { unit, used: vec![false; units as usize] }
    }

    fn add(&mut self, first: u64, count: u64) {
        let end = (first + count).min(self.used.len() as u64) as usize;
        if let Some(units) = self.used.get_mut(first as usize..end) {
            units.fill(true);
        }
    }

    fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for (index, _) in self.used.iter().enumerate().filter(|(_, used)| **used) {
            let (start, end) = (index as u64 * self.unit, (index as u64 + 1) * self.unit);
            match ranges.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => ranges.push((start, end)),
            }
        }
        ranges
    }
}
