//! Whether tmpfiles.d(5) makes what is in /var.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Found, listed};
use crate::inspect::Tree;
use crate::inspect::tree::EntryKind;

pub(super) fn var(tree: &dyn Tree) -> Found {
    let declared = match declared(tree)? {
        Ok(declared) => declared,
        Err(line) => return Ok(Some(format!("a line of tmpfiles.d makes no sense: {line}"))),
    };
    let (mut missing, mut files) = (Vec::new(), Vec::new());
    let mut todo = vec![PathBuf::from("var")];
    while let Some(directory) = todo.pop() {
        for entry in tree.list(&directory)? {
            if !declared.contains(&entry.path) {
                let shown = format!("/{}", entry.path.display());
                match entry.kind {
                    EntryKind::Directory | EntryKind::Link(_) => missing.push(shown),
                    _ => files.push(shown),
                }
            }
            if entry.kind == EntryKind::Directory {
                todo.push(entry.path);
            }
        }
    }
    missing.sort();
    files.sort();
    let parts = [listed("no tmpfiles.d makes", &missing), listed("files that a new version does not bring", &files)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Ok((!parts.is_empty()).then(|| parts.join("; ")))
}

/// Paths of all lines, links above them followed; an error is a line that cannot be read.
fn declared(tree: &dyn Tree) -> Result<Result<BTreeSet<PathBuf>, String>> {
    let mut all = BTreeSet::new();
    let mut parents: BTreeMap<PathBuf, Option<PathBuf>> = BTreeMap::new();
    for directory in ["usr/lib/tmpfiles.d", "etc/tmpfiles.d"] {
        for entry in tree.names(directory)? {
            if entry.path.extension().is_none_or(|extension| extension != "conf") {
                continue;
            }
            let text = tree.text(&entry.path)?.unwrap_or_default();
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let Some(path) = path_of(line) else { return Ok(Err(line.to_owned())) };
                let path = path.strip_prefix("/").unwrap_or(&path).to_owned();
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
                if !parents.contains_key(parent) {
                    let found = match parent == Path::new("") {
                        true => Some(PathBuf::new()),
                        false => tree.find(parent)?.map(|entry| entry.path),
                    };
                    parents.insert(parent.to_owned(), found);
                }
                // What has no directory to be in is not in the tree.
                all.extend(parents.get(parent).and_then(Option::as_ref).map(|parent| parent.join(name)));
            }
        }
    }
    Ok(Ok(all))
}

/// The second word of a line, quotes and escapes taken away.
fn path_of(line: &str) -> Option<PathBuf> {
    let line = line.trim_start();
    let rest = line.split_once(char::is_whitespace)?.1.trim_start();
    let quoted = rest.starts_with('"');
    let mut bytes = rest.bytes().skip(usize::from(quoted));
    let mut path = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if quoted => break,
            byte if !quoted && byte.is_ascii_whitespace() => break,
            b'\\' => path.push(match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                escaped @ (b'"' | b'\'') => escaped,
                b's' => b' ',
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                _ => return None,
            }),
            // Specifiers begin with it.
            b'%' if bytes.clone().next() == Some(b'%') => path.extend(bytes.next()),
            byte => path.push(byte),
        }
    }
    (!path.is_empty()).then(|| OsString::from_vec(path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unquoted() {
        for (line, path) in [
            ("z /dev/kvm          0666 - kvm -", "/dev/kvm"),
            ("d \"/run/a b\" 0700 root root -", "/run/a b"),
            (r"d /a\x20\x20b/c 0700 - - -", "/a  b/c"),
            ("  L+ /var/x", "/var/x"),
            (r#"d "/a\"b\'" 0700"#, "/a\"b'"),
            (r"d /a\sb%%c 0700", "/a b%c"),
        ] {
            assert_eq!(path_of(line), Some(path.into()), "{line}");
        }
        assert_eq!(path_of("d"), None);
        assert_eq!(path_of(r"d /a\q"), None);
    }
}
