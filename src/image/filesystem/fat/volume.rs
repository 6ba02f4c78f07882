//! An empty FAT file system as mkfs.vfat leaves it, and how clusters are handed out in it
//! (Microsoft's FAT specification, 1.03).

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};

/// Bytes of a directory entry.
pub(super) const ENTRY: u64 = 32;

/// Signatures of the sector that tells how many clusters are free.
const INFO_SIGNATURES: [(u64, u32); 2] = [(0, 0x4161_5252), (484, 0x6141_7272)];

/// Where the parts of a file system lie, in bytes of the image.
#[derive(Debug)]
pub(super) struct Volume {
    offset: u64,
    sector: u64,
    /// Bytes of a cluster.
    pub cluster: u64,
    fats: Vec<u64>,
    fat_length: u64,
    /// Of the root directory of FAT12 and FAT16, and its entries.
    pub fixed_root: Option<(u64, u64)>,
    /// First cluster of FAT32's root directory.
    root: u32,
    data: u64,
    /// Clusters, of which the first has the number 2.
    pub clusters: u64,
    bits: u32,
    /// Sectors that tell how many clusters are free.
    info: Vec<u64>,
    table: Vec<u32>,
    next: u32,
}

impl Volume {
    /// Reads the boot sector.
    pub fn open(image: &File, offset: u64) -> Result<Self> {
        let mut boot = [0; 512];
        image.read_exact_at(&mut boot, offset)?;
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let first = |a: u64, b: u64| if a == 0 { b } else { a };
        let sector = u16_at(11);
        let cluster = sector * u64::from(boot[13]);
        let root_entries = u16_at(17);
        let fat_length = first(u16_at(22), u32_at(36)) * sector;
        ensure!(cluster > 0 && fat_length > 0, "there is no FAT file system");
        let is_32 = u16_at(22) == 0;
        let fats: Vec<u64> =
            (0..u64::from(boot[16])).map(|number| offset + u16_at(14) * sector + number * fat_length).collect();
        let after_fats = offset + u16_at(14) * sector + u64::from(boot[16]) * fat_length;
        let data = after_fats + (root_entries * ENTRY).next_multiple_of(sector);
        let total = first(u16_at(19), u32_at(32)) * sector;
        let clusters = (offset + total - data) / cluster;
        let bits = if is_32 { 32 } else { if clusters < 4085 { 12 } else { 16 } };
        let info = if is_32 { vec![u16_at(48), u16_at(50) + u16_at(48)] } else { Vec::new() };
        let mut volume = Self {
            offset,
            sector,
            cluster,
            fats,
            fat_length,
            fixed_root: (!is_32).then_some((after_fats, root_entries)),
            root: u32_at(44) as u32,
            data,
            clusters,
            bits,
            info,
            table: vec![0; clusters as usize + 2],
            next: 2,
        };
        // The first two entries tell the medium; mkfs.vfat has written them.
        let mut start = [0; 8];
        image.read_exact_at(&mut start, volume.fats[0])?;
        let [a, b] = match bits {
            12 => [u32::from(start[0]) | 0xf00, 0xfff],
            16 => [0, 2].map(|at| u32::from(u16::from_le_bytes([start[at], start[at + 1]]))),
            _ => [0, 4].map(|at| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]])),
        };
        volume.table[0] = a;
        volume.table[1] = b;
        Ok(volume)
    }

    /// Bytes that the file system would have with just this many clusters.
    pub fn length_with(&self, clusters: u64) -> u64 {
        self.data - self.offset + clusters * self.cluster
    }

    /// Clusters of so many bytes.
    pub fn clusters_of(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster)
    }

    /// Where a cluster lies in the image.
    pub fn place(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster - 2) * self.cluster
    }

    /// Takes the next clusters, one after the other; their first, 0 for none.
    pub fn allocate(&mut self, count: u64) -> Result<u32> {
        if count == 0 {
            return Ok(0);
        }
        let first = self.next;
        let end = u64::from(first) + count;
        ensure!(end <= self.clusters + 2, "the file system is full");
        for cluster in first..end as u32 {
            self.table[cluster as usize] = cluster + 1;
        }
        self.table[end as usize - 1] = match self.bits {
            12 => 0xfff,
            16 => 0xffff,
            _ => 0x0fff_ffff,
        };
        self.next = end as u32;
        Ok(first)
    }

    /// Takes the clusters of FAT32's root directory, which begin where mkfs.vfat has put its first one.
    pub fn allocate_root(&mut self, count: u64) -> Result<u32> {
        self.next = self.root;
        self.allocate(count)
    }

    /// Writes the tables and the number of free clusters.
    pub fn finish(&self, image: &File) -> Result<()> {
        let mut bytes = Vec::with_capacity(self.fat_length as usize);
        match self.bits {
            12 => {
                for pair in self.table.chunks(2) {
                    let both = pair[0] | pair.get(1).copied().unwrap_or(0) << 12;
                    bytes.extend_from_slice(&both.to_le_bytes()[..3]);
                }
            }
            16 => self.table.iter().for_each(|entry| bytes.extend_from_slice(&(*entry as u16).to_le_bytes())),
            _ => self.table.iter().for_each(|entry| bytes.extend_from_slice(&entry.to_le_bytes())),
        }
        bytes.truncate(self.fat_length as usize);
        for fat in &self.fats {
            write_sparsely(image, &bytes, *fat)?;
        }
        let free = self.clusters + 2 - u64::from(self.next);
        for sector in &self.info {
            let at = self.offset + sector * self.sector;
            let is_info = INFO_SIGNATURES.iter().all(|(place, signature)| {
                let mut found = [0; 4];
                image.read_exact_at(&mut found, at + place).is_ok() && u32::from_le_bytes(found) == *signature
            });
            if is_info {
                image.write_all_at(&(free as u32).to_le_bytes(), at + 488)?;
                image.write_all_at(&(self.next - 1).to_le_bytes(), at + 492)?;
            }
        }
        Ok(())
    }
}

/// Writes what is not zeros to where zeros are.
pub(super) fn write_sparsely(image: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    for (index, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            image.write_all_at(block, at + index as u64 * 4096)?;
        }
    }
    Ok(())
}
