//! Packages that debforge needs for itself: picked from a repository by name, without a root or apt.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::lists;
use super::{Trust, release_file, unavailable};
use crate::debian::Architecture;
use crate::debian::deb822::{self, Paragraph};
use crate::debian::sources::Source;
use crate::store::Store;
use crate::store::fetch::Request;

/// The paragraphs of a repository's packages whose names are wanted, as its indexes have them now. The
/// Release files are verified, and the indexes are those that they list.
pub fn packages(
    store: &Store,
    source: &Source,
    architecture: Architecture,
    trust: &Trust,
    wanted: &dyn Fn(&str) -> bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Paragraph>> {
    let mut found = Vec::new();
    for suite in source.suites() {
        progress(&format!("asking {suite}"));
        let release = release_file::verified(store, source, &suite, trust, progress)?;
        for index in lists::indexes(source, &suite, &release, &[architecture.name().to_owned()])? {
            progress(&format!("reading the package lists of {suite}"));
            let fetched = lists::fetch(store, &trust.access, &index)?;
            let file = std::fs::File::open(&fetched.path).context("reading a package list")?;
            let list = BufReader::with_capacity(1 << 18, lists::decoder(file, &index)?);
            select(list, wanted, &mut found).with_context(|| format!("reading the package lists of {suite}"))?;
        }
    }
    Ok(found)
}

/// Adds the paragraphs of an index whose names are wanted.
fn select(mut index: impl BufRead, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<Paragraph>) -> Result<()> {
    let mut paragraph = Vec::new();
    loop {
        let start = paragraph.len();
        let read = index.read_until(b'\n', &mut paragraph)?;
        if read > 1 {
            continue;
        }
        // An empty line or the end.
        let text = String::from_utf8_lossy(&paragraph[..start]);
        if text.strip_prefix("Package: ").and_then(|rest| rest.lines().next()).is_some_and(|name| wanted(name.trim())) {
            found.extend(deb822::parse(&text)?);
        }
        paragraph.clear();
        if read == 0 {
            return Ok(());
        }
    }
}

/// A file of the store that is a package of the repository at `uri`. `progress` is told bytes so far and in all.
pub fn fetch(
    store: &Store,
    uri: &str,
    package: &Paragraph,
    trust: &Trust,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<PathBuf> {
    let field = |name: &str| package.get(name).with_context(|| format!("a package list has a package without {name}"));
    let (name, version) = (field("Package")?, field("Version")?);
    let url = format!("{}/{}", uri.trim_end_matches('/'), field("Filename")?);
    let sha256 = Some(field("SHA256")?.to_owned());
    // What is remembered of a package from an earlier list has none.
    let size = package.get("Size").map(|size| size.trim().parse());
    let limit = size.transpose().context("a package list has a size that is no number")?;
    let request = Request { limit, ..trust.access.request(&url, sha256) };
    let fetched = store
        .fetch(&request, progress)
        .map_err(|error| unavailable(&format!("the package {name} {version}"), &error))?;
    Ok(fetched.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_packages_by_name() {
        let index =
            "Package: a\nVersion: 1\n\nPackage: ab\nVersion: 2\nDescription: x\n Package: b\n\nPackage: b\nVersion: 3";
        let mut found = Vec::new();
        select(index.as_bytes(), &|name| name.ends_with('b'), &mut found).unwrap();
        let versions: Vec<_> = found.iter().map(|package| package.get("Version").unwrap()).collect();
        assert_eq!(versions, ["2", "3"]);
    }
}
