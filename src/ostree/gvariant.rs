//! The few shapes of GVariant that OSTree's objects have (GVariant specification, 2.3 to 2.5).
//!
//! Containers of parts whose lengths vary end in framing offsets: little-endian numbers, each as wide as the
//! container's length needs.

use anyhow::{Context, Result, ensure};

/// Bytes of a framing offset in a container of this length.
fn offset_width(length: usize) -> usize {
    match length {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The `count` framing offsets of a tuple, in the order of its parts, and where its parts end.
pub(super) fn tuple_ends(bytes: &[u8], count: usize) -> Result<(Vec<usize>, usize)> {
    let width = offset_width(bytes.len());
    let end = bytes.len().checked_sub(count * width).context("a tuple is too short")?;
    let ends: Vec<usize> = bytes[end..].chunks_exact(width).rev().map(number).collect();
    ensure!(ends.is_sorted() && ends.last().is_none_or(|last| *last <= end), "a tuple's parts overlap");
    Ok((ends, end))
}

/// The elements of an array whose elements have no fixed size; each begins at a multiple of `alignment`.
pub(super) fn array(bytes: &[u8], alignment: usize) -> Result<Vec<&[u8]>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let width = offset_width(bytes.len());
    let last = number(&bytes[bytes.len().checked_sub(width).context("an array is too short")?..]);
    ensure!(last <= bytes.len() && (bytes.len() - last).is_multiple_of(width), "an array's end is not in it");
    let mut start = 0;
    let mut elements = Vec::new();
    for end in bytes[last..].chunks_exact(width).map(number) {
        elements.push(bytes.get(start..end).context("an array's elements overlap")?);
        start = end.next_multiple_of(alignment);
    }
    Ok(elements)
}

/// A string: its zero byte left out.
pub(super) fn string(bytes: &[u8]) -> Result<&str> {
    let text = bytes.strip_suffix(&[0]).context("a string has no end")?;
    std::str::from_utf8(text).context("a string is not UTF-8")
}

/// A big-endian number, as OSTree keeps them.
pub(super) fn big_endian(bytes: &[u8], at: usize) -> Result<u32> {
    let part = bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).context("a number is missing")?;
    Ok(u32::from_be_bytes(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_tuples_are_divided_by_their_offsets() {
        // ["a", "bc"] as `as`, from the specification's rules.
        assert_eq!(array(b"a\0bc\0\x02\x05", 1).unwrap(), [b"a\0".as_slice(), b"bc\0"]);
        assert!(array(b"", 1).unwrap().is_empty());
        assert_eq!(tuple_ends(b"ab\0xyz\x03", 1).unwrap(), (vec![3], 6));
        assert!(tuple_ends(b"ab\x09", 1).is_err());
        assert_eq!(string(b"ab\0").unwrap(), "ab");
        assert!(string(b"ab").is_err());
    }
}
