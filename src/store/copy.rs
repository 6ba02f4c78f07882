//! Copies of files: shared extents where the file system has them, holes kept.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Copies a regular file to a new one with its mode and mtime. Shares extents or keeps the holes.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let stat = std::fs::metadata(from)?;
    if reflink_copy::reflink(from, to).is_err() {
        let source = File::open(from)?;
        let target = File::options().read(true).write(true).create_new(true).open(to)?;
        copy_data(&source, &target, stat.len())?;
    }
    let target = File::options().write(true).open(to)?;
    target.set_permissions(PermissionsExt::from_mode(stat.mode() & 0o7777))?;
    target.set_modified(stat.modified()?)
}

/// Copies the data of a file into an empty one; what is a hole stays one.
fn copy_data(mut source: &File, mut target: &File, length: u64) -> io::Result<()> {
    target.set_len(length)?;
    for (start, end) in data_ranges(source, length)? {
        source.seek(SeekFrom::Start(start))?;
        target.seek(SeekFrom::Start(start))?;
        // The kernel copies between its caches (copy_file_range), where it can.
        io::copy(&mut source.take(end - start), &mut target)?;
    }
    Ok(())
}

/// Where a file has data, as (start, end), in order; all of it where the file system cannot say.
pub(super) fn data_ranges(file: &File, length: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match lseek(file, at as i64, Whence::SeekData) {
            Ok(start) => start as u64,
            // No data after this offset.
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(vec![(0, length)]),
            Err(error) => return Err(error.into()),
        };
        let end = lseek(file, start as i64, Whence::SeekHole).map_or(length, |end| end as u64).min(length);
        if start >= length {
            break;
        }
        ranges.push((start, end));
        at = end;
    }
    lseek(file, 0, Whence::SeekSet)?;
    Ok(ranges)
}
