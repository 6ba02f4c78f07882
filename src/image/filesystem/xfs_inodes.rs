//! The inodes of an XFS, found through the B+trees of its allocation groups and set right.
//!
//! Fields as in the XFS Algorithms & Data Structures manual ("Superblocks", "Inode B+tree", "On-disk
//! Inode"); all numbers but checksums are big-endian.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Result, ensure};

use super::walk::{Entry, FileSize};

/// Bytes before the records of an inode B+tree's block.
const BLOCK_HEADER: usize = 56;
/// Inodes that a record is about.
const CHUNK: u64 = 64;
/// Inodes that one bit of a record's mask of holes is about.
const HOLE: u64 = 4;
/// Of the second flags: dates are nanoseconds since 1901.
const BIG_TIME: u64 = 1 << 3;
const NO_BLOCK: u32 = u32::MAX;

/// Owner that stands for the entry of this number until its inode is set right; 0 is left for inodes
/// that belong to no file.
pub(super) fn owner(entry: usize) -> u64 {
    entry as u64 + 1
}

struct Geometry {
    block: u64,
    sector: u64,
    group_blocks: u64,
    groups: u64,
    inode_size: u64,
    inodes_per_block: u64,
    /// Whether records tell which inodes of a chunk are not there.
    sparse: bool,
}

/// Gives every inode its owner, mode and date. Returns whether every file has its inode and all of its
/// blocks.
pub(super) fn settle(path: &Path, entries: &[Entry], epoch: i64) -> Result<bool> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let geometry = Geometry::read(&file)?;
    let mut found = 0;
    for group in 0..geometry.groups {
        for chunk in geometry.chunks(&file, group)? {
            found += geometry.settle_chunk(&file, group, &chunk, entries, epoch)?;
        }
    }
    Ok(found == entries.len())
}

/// A record: the first inode of the group, a bit for each hole of four and one for each free inode.
struct Chunk {
    start: u64,
    holes: u16,
    free: u64,
}

impl Geometry {
    fn read(file: &File) -> Result<Self> {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, 0)?;
        ensure!(&bytes[..4] == b"XFSB" && u16_at(&bytes, 100) & 0xf == 5, "there is no XFS of version 5");
        Ok(Self {
            block: u32_at(&bytes, 4).into(),
            sector: u16_at(&bytes, 102).into(),
            group_blocks: u32_at(&bytes, 84).into(),
            groups: u32_at(&bytes, 88).into(),
            inode_size: u16_at(&bytes, 104).into(),
            inodes_per_block: u16_at(&bytes, 106).into(),
            sparse: u32_at(&bytes, 216) & 2 != 0,
        })
    }

    fn place(&self, group: u64, block: u64) -> u64 {
        (group * self.group_blocks + block) * self.block
    }

    fn chunks(&self, file: &File, group: u64) -> Result<Vec<Chunk>> {
        let mut header = [0; 32];
        file.read_exact_at(&mut header, self.place(group, 0) + 2 * self.sector)?;
        ensure!(&header[..4] == b"XAGI", "allocation group {group} has no inodes");
        let mut at = u32_at(&header, 20);
        let mut block = vec![0; self.block as usize];
        let mut chunks = Vec::new();
        while at != NO_BLOCK {
            file.read_exact_at(&mut block, self.place(group, at.into()))?;
            ensure!(&block[..4] == b"IAB3", "block {at} of group {group} has no inodes");
            let records = usize::from(u16_at(&block, 6));
            if u16_at(&block, 4) > 0 {
                // Down to the left; leaves lead to the right.
                let most = (block.len() - BLOCK_HEADER) / 8;
                at = u32_at(&block, BLOCK_HEADER + 4 * most);
                continue;
            }
            chunks.extend(block[BLOCK_HEADER..].chunks(16).take(records).map(|record| Chunk {
                start: u32_at(record, 0).into(),
                holes: if self.sparse { u16_at(record, 4) } else { 0 },
                free: u64_at(record, 8),
            }));
            at = u32_at(&block, 12);
        }
        Ok(chunks)
    }

    /// Returns how many of the entries it has met whole.
    fn settle_chunk(&self, file: &File, group: u64, chunk: &Chunk, entries: &[Entry], epoch: i64) -> Result<usize> {
        let mut found = 0;
        let mut inode = vec![0; self.inode_size as usize];
        for index in 0..CHUNK {
            if chunk.holes & 1 << (index / HOLE) != 0 {
                continue;
            }
            let number = chunk.start + index;
            let at =
                self.place(group, number / self.inodes_per_block) + number % self.inodes_per_block * self.inode_size;
            file.read_exact_at(&mut inode, at)?;
            ensure!(&inode[..2] == b"IN" && inode[4] == 3, "inode {number} of group {group} is not one");
            let is_free = chunk.free & 1 << index != 0;
            let owner = u32_at(&inode, 8);
            let entry = (!is_free && owner > 0).then(|| entries.get(owner as usize - 1)).flatten();
            settle_inode(&mut inode, number, entry, epoch);
            if let Some(entry) = entry {
                let blocks = u64_at(&inode, 64);
                let whole = !entry.meta.is_file()
                    || blocks * self.block >= entry.meta.len()
                    || blocks * self.block >= FileSize::of(entry)?.data;
                found += usize::from(whole);
            }
            file.write_all_at(&inode, at)?;
        }
        Ok(found)
    }
}

fn settle_inode(inode: &mut [u8], number: u64, entry: Option<&Entry>, epoch: i64) {
    let mut seconds = epoch;
    if let Some(Entry { meta, .. }) = entry {
        put(inode, 2, &(meta.mode() as u16).to_be_bytes());
        put(inode, 8, &meta.uid().to_be_bytes());
        put(inode, 12, &meta.gid().to_be_bytes());
        seconds = meta.mtime().min(epoch);
    }
    if u16_at(inode, 2) != 0 {
        let date = match u64_at(inode, 120) & BIG_TIME {
            0 => u64::from(seconds as u32) << 32,
            _ => ((seconds + (1 << 31)) as u64) * 1_000_000_000,
        };
        for at in [32, 40, 48, 144] {
            put(inode, at, &date.to_be_bytes());
        }
    }
    // The generation, which tells a file from an earlier one of the same number (for NFS).
    put(inode, 92, &(number as u32).to_be_bytes());
    put(inode, 100, &[0; 4]);
    let sum = crc32c::crc32c(inode);
    put(inode, 100, &sum.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}
