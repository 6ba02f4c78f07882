//! OpenPGP keys as packets (RFC 9580), as far as telling them apart by fingerprint takes.

use anyhow::{Context, Result, bail, ensure};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Packet types (section 5): a key, with which another certificate begins, and a subkey of it.
const PUBLIC_KEY: u8 = 6;
const PUBLIC_SUBKEY: u8 = 14;

/// A fingerprint as `Signed-By` takes it: 40 or 64 hex digits. Shorter ids fit more than one key.
pub fn parse_fingerprint(text: &str) -> Result<String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.ends_with('!') {
        bail!("`{text}` asks for one subkey alone, which cannot be told apart: leave the `!` out");
    }
    ensure!(
        matches!(digits.len(), 40 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "`{text}` is neither the path of a keyring nor a whole fingerprint"
    );
    Ok(digits.to_ascii_lowercase())
}

/// The certificates of a binary keyring that have one of the fingerprints themselves or in a subkey.
pub fn select(keyring: &[u8], fingerprints: &[String]) -> Result<Vec<u8>> {
    let mut selected = Vec::new();
    let mut certificate: &[u8] = &[];
    let mut wanted = false;
    let mut rest = keyring;
    while !rest.is_empty() {
        let packet = Packet::read(rest).context("the keyring is damaged")?;
        if packet.kind == PUBLIC_KEY {
            if wanted {
                selected.extend(&certificate[..certificate.len() - rest.len()]);
            }
            (certificate, wanted) = (rest, false);
        }
        if matches!(packet.kind, PUBLIC_KEY | PUBLIC_SUBKEY) {
            wanted |= packet.fingerprint().is_some_and(|fingerprint| fingerprints.contains(&fingerprint));
        }
        rest = &rest[packet.length..];
    }
    if wanted {
        selected.extend(certificate);
    }
    Ok(selected)
}

struct Packet<'a> {
    kind: u8,
    body: &'a [u8],
    /// With its header.
    length: usize,
}

impl<'a> Packet<'a> {
    /// The packet at the start of `bytes` (section 4.2).
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let number = |from: usize, count: usize| -> Result<usize> {
            let digits = bytes.get(from..from + count).context("it ends in the middle of a packet")?;
            Ok(digits.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
        };
        let tag = number(0, 1)?;
        ensure!(tag & 0x80 != 0, "a packet begins with {tag:#04x}");
        let (kind, header, length) = if tag & 0x40 != 0 {
            let (header, length) = match number(1, 1)? {
                length @ 0..=191 => (2, length),
                high @ 192..=223 => (3, ((high - 192) << 8) + number(2, 1)? + 192),
                255 => (6, number(2, 4)?),
                _ => bail!("a packet has no length"),
            };
            (tag & 0x3f, header, length)
        } else {
            let count = match tag & 3 {
                3 => bail!("a packet has no length"),
                power => 1 << power,
            };
            (tag >> 2 & 0x0f, 1 + count, number(1, count)?)
        };
        let body = bytes.get(header..header + length).context("it ends in the middle of a packet")?;
        Ok(Self { kind: kind as u8, body, length: header + length })
    }

    /// Of a key, in lower-case hex (section 5.5.4).
    fn fingerprint(&self) -> Option<String> {
        let length = u32::try_from(self.body.len()).ok()?.to_be_bytes();
        match self.body.first()? {
            4 => {
                let hasher = Sha1::new().chain_update([0x99]).chain_update(&length[2..]);
                Some(hex::encode(hasher.chain_update(self.body).finalize()))
            }
            6 => {
                let hasher = Sha256::new().chain_update([0x9b]).chain_update(length);
                Some(hex::encode(hasher.chain_update(self.body).finalize()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet in the old format and in the new one.
    fn packets(kind: u8, body: &[u8]) -> [Vec<u8>; 2] {
        let length = body.len() as u8;
        [[&[0x80 | kind << 2, length], body].concat(), [&[0xc0 | kind, length], body].concat()]
    }

    fn fingerprint(body: &[u8]) -> String {
        Packet { kind: PUBLIC_KEY, body, length: 0 }.fingerprint().unwrap()
    }

    #[test]
    fn certificates_are_chosen_by_key_and_subkey() {
        for format in 0..2 {
            let packet = |kind, body: &[u8]| packets(kind, body)[format].clone();
            let first = [packet(PUBLIC_KEY, b"\x04one"), packet(13, b"name")].concat();
            let second = [packet(PUBLIC_KEY, b"\x04two"), packet(PUBLIC_SUBKEY, b"\x04sub")].concat();
            let third = packet(PUBLIC_KEY, b"\x06six");
            let keyring = [first.clone(), second.clone(), third.clone()].concat();
            let chosen = |bodies: &[&[u8]]| {
                select(&keyring, &bodies.iter().map(|body| fingerprint(body)).collect::<Vec<_>>()).unwrap()
            };
            assert_eq!(chosen(&[b"\x04one"]), first);
            assert_eq!(chosen(&[b"\x04sub"]), second);
            assert_eq!(chosen(&[b"\x04one", b"\x06six"]), [first.clone(), third].concat());
            assert_eq!(chosen(&[b"\x04none"]), b"");
        }
    }

    #[test]
    fn longer_packets_are_passed_over() {
        let body = [&[4][..], &[0; 299]].concat();
        let new = [&[0xc0 | PUBLIC_KEY, 192, 108][..], &body].concat();
        let old = [&[0x80 | PUBLIC_KEY << 2 | 1, 1, 44][..], &body].concat();
        for packet in [new, old] {
            let keyring = [packet.clone(), packets(PUBLIC_KEY, b"\x04one")[0].clone()].concat();
            assert_eq!(select(&keyring, &[fingerprint(&body)]).unwrap(), packet);
        }
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let packet = &packets(PUBLIC_KEY, b"\x04one")[0];
        for end in 1..packet.len() {
            assert!(select(&packet[..end], &[]).is_err(), "{end}");
        }
        assert!(select(b"text", &[]).is_err());
    }

    #[test]
    fn only_whole_fingerprints_are_taken() {
        let whole = "0xABCDEF0123456789ABCDEF0123456789ABCDEF01";
        assert_eq!(parse_fingerprint(whole).unwrap(), whole[2..].to_ascii_lowercase());
        for wrong in ["", "0x", "ABCDEF01", &format!("{whole}!"), "keys/one.asc"] {
            assert!(parse_fingerprint(wrong).is_err(), "{wrong}");
        }
    }
}
