//! Release files of repositories (the Debian repository format), signed or not.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::deb822;

/// What a Release file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// When it was made, in seconds since 1970.
    pub date: i64,
    /// When it ceases to hold, in seconds since 1970.
    pub valid_until: Option<i64>,
    /// `Debian`.
    pub origin: String,
    /// `trixie`.
    pub codename: String,
    /// `stable`.
    pub suite: String,
    /// Whether indexes are there under their digests too.
    pub by_hash: bool,
    /// Whether packages for all architectures are not repeated in the indexes of each.
    pub separate_all: bool,
    files: HashMap<String, Index>,
}

/// An index that a Release file lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Lower-case hex.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

impl Release {
    /// Reads the text of a Release file (of an InRelease file, its signed part).
    pub fn parse(text: &str) -> Result<Self> {
        let paragraphs = deb822::parse(text)?;
        let Some(paragraph) = paragraphs.first() else { bail!("the Release file is empty") };
        let text = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let date = paragraph.get("Date").context("the Release file has no `Date`")?;
        let mut files = HashMap::new();
        for line in paragraph.get("SHA256").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if let (Some(sha256), Some(size), Some(path)) = (words.next(), words.next(), words.next()) {
                let size = size.parse().with_context(|| format!("the Release file has a bad size in `{line}`"))?;
                files.insert(path.to_owned(), Index { sha256: sha256.to_ascii_lowercase(), size });
            }
        }
        let architectures = paragraph.words("Architectures");
        let covered = paragraph.words("No-Support-for-Architecture-all");
        Ok(Self {
            date: seconds(date)?,
            valid_until: paragraph.get("Valid-Until").map(seconds).transpose()?,
            origin: text("Origin"),
            codename: text("Codename"),
            suite: text("Suite"),
            by_hash: paragraph.flag("Acquire-By-Hash").unwrap_or(false),
            separate_all: architectures.iter().any(|a| a == "all") && !covered.iter().any(|c| c == "Packages"),
            files,
        })
    }

    /// Paths of all indexes, below the suite's directory.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// An index by its path below the suite's directory: `main/binary-amd64/Packages.xz`.
    pub fn index(&self, path: &str) -> Option<&Index> {
        self.files.get(path)
    }
}

/// Reads a date as Release files have it: `Sat, 06 Sep 2025 10:10:30 UTC`.
fn seconds(date: &str) -> Result<i64> {
    let zoned = date.trim().replace(" UTC", " +0000").replace(" Z", " +0000");
    let parsed = jiff::fmt::rfc2822::parse(&zoned).with_context(|| format!("`{date}` is not a date"))?;
    Ok(parsed.timestamp().as_second())
}

/// A text with the signatures over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearSigned {
    /// What is signed, its lines ended by newlines.
    pub text: String,
    /// The signatures, armoured.
    pub signature: String,
}

/// Takes an InRelease file apart (RFC 9580, section 7). Only what the signature covers is kept, and
/// anything outside of it is refused.
pub fn clear_signed(file: &str) -> Result<ClearSigned> {
    let mut lines = file.lines();
    if lines.next() != Some("-----BEGIN PGP SIGNED MESSAGE-----") {
        bail!("it is no clear-signed file");
    }
    for header in lines.by_ref() {
        if header.is_empty() {
            break;
        }
        if !header.starts_with("Hash: ") {
            bail!("it has an unknown armour header `{header}`");
        }
    }
    let mut text = String::with_capacity(file.len());
    let mut signature = String::new();
    for line in lines.by_ref() {
        if line == "-----BEGIN PGP SIGNATURE-----" {
            signature.push_str(line);
            signature.push('\n');
            break;
        }
        // A line of the text that starts with a dash was escaped.
        let line = match line.strip_prefix("- ") {
            Some(line) => line,
            None if line.starts_with('-') => bail!("it has an unescaped line `{line}`"),
            None => line,
        };
        text.push_str(line.trim_end_matches([' ', '\t']));
        text.push('\n');
    }
    let mut ended = false;
    for line in lines.by_ref() {
        signature.push_str(line);
        signature.push('\n');
        if line == "-----END PGP SIGNATURE-----" {
            ended = true;
            break;
        }
    }
    if !ended || lines.any(|line| !line.trim().is_empty()) {
        bail!("it does not end with its signature");
    }
    // The last newline belongs to the armour, not to the text.
    text.pop();
    Ok(ClearSigned { text, signature })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 06 Sep 2025 10:10:30 UTC\nValid-Until: Sat, 13 Sep 2025 10:10:30 UTC\nAcquire-By-Hash: yes\nNo-Support-for-Architecture-all: Packages\nArchitectures: all amd64\nSHA256:\n 00AA 12 main/binary-amd64/Packages.xz\n bb 3 main/binary-all/Packages\n";

    #[test]
    fn reads_a_release_file() {
        let release = Release::parse(RELEASE).unwrap();
        assert_eq!(release.date, 1_757_153_430);
        assert_eq!(release.valid_until, Some(1_757_153_430 + 7 * 86400));
        assert!(release.by_hash && !release.separate_all);
        assert_eq!(release.index("main/binary-amd64/Packages.xz"), Some(&Index { sha256: "00aa".into(), size: 12 }));
        assert_eq!(release.index("main/binary-amd64/Packages"), None);
    }

    #[test]
    fn refuses_a_file_without_a_date() {
        assert!(Release::parse("Origin: x\n").is_err());
        assert!(Release::parse("Date: tomorrow\n").is_err());
    }

    #[test]
    fn keeps_only_what_is_signed() {
        let good = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: x  \n- -dash\n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n";
        let parts = clear_signed(good).unwrap();
        assert_eq!(parts.text, "Origin: x\n-dash");
        assert!(parts.signature.ends_with("abc\n-----END PGP SIGNATURE-----\n"));
        for bad in [
            format!("Origin: y\n{good}"),
            format!("{good}Origin: y\n"),
            good.replace("- -dash", "-dash"),
            good.replace("-----END PGP SIGNATURE-----\n", ""),
            good.replace("Hash: SHA256", "Origin: y"),
        ] {
            assert!(clear_signed(&bad).is_err(), "{bad}");
        }
    }
}
