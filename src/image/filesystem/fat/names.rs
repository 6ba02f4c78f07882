//! Names on FAT: a long one as it is written, and a short one of eight and three characters
//! (Microsoft's FAT specification, 1.03, "Long Directory Entries" and "Generating 8.3 Names").

use std::collections::{HashMap, HashSet};

/// Eight characters and three, filled up with spaces.
pub(super) type Short = [u8; 11];

/// UTF-16 units of a long name that one directory entry takes.
const UNITS: usize = 13;
/// Longest name in UTF-16 units.
const LONGEST: usize = 255;

/// Why FAT cannot hold a name.
pub(super) fn fault(name: &str) -> Option<String> {
    if let Some(c) = name.chars().find(|c| *c < ' ' || "\"*:<>?\\|".contains(*c)) {
        return Some(format!("names on FAT have no {c:?}"));
    }
    if name.ends_with(['.', ' ']) {
        return Some("names on FAT do not end in a dot or space".into());
    }
    (name.encode_utf16().count() > LONGEST).then(|| "names on FAT have at most 255 characters".into())
}

/// How names are compared: `Boot` and `boot` are the same file.
pub(super) fn folded(name: &str) -> String {
    name.to_uppercase()
}

/// Short names for all names of a directory, which differ when folded.
pub(super) fn short_names(names: &[&str]) -> Vec<Short> {
    let whole: Vec<Option<Short>> = names.iter().map(|name| exact(name)).collect();
    // Names that are short already keep theirs, wherever they stand.
    let mut taken: HashSet<Short> = whole.iter().flatten().copied().collect();
    let mut next: HashMap<Short, u32> = HashMap::new();
    names
        .iter()
        .zip(whole)
        .map(|(name, whole)| {
            whole.unwrap_or_else(|| {
                let basis = basis(name);
                let number = next.entry(basis).or_insert(1);
                loop {
                    let short = numbered(basis, *number);
                    *number += 1;
                    if taken.insert(short) {
                        return short;
                    }
                }
            })
        })
        .collect()
}

/// Directory entries that a name wants.
pub(super) fn entries(name: &str, short: &Short) -> usize {
    1 + if is_long(name, short) { name.encode_utf16().count().div_ceil(UNITS) } else { 0 }
}

/// The directory entries of a long name, as they stand before that of the short one.
pub(super) fn long_entries(name: &str, short: &Short) -> Vec<[u8; 32]> {
    if !is_long(name, short) {
        return Vec::new();
    }
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(UNITS);
    if units.len() < count * UNITS {
        units.push(0);
        units.resize(count * UNITS, u16::MAX);
    }
    let checksum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let entry = |(index, part): (usize, &[u16])| {
        let mut entry = [0; 32];
        entry[0] = (index as u8 + 1) | if index + 1 == count { 0x40 } else { 0 };
        entry[11] = 0x0f;
        entry[13] = checksum;
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (at, unit) in places.zip(part) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry
    };
    units.chunks(UNITS).enumerate().rev().map(|(index, part)| entry((index, part))).collect()
}

fn is_long(name: &str, short: &Short) -> bool {
    name != shown(short)
}

/// A short name as text.
fn shown(short: &Short) -> String {
    let (base, extension) = short.split_at(8);
    let text = |part: &[u8]| String::from_utf8_lossy(part).trim_end().to_owned();
    let (base, extension) = (text(base), text(extension));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// The short name of a name that is one but for its case.
fn exact(name: &str) -> Option<Short> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = |part: &str, longest: usize| part.len() <= longest && part.chars().all(|c| kept(c).is_some());
    let dotted = name.contains('.') && extension.is_empty();
    (!base.is_empty() && !dotted && fits(base, 8) && fits(extension, 3)).then(|| put(base, extension))
}

/// What a short name begins with, without a number.
fn basis(name: &str) -> Short {
    let name: String = name.trim_start_matches(['.', ' ']).chars().filter(|c| *c != ' ').collect();
    let (base, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    let clean = |part: &str, longest: usize| -> String {
        part.chars().filter(|c| *c != '.').map(|c| kept(c).unwrap_or('_')).take(longest).collect()
    };
    put(&clean(base, 8), &clean(extension, 3))
}

fn numbered(basis: Short, number: u32) -> Short {
    let tail = format!("~{number}");
    let base = basis[..8].iter().take_while(|byte| **byte != b' ').count().min(8 - tail.len());
    let mut short = basis;
    short[base..8].fill(b' ');
    short[base..base + tail.len()].copy_from_slice(tail.as_bytes());
    short
}

/// A character as short names have it.
fn kept(c: char) -> Option<char> {
    (c.is_ascii_alphanumeric() || "!#$%&'()-@^_`{}~".contains(c)).then(|| c.to_ascii_uppercase())
}

fn put(base: &str, extension: &str) -> Short {
    let mut short = [b' '; 11];
    for (place, c) in short.iter_mut().zip(base.bytes()) {
        *place = c.to_ascii_uppercase();
    }
    for (place, c) in short[8..].iter_mut().zip(extension.bytes()) {
        *place = c.to_ascii_uppercase();
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorts(names: &[&str]) -> Vec<String> {
        short_names(names).iter().map(shown).collect()
    }

    #[test]
    fn names_get_short_ones() {
        let names = [
            "KERNEL.IMG",
            "start.elf",
            "bcm2711-rpi-4-b.dtb",
            "bcm2711-rpi-400.dtb",
            ".config",
            "a.b.c",
            "README",
            "näme",
            "a b",
            "x+y.txt",
            "config.json",
        ];
        let expected = [
            "KERNEL.IMG",
            "START.ELF",
            "BCM271~1.DTB",
            "BCM271~2.DTB",
            "CONFIG~1",
            "AB~1.C",
            "README",
            "N_ME~1",
            "AB~1",
            "X_Y~1.TXT",
            "CONFIG~1.JSO",
        ];
        assert_eq!(shorts(&names), expected);
    }

    #[test]
    fn a_number_never_takes_a_name_that_is_there() {
        assert_eq!(shorts(&["longer name", "LONGER~1"]), ["LONGER~2", "LONGER~1"]);
        let many: Vec<String> = (0..1200).map(|n| format!("file number {n}")).collect();
        let names: Vec<&str> = many.iter().map(String::as_str).collect();
        let distinct: HashSet<String> = shorts(&names).into_iter().collect();
        assert_eq!(distinct.len(), 1200);
        assert!(distinct.contains("FIL~1200"), "{distinct:?}");
    }

    #[test]
    fn long_names_fill_entries_from_behind() {
        let name = "bcm2711-rpi-4-b.dtb";
        let short = short_names(&[name])[0];
        let entries = long_entries(name, &short);
        assert_eq!(entries.len(), 2);
        assert_eq!([entries[0][0], entries[1][0]], [0x42, 1]);
        assert_eq!(&entries[1][1..5], b"b\0c\0");
        assert!(long_entries("START.ELF", b"START   ELF").is_empty());
    }

    #[test]
    fn some_names_do_not_fit() {
        assert!(fault("a:b").is_some() && fault("end.").is_some() && fault(&"x".repeat(256)).is_some());
        assert!(fault("a b.c").is_none());
    }
}
