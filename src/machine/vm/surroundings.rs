//! What a guest sees of this machine: its programs, a handful of settings, and the directories of the build.

use std::fs;
use std::path::{Path, PathBuf};

use crate::debian::system::{DATABASES, PROGRAMS};

/// How user-mode networking answers questions for names.
pub(super) const NAME_SERVER: &str = "nameserver 10.0.2.3\n";

/// What goes into the guest.
pub(super) struct Surroundings {
    /// Symbolic links at the top of its root.
    pub(super) links: Vec<(String, String)>,
    /// Directories at their own paths, outermost first; whether they are only read.
    pub(super) directories: Vec<(PathBuf, bool)>,
}

impl Surroundings {
    /// With the programs of this machine. `seen` are directories to be read; `written` those that the guest
    /// may write to.
    pub(super) fn with_programs(seen: &[PathBuf], written: &[PathBuf]) -> Self {
        let mut links = Vec::new();
        let mut seen: Vec<PathBuf> = seen.to_vec();
        seen.push("/usr".into());
        for name in PROGRAMS {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(target) => links.push((name.to_owned(), target.to_string_lossy().into_owned())),
                Err(_) if path.is_dir() => seen.push(path),
                Err(_) => {}
            }
        }
        // Versions of tools are part of what steps depend on.
        seen.extend(DATABASES.map(PathBuf::from));
        seen.retain(|path| path.is_dir());
        Self { links, directories: order(&seen, written) }
    }

    /// The directories alone, for a guest that has programs of its own.
    pub(super) fn bare(seen: &[PathBuf], written: &[PathBuf]) -> Self {
        Self { links: Vec::new(), directories: order(seen, written) }
    }
}

/// Outermost first, and none that is seen through another already.
fn order(seen: &[PathBuf], written: &[PathBuf]) -> Vec<(PathBuf, bool)> {
    let mut all: Vec<(PathBuf, bool)> = written.iter().map(|path| (path.clone(), false)).collect();
    all.extend(seen.iter().map(|path| (path.clone(), true)));
    all.sort_by(|a, b| (depth(&a.0), &a.0, a.1).cmp(&(depth(&b.0), &b.0, b.1)));
    let mut kept: Vec<(PathBuf, bool)> = Vec::new();
    for (path, read_only) in all {
        let around = kept.iter().rev().find(|(outer, _)| path.starts_with(outer));
        // What is written to below what is only read needs a mount of its own.
        if around.is_none_or(|(_, outer)| *outer && !read_only) {
            kept.push((path, read_only));
        }
    }
    kept
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_seen_through_another_is_not_shared_twice() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let shown = |seen: &[&str], written: &[&str]| {
            order(&paths(seen), &paths(written))
                .into_iter()
                .map(|(path, read_only)| format!("{}{}", path.display(), if read_only { "" } else { " rw" }))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&["/a/b", "/a", "/usr"], &["/a/out"]), ["/a", "/usr", "/a/out rw"]);
        assert_eq!(shown(&["/a"], &["/a"]), ["/a rw"]);
        assert_eq!(shown(&["/a/recipes"], &["/a"]), ["/a rw"]);
        assert_eq!(shown(&["/ab"], &["/a"]), ["/a rw", "/ab"]);
    }
}
