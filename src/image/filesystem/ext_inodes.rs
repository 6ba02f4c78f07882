//! What `mke2fs -d` takes from the host and nobody can tell it otherwise: the times of inodes, and the
//! top directory's owner and mode. Set afterwards, in the inode tables.
//!
//! Fields as in the kernel's Documentation/filesystems/ext4 (super, group_descr, inodes).

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::ext_amend::Flags;

const ROOT_INODE: u64 = 2;
const MODE_TYPE: u16 = 0o170_000;

const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
const GROUP_INODES_UNUSED: u16 = 1;

/// Where an inode has its flags.
const FLAGS: usize = 32;

/// What extended attributes in an inode begin with.
const ATTRIBUTES: u32 = 0xea02_0000;
/// Where the name stands in an attribute's entry.
const ATTRIBUTE_NAME: usize = 16;

/// An extended attribute: its namespace's number, its name, its value.
type Attribute = (u8, Vec<u8>, Vec<u8>);

/// What of a superblock matters here.
struct Superblock {
    block: u64,
    first_block: u64,
    groups: u64,
    inodes_per_group: u64,
    inode_size: usize,
    descriptor_size: usize,
    /// What checksums begin with, where there are checksums.
    seed: Option<u32>,
}

/// Sets access, change and creation time of every inode to its modification time, none younger than
/// `epoch`, and the root's owner, mode and time to those of `top`. Some get `flags` more.
pub(super) fn settle(image: &File, offset: u64, top: Option<&Path>, epoch: i64, flags: &Flags) -> Result<()> {
    let doing = "setting the times of the inodes";
    let top = top.map(Path::symlink_metadata).transpose().context(doing)?;
    let superblock = Superblock::read(image, offset).context(doing)?;
    // With clusters, small blocks are counted from 0, too; the superblock is in the second all the same.
    let first = superblock.first_block.max(u64::from(superblock.block == 1024));
    let descriptors_at = offset + (first + 1) * superblock.block;
    let mut descriptors = vec![0; superblock.descriptor_size * superblock.groups as usize];
    image.read_exact_at(&mut descriptors, descriptors_at).context(doing)?;
    let mut bitmap = vec![0; superblock.inodes_per_group.div_ceil(8) as usize];
    for (group, descriptor) in (0..).zip(descriptors.chunks(superblock.descriptor_size)) {
        if u16_at(descriptor, 0x12) & GROUP_INODES_UNUSED != 0 {
            continue;
        }
        let place = |low: usize, high: usize| {
            let high = if superblock.descriptor_size >= 64 { u64::from(u32_at(descriptor, high)) << 32 } else { 0 };
            offset + (u64::from(u32_at(descriptor, low)) | high) * superblock.block
        };
        image.read_exact_at(&mut bitmap, place(4, 0x24)).context(doing)?;
        let used = |index: usize| bitmap[index / 8] & (1 << (index % 8)) != 0;
        let Some(last) = (0..superblock.inodes_per_group as usize).rev().find(|index| used(*index)) else { continue };
        let table_at = place(8, 0x28);
        let mut table = vec![0; (last + 1) * superblock.inode_size];
        image.read_exact_at(&mut table, table_at).context(doing)?;
        for (index, inode) in table.chunks_mut(superblock.inode_size).enumerate() {
            let number = group * superblock.inodes_per_group + index as u64 + 1;
            // Free ones are zeros, and so are some of those that are reserved.
            if !used(index) || inode.iter().all(|byte| *byte == 0) {
                continue;
            }
            if let (ROOT_INODE, Some(top)) = (number, &top) {
                let mode = u16_at(inode, 0) & MODE_TYPE | (top.mode() as u16 & !MODE_TYPE);
                put(inode, 0, &mode.to_le_bytes());
                for (id, low, high) in [(top.uid(), 2, 120), (top.gid(), 24, 122)] {
                    put(inode, low, &(id as u16).to_le_bytes());
                    put(inode, high, &((id >> 16) as u16).to_le_bytes());
                }
                set_times(inode, top.mtime().min(epoch));
            } else {
                let modified = u32_at(inode, 16).cast_signed();
                set_times(inode, i64::from(modified).min(epoch));
            }
            if let Some(more) = flags.get(&number) {
                let all = u32_at(inode, FLAGS) | more;
                put(inode, FLAGS, &all.to_le_bytes());
            }
            sort_attributes(inode);
            if let Some(seed) = superblock.seed {
                set_checksum(inode, seed, number as u32);
            }
        }
        // Where the table has holes, it keeps them.
        for (index, block) in table.chunks(superblock.block as usize).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                image.write_all_at(block, table_at + index as u64 * superblock.block).context(doing)?;
            }
        }
    }
    Ok(())
}

impl Superblock {
    fn read(image: &File, offset: u64) -> Result<Self> {
        let mut bytes = [0; 1024];
        image.read_exact_at(&mut bytes, offset + 1024)?;
        ensure!(u16_at(&bytes, 56) == 0xef53, "there is no file system");
        let incompat = u32_at(&bytes, 96);
        ensure!(incompat & INCOMPAT_META_BG == 0, "the feature meta_bg is not known here");
        let blocks = u64::from(u32_at(&bytes, 4)) | u64::from(u32_at(&bytes, 0x150)) << 32;
        let first_block = u64::from(u32_at(&bytes, 20));
        let per_group = u64::from(u32_at(&bytes, 32));
        let seed = (u32_at(&bytes, 100) & RO_COMPAT_METADATA_CSUM != 0).then(|| {
            let stored = incompat & INCOMPAT_CSUM_SEED != 0;
            if stored { u32_at(&bytes, 0x270) } else { crc32c(u32::MAX, &bytes[104..120]) }
        });
        let descriptor_size = if incompat & INCOMPAT_64BIT != 0 { usize::from(u16_at(&bytes, 254)) } else { 32 };
        Ok(Self {
            block: 1024 << u32_at(&bytes, 24),
            first_block,
            groups: (blocks - first_block).div_ceil(per_group.max(1)),
            inodes_per_group: u32_at(&bytes, 40).into(),
            inode_size: usize::from(u16_at(&bytes, 88)),
            descriptor_size,
            seed,
        })
    }
}

/// All four times, without fractions of a second, which mke2fs does not keep either.
fn set_times(inode: &mut [u8], seconds: i64) {
    let low = (seconds as u32).to_le_bytes();
    for at in [8, 12, 16] {
        put(inode, at, &low);
    }
    // Bits 32 and 33, counted from where the signed 32 bits end.
    let high = ((seconds - i64::from(seconds as i32)) >> 32) as u32 & 3;
    let extra = usize::from(extra_size(inode));
    for at in [132, 136, 140, 148] {
        if at + 4 <= 128 + extra {
            put(inode, at, &high.to_le_bytes());
        }
    }
    if 148 <= 128 + extra {
        put(inode, 144, &low);
    }
}

/// Puts the extended attributes that an inode has in itself in the order of their names: mke2fs has
/// them as the host lists them. Names and values are laid out as mke2fs does it, values from behind.
fn sort_attributes(inode: &mut [u8]) {
    let start = 128 + usize::from(extra_size(inode));
    if start + 4 > inode.len() || start == 128 || u32_at(inode, start) != ATTRIBUTES {
        return;
    }
    let area = &mut inode[start + 4..];
    let Some(mut entries) = attributes(area) else { return };
    entries.sort();
    area.fill(0);
    let (mut at, mut end) = (0, area.len());
    for (index, name, value) in entries {
        end -= value.len().next_multiple_of(4);
        put(area, end, &value);
        area[at] = name.len() as u8;
        area[at + 1] = index;
        put(area, at + 2, &(end as u16).to_le_bytes());
        put(area, at + 8, &(value.len() as u32).to_le_bytes());
        put(area, at + ATTRIBUTE_NAME, &name);
        at += (ATTRIBUTE_NAME + name.len()).next_multiple_of(4);
    }
}

/// Each of them; `None` where one is kept elsewhere or they are not as expected.
fn attributes(area: &[u8]) -> Option<Vec<Attribute>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at + 4 <= area.len() && u32_at(area, at) != 0 {
        let header = area.get(at..at + ATTRIBUTE_NAME)?;
        let name = area.get(at + ATTRIBUTE_NAME..at + ATTRIBUTE_NAME + usize::from(header[0]))?;
        let value_at = usize::from(u16_at(header, 2));
        let value = area.get(value_at..value_at + u32_at(header, 8) as usize)?;
        if u32_at(header, 4) != 0 {
            return None;
        }
        all.push((header[1], name.to_vec(), value.to_vec()));
        at += (ATTRIBUTE_NAME + name.len()).next_multiple_of(4);
    }
    Some(all)
}

fn set_checksum(inode: &mut [u8], seed: u32, number: u32) {
    let has_high = extra_size(inode) >= 4;
    put(inode, 124, &[0, 0]);
    if has_high {
        put(inode, 130, &[0, 0]);
    }
    let seed = crc32c(crc32c(seed, &number.to_le_bytes()), &inode[100..104]);
    let sum = crc32c(seed, inode);
    put(inode, 124, &(sum as u16).to_le_bytes());
    if has_high {
        put(inode, 130, &((sum >> 16) as u16).to_le_bytes());
    }
}

/// Bytes of the inode behind the first 128 that are fields.
fn extra_size(inode: &[u8]) -> u16 {
    if inode.len() > 128 { u16_at(inode, 128) } else { 0 }
}

/// The kernel's and e2fsprogs's way: not inverted at either end.
fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
