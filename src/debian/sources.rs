//! apt's lists of repositories (sources.list(5)), in both formats.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt_conf;
use super::deb822::{self, Paragraph};
use crate::diagnostics::redacted;

/// All repositories that are in force together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(pub Vec<Source>);

/// One entry: every suite of every address, with one set of options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `deb`, `deb-src`.
    pub types: Vec<String>,
    /// Base addresses, without a slash at the end.
    pub uris: Vec<String>,
    /// Suites, or exact paths that end in `/`.
    pub suites: Vec<String>,
    /// Empty with exact paths.
    pub components: Vec<String>,
    /// Empty where they are those of the system.
    pub architectures: Vec<String>,
    /// Who may have signed it; all trusted keys where `None`.
    pub signed_by: Option<SignedBy>,
    /// Whether it counts as signed or unsigned whatever is true.
    pub trusted: Option<bool>,
    /// Whether a Release file past its `Valid-Until` is refused.
    pub check_valid_until: Option<bool>,
    /// Whether indexes are asked for by their digests.
    pub by_hash: Option<ByHash>,
    /// An option, with its value, that would have another Release file count: only apt itself knows what to make of it.
    pub of_apt: Option<(String, String)>,
}

/// Names of such options.
const OF_APT: [&str; 5] = ["InRelease-Path", "Valid-Until-Max", "Valid-Until-Min", "Check-Date", "Snapshot"];

/// How apt asks for indexes (`By-Hash`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ByHash {
    /// By their names.
    No,
    /// By their digests where the repository says that they are there.
    Yes,
    /// By their digests.
    Force,
}

impl ByHash {
    /// Reads apt's word for it.
    pub fn parse(value: &str) -> Option<Self> {
        match (value.trim(), apt_conf::flag(value)) {
            ("force", _) => Some(Self::Force),
            (_, Some(true)) => Some(Self::Yes),
            (_, Some(false)) => Some(Self::No),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Force => "force",
        }
    }
}

/// The value of `Signed-By`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// Absolute paths of keyrings, and fingerprints of trusted keys.
    Named(Vec<String>),
    /// The public key itself, armoured.
    Key(String),
}

/// One suite at one address: what has a Release file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Suite {
    /// Base address, without a slash at the end.
    pub uri: String,
    /// The suite, or an exact path that ends in `/`.
    pub name: String,
}

impl Suite {
    /// Whether it is an exact path instead of a suite below `dists`.
    pub fn is_flat(&self) -> bool {
        self.name.ends_with('/')
    }

    /// Whether a repository that has these names is this one, as apt sees it: without what follows a slash
    /// (`trixie/updates`). One that has none may be anything.
    pub fn is_named(&self, names: &[&str]) -> bool {
        let mut known = names.iter().filter(|name| !name.is_empty()).peekable();
        let asked = self.name.strip_prefix("../project/").unwrap_or(&self.name);
        let asked = asked.rsplit_once('/').map_or(asked, |(first, _)| first);
        self.is_flat() || known.peek().is_none() || known.any(|name| *name == asked)
    }

    /// Address of the directory that its Release file stands in, with a slash at the end.
    pub fn base(&self) -> String {
        match self.name.as_str() {
            "/" => format!("{}/", self.uri),
            path if self.is_flat() => format!("{}/{path}", self.uri),
            suite => format!("{}/dists/{suite}/", self.uri),
        }
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.uri, self.name)
    }
}

impl Source {
    /// A binary repository without options.
    pub fn new(uri: &str, suite: &str, components: &[&str]) -> Self {
        Self {
            types: vec!["deb".into()],
            uris: vec![trim(uri)],
            suites: vec![suite.to_owned()],
            components: components.iter().map(|&c| c.to_owned()).collect(),
            architectures: Vec::new(),
            signed_by: None,
            trusted: None,
            check_valid_until: None,
            by_hash: None,
            of_apt: None,
        }
    }

    /// Its suites, address by address.
    pub fn suites(&self) -> impl Iterator<Item = Suite> + '_ {
        self.uris.iter().flat_map(|uri| self.suites.iter().map(|name| Suite { uri: trim(uri), name: name.clone() }))
    }

    /// Whether it has binary packages for an architecture.
    pub fn serves(&self, architecture: &str) -> bool {
        self.types.iter().any(|t| t == "deb")
            && (self.architectures.is_empty() || self.architectures.iter().any(|a| a == architecture))
    }

    /// One entry of the one-line format; `None` for blank lines and comments.
    pub fn from_line(line: &str) -> Result<Option<Self>> {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            return Ok(None);
        }
        let (kind, rest) = line.split_once(char::is_whitespace).with_context(|| format!("`{line}` is cut short"))?;
        if !matches!(kind, "deb" | "deb-src") {
            bail!("`{line}` starts with neither `deb` nor `deb-src`");
        }
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(rest) => rest.split_once(']').with_context(|| format!("`{line}` lacks a `]`"))?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            bail!("`{line}` needs an address and a suite");
        };
        let mut paragraph = Paragraph::default();
        paragraph.set("Types", kind);
        paragraph.set("URIs", uri);
        paragraph.set("Suites", suite);
        paragraph.set("Components", words.collect::<Vec<_>>().join(" "));
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').with_context(|| format!("`{option}` is not `name=value`"))?;
            let name = match name.trim_end_matches(['+', '-']) {
                "arch" => "Architectures",
                other => other,
            };
            paragraph.set(name, value.replace(',', " "));
        }
        Self::from_paragraph(&paragraph)
    }

    /// One entry of the deb822 format; `None` where it is disabled.
    pub fn from_paragraph(paragraph: &Paragraph) -> Result<Option<Self>> {
        if paragraph.flag("Enabled") == Some(false) {
            return Ok(None);
        }
        let words = |name: &str| {
            let words = paragraph.words(name);
            if words.is_empty() { bail!("a repository lacks `{name}`") } else { Ok(words) }
        };
        let source = Self {
            types: words("Types")?,
            uris: words("URIs")?.iter().map(|uri| trim(uri)).collect(),
            suites: words("Suites")?,
            components: paragraph.words("Components"),
            architectures: paragraph.words("Architectures"),
            signed_by: paragraph.get("Signed-By").and_then(SignedBy::parse),
            trusted: paragraph.flag("Trusted"),
            check_valid_until: paragraph.flag("Check-Valid-Until"),
            by_hash: paragraph.get("By-Hash").and_then(ByHash::parse),
            of_apt: OF_APT.iter().find_map(|name| Some(((*name).to_owned(), paragraph.get(name)?.trim().to_owned()))),
        };
        for suite in &source.suites {
            if suite.ends_with('/') != source.components.is_empty() {
                bail!("the suite `{suite}` needs components, or a `/` at its end and none");
            }
        }
        Ok(Some(source))
    }

    /// The entry in the deb822 format.
    pub fn to_paragraph(&self) -> Paragraph {
        let mut paragraph = Paragraph::default();
        paragraph.set("Types", self.types.join(" "));
        paragraph.set("URIs", self.uris.join(" "));
        paragraph.set("Suites", self.suites.join(" "));
        let flag = |value: bool| if value { "yes" } else { "no" };
        for (name, words) in [("Components", &self.components), ("Architectures", &self.architectures)] {
            if !words.is_empty() {
                paragraph.set(name, words.join(" "));
            }
        }
        for (name, value) in [("Trusted", self.trusted), ("Check-Valid-Until", self.check_valid_until)] {
            if let Some(value) = value {
                paragraph.set(name, flag(value));
            }
        }
        if let Some(by_hash) = self.by_hash {
            paragraph.set("By-Hash", by_hash.name());
        }
        if let Some((name, value)) = &self.of_apt {
            paragraph.set(name, value);
        }
        match &self.signed_by {
            Some(SignedBy::Named(names)) => paragraph.set("Signed-By", names.join(" ")),
            Some(SignedBy::Key(key)) => paragraph.set("Signed-By", format!("\n{}", key.trim())),
            None => {}
        }
        paragraph
    }
}

impl SignedBy {
    fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        if value.starts_with("-----BEGIN") {
            return Some(Self::Key(value.to_owned()));
        }
        let names: Vec<String> =
            value.split([' ', '\t', '\n', ',']).filter(|n| !n.is_empty()).map(Into::into).collect();
        (!names.is_empty()).then_some(Self::Named(names))
    }
}

impl Sources {
    /// A suite that two sources have with different keys: apt refuses to read such a list ("Conflicting values set for
    /// option Signed-By").
    pub fn signed_differently(&self) -> Option<Suite> {
        let mut seen: Vec<(Suite, BTreeSet<&str>)> = Vec::new();
        for source in &self.0 {
            let keys = match &source.signed_by {
                None => BTreeSet::new(),
                Some(SignedBy::Named(names)) => names.iter().map(String::as_str).collect(),
                Some(SignedBy::Key(key)) => BTreeSet::from([key.as_str()]),
            };
            for suite in source.suites() {
                match seen.iter().find(|(known, _)| *known == suite) {
                    Some((_, known)) if *known != keys => return Some(suite),
                    Some(_) => {}
                    None => seen.push((suite, keys.clone())),
                }
            }
        }
        None
    }

    /// Reads a `.sources` file.
    pub fn from_deb822(text: &str) -> Result<Self> {
        let mut all = Vec::new();
        for paragraph in deb822::parse(text)? {
            all.extend(Source::from_paragraph(&paragraph)?);
        }
        Ok(Self(all))
    }

    /// Reads a `.list` file.
    pub fn from_lines(text: &str) -> Result<Self> {
        let mut all = Vec::new();
        for line in text.lines() {
            all.extend(Source::from_line(line)?);
        }
        Ok(Self(all))
    }

    /// Reads text of either format, as recipes and mmdebstrap take it.
    pub fn from_text(text: &str) -> Result<Self> {
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        match first {
            Some(line) if line.starts_with("deb ") || line.starts_with("deb-src ") => Self::from_lines(text),
            _ => Self::from_deb822(text),
        }
    }

    /// Every suite once, in order.
    pub fn suites(&self) -> Vec<Suite> {
        let mut all: Vec<Suite> = Vec::new();
        for suite in self.0.iter().flat_map(Source::suites) {
            if !all.contains(&suite) {
                all.push(suite);
            }
        }
        all
    }
}

impl std::fmt::Display for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, source) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", source.to_paragraph())?;
        }
        Ok(())
    }
}

/// Says why packages cannot be fetched from an address.
pub fn check_address(uri: &str) -> Result<()> {
    match uri.split_once(':').map_or("", |(scheme, _)| scheme) {
        "http" | "https" | "file" => Ok(()),
        scheme if scheme.starts_with("mirror") => {
            bail!("packages cannot be fetched from `{uri}`: it is a list of mirrors, of which one has to be named")
        }
        _ => bail!("packages cannot be fetched from `{uri}`: it is none of http, https and file"),
    }
}

/// An address without a slash at its end, and without a login: it goes into plans, logs and the store.
fn trim(uri: &str) -> String {
    redacted(uri).trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_one_line_format_with_options() {
        let text = "# main\ndeb [arch=amd64,arm64 signed-by=/k/a.gpg trusted=yes] http://mirror.example/debian/ trixie main contrib # x\n\n";
        let sources = Sources::from_lines(text).unwrap();
        let mut expected = Source::new("http://mirror.example/debian", "trixie", &["main", "contrib"]);
        expected.architectures = vec!["amd64".into(), "arm64".into()];
        expected.signed_by = Some(SignedBy::Named(vec!["/k/a.gpg".into()]));
        expected.trusted = Some(true);
        assert_eq!(sources, Sources(vec![expected]));
    }

    #[test]
    fn writes_what_it_reads() {
        let text = "Types: deb deb-src\nURIs: http://a.example/ file:/b\nSuites: trixie trixie-updates\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n\nTypes: deb\nURIs: http://c.example\nSuites: ./\nEnabled: no\n";
        let sources = Sources::from_deb822(text).unwrap();
        assert_eq!(sources.0.len(), 1);
        assert_eq!(sources.suites().len(), 4);
        assert_eq!(Sources::from_text(&sources.to_string()).unwrap(), sources);
    }

    #[test]
    fn knows_where_release_files_stand() {
        let at = |line: &str| Source::from_line(line).unwrap().unwrap().suites().next().unwrap().base();
        assert_eq!(at("deb http://m.example/debian/ trixie main"), "http://m.example/debian/dists/trixie/");
        assert_eq!(at("deb http://m.example/d stable/updates main"), "http://m.example/d/dists/stable/updates/");
        assert_eq!(at("deb http://m.example/flat amd64/"), "http://m.example/flat/amd64/");
        assert_eq!(at("deb http://m.example/flat /"), "http://m.example/flat/");
        assert_eq!(at("deb http://m.example/flat ./"), "http://m.example/flat/./");
    }

    #[test]
    fn says_which_addresses_are_of_no_use() {
        assert!(check_address("https://m.example/debian").is_ok() && check_address("file:/srv/debian").is_ok());
        let why = |uri: &str| check_address(uri).unwrap_err().to_string();
        assert!(why("mirror+http://m.example/list").contains("list of mirrors"));
        assert!(why("cdrom:[Debian]/").contains("none of http"));
        assert!(why("m.example/debian").contains("none of http"));
    }

    #[test]
    fn a_suite_has_the_same_keys_wherever_it_is_named() {
        let conflict =
            |text: &str| Sources::from_lines(text).unwrap().signed_differently().map(|suite| suite.to_string());
        let line = |options: &str, rest: &str| format!("deb {options} {rest}\n");
        let signed = line("[signed-by=/usr/share/keyrings/a.gpg]", "http://m.example/d/ x main");
        let plain = line("", "http://m.example/d x contrib");
        assert_eq!(conflict(&format!("{signed}{plain}")).as_deref(), Some("http://m.example/d x"));
        assert_eq!(conflict(&format!("{signed}{}", signed.replace("main", "contrib"))), None);
        assert_eq!(conflict(&format!("{signed}{}", plain.replace(" x ", " y "))), None);
        assert_eq!(
            conflict(&format!("{signed}{}", signed.replace("/a.gpg", "/b.gpg"))).as_deref(),
            Some("http://m.example/d x")
        );
    }

    #[test]
    fn a_suite_goes_by_either_name() {
        let is =
            |asked: &str, names: &[&str]| Suite { uri: "http://example".into(), name: asked.into() }.is_named(names);
        assert!(is("trixie", &["stable", "trixie"]) && is("stable", &["stable", "trixie"]));
        assert!(
            is("buster/updates", &["oldoldstable", "buster"]) && is("../project/experimental", &["experimental", ""])
        );
        assert!(is("./", &["x", "y"]) && is("noble", &["", ""]));
        assert!(!is("trixie", &["oldstable", "bookworm"]));
    }

    #[test]
    fn refuses_what_apt_refuses() {
        for line in [
            "deb http://m.example",
            "rpm http://m.example x main",
            "deb [x http://m.example a b",
            "deb http://m.example trixie",
            "deb http://m.example ./ main",
        ] {
            assert!(Source::from_line(line).is_err(), "{line}");
        }
    }
}
