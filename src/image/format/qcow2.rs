//! Compressed qcow2 images, written by all processors: qemu-img compresses one cluster after the other.
//!
//! The format is that of QEMU's docs/interop/qcow2.rst, version 3. Clusters of zeros are left out, the
//! others compressed each on its own and packed one behind the other; one that grows is stored as it
//! is. The tables stand behind the data, because only then their size is known.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use flate2::{Compress, FlushCompress, Status};
use rayon::prelude::*;

use crate::image::sparse::data_ranges;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// Entries of an L2 table, and of the tables that refcount blocks are found by.
const ENTRIES: u64 = CLUSTER as u64 / 8;
/// 16-bit counts in a refcount block.
const COUNTS: usize = CLUSTER / 2;
const SECTOR: u64 = 512;

/// The cluster has one owner, so it may be written to.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Where the number of sectors begins in the entry of a compressed cluster.
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);

/// Clusters that are read and compressed at a time.
const BATCH: usize = 256;

/// Deflate streams of qcow2 look back 4 KiB.
const WINDOW_BITS: u8 = 12;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Every QEMU reads it.
    Zlib,
    /// QEMU 5.1 and later.
    Zstd,
}

/// Turns a raw image into a compressed one. `progress` is told how many bytes are done and of how
/// many, and may stop it.
pub fn compress(raw: &File, to: &File, method: Method, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let size = raw.metadata().context("looking at the image")?.len().next_multiple_of(SECTOR);
    let mut writer = Writer::new(to, size)?;
    let clusters = clusters_with_data(raw, size).context("looking for the image's data")?;
    let total = clusters.len() as u64 * CLUSTER as u64;
    for (index, batch) in clusters.chunks(BATCH).enumerate() {
        progress((index * BATCH * CLUSTER) as u64, total)?;
        let compressed: Vec<Option<Compressed>> =
            batch.par_iter().map(|cluster| read_and_compress(raw, *cluster, method)).collect::<Result<_>>()?;
        for (cluster, contents) in batch.iter().zip(compressed) {
            if let Some(contents) = contents {
                writer.add(*cluster, &contents)?;
            }
        }
    }
    writer.finish(method).context("writing the tables of the image")
}

/// The contents of a cluster.
enum Compressed {
    Packed(Vec<u8>),
    /// It does not get smaller.
    Whole(Vec<u8>),
}

/// Numbers of the clusters that are not holes altogether.
fn clusters_with_data(raw: &File, size: u64) -> io::Result<Vec<u64>> {
    let mut clusters = Vec::new();
    for (start, end) in data_ranges(raw, size)? {
        let first = (start >> CLUSTER_BITS).max(clusters.last().map_or(0, |last| last + 1));
        clusters.extend(first..end.div_ceil(CLUSTER as u64));
    }
    Ok(clusters)
}

fn read_and_compress(raw: &File, cluster: u64, method: Method) -> Result<Option<Compressed>> {
    let mut contents = vec![0; CLUSTER];
    let mut filled = 0;
    while filled < CLUSTER {
        let at = (cluster << CLUSTER_BITS) + filled as u64;
        match raw.read_at(&mut contents[filled..], at).context("reading the image")? {
            0 => break,
            read => filled += read,
        }
    }
    if contents.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let packed = match method {
        Method::Zlib => deflate(&contents)?,
        Method::Zstd => Some(zstd::bulk::compress(&contents, 0).context("compressing")?),
    };
    Ok(Some(match packed {
        Some(packed) if packed.len() < CLUSTER => Compressed::Packed(packed),
        _ => Compressed::Whole(contents),
    }))
}

/// `None` where it does not get smaller.
fn deflate(contents: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut deflate = Compress::new_with_window_bits(flate2::Compression::default(), false, WINDOW_BITS);
    let mut output = Vec::with_capacity(CLUSTER);
    let status = deflate.compress_vec(contents, &mut output, FlushCompress::Finish).context("compressing")?;
    Ok((status == Status::StreamEnd).then_some(output))
}

struct Writer<'a> {
    file: BufWriter<&'a File>,
    size: u64,
    /// Where the next bytes go.
    at: u64,
    /// Clusters of the table of L2 tables, which stands behind the header.
    l1_clusters: u64,
    l2: BTreeMap<u64, Vec<u64>>,
    /// How many use each cluster of the file.
    counts: Vec<u16>,
}

impl<'a> Writer<'a> {
    fn new(mut to: &'a File, size: u64) -> Result<Self> {
        let l1_entries = size.div_ceil(ENTRIES << CLUSTER_BITS).max(1);
        let l1_clusters = l1_entries.div_ceil(ENTRIES);
        let at = (1 + l1_clusters) << CLUSTER_BITS;
        to.seek(SeekFrom::Start(at)).context("writing the image")?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 20, to),
            size,
            at,
            l1_clusters,
            l2: BTreeMap::new(),
            counts: Vec::new(),
        };
        writer.count(0, at);
        Ok(writer)
    }

    /// Counts one user more of each cluster that these bytes of the file are in.
    fn count(&mut self, start: u64, end: u64) {
        let (first, last) = ((start >> CLUSTER_BITS) as usize, ((end - 1) >> CLUSTER_BITS) as usize);
        if self.counts.len() <= last {
            self.counts.resize(last + 1, 0);
        }
        for count in &mut self.counts[first..=last] {
            *count += 1;
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).context("writing the image")?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Fills the file up with zeros to a whole cluster.
    fn align(&mut self) -> Result<()> {
        let rest = self.at.next_multiple_of(CLUSTER as u64) - self.at;
        self.put(&vec![0; rest as usize])
    }

    fn add(&mut self, cluster: u64, contents: &Compressed) -> Result<()> {
        let entry = match contents {
            Compressed::Packed(bytes) => {
                let (start, end) = (self.at, self.at + bytes.len() as u64);
                let sectors = (end - 1) / SECTOR - start / SECTOR;
                // QEMU counts the whole sectors.
                self.count(start / SECTOR * SECTOR, end.next_multiple_of(SECTOR));
                self.put(bytes)?;
                COMPRESSED | sectors << SECTORS_SHIFT | start
            }
            Compressed::Whole(bytes) => {
                self.align()?;
                let start = self.at;
                self.count(start, start + CLUSTER as u64);
                self.put(bytes)?;
                COPIED | start
            }
        };
        let table = self.l2.entry(cluster / ENTRIES).or_insert_with(|| vec![0; ENTRIES as usize]);
        table[(cluster % ENTRIES) as usize] = entry;
        Ok(())
    }

    fn finish(mut self, method: Method) -> Result<()> {
        self.align()?;
        let mut l1 = vec![0; (self.l1_clusters * ENTRIES) as usize];
        for (index, table) in std::mem::take(&mut self.l2) {
            l1[index as usize] = COPIED | self.at;
            self.count(self.at, self.at + CLUSTER as u64);
            self.put(&big_endian(&table))?;
        }
        let refcount_table = self.at;
        let table_clusters = self.refcounts()?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.write_all_at(&big_endian(&l1), CLUSTER as u64)?;
        file.write_all_at(&header(self.size, method, refcount_table, table_clusters)?, 0)?;
        Ok(())
    }

    /// Writes the table of refcount blocks and the blocks, which count themselves too; how many
    /// clusters the table has.
    fn refcounts(&mut self) -> Result<u64> {
        let used = self.at >> CLUSTER_BITS;
        let (mut table_clusters, mut blocks) = (1, 1);
        while used + table_clusters + blocks > blocks * COUNTS as u64 || blocks > table_clusters * ENTRIES {
            blocks = (used + table_clusters + blocks).div_ceil(COUNTS as u64);
            table_clusters = blocks.div_ceil(ENTRIES);
        }
        let first = self.at + (table_clusters << CLUSTER_BITS);
        self.count(self.at, first + (blocks << CLUSTER_BITS));
        let mut table = vec![0; (table_clusters * ENTRIES) as usize];
        for (block, entry) in (0..blocks).zip(&mut table) {
            *entry = first + (block << CLUSTER_BITS);
        }
        self.put(&big_endian(&table))?;
        let mut counts = std::mem::take(&mut self.counts);
        counts.resize(blocks as usize * COUNTS, 0);
        let bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
        self.put(&bytes)?;
        Ok(table_clusters)
    }
}

fn big_endian(table: &[u64]) -> Vec<u8> {
    table.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

fn header(size: u64, method: Method, refcount_table: u64, table_clusters: u64) -> Result<Vec<u8>> {
    /// Readers must know compression types.
    const COMPRESSION_TYPE: u64 = 1 << 3;
    const LENGTH: u32 = 112;
    let l1_entries = u32::try_from(size.div_ceil(ENTRIES << CLUSTER_BITS)).context("the image is too large")?;
    let mut header = Vec::with_capacity(LENGTH as usize);
    header.extend(b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    // No backing file.
    header.extend([0; 12]);
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    // Not encrypted.
    header.extend(0_u32.to_be_bytes());
    header.extend(l1_entries.to_be_bytes());
    header.extend((CLUSTER as u64).to_be_bytes());
    header.extend(refcount_table.to_be_bytes());
    header.extend(u32::try_from(table_clusters).context("the image is too large")?.to_be_bytes());
    // No snapshots.
    header.extend([0; 12]);
    let incompatible = if method == Method::Zstd { COMPRESSION_TYPE } else { 0 };
    for features in [incompatible, 0, 0] {
        header.extend(features.to_be_bytes());
    }
    // Counts of 2^4 bits.
    header.extend(4_u32.to_be_bytes());
    header.extend(LENGTH.to_be_bytes());
    header.extend([u8::from(method == Method::Zstd), 0, 0, 0, 0, 0, 0, 0]);
    ensure!(header.len() == LENGTH as usize, "the header has {} bytes", header.len());
    // No extensions.
    header.extend([0; 8]);
    Ok(header)
}
