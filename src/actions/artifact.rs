//! What the actions on artifacts share: their sources, and the files they leave.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use glob::{MatchOptions, Pattern};
use tempfile::NamedTempFile;
use walkdir::WalkDir;

use super::pack::check_artifact_name;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, Fault};

/// `*` stays in its directory, `**` does not.
const GLOBBING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Reports a source that is not among the artifacts; whether it is.
pub(super) fn check_source(cx: &CheckContext<'_>, property: &str, name: &str, out: &mut Diagnostics) -> bool {
    let faults = out.iter().count();
    check_artifact_name(cx, property, name, out);
    if out.iter().count() > faults {
        return false;
    }
    let known = cx.any_artifacts
        || cx.artifacts.iter().any(|artifact| same(artifact, name))
        || cx.files.kind(&cx.artifact_dir.join(name)).is_some();
    if !known {
        out.push(
            cx.error(property, format!("there is no `{name}` among the artifacts"))
                .suggest(name, cx.artifacts.iter().map(String::as_str))
                .hint(format!("no action before this one makes it, and it is not in {}", cx.artifact_dir.display())),
        );
    }
    known
}

/// Reports what is wrong with removing a source.
pub(super) fn check_removal(cx: &CheckContext<'_>, property: &str, name: &str, out: &mut Diagnostics) {
    if !cx.any_artifacts && !cx.artifacts.iter().any(|artifact| same(artifact, name)) {
        out.push(
            cx.warning(property, format!("`{name}` was left by an earlier build, and stays"))
                .hint("only what an action of this recipe makes is removed"),
        );
    }
}

/// Reports an output that is no name, or that would take its source's place.
pub(super) fn check_output(cx: &CheckContext<'_>, property: &str, name: &str, source: &str, out: &mut Diagnostics) {
    check_artifact_name(cx, property, name, out);
    if same(name, source) {
        out.push(cx.error(property, format!("`{name}` is the source itself")).hint("give it another name by `output`"));
    }
}

/// Reports names and patterns that nothing fits.
pub(super) fn check_patterns(cx: &CheckContext<'_>, property: &str, patterns: &[String], out: &mut Diagnostics) {
    for (index, text) in patterns.iter().enumerate() {
        let property = &format!("{property}[{index}]");
        if !is_pattern(text) {
            check_source(cx, property, text, out);
            continue;
        }
        match Pattern::new(text) {
            Err(error) => out.push(cx.error(property, format!("`{text}` is not a pattern: {}", error.msg))),
            Ok(pattern) => {
                let fits = cx.artifacts.iter().any(|artifact| pattern.matches_with(artifact, GLOBBING));
                if !fits && !cx.any_artifacts {
                    out.push(cx.error(property, format!("no artifact fits `{text}`")).hint(
                        match cx.artifacts.is_empty() {
                            true => "no action before this one leaves any".to_owned(),
                            false => format!("the actions before this one leave {}", cx.artifacts.join(", ")),
                        },
                    ));
                }
            }
        }
    }
}

/// Adds a source that no step of this plan makes to what a step depends on.
pub(super) fn add_source(cx: &mut InputContext<'_>, name: &str) -> Result<()> {
    let path = cx.artifact_dir.join(name);
    // A `run` outside the chroot may make it yet.
    if cx.is_planned(name) || !path.exists() {
        return Ok(());
    }
    let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
    cx.add_tree(name, &path)
}

/// Whether a name stands for all that fit.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// The artifacts that names and patterns stand for, sorted, with their places. Patterns mean what this
/// build has left so far; without any, that is all of it.
pub(super) fn expand(cx: &BuildContext<'_>, patterns: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let all = left_so_far(cx.artifacts)?;
    if patterns.is_empty() {
        found.extend(all.iter().map(|name| (name.clone(), cx.artifacts.join(name))));
    }
    for text in patterns {
        if !is_pattern(text) {
            let name = tidy(text);
            found.push((name.clone(), source(cx, &name)?));
            continue;
        }
        let pattern = Pattern::new(text).with_context(|| format!("reading the pattern `{text}`"))?;
        let before = found.len();
        let fitting = all.iter().filter(|name| pattern.matches_with(name, GLOBBING));
        found.extend(fitting.map(|name| (name.clone(), cx.artifacts.join(name))));
        if found.len() == before {
            return Err(Fault::failed(format!("no artifact of this build fits `{text}`"))
                .hint(match all.is_empty() {
                    true => "there is none so far".to_owned(),
                    false => format!("there are {}", all.join(", ")),
                })
                .into());
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// An artifact that is a regular file.
pub(super) fn source(cx: &BuildContext<'_>, name: &str) -> Result<PathBuf> {
    let path = cx.artifact(Path::new(name))?;
    let path = path.canonicalize().with_context(|| format!("looking for {name}"))?;
    if !path.is_file() {
        return Err(Fault::failed(format!("`{name}` is not a file")).into());
    }
    Ok(path)
}

/// Takes a source of this build away. What an earlier build left is the user's.
pub(super) fn remove_source(cx: &BuildContext<'_>, name: &str) -> Result<()> {
    let path = cx.artifacts.join(name);
    if path.symlink_metadata().is_err() {
        cx.log(format!("{name} is of an earlier build, and stays"));
        return Ok(());
    }
    fs::remove_file(&path).with_context(|| format!("removing {name}"))
}

fn left_so_far(artifacts: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in WalkDir::new(artifacts).min_depth(1).sort_by_file_name() {
        let entry = entry.context("reading the artifacts")?;
        if !entry.file_type().is_dir() {
            names.push(entry.path().strip_prefix(artifacts)?.display().to_string());
        }
    }
    Ok(names)
}

/// Whether two names are of the same artifact.
fn same(a: &str, b: &str) -> bool {
    tidy(a) == tidy(b)
}

/// A name without what says nothing: `./x`, `a//b`.
fn tidy(name: &str) -> String {
    Path::new(name)
        .components()
        .filter(|part| *part != std::path::Component::CurDir)
        .collect::<PathBuf>()
        .display()
        .to_string()
}

/// A file among the artifacts that has its name only when it is whole.
pub(super) struct Output {
    partial: NamedTempFile,
    target: PathBuf,
}

impl Output {
    /// Begins one.
    pub(super) fn begin(cx: &BuildContext<'_>, name: &str) -> Result<Self> {
        let target = cx.artifacts.join(name);
        let directory = target.parent().unwrap_or(cx.artifacts);
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let partial = tempfile::Builder::new()
            .prefix(".debforge-")
            .tempfile_in(directory)
            .with_context(|| format!("making a file in {}", directory.display()))?;
        Ok(Self { partial, target })
    }

    /// Where it is while it is made.
    pub(super) fn path(&self) -> &Path {
        self.partial.path()
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        self.partial.as_file()
    }

    /// One more handle of the file.
    pub(super) fn handle(&self) -> Result<File> {
        self.partial.as_file().try_clone().with_context(|| format!("opening {} once more", self.target.display()))
    }

    /// Gives it its name; its size.
    pub(super) fn finish(self) -> Result<u64> {
        let naming = || format!("naming {}", self.target.display());
        fs::set_permissions(self.partial.path(), Permissions::from_mode(0o644)).with_context(naming)?;
        let size = fs::metadata(self.partial.path()).with_context(naming)?.len();
        self.partial.persist(&self.target).with_context(|| format!("naming {}", self.target.display()))?;
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_in_its_directory() {
        let fits = |pattern: &str, name: &str| Pattern::new(pattern).unwrap().matches_with(name, GLOBBING);
        assert!(fits("*.img", "disk.img"));
        assert!(!fits("*.img", "boards/disk.img"));
        assert!(fits("**/*.img", "boards/disk.img"));
    }

    #[test]
    fn names_are_compared_without_what_says_nothing() {
        assert!(same("./disk.img", "disk.img"));
        assert!(same("a//b", "a/b"));
        assert!(!same("a", "b"));
    }
}
