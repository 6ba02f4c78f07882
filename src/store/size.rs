//! Sizes as people write and read them, and the bound of a store.

use std::path::Path;

use anyhow::{Context, Result};

use super::Store;
use crate::diagnostics::Fault;

/// The bound where nothing else is said, unless a fifth of the disk is less.
const BOUND: u64 = 20 << 30;
/// Less than this holds no build, and everything would be made anew each time.
const LEAST: u64 = 1 << 30;
/// The file with a bound of this store, below its root.
const BOUND_FILE: &str = "size";

/// Reads "20G", "500 MB", "1.5GiB": powers of 1024 for a bare letter or with `i`, of 1000 with `B` alone.
pub fn parse(text: &str) -> Result<u64> {
    let wrong = || Fault::recipe(format!("`{text}` is not a size")).hint("write it like 20G, 500MB or 1.5GiB");
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let (letter, rest) = unit.split_at(unit.len().min(1));
    let power = match letter {
        "" | "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong().into()),
    };
    let base: f64 = match rest {
        "" | "i" | "ib" => 1024.0,
        "b" if power > 0 => 1000.0,
        _ => return Err(wrong().into()),
    };
    Ok((number * base.powi(power)) as u64)
}

/// "61 MB": three digits at most, in powers of 1000.
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    match value {
        _ if unit == "B" => format!("{bytes} B"),
        value if value < 9.95 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

impl Store {
    /// The size that the store is kept to: `$DEBFORGE_STORE_SIZE`, else what the file `size` in it
    /// says, else 20 GiB or a fifth of what the disk has for it, whichever is less.
    pub fn bound(&self, used: u64) -> Result<u64> {
        if let Some(text) = std::env::var("DEBFORGE_STORE_SIZE").ok().filter(|text| !text.is_empty()) {
            return parse(&text).context("reading DEBFORGE_STORE_SIZE");
        }
        let file = self.root().join(BOUND_FILE);
        if let Ok(text) = std::fs::read_to_string(&file) {
            return parse(&text).with_context(|| format!("reading {}", file.display()));
        }
        let free = free_space(self.root())?;
        Ok(BOUND.min(((free + used) / 5).max(LEAST)))
    }

    /// Sets the bound of this store.
    pub fn set_bound(&self, bytes: u64) -> Result<()> {
        self.write_atomically(&self.root().join(BOUND_FILE), format!("{bytes}\n").as_bytes())
    }
}

/// What an ordinary user can still write to the file system of a path, in bytes.
#[allow(clippy::unnecessary_cast, reason = "the numbers are smaller on 32-bit systems")]
pub fn free_space(path: &Path) -> Result<u64> {
    let stat =
        nix::sys::statvfs::statvfs(path).with_context(|| format!("asking for the space at {}", path.display()))?;
    Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

/// Free inodes of a disk on which hardly any file can be made any more: some are free again by the time that one asks.
const NO_INODES: u64 = 16;

/// Whether hardly any file can be made any more in the file system of a path, whatever its size.
#[allow(clippy::unnecessary_cast, reason = "the numbers are smaller on 32-bit systems")]
pub fn lacks_inodes(path: &Path) -> bool {
    // Some file systems make them as they go, and count none.
    nix::sys::statvfs::statvfs(path).is_ok_and(|stat| stat.files() > 0 && (stat.files_available() as u64) < NO_INODES)
}

/// What is the matter with a file system on which something had no room: "is full", or that it has no inodes left.
pub fn full(path: &Path) -> &'static str {
    // A file whose directory is not there yet is on that one's disk.
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    match lacks_inodes(there) {
        true => "has no inodes left: it has as many files as it can have, whatever their size",
        false => "is full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        let cases =
            [("0", 0), ("512", 512), ("20G", 20 << 30), ("500 MB", 500_000_000), ("1.5GiB", 3 << 29), ("7b", 7)];
        for (text, bytes) in cases {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "12x", "-5", "1.2.3", "5Gb/s", "7bb"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_three_digits() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (61_400_000, "61 MB"), (999_600, "1.0 MB")];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }
}
