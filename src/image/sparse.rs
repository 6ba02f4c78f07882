//! Sparse files: data copied, holes left alone.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

pub use crate::sys::file::data_ranges;

/// Blocks of zeros of this size become holes.
const BLOCK: usize = 4096;

/// Copies `length` bytes of `from` to `offset` of `to`, whose bytes there are zeros. What is a hole or
/// a block of zeros is not written.
pub fn copy_into(from: &File, to: &File, offset: u64, length: u64) -> io::Result<()> {
    copy_range(from, 0, to, offset, length)
}

/// The same from somewhere in `from`.
pub fn copy_range(from: &File, skip: u64, to: &File, offset: u64, length: u64) -> io::Result<()> {
    let mut source = from;
    for (start, end) in data_ranges(from, skip + length)? {
        let start = start.max(skip);
        if end <= start {
            continue;
        }
        source.seek(SeekFrom::Start(start))?;
        write_data(&mut source.take(end - start), to, offset + (start - skip), || Ok(()))?;
    }
    Ok(())
}

/// Writes all that a reader has from the byte `at` on, where the file holds zeros; says where that ends.
/// Blocks of zeros are not written. `go_on` is asked now and then.
pub fn write_data(
    reader: &mut dyn Read,
    to: &File,
    mut at: u64,
    mut go_on: impl FnMut() -> io::Result<()>,
) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        go_on()?;
        let mut filled = 0;
        while filled < buffer.len() {
            match reader.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return Ok(at);
        }
        for block in buffer[..filled].chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                to.write_all_at(block, at)?;
            }
            at += block.len() as u64;
        }
    }
}

/// Copies all of a file into an empty one, zeros written out too.
pub fn copy_whole(from: &File, to: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match from.read_at(&mut buffer, at)? {
            0 => return Ok(()),
            count => {
                to.write_all_at(&buffer[..count], at)?;
                at += count as u64;
            }
        }
    }
}

/// What mkswap(8) writes at the end of the first page, whose size is the machine's.
const SWAP: &[u8; 10] = b"SWAPSPACE2";
const PAGES: [u64; 4] = [4096, 8192, 16384, 65536];
/// mkswap wants ten pages.
pub const SMALLEST_SWAP: u64 = 40 << 10;

/// Whether a file is swap space. The kernel refuses one with holes, so that its zeros are no holes wherever files are
/// stored, copied and counted.
pub fn is_swap(file: &File, length: u64) -> io::Result<bool> {
    let mut found = [0; SWAP.len()];
    for page in PAGES.into_iter().filter(|page| *page <= length && length >= SMALLEST_SWAP) {
        file.read_exact_at(&mut found, page - SWAP.len() as u64)?;
        if found == *SWAP {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same of a file's contents.
pub fn is_swap_contents(contents: &[u8]) -> bool {
    contents.len() as u64 >= SMALLEST_SWAP
        && PAGES.iter().any(|page| contents.get(..*page as usize).is_some_and(|first| first.ends_with(SWAP)))
}

/// Makes a part of a file zeros: a hole, where the file system can.
pub fn clear(file: &File, offset: u64, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, flags, offset as i64, length as i64) {
        Ok(()) => return Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let zeros = vec![0; 1 << 20];
    let mut at = offset;
    while at < offset + length {
        let part = (offset + length - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..part as usize], at)?;
        at += part;
    }
    Ok(())
}
