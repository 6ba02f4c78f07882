//! What bytes that are put over an image would destroy.

use super::size::exact;
use super::{FilesystemKind, ImageSize, Layout, Spec, TableKind, Write, WriteTarget};

/// Bytes of the first sector that boot code has; the disk's id and the table follow.
const BOOT_CODE: u64 = 440;

/// A part of the disk that belongs to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// For messages: "the GPT's entries", "partition `root`".
    pub name: String,
    /// First byte.
    pub start: u64,
    /// The first byte behind.
    pub end: u64,
    /// What it is.
    pub owner: Owner,
}

/// See [`Area::owner`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The partition table.
    Table,
    /// A GPT's copy at the end of the disk.
    Backup,
    /// A partition with a file system.
    Filesystem,
    /// A partition without, or an area that is reserved: what lies in it as a whole may be meant for it.
    Room,
}

/// Why bytes cannot be put where they should go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overwrite {
    /// Lower-case, one sentence.
    pub message: String,
    /// The way out.
    pub hint: String,
}

impl Layout {
    /// What lies where. Where the size of the image is open, as far as that can be told.
    pub fn areas(&self, spec: &Spec) -> Vec<Area> {
        let sector = u64::from(spec.sector_size);
        let open = matches!(spec.size, ImageSize::Auto { .. });
        let table = |name: &str, start, end| Area { name: name.into(), start, end, owner: Owner::Table };
        let mut areas = vec![table("the partition table", BOOT_CODE, 512)];
        if spec.table == TableKind::Gpt {
            let entries = spec.gpt_entries() * sector;
            areas.push(table("the GPT's header", sector, 2 * sector));
            areas.push(table("the GPT's entries", entries, entries + spec.gpt_entry_sectors() * sector));
            if !open {
                let start = self.size.saturating_sub(spec.sectors_behind() * sector);
                let name = "the GPT's copy at the end of the image".into();
                areas.push(Area { name, start, end: self.size, owner: Owner::Backup });
            }
        }
        for record in self.extended.iter().flat_map(|extended| &extended.records) {
            areas.push(table("the record of a logical partition", *record, record + sector));
        }
        let filled = spec.partitions.iter().position(|partition| partition.fill);
        let known = filled.filter(|_| open).map_or(spec.partitions.len(), |index| index + 1);
        for (partition, placed) in spec.partitions.iter().zip(&self.partitions).take(known) {
            let owner = match partition.contents.kind {
                FilesystemKind::None => Owner::Room,
                _ => Owner::Filesystem,
            };
            areas.push(Area {
                name: format!("partition `{}`", partition.name),
                start: placed.start,
                end: placed.end(),
                owner,
            });
        }
        areas.extend(spec.reserved.iter().map(|reserved| Area {
            name: format!("`{}`", reserved.name),
            start: reserved.offset,
            end: reserved.offset.saturating_add(reserved.length),
            owner: Owner::Room,
        }));
        areas
    }

    /// Everything that stands against a write of so many bytes, after `earlier` ones.
    pub fn overwrites(&self, spec: &Spec, write: &Write, length: u64, earlier: &[(&Write, u64)]) -> Vec<Overwrite> {
        let WriteTarget::At { partition, offset } = &write.target else { return Vec::new() };
        let mut found = Vec::new();
        let name = &write.name;
        let Some((start, end)) = self.extent(write, length) else { return found };
        if let Some(partition) = partition {
            found.extend(self.in_partition(spec, name, partition, *offset, length));
        } else {
            if end > self.size && matches!(spec.size, ImageSize::Bytes(_)) {
                found.push(Overwrite {
                    message: format!("`{name}` would end at {}, beyond the image's {}", exact(end), exact(self.size)),
                    hint: "make `imagesize` larger, or `offset` smaller".into(),
                });
            }
            let areas = self.areas(spec);
            for area in &areas {
                let inside = area.owner == Owner::Room && area.start <= start && end <= area.end;
                if start < area.end && area.start < end && !inside {
                    found.push(hit(spec, name, area, (start, end), first_free(&areas, area.end)));
                }
            }
        }
        for (other, other_length) in earlier {
            let Some((other_start, other_end)) = self.extent(other, *other_length) else { continue };
            if start < other_end && other_start < end {
                let (from, to) = (exact(other_start), exact(other_end));
                found.push(Overwrite {
                    message: format!("`{name}` overwrites `{}`, which goes from {from} to {to}", other.name),
                    hint: format!("the first sector behind that is `offset: {}`", sectors_behind(spec, other_end)),
                });
            }
        }
        found
    }

    fn in_partition(&self, spec: &Spec, name: &str, partition: &str, offset: u64, length: u64) -> Vec<Overwrite> {
        let mut found = Vec::new();
        let Some(placed) = self.partition(partition) else { return found };
        let open = matches!(spec.size, ImageSize::Auto { .. });
        let filled = spec.partition(partition).is_some_and(|partition| partition.fill);
        if offset.saturating_add(length) > placed.length && !(open && filled) {
            let room = exact(placed.length.saturating_sub(offset));
            found.push(Overwrite {
                message: format!("`{name}` has {}, partition `{partition}` has room for {room}", exact(length)),
                hint: format!("give `{partition}` a larger size"),
            });
        }
        if let Some(mount) = spec.mounts.iter().find(|mount| mount.partition == partition) {
            found.push(Overwrite {
                message: format!(
                    "`{name}` overwrites the file system of `{partition}`, which is mounted on {}",
                    mount.path
                ),
                hint: "a partition for a `raw` has no mount point: best it has `fs: none`".into(),
            });
        }
        found
    }

    /// First byte of a write, and the first behind it, on the disk.
    fn extent(&self, write: &Write, length: u64) -> Option<(u64, u64)> {
        let WriteTarget::At { partition, offset } = &write.target else { return None };
        let base = match partition {
            Some(name) => self.partition(name)?.start,
            None => 0,
        };
        let start = base.saturating_add(*offset);
        Some((start, start.saturating_add(length)))
    }
}

fn hit(spec: &Spec, name: &str, area: &Area, (start, end): (u64, u64), free: u64) -> Overwrite {
    let (from, to) = (exact(area.start), exact(area.end));
    let message = format!("`{name}` overwrites {}, from {from} to {to}", area.name);
    let next = exact(end.next_multiple_of(spec.alignment.max(1))).replace(' ', "");
    let hint = match area.owner {
        Owner::Table if area.start < u64::from(spec.sector_size) => {
            "the first 440 bytes of a disk are for boot code; what is larger goes behind the table".into()
        }
        Owner::Table if spec.table == TableKind::Gpt && area.start > u64::from(spec.sector_size) => {
            format!("`gpt_gap: {next}` moves the entries behind it; or give it a later `offset`")
        }
        Owner::Table => format!("the first place that is free is `offset: {}`", sectors_behind(spec, free)),
        Owner::Backup => "make `imagesize` larger, or `offset` smaller".into(),
        Owner::Filesystem if start >= area.start => "only what is in front of the partition is free".into(),
        Owner::Filesystem => format!("let the partition start behind it: `start: {next}`"),
        Owner::Room => "what belongs there must lie in it as a whole; move one of them".into(),
    };
    Overwrite { message, hint }
}

/// The first byte from `at` on that no area has.
fn first_free(areas: &[Area], mut at: u64) -> u64 {
    while let Some(area) = areas.iter().find(|area| (area.start..area.end).contains(&at)) {
        at = area.end;
    }
    at
}

/// The first sector behind so many bytes, as `offset` takes it.
fn sectors_behind(spec: &Spec, bytes: u64) -> String {
    format!("{}s", bytes.div_ceil(u64::from(spec.sector_size)))
}
