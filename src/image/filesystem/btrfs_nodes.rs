//! What mkfs.btrfs takes from the clock and from chance, and what it does not take from the tree: set
//! right in the blocks of the B-trees.
//!
//! Fields as in the kernel's include/uapi/linux/btrfs_tree.h. Blocks of trees are known by their
//! header, which names the file system and another random number, and by their checksum; so both
//! copies of each are found without following any tree.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Result, ensure};
use uuid::Uuid;

use super::walk::Entry;
use crate::image::Spec;
use crate::image::sparse::data_ranges;

const SUPERBLOCKS: [u64; 2] = [64 << 10, 64 << 20];
const SUPERBLOCK: usize = 4096;
const CHECKSUM: usize = 32;
const ID: std::ops::Range<usize> = 32..48;
const MAGIC: std::ops::Range<usize> = 64..72;
/// Of a superblock.
const NODE_SIZE: usize = 148;
const CHUNKS_LENGTH: usize = 160;
const CHECKSUM_TYPE: usize = 196;
const DEVICE: usize = 201;
const CHUNKS: usize = 811;
/// Of a tree's block.
const CHUNK_TREE: std::ops::Range<usize> = 64..80;
const GENERATION: std::ops::Range<usize> = 80..88;
const OWNER: usize = 88;
const ITEMS: usize = 96;
const LEVEL: usize = 100;
const HEADER: usize = 101;
const ITEM: usize = 25;
const KEY: usize = 17;
const POINTER: usize = 33;
/// Types of items.
const INODE: u8 = 1;
const ATTRIBUTE: u8 = 24;
const NAME: u8 = 84;
const NAME_INDEX: u8 = 96;
const ROOT: u8 = 132;
const DEVICE_EXTENT: u8 = 204;
const DEVICE_ITEM: u8 = 216;
const CHUNK: u8 = 228;
const SUBVOLUME_ID: u8 = 251;
/// Of a device item.
const DEVICE_ID: usize = 66;
const FILES_TREE: u64 = 5;
const UUID_TREE: u64 = 9;
const TOP: u64 = 256;

/// What is written in the place of what there was.
struct Settled<'a> {
    top: Option<&'a Entry>,
    epoch: i64,
    /// Of the file system; the others follow from it.
    uuid: &'a str,
    device: Uuid,
    chunk_tree: Uuid,
}

/// Sets dates, UUIDs, and the top directory's owner and mode.
pub(super) fn settle(path: &Path, uuid: &str, top: Option<&Entry>, epoch: i64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let settled = Settled {
        top,
        epoch,
        device: Spec::derived_uuid(uuid, "device"),
        uuid,
        chunk_tree: Spec::derived_uuid(uuid, "chunk tree"),
    };
    let mut superblock = vec![0; SUPERBLOCK];
    file.read_exact_at(&mut superblock, SUPERBLOCKS[0])?;
    ensure!(&superblock[MAGIC] == b"_BHRfS_M", "there is no btrfs");
    ensure!(
        u16::from_le_bytes([superblock[CHECKSUM_TYPE], superblock[CHECKSUM_TYPE + 1]]) == 0,
        "its checksums are not crc32c"
    );
    let node = number(&superblock, NODE_SIZE) as usize;
    for (start, end) in data_ranges(&file, length)? {
        let mut at = start.next_multiple_of(node as u64);
        while at + node as u64 <= end {
            settled.block(&file, at, node, &superblock[ID])?;
            at += node as u64;
        }
    }
    for at in SUPERBLOCKS.into_iter().filter(|at| at + SUPERBLOCK as u64 <= length) {
        file.read_exact_at(&mut superblock, at)?;
        if &superblock[MAGIC] == b"_BHRfS_M" {
            settled.superblock(&mut superblock);
            sum(&mut superblock);
            file.write_all_at(&superblock, at)?;
        }
    }
    Ok(())
}

impl Settled<'_> {
    /// A block, if it is one of a tree.
    fn block(&self, file: &File, at: u64, node: usize, id: &[u8]) -> Result<()> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, at)?;
        if header[ID] != *id {
            return Ok(());
        }
        let mut bytes = vec![0; node];
        file.read_exact_at(&mut bytes, at)?;
        let stored = number(&bytes, 0);
        if crc32c::crc32c(&bytes[CHECKSUM..]) != stored {
            return Ok(());
        }
        put(&mut bytes, CHUNK_TREE.start, self.chunk_tree.as_bytes());
        if bytes[LEVEL] == 0 {
            self.leaf(&mut bytes)?;
        } else {
            ensure!(long(&bytes, OWNER) != UUID_TREE, "it has more subvolumes than fit into one block");
            let end = HEADER + POINTER * number(&bytes, ITEMS) as usize;
            bytes.get_mut(end..).unwrap_or_default().fill(0);
        }
        sum(&mut bytes);
        Ok(file.write_all_at(&bytes, at)?)
    }

    fn leaf(&self, bytes: &mut [u8]) -> Result<()> {
        let (owner, items) = (long(bytes, OWNER), number(bytes, ITEMS) as usize);
        let mut lowest = bytes.len();
        let generation = bytes[GENERATION].to_vec();
        for index in 0..items {
            let item = HEADER + index * ITEM;
            ensure!(item + ITEM <= bytes.len(), "a leaf has more items than it has room for");
            let (object, kind) = (long(bytes, item), bytes[item + 8]);
            let start = HEADER + number(bytes, item + KEY) as usize;
            let end = start + number(bytes, item + KEY + 4) as usize;
            ensure!(end <= bytes.len(), "an item lies outside of its leaf");
            lowest = lowest.min(start);
            let data = &mut bytes[start..end];
            match kind {
                INODE if data.len() >= 160 => {
                    let top = self.top.filter(|_| owner == FILES_TREE && object == TOP);
                    self.inode(data, top);
                }
                ROOT if data.len() >= 375 => self.root(object, data),
                DEVICE_ITEM if data.len() >= 98 => put(data, DEVICE_ID, self.device.as_bytes()),
                DEVICE_EXTENT if data.len() >= 48 => put(data, 32, self.chunk_tree.as_bytes()),
                CHUNK => self.chunk(data),
                ATTRIBUTE | NAME | NAME_INDEX => names(data, &generation),
                _ => {}
            }
        }
        if owner == UUID_TREE {
            self.subvolumes(bytes, items)?;
        }
        // Between items and their data is what was there before.
        bytes.get_mut(HEADER + items * ITEM..lowest).unwrap_or_default().fill(0);
        Ok(())
    }

    /// The tree of UUIDs, which finds subvolumes by them: keys are their UUIDs, in order.
    fn subvolumes(&self, bytes: &mut [u8], items: usize) -> Result<()> {
        let (mut subvolumes, mut places) = (Vec::new(), Vec::new());
        for item in (0..items).map(|index| HEADER + index * ITEM) {
            let start = HEADER + number(bytes, item + KEY) as usize;
            ensure!(
                bytes[item + 8] == SUBVOLUME_ID && number(bytes, item + KEY + 4) == 8,
                "its tree of UUIDs has more than subvolumes"
            );
            let subvolume = long(bytes, start);
            let uuid = self.subvolume(subvolume);
            subvolumes.push((long(uuid.as_bytes(), 0), long(uuid.as_bytes(), 8), subvolume));
            places.push((item, start));
        }
        subvolumes.sort_unstable();
        for ((first, second, subvolume), (item, start)) in subvolumes.into_iter().zip(places) {
            put(bytes, item, &first.to_le_bytes());
            put(bytes, item + 9, &second.to_le_bytes());
            put(bytes, start, &subvolume.to_le_bytes());
        }
        Ok(())
    }

    /// UUID of the subvolume of this number.
    fn subvolume(&self, number: u64) -> Uuid {
        match number {
            FILES_TREE => Spec::derived_uuid(self.uuid, "subvolume"),
            number => Spec::derived_uuid(self.uuid, &format!("subvolume {number}")),
        }
    }

    fn inode(&self, data: &mut [u8], top: Option<&Entry>) {
        let mut modified = long(data, 136).cast_signed().min(self.epoch);
        if let Some(Entry { meta, .. }) = top {
            put(data, 44, &meta.uid().to_le_bytes());
            put(data, 48, &meta.gid().to_le_bytes());
            put(data, 52, &meta.mode().to_le_bytes());
            modified = meta.mtime().min(self.epoch);
        }
        for at in [112, 124, 136, 148] {
            put(data, at, &modified.to_le_bytes());
            put(data, at + 8, &[0; 4]);
        }
    }

    fn root(&self, number: u64, data: &mut [u8]) {
        let is_set = |data: &[u8], at: usize, length: usize| data[at..at + length].iter().any(|byte| *byte != 0);
        if is_set(data, 247, 16) {
            put(data, 247, self.subvolume(number).as_bytes());
        }
        // Of the inode in it, and its own.
        for at in [112, 124, 136, 148, 327, 339, 351, 363] {
            if is_set(data, at, 12) {
                put(data, at, &self.epoch.to_le_bytes());
                put(data, at + 8, &[0; 4]);
            }
        }
    }

    /// A chunk's stripes name their device.
    fn chunk(&self, data: &mut [u8]) {
        for stripe in data.get_mut(48..).unwrap_or_default().chunks_exact_mut(32) {
            stripe[16..].copy_from_slice(self.device.as_bytes());
        }
    }

    fn superblock(&self, bytes: &mut [u8]) {
        put(bytes, DEVICE + DEVICE_ID, self.device.as_bytes());
        let end = (CHUNKS + number(bytes, CHUNKS_LENGTH) as usize).min(CHUNKS + 2048);
        let mut at = CHUNKS;
        while at + KEY + 48 <= end {
            let stripes = usize::from(u16::from_le_bytes([bytes[at + KEY + 44], bytes[at + KEY + 45]]));
            let next = (at + KEY + 48 + 32 * stripes).min(end);
            self.chunk(&mut bytes[at + KEY..next]);
            at = next;
        }
        bytes[end..CHUNKS + 2048].fill(0);
    }
}

/// mkfs.btrfs leaves chance bytes where a name's entry says when it was made.
fn names(data: &mut [u8], generation: &[u8]) {
    let mut at = 0;
    while at + 30 <= data.len() {
        put(data, at + KEY, generation);
        let length = |at: usize| usize::from(u16::from_le_bytes([data[at], data[at + 1]]));
        at += 30 + length(at + 25) + length(at + 27);
    }
}

fn sum(bytes: &mut [u8]) {
    let sum = crc32c::crc32c(&bytes[CHECKSUM..]);
    put(bytes, 0, &sum.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(number(bytes, at)) | u64::from(number(bytes, at + 4)) << 32
}
