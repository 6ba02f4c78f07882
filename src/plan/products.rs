//! What earlier builds of a recipe left: where artifacts stand beside the recipe, these are none of its files.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::Store;

/// By path, size and date (in nanoseconds since 1970), by which it is known whether a file still is what a build left.
type Left = BTreeMap<PathBuf, (u64, u128)>;

/// The files and directories that builds of `recipe` left in `artifact_dir` and that nobody has changed since.
pub(super) fn recall(store: &Store, recipe: &Path, artifact_dir: &Path) -> Vec<PathBuf> {
    known(store, recipe, artifact_dir).into_keys().collect()
}

/// Keeps what a build has just left.
pub fn remember(store: &Store, recipe: &Path, artifact_dir: &Path, left: &[PathBuf]) {
    let mut all = known(store, recipe, artifact_dir);
    all.extend(left.iter().filter_map(|path| Some((path.canonicalize().ok()?, state(&path.metadata().ok()?)))));
    if let Ok(value) = serde_json::to_value(&all) {
        store.remember(&key(recipe, artifact_dir), &value);
    }
}

fn known(store: &Store, recipe: &Path, artifact_dir: &Path) -> Left {
    let kept = store.recall(&key(recipe, artifact_dir));
    let mut left: Left = kept.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    left.retain(|path, known| path.metadata().is_ok_and(|meta| state(&meta) == *known));
    left
}

fn state(meta: &Metadata) -> (u64, u128) {
    // What is in a directory, as an OSTree repository, changes with each build.
    if meta.is_dir() {
        return (0, 0);
    }
    let modified = meta.modified().ok().and_then(|at: SystemTime| at.duration_since(UNIX_EPOCH).ok());
    (meta.len(), modified.map_or(0, |at| at.as_nanos()))
}

fn key(recipe: &Path, artifact_dir: &Path) -> String {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
    format!("products {} of {}", real(artifact_dir), real(recipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_changed_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let recipe = dir.path().join("recipe.yaml");
        let files = ["a", "b"].map(|name| dir.path().join(name));
        for file in &files {
            std::fs::write(file, "built").unwrap();
        }
        remember(&store, &recipe, dir.path(), &files[..1]);
        remember(&store, &recipe, dir.path(), &files[1..]);
        let real = files.clone().map(|file| file.canonicalize().unwrap());
        assert_eq!(recall(&store, &recipe, dir.path()), real);
        assert!(recall(&store, &dir.path().join("other.yaml"), dir.path()).is_empty());
        std::fs::write(&files[0], "by hand").unwrap();
        std::fs::remove_file(&files[1]).unwrap();
        assert!(recall(&store, &recipe, dir.path()).is_empty());
    }
}
