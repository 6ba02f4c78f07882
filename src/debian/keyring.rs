//! OpenPGP keyrings as files: binary, or armoured (RFC 9580, section 6).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::openpgp;

/// Where Debian's package of archive keys puts them, newest name first.
pub const DEBIAN_ARCHIVE: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

/// Keys in the binary form that gpgv and sqv read, from either form.
pub fn binary(contents: &[u8]) -> Result<Vec<u8>> {
    let armoured = std::str::from_utf8(contents).ok().filter(|text| text.contains("-----BEGIN PGP"));
    let Some(text) = armoured else {
        // Every packet starts with the highest bit set.
        if contents.first().is_none_or(|byte| byte & 0x80 == 0) {
            bail!("it is no OpenPGP keyring");
        }
        return Ok(contents.to_vec());
    };
    let mut keys = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while lines.by_ref().any(|line| line.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK")) {
        let mut body = String::new();
        let mut in_headers = true;
        for line in lines.by_ref() {
            if line.starts_with("-----END") {
                break;
            }
            // An empty line ends the headers; some keys have neither.
            if in_headers && (line.is_empty() || line.contains(": ")) {
                in_headers = !line.is_empty();
                continue;
            }
            in_headers = false;
            // The checksum.
            if !line.starts_with('=') {
                body.push_str(line.trim());
            }
        }
        keys.extend(STANDARD.decode(body).context("its armour is damaged")?);
    }
    if keys.is_empty() {
        bail!("it has no public key");
    }
    Ok(keys)
}

/// Keys in the armoured form, as `Signed-By` takes them inline.
pub fn armoured(binary: &[u8]) -> String {
    let encoded = STANDARD.encode(binary);
    let mut text = String::from("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str("-----END PGP PUBLIC KEY BLOCK-----\n");
    text
}

/// Where a system has the keys that it trusts for every repository that names none (apt-key(8)).
pub const TRUSTED: (&str, &str) = ("/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d");

/// Whether apt takes a file of the directory of [`TRUSTED`] for a keyring.
pub fn is_keyring(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "gpg" || e == "asc" || e == "pgp")
}

/// The keyring files and the fingerprints that a value of `Signed-By` names.
pub fn named(names: &[String]) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let (files, fingerprints): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| name.starts_with('/'));
    let fingerprints = fingerprints.into_iter().map(|name| openpgp::parse_fingerprint(name)).collect::<Result<_>>()?;
    Ok((files.into_iter().map(PathBuf::from).collect(), fingerprints))
}

/// Those of binary keys that have one of the fingerprints; all of them where there is no fingerprint.
pub fn with_fingerprints(keys: Vec<u8>, fingerprints: &[String]) -> Result<Vec<u8>> {
    if fingerprints.is_empty() { Ok(keys) } else { openpgp::select(&keys, fingerprints) }
}

/// The keyring of this machine that Debian's archive is signed with, as its package installs it; nothing else
/// that the machine trusts is for others to be verified with.
pub fn host_debian() -> Option<PathBuf> {
    DEBIAN_ARCHIVE.iter().map(PathBuf::from).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armour_goes_both_ways() {
        let keys: Vec<u8> = (0..200).map(|n| n | 0x80).collect();
        let text = armoured(&keys);
        assert_eq!(binary(text.as_bytes()).unwrap(), keys);
        let with_headers =
            text.replacen("-----\n\n", "-----\nVersion: 1\n\n", 1).replace("-----END", "=abcd\n-----END");
        assert_eq!(binary(with_headers.as_bytes()).unwrap(), keys);
        assert_eq!(binary(format!("{text}{text}").as_bytes()).unwrap().len(), 400);
        assert_eq!(binary(&keys).unwrap(), keys);
    }

    #[test]
    fn refuses_what_is_no_keyring() {
        assert!(binary(b"hello").is_err());
        assert!(binary(b"").is_err());
        assert!(binary(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!\n-----END PGP PUBLIC KEY BLOCK-----\n").is_err());
    }
}
