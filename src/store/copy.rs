//! Copies of files: shared extents where the file system has them, holes kept.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::sys::file::data_ranges;

/// Bytes below which sharing extents saves less than trying it costs.
const WORTH_SHARING: u64 = 64 * 1024;

/// Copies a regular file to a new one with its mode and mtime. Shares extents or keeps the holes.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let stat = std::fs::metadata(from)?;
    let target = if stat.len() >= WORTH_SHARING && reflink_copy::reflink(from, to).is_ok() {
        File::options().write(true).open(to)?
    } else {
        let source = File::open(from)?;
        let target = File::options().read(true).write(true).create_new(true).open(to)?;
        copy_data(&source, &target, stat.len())?;
        target
    };
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
