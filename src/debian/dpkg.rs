//! dpkg's own formats: relations between packages, triggers, diversions.

use anyhow::{Result, ensure};

use super::deb822::Paragraph;

/// Names of packages that a relation field (`Depends`, `Provides`, …) speaks of: an entry per
/// comma, with its alternatives; versions and architectures left out.
pub fn relations(paragraph: &Paragraph, field: &str) -> Vec<Vec<String>> {
    let Some(value) = paragraph.get(field) else { return Vec::new() };
    value
        .split(',')
        .map(|clause| clause.split('|').filter_map(relation_name).collect::<Vec<_>>())
        .filter(|alternatives| !alternatives.is_empty())
        .collect()
}

fn relation_name(relation: &str) -> Option<String> {
    let name = relation.trim().split(|c: char| c.is_whitespace() || "([<:".contains(c)).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// A configuration file that a package lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conffile {
    /// Absolute path.
    pub path: String,
    /// MD5 of the package's version of it as hex digits, or `newconffile` where dpkg is still to decide about it.
    pub digest: String,
}

/// What a package's `triggers` file says (deb-triggers(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Triggers {
    /// Names or absolute paths that it wants to hear of, and whether the other package waits for it.
    pub interests: Vec<(String, bool)>,
    /// Names or absolute paths that it sets off, and whether it waits for those who hear of it.
    pub activates: Vec<(String, bool)>,
}

impl Triggers {
    /// Reads a `triggers` file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut triggers = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let Some((directive, name)) = line.split_once(char::is_whitespace) else {
                ensure!(line.is_empty(), "`{line}` is no trigger directive");
                continue;
            };
            let name = name.trim().to_owned();
            match directive {
                "interest" | "interest-await" => triggers.interests.push((name, true)),
                "interest-noawait" => triggers.interests.push((name, false)),
                "activate" | "activate-await" => triggers.activates.push((name, true)),
                "activate-noawait" => triggers.activates.push((name, false)),
                _ => anyhow::bail!("`{directive}` is no trigger directive"),
            }
        }
        Ok(triggers)
    }
}

/// A line of three of dpkg's `diversions` (dpkg-divert(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diversion {
    /// The path that packages ship.
    pub from: String,
    /// Where it goes instead.
    pub to: String,
    /// The package whose own file stays in its place; `None` for the administrator (`:`).
    pub by: Option<String>,
}

impl Diversion {
    /// Reads a `diversions` file.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        let lines: Vec<_> = text.lines().collect();
        ensure!(lines.len().is_multiple_of(3), "the diversions do not come in threes");
        Ok(lines
            .chunks_exact(3)
            .map(|lines| Self {
                from: lines[0].to_owned(),
                to: lines[1].to_owned(),
                by: (lines[2] != ":").then(|| lines[2].to_owned()),
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_names() {
        let text = "Depends: libc6 (>= 2.38), mawk | awk:any [amd64],\n debconf (>= 0.5) | debconf-2.0\n";
        let paragraph = &crate::debian::deb822::parse(text).unwrap()[0];
        assert_eq!(
            relations(paragraph, "Depends"),
            [vec!["libc6"], vec!["mawk", "awk"], vec!["debconf", "debconf-2.0"]]
        );
        assert!(relations(paragraph, "Pre-Depends").is_empty());
    }

    #[test]
    fn triggers_and_diversions() {
        let triggers =
            Triggers::parse("# comment\ninterest-noawait /usr/share/man\nactivate ldconfig # now\n").unwrap();
        assert_eq!(triggers.interests, [("/usr/share/man".to_owned(), false)]);
        assert_eq!(triggers.activates, [("ldconfig".to_owned(), true)]);
        assert!(Triggers::parse("listen x\n").is_err());
        let diversions = Diversion::parse_all("/bin/sh\n/bin/sh.distrib\ndash\n/a\n/b\n:\n").unwrap();
        assert_eq!(diversions[0].by.as_deref(), Some("dash"));
        assert_eq!(diversions[1].by, None);
        assert!(Diversion::parse_all("/a\n/b\n").is_err());
    }
}
