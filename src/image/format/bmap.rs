//! Block maps of bmap-tools, version 2.0: which blocks of an image have to be written to a card, with
//! the checksums of what is in them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use rayon::prelude::*;
use sha2::Sha256;
use sha2::digest::Digest;

use super::needed;

/// Bytes of a block.
pub const BLOCK: u64 = 4096;

/// Longest range with a checksum of its own, in blocks: several are read at a time, and a damaged one is
/// found soon.
const LONGEST: u64 = 4096;

/// A map.
#[derive(Debug, PartialEq, Eq)]
pub struct Map {
    /// Of the image, in bytes.
    pub size: u64,
    /// First and last block (both in it), and SHA-256 of what is there.
    pub ranges: Vec<(u64, u64, String)>,
    /// Parts of which nothing could be left out, and why.
    pub whole: Vec<String>,
}

/// Maps an image. `sector_size` is what an msdos table counts in. `progress` is told how many bytes are
/// done, and of how many.
pub fn map(image: &File, sector_size: u32, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Map> {
    let size = image.metadata().context("looking at the image")?.len();
    let found = needed::needed(image, size, sector_size)?;
    let blocks = to_blocks(&found.ranges, size);
    let total = blocks.iter().map(|(first, last)| (last - first + 1) * BLOCK).sum();
    let done = std::sync::atomic::AtomicU64::new(0);
    let ranges = blocks
        .par_iter()
        .map(|(first, last)| {
            let sum = digest(image, first * BLOCK, ((last + 1) * BLOCK).min(size)).context("reading the image")?;
            let length = (last - first + 1) * BLOCK;
            let before = done.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
            progress(before + length, total);
            Ok((*first, *last, sum))
        })
        .collect::<Result<_>>()?;
    Ok(Map { size, ranges, whole: found.whole })
}

/// Byte ranges (sorted) as ranges of whole blocks.
fn to_blocks(ranges: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges.iter().filter(|(start, end)| start < end) {
        let (first, last) = (start / BLOCK, (end.min(&size) - 1) / BLOCK);
        match blocks.last_mut() {
            Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
            _ => blocks.push((first, last)),
        }
    }
    let cut = |(first, last): (u64, u64)| {
        (first..=last).step_by(LONGEST as usize).map(move |at| (at, (at + LONGEST - 1).min(last)))
    };
    blocks.into_iter().flat_map(cut).collect()
}

fn digest(image: &File, start: u64, end: u64) -> io::Result<String> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    let mut at = start;
    while at < end {
        let length = buffer.len().min((end - at) as usize);
        image.read_exact_at(&mut buffer[..length], at)?;
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(hex::encode(hasher.finalize()))
}

impl Map {
    /// How many bytes have to be written.
    pub fn mapped(&self) -> u64 {
        self.ranges.iter().map(|(first, last, _)| (last - first + 1) * BLOCK).sum()
    }

    /// The file, whose own checksum is that of itself with zeros in its place.
    pub fn xml(&self) -> String {
        let zeros = "0".repeat(64);
        let text = self.xml_with(&zeros);
        self.xml_with(&hex::encode(Sha256::digest(text.as_bytes())))
    }

    fn xml_with(&self, own: &str) -> String {
        let blocks = self.size.div_ceil(BLOCK);
        let mapped: u64 = self.ranges.iter().map(|(first, last, _)| last - first + 1).sum();
        let mut text = format!(
            "<?xml version=\"1.0\" ?>\n\
             <!-- Blocks to write when the image is copied to a device: `bmaptool copy`. -->\n\
             <bmap version=\"2.0\">\n    \
             <ImageSize> {} </ImageSize>\n    \
             <BlockSize> {BLOCK} </BlockSize>\n    \
             <BlocksCount> {blocks} </BlocksCount>\n    \
             <MappedBlocksCount> {mapped} </MappedBlocksCount>\n    \
             <ChecksumType> sha256 </ChecksumType>\n    \
             <BmapFileChecksum> {own} </BmapFileChecksum>\n    \
             <BlockMap>\n",
            self.size
        );
        for (first, last, sum) in &self.ranges {
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            text.push_str(&format!("        <Range chksum=\"{sum}\"> {range} </Range>\n"));
        }
        text.push_str("    </BlockMap>\n</bmap>\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_whole_blocks_that_do_not_touch() {
        assert_eq!(to_blocks(&[(0, 1), (4096, 8192), (20_000, 20_001), (20_480, 20_481)], 1 << 20), [(0, 1), (4, 5)]);
        assert_eq!(to_blocks(&[(0, 5000 * BLOCK)], 5000 * BLOCK), [(0, 4095), (4096, 4999)]);
        assert_eq!(to_blocks(&[(4000, 9000)], 4097), [(0, 1)]);
        assert!(to_blocks(&[(7, 7)], 100).is_empty());
    }
}
