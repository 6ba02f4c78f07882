//! The database of a repository: a tar archive with a file `NAME-VERSION/desc` of each package, as repo-add(8)
//! makes it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use crate::build::archive::Compression;

/// What a database says of a package's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Lower-case hex; it is what ties the file to the database.
    pub sha256: Option<String>,
    /// Its signature, where the database has it.
    pub signature: Option<Vec<u8>>,
}

/// The packages of a database, by the names of their files.
pub(super) fn read(path: &Path) -> Result<HashMap<String, Entry>> {
    let doing = || format!("reading the database {}", path.display());
    let mut start = [0; 16];
    let length = File::open(path).and_then(|mut file| file.read(&mut start)).with_context(doing)?;
    let compression = Compression::by_content(&start[..length]).unwrap_or(Compression::None);
    let reader = compression.reader(File::open(path).with_context(doing)?, u64::MAX).with_context(doing)?;
    let mut archive = tar::Archive::new(reader);
    let mut all = HashMap::new();
    for member in archive.entries().with_context(doing)? {
        let mut member = member.with_context(doing)?;
        if member.path().with_context(doing)?.file_name().is_none_or(|name| name != "desc") {
            continue;
        }
        let mut text = String::new();
        member.read_to_string(&mut text).with_context(doing)?;
        if let Some(name) = field(&text, "FILENAME") {
            let sha256 = field(&text, "SHA256SUM").map(str::to_ascii_lowercase);
            let signature = field(&text, "PGPSIG").and_then(|text| BASE64.decode(text).ok());
            all.insert(name.to_owned(), Entry { sha256, signature });
        }
    }
    Ok(all)
}

/// The first line of a field; `None` where there is no such field.
pub(super) fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines();
    lines.find(|line| line.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')) == Some(name))?;
    lines.next().map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_are_found_by_their_names() {
        let text = "%FILENAME%\na-1-1-any.pkg.tar.zst\n\n%NAME%\na\n\n%SHA256SUM%\nAB\n\n%DEPENDS%\nb\nc\n";
        assert_eq!(field(text, "FILENAME"), Some("a-1-1-any.pkg.tar.zst"));
        assert_eq!(field(text, "SHA256SUM"), Some("AB"));
        assert_eq!(field(text, "PGPSIG"), None);
    }
}
