//! Records of pax extended headers (pax(1), "pax Extended Header"): `LENGTH KEY=VALUE\n`.

use anyhow::{Context, Result, bail};

/// Prefix of an extended attribute's name.
pub(super) const XATTR: &str = "SCHILY.xattr.";
/// A POSIX ACL as text.
pub(super) const ACL_ACCESS: &str = "SCHILY.acl.access";
/// A directory's default ACL as text.
pub(super) const ACL_DEFAULT: &str = "SCHILY.acl.default";

/// Adds a record. Its length counts its own digits too.
pub(super) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Keys and values, in order. Values may hold any bytes, newlines too.
pub(super) fn parse(mut records: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut all = Vec::new();
    // Some writers fill the last block with zeros and count them in.
    while records.first().is_some_and(|byte| *byte != 0) {
        let space = records.iter().take(20).position(|byte| *byte == b' ').context("a pax record has no length")?;
        let length: usize = std::str::from_utf8(&records[..space])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .context("a pax record has no length")?;
        if length <= space + 1 || length > records.len() {
            bail!("a pax record has a wrong length");
        }
        let (record, rest) = records.split_at(length);
        let Some(record) = record[space + 1..].strip_suffix(b"\n") else { bail!("a pax record has a wrong length") };
        let equals = record.iter().position(|byte| *byte == b'=').context("a pax record has no `=`")?;
        all.push((&record[..equals], &record[equals + 1..]));
        records = rest;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_wrote(
            records in proptest::collection::vec(
                ("[a-zA-Z.]{1,40}", proptest::collection::vec(any::<u8>(), 0..1200)),
                0..5,
            ),
        ) {
            let mut bytes = Vec::new();
            for (key, value) in &records {
                push(&mut bytes, key.as_bytes(), value);
            }
            let read: Vec<(String, Vec<u8>)> = parse(&bytes)
                .unwrap()
                .into_iter()
                .map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), value.to_vec()))
                .collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn refuses_lengths_that_lie() {
        for record in ["3 a\n", "99 a=b\n", "6 a=b\n6 a=b", "x a=b\n", "0 a=b\n", "18446744073709551615 a=b\n"] {
            assert!(parse(record.as_bytes()).is_err(), "{record:?}");
        }
    }
}
