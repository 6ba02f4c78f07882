//! Files with holes: where they are, and the maps of them that tar archives have.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use nix::unistd::{Whence, lseek};

use crate::image::sparse::{is_swap, is_swap_contents};

/// A part of a file that is not a hole: offset and length, in bytes.
pub(crate) type Part = (u64, u64);

/// Files below this size are not looked at.
pub(super) const SMALLEST: u64 = 1 << 20;

/// Zeros are looked for in blocks of this size.
const BLOCK: u64 = 4096;
/// Fewer zero bytes in a row are no hole.
const SMALLEST_HOLE: u64 = 64 << 10;

const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// The parts of a file that are not zeros, where zeros make up at least half of it and may be holes; `None` else.
///
/// Only the contents decide: where a file system keeps holes depends on the file system, and an
/// archive of the same tree must not.
pub(super) fn parts(file: &File, size: u64) -> io::Result<Option<Vec<Part>>> {
    if is_swap(file, size)? {
        return Ok(None);
    }
    let mut scan = Scan::default();
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0;
    while at < size {
        // What the file system knows to be a hole need not be read.
        let data = data_from(file, at).unwrap_or(at).min(size) / BLOCK * BLOCK;
        at = at.max(data);
        let want = usize::try_from((size - at).min(buffer.len() as u64)).map_err(io::Error::other)?;
        file.read_exact_at(&mut buffer[..want], at)?;
        for block in buffer[..want].chunks(BLOCK as usize) {
            if block != &ZEROS[..block.len()] {
                scan.data(at, block.len() as u64);
            }
            at += block.len() as u64;
        }
    }
    Ok(scan.finish(size))
}

/// The same of contents in memory.
pub(super) fn parts_of(contents: &[u8]) -> Option<Vec<Part>> {
    if is_swap_contents(contents) {
        return None;
    }
    let mut scan = Scan::default();
    let mut at = 0;
    for block in contents.chunks(BLOCK as usize) {
        if block != &ZEROS[..block.len()] {
            scan.data(at, block.len() as u64);
        }
        at += block.len() as u64;
    }
    scan.finish(at)
}

/// Where data begin at or after `at`; the end of a file that has none.
fn data_from(file: &File, at: u64) -> io::Result<u64> {
    let offset = i64::try_from(at).map_err(io::Error::other)?;
    match lseek(file, offset, Whence::SeekData) {
        Ok(found) => u64::try_from(found).map_err(io::Error::other),
        Err(nix::errno::Errno::ENXIO) => Ok(u64::MAX),
        Err(error) => Err(error.into()),
    }
}

#[derive(Default)]
struct Scan {
    parts: Vec<Part>,
}

impl Scan {
    fn data(&mut self, offset: u64, length: u64) {
        match self.parts.last_mut() {
            Some((start, so_far)) if offset - (*start + *so_far) < SMALLEST_HOLE => *so_far = offset + length - *start,
            _ if offset < SMALLEST_HOLE => self.parts.push((0, offset + length)),
            _ => self.parts.push((offset, length)),
        }
    }

    fn finish(mut self, size: u64) -> Option<Vec<Part>> {
        if let Some((start, length)) = self.parts.last_mut()
            && size - (*start + *length) < SMALLEST_HOLE
        {
            *length = size - *start;
        }
        let data: u64 = self.parts.iter().map(|(_, length)| length).sum();
        (size >= SMALLEST && data <= size / 2).then_some(self.parts)
    }
}

/// The map at the head of a member's data in pax format 1.0 (GNU tar manual, "Storing Sparse Files"),
/// filled up to whole tar blocks.
pub(super) fn map_1_0(parts: &[Part], size: u64) -> Vec<u8> {
    let ends_in_hole = parts.last().is_none_or(|(offset, length)| offset + length < size);
    let mut map = format!("{}\n", parts.len() + usize::from(ends_in_hole));
    for (offset, length) in parts.iter().copied().chain(ends_in_hole.then_some((size, 0))) {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

/// Reads such a map; returns it with the bytes that it took.
pub(super) fn read_map_1_0(from: &mut dyn Read) -> Result<(Vec<Part>, u64)> {
    let mut taken = 0;
    let mut block = [0; 512];
    let mut next = block.len();
    let mut number = || -> Result<u64> {
        let mut value: Option<u64> = None;
        loop {
            if next == block.len() {
                from.read_exact(&mut block).context("reading the map of a sparse file")?;
                (taken, next) = (taken + block.len() as u64, 0);
            }
            let byte = block[next];
            next += 1;
            let digit = match (byte, value) {
                (b'0'..=b'9', _) => u64::from(byte - b'0'),
                (b'\n', Some(value)) => return Ok(value),
                _ => bail!("the map of a sparse file makes no sense"),
            };
            value = value.unwrap_or(0).checked_mul(10).and_then(|value| value.checked_add(digit));
            if value.is_none() {
                bail!("the map of a sparse file makes no sense");
            }
        }
    };
    let count = number()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push((number()?, number()?));
    }
    Ok((parts, taken))
}

/// Whether the parts stand in order, apart from each other and within the file, and hold `stored` bytes.
pub(super) fn check(parts: &[Part], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0, 0u64);
    for (offset, length) in parts {
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
        end = next.context("the map of a sparse file makes no sense")?;
        sum += length;
    }
    if sum != stored {
        bail!("the map of a sparse file does not fit its data");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_holes_by_contents_whatever_the_file_system_does() {
        let mut contents = vec![0; 4 << 20];
        contents[(1 << 20) + 5000] = 1;
        contents[(4 << 20) - 1] = 1;
        let expected = vec![((1 << 20) + 4096, 4096), ((4 << 20) - 4096, 4096)];
        assert_eq!(parts_of(&contents), Some(expected.clone()));
        let dense = tempfile::tempfile().unwrap();
        dense.write_all_at(&contents, 0).unwrap();
        assert_eq!(parts(&dense, contents.len() as u64).unwrap(), Some(expected.clone()));
        let holes = tempfile::tempfile().unwrap();
        holes.set_len(contents.len() as u64).unwrap();
        for (offset, length) in &expected {
            let (offset, length) = (*offset as usize, *length as usize);
            holes.write_all_at(&contents[offset..offset + length], offset as u64).unwrap();
        }
        assert_eq!(parts(&holes, contents.len() as u64).unwrap(), Some(expected));
    }

    #[test]
    fn files_that_are_mostly_data_are_not_sparse() {
        let mut contents = vec![1; 4 << 20];
        contents[..1 << 20].fill(0);
        assert_eq!(parts_of(&contents), None);
        assert_eq!(parts_of(&vec![0; (1 << 20) - 1]), None);
        assert_eq!(parts_of(&vec![0; 1 << 20]), Some(Vec::new()));
    }

    #[test]
    fn swap_space_is_written_out() {
        let mut contents = vec![0; 2 << 20];
        contents[16374..16384].copy_from_slice(b"SWAPSPACE2");
        assert_eq!(parts_of(&contents), None);
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 << 20).unwrap();
        file.write_all_at(b"SWAPSPACE2", 4086).unwrap();
        assert_eq!(parts(&file, 2 << 20).unwrap(), None);
    }

    #[test]
    fn reads_the_map_it_wrote() {
        let parts: Vec<Part> = (0..100).map(|i| (i * 1_000_000, 4096)).collect();
        let size = 1 << 30;
        let map = map_1_0(&parts, size);
        let (read, taken) = read_map_1_0(&mut &map[..]).unwrap();
        assert_eq!(taken, map.len() as u64);
        assert_eq!(read[..100], parts);
        assert_eq!(read[100], (size, 0));
        check(&read, size, 100 * 4096).unwrap();
    }

    #[test]
    fn refuses_maps_that_lie() {
        assert!(check(&[(0, 10), (5, 10)], 100, 20).is_err());
        assert!(check(&[(90, 20)], 100, 20).is_err());
        assert!(check(&[(u64::MAX, 2)], 100, 2).is_err());
        assert!(check(&[(0, 10)], 100, 20).is_err());
        let mut block = [b'9'; 512];
        assert!(read_map_1_0(&mut &block[..]).is_err());
        block[0] = b'\n';
        assert!(read_map_1_0(&mut &block[..]).is_err());
    }
}
