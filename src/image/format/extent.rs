//! How long a file system is that cannot be written to, as it says itself.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

/// Bytes that a squashfs or erofs at this place of a file uses; `None` where there is neither.
pub fn extent(file: &File, at: u64) -> Result<Option<u64>> {
    let mut start = [0; 2048];
    match file.read_exact_at(&mut start, at) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other.context("reading a superblock")?,
    }
    Ok(squashfs(&start).or_else(|| erofs(&start[1024..])))
}

/// `struct squashfs_super_block` of the kernel's fs/squashfs/squashfs_fs.h.
fn squashfs(start: &[u8]) -> Option<u64> {
    (start.starts_with(b"hsqs") && start[28..30] == [4, 0]).then(|| number(&start[40..48]))
}

/// `struct erofs_super_block` of the kernel's fs/erofs/erofs_fs.h.
fn erofs(start: &[u8]) -> Option<u64> {
    let bits = start[12];
    let found = start[..4] == 0xe0f5_e1e2_u32.to_le_bytes() && (9..=16).contains(&bits);
    found.then(|| number(&start[36..40]) << bits)
}

/// A little-endian number.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
