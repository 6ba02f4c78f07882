//! The files of recipes that are translated together, and where they go.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::tags::{Piece, pieces};
use super::{Translation, translate};
use crate::diagnostics::{Diagnostic, Diagnostics, Source};
use crate::recipe::{DiskLoader, Loader};

/// Recipes that one recipe may call, directly or not.
const MAX_FILES: usize = 1000;

/// A recipe's file with its translation.
#[derive(Debug)]
pub struct Translated {
    /// As the user, or the recipe that calls it, names it.
    pub path: PathBuf,
    /// The original.
    pub source: Arc<Source>,
    /// In Jinja.
    pub translation: Translation,
    /// Whether the user named it.
    pub named: bool,
}

/// Translates recipes, and those that they call where `recursive`.
///
/// # Errors
/// The files that cannot be read.
pub fn translate_all(paths: &[PathBuf], recursive: bool) -> Result<Vec<Translated>, Diagnostics> {
    let mut faults = Diagnostics::new();
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<(PathBuf, bool)> = paths.iter().rev().map(|path| (path.clone(), true)).collect();
    while let Some((path, named)) = waiting.pop() {
        if !seen.insert(DiskLoader.canonical(&path)) || seen.len() > MAX_FILES {
            continue;
        }
        let text = match DiskLoader.read(&path) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("cannot read the recipe `{}`: {why}", path.display());
                faults.push(Diagnostic::error(message, None));
                continue;
            }
        };
        let source = Arc::new(Source { name: path.display().to_string(), text });
        if recursive {
            waiting.extend(called(&path, &source.text).into_iter().rev().map(|path| (path, false)));
        }
        let translation = translate(&source);
        all.push(Translated { path, source, translation, named });
    }
    if faults.is_empty() { Ok(all) } else { Err(faults) }
}

/// The recipes that a recipe may call: `recipe: parts/{{ $family }}.yaml` may be any that is there.
fn called(path: &Path, text: &str) -> Vec<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let line = line.strip_prefix("- ").unwrap_or(line).trim_start();
        let Some(value) = line.strip_prefix("recipe:") else { continue };
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        let Some(name) = (!value.is_empty()).then(|| pattern(value)).flatten() else { continue };
        let whole = match directory.to_str() {
            Some("") => name,
            Some(directory) => format!("{}/{name}", glob::Pattern::escape(directory)),
            None => continue,
        };
        found.extend(glob::glob(&whole).into_iter().flatten().flatten().filter(|path| path.is_file()));
    }
    found
}

/// A value with tags in it as a pattern of file names.
fn pattern(value: &str) -> Option<String> {
    let pieces = pieces(value).ok()?;
    let parts = pieces.iter().map(|piece| match piece {
        Piece::Text(range) => glob::Pattern::escape(&value[range.clone()]),
        Piece::Tag(_) => "*".to_owned(),
    });
    Some(parts.collect())
}

/// Where each of the files goes below a directory: at the place that it has below the directory that all are in.
///
/// # Errors
/// Paths that cannot be made absolute.
pub fn places_below(directory: &Path, paths: &[&Path]) -> Result<Vec<PathBuf>> {
    let absolute: Vec<PathBuf> = paths.iter().map(|path| DiskLoader.canonical(path)).collect();
    let mut shared: Option<Vec<Component>> = None;
    for path in &absolute {
        let parent: Vec<Component> = path.parent().map(|parent| parent.components().collect()).unwrap_or_default();
        shared = Some(match shared {
            None => parent,
            Some(shared) => {
                let length = shared.iter().zip(&parent).take_while(|(one, other)| one == other).count();
                parent[..length].to_vec()
            }
        });
    }
    let shared: PathBuf = shared.unwrap_or_default().iter().collect();
    absolute
        .iter()
        .map(|path| {
            let below = path.strip_prefix(&shared).with_context(|| format!("placing {}", path.display()))?;
            Ok(directory.join(below))
        })
        .collect()
}

/// Writes a file under another name, and gives it its own when it is whole; it is as accessible as `like`.
///
/// # Errors
/// What the disk says; a file that is there, unless `replace`.
pub fn write(path: &Path, text: &str, like: &Path, replace: bool) -> Result<()> {
    let context = || format!("writing {}", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).with_context(context)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    let mode = std::fs::metadata(like).with_context(context)?.permissions();
    file.as_file().set_permissions(mode).with_context(context)?;
    let persisted = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    match persisted {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} is there already", path.display())
        }
        Err(error) => Err(error.error).with_context(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_that_may_be_called_are_found() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["top.yaml", "one.yaml", "parts/a-x.yaml", "parts/b-x.yaml", "parts/other.yaml"] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let text = "  - action: recipe\n    recipe: one.yaml # first\n  - recipe: \"parts/{{ $x }}-x.yaml\"\n";
        let found = called(&directory.path().join("top.yaml"), text);
        let names: Vec<PathBuf> =
            found.iter().map(|path| path.strip_prefix(directory.path()).unwrap().to_owned()).collect();
        assert_eq!(names, ["one.yaml", "parts/a-x.yaml", "parts/b-x.yaml"].map(PathBuf::from));
    }

    #[test]
    fn files_keep_their_places() {
        let places = places_below(Path::new("out"), &[Path::new("/a/b/c.yaml"), Path::new("/a/d.yaml")]).unwrap();
        assert_eq!(places, ["out/b/c.yaml", "out/d.yaml"].map(PathBuf::from));
    }
}
