//! The control format of Debian: paragraphs of `Name: value` fields (deb822(5)).

use anyhow::{Result, bail};

/// One paragraph; names are compared without case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph {
    fields: Vec<(String, String)>,
}

impl Paragraph {
    /// The value of a field. Continuation lines follow after newlines, without their leading space
    /// and with ` .` read as an empty line.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The words of a field's value; none where there is no such field.
    pub fn words(&self, name: &str) -> Vec<String> {
        self.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    /// A field that means yes or no, in any of apt's spellings.
    pub fn flag(&self, name: &str) -> Option<bool> {
        super::apt_conf::flag(self.get(name)?)
    }

    /// Sets a field, or replaces it where it stands.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.fields.iter_mut().find(|(field, _)| field.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }

    /// The fields in the order of the text.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Display for Paragraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.fields {
            let mut lines = value.split('\n');
            match lines.next().unwrap_or_default() {
                "" => writeln!(f, "{name}:")?,
                first => writeln!(f, "{name}: {first}")?,
            }
            for line in lines {
                writeln!(f, " {}", if line.trim().is_empty() { "." } else { line })?;
            }
        }
        Ok(())
    }
}

/// Reads all paragraphs. Lines that start with `#` are comments.
pub fn parse(text: &str) -> Result<Vec<Paragraph>> {
    let mut all = Vec::new();
    let mut current = Paragraph::default();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !current.fields.is_empty() {
                all.push(std::mem::take(&mut current));
            }
        } else if line.starts_with([' ', '\t']) {
            let Some((_, value)) = current.fields.last_mut() else {
                bail!("line {} continues a field, but there is none before it", number + 1);
            };
            let more = line[1..].trim_end();
            value.push('\n');
            value.push_str(if more.trim() == "." { "" } else { more });
        } else {
            let Some((name, value)) = line.split_once(':') else {
                bail!("line {} is not a field (`Name: value`)", number + 1);
            };
            current.fields.push((name.trim_end().to_owned(), value.trim().to_owned()));
        }
    }
    if !current.fields.is_empty() {
        all.push(current);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\nTypes: deb\nURIs: http://mirror.example/debian\nSigned-By:\n -----BEGIN-----\n .\n abc\n\n\nPackage: a\nEnabled: no\n";

    #[test]
    fn reads_paragraphs_with_continuations() {
        let all = parse(TEXT).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("uris"), Some("http://mirror.example/debian"));
        assert_eq!(all[0].get("Signed-By"), Some("\n-----BEGIN-----\n\nabc"));
        assert_eq!(all[1].flag("Enabled"), Some(false));
    }

    #[test]
    fn writes_what_it_reads() {
        let all = parse(TEXT).unwrap();
        let text: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(parse(&text.join("\n")).unwrap(), all);
    }

    #[test]
    fn refuses_what_is_no_field() {
        assert!(parse(" continued\n").is_err());
        assert!(parse("deb http://mirror.example trixie main\n").is_ok(), "the scheme's colon makes it a field");
        assert!(parse("no colon here\n").is_err());
    }
}
