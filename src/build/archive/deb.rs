//! Debian packages (deb(5)): an ar archive that has a `data.tar`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};

/// What every ar archive starts with (ar(5)).
pub(super) const MAGIC: &[u8] = b"!<arch>\n";

const HEADER: usize = 60;

/// Offset and size of the package's `data.tar`, however it is compressed.
pub(super) fn data(file: &File) -> Result<(u64, u64)> {
    let end = file.metadata().context("looking at the package")?.len();
    let mut at = MAGIC.len() as u64;
    while at + HEADER as u64 <= end {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, at).context("reading the package")?;
        at += HEADER as u64;
        let size: u64 = std::str::from_utf8(&header[48..58])
            .ok()
            .and_then(|digits| digits.trim_end().parse().ok())
            .filter(|size| *size <= end - at)
            .context("the package is cut off or damaged")?;
        if header.starts_with(b"data.tar") {
            return Ok((at, size));
        }
        at += size.next_multiple_of(2);
    }
    bail!("the package has no data.tar")
}
