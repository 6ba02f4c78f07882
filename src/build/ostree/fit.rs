//! What a commit can hold: directories, files and links whose names and targets are UTF-8.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use crate::diagnostics::Fault;

/// How many faults of a kind are named.
const SHOWN: usize = 5;

/// What becomes of a part of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the commit.
    Committed,
    /// tmpfiles.d makes it anew, named pipes included.
    Described,
    /// It is left out.
    LeftOut,
}

/// "/a, /b and 3 more".
pub fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

/// Looks through a root for what a commit cannot hold; `fate` is asked for paths relative to it. How many files there
/// are, and which sockets: those mean nothing without their program.
///
/// # Errors
/// Devices, pipes, names and targets of links that are not UTF-8, with their paths.
pub fn check(root: &Path, fate: impl Fn(&Path) -> Fate) -> Result<(u64, Vec<PathBuf>)> {
    let (mut special, mut unnamed, mut leading, mut sockets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut files = 0;
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let walk = WalkDir::new(root).min_depth(1).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(|entry| fate(&relative(entry.path())) != Fate::LeftOut) {
        let entry = entry.context("reading the root")?;
        let path = relative(entry.path());
        let shown = || format!("/{}", path.display());
        let kind = entry.file_type();
        files += u64::from(kind.is_file());
        if entry.file_name().to_str().is_none() {
            unnamed.push(shown());
        }
        if kind.is_socket() {
            sockets.push(path);
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).with_context(|| format!("reading the link {}", shown()))?;
            leading.extend(target.to_str().is_none().then(shown));
        } else if !(kind.is_file() || kind.is_dir() || kind.is_fifo() && fate(&path) == Fate::Described) {
            special.push(shown());
        }
    }
    for (found, what, instead) in [
        (special, "a device or pipe", "remove it, or have tmpfiles.d make it on the running system"),
        (unnamed, "a name that is not UTF-8", "give it another name, or remove it"),
        (leading, "a link whose target is not UTF-8", "remove it"),
    ] {
        if !found.is_empty() {
            let message = format!("OSTree keeps no file of this kind, {what}: {}", listed(&found));
            return Err(Fault::failed(message).hint(instead).into());
        }
    }
    Ok((files, sockets))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn faults(fate: Fate, make: impl Fn(&Path)) -> Result<(u64, Vec<PathBuf>), String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        make(&dir.path().join("a"));
        check(dir.path(), |_| fate).map_err(|error| error.to_string())
    }

    #[test]
    fn pipes_are_kept_where_they_are_described() {
        let pipe = |at: &Path| nix::unistd::mkfifo(&at.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let said = faults(Fate::Committed, pipe).unwrap_err();
        assert_eq!(said, "OSTree keeps no file of this kind, a device or pipe: /a/pipe");
        assert!(faults(Fate::Described, pipe).is_ok());
        assert!(faults(Fate::LeftOut, pipe).is_ok());
    }

    #[test]
    fn names_and_targets_are_utf8() {
        let odd = || OsStr::from_bytes(b"\xff");
        assert!(faults(Fate::Described, |at| fs::write(at.join(odd()), "").unwrap()).unwrap_err().contains("a name"));
        let said = faults(Fate::Committed, |at| symlink(odd(), at.join("link")).unwrap()).unwrap_err();
        assert!(said.ends_with("a link whose target is not UTF-8: /a/link"), "{said}");
    }

    #[test]
    fn sockets_are_told() {
        let socket = |at: &Path| drop(std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap());
        assert_eq!(faults(Fate::Committed, socket).unwrap().1, [Path::new("a/socket")]);
    }
}
