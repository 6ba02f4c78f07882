//! Archives that keep every past state of a mirror: `http://snapshot.…/archive/debian/20260901T000000Z`.

use anyhow::{Context, Result, ensure};
use jiff::civil::DateTime;
use url::{Host, Url};

/// A moment in the form that snapshot archives name states by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(String);

impl Stamp {
    /// Reads `20260901T000000Z`.
    pub fn parse(text: &str) -> Result<Self> {
        let shape = text.len() == 16
            && text.char_indices().all(|(at, character)| match at {
                8 => character == 'T',
                15 => character == 'Z',
                _ => character.is_ascii_digit(),
            });
        ensure!(shape, "`{text}` is not of the form 20260901T000000Z");
        let moment = text.trim_end_matches('Z');
        DateTime::strptime("%Y%m%dT%H%M%S", moment).with_context(|| format!("`{text}` is no moment of any day"))?;
        Ok(Self(text.to_owned()))
    }

    /// Where the state of a mirror at this moment is: below `archive` on the host that is called
    /// `snapshot` in the mirror's domain, under the last part of the mirror's path. A mirror that is a snapshot already is
    /// moved to this moment; one without a domain (a local one) has its snapshots itself.
    pub fn of_mirror(&self, mirror: &str) -> Result<String> {
        let mut url = Url::parse(mirror).with_context(|| format!("`{mirror}` is no address"))?;
        let parts: Vec<String> =
            url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let archive = match parts.iter().position(|part| part == "archive") {
            Some(position) => parts.get(position + 1),
            None => parts.last(),
        };
        let archive = archive.with_context(|| format!("the address `{mirror}` names no archive"))?.clone();
        if let Some(Host::Domain(domain)) = url.host() {
            let labels: Vec<&str> = domain.split('.').collect();
            if labels.len() > 1 {
                let host = format!("snapshot.{}", labels[labels.len() - 2..].join("."));
                url.set_host(Some(&host)).with_context(|| format!("naming the snapshot archive of `{mirror}`"))?;
            }
        }
        url.set_path(&format!("archive/{archive}/{}", self.0));
        Ok(url.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_a_moment() {
        assert!(Stamp::parse("20260901T000000Z").is_ok());
        for wrong in ["2026-09-01", "20260901T000000", "20261301T000000Z", "20260901T250000Z", "20260901t000000z", ""] {
            assert!(Stamp::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_the_snapshot_of_a_mirror() {
        let stamp = Stamp::parse("20260901T000000Z").unwrap();
        let cases = [
            ("http://deb.mirror.example/debian", "http://snapshot.mirror.example/archive/debian/20260901T000000Z"),
            (
                "https://ftp.xy.mirror.example/debian/",
                "https://snapshot.mirror.example/archive/debian/20260901T000000Z",
            ),
            (
                "http://snapshot.mirror.example/archive/debian-security/20250101T000000Z/",
                "http://snapshot.mirror.example/archive/debian-security/20260901T000000Z",
            ),
            ("http://127.0.0.1:8080/debian", "http://127.0.0.1:8080/archive/debian/20260901T000000Z"),
        ];
        for (mirror, expected) in cases {
            assert_eq!(stamp.of_mirror(mirror).unwrap(), expected);
        }
        assert!(stamp.of_mirror("debian").is_err());
        assert!(stamp.of_mirror("http://mirror.example/").is_err());
    }
}
