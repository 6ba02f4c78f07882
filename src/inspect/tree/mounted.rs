//! Several trees as one, each at its place.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Entry, Tree};

/// Trees and where they are mounted, the one at the top (the empty path) among them.
pub struct Mounted<'a>(Vec<(PathBuf, &'a dyn Tree)>);

impl<'a> Mounted<'a> {
    /// What is mounted hides what lies below it.
    pub fn new(mut mounts: Vec<(PathBuf, &'a dyn Tree)>) -> Self {
        mounts.sort_by_key(|(place, _)| std::cmp::Reverse(place.components().count()));
        Self(mounts)
    }

    /// The tree that a path lies in, and the path in it.
    fn at<'p>(&self, path: &'p Path) -> Option<(&Path, &'a dyn Tree, &'p Path)> {
        self.0.iter().find_map(|(place, tree)| Some((place.as_path(), *tree, path.strip_prefix(place).ok()?)))
    }
}

impl Tree for Mounted<'_> {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        let Some((place, tree, inner)) = self.at(directory) else { return Ok(Vec::new()) };
        let mut entries = tree.list(inner)?;
        for entry in &mut entries {
            entry.path = place.join(&entry.path);
        }
        Ok(entries)
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let (_, tree, inner) = self.at(file).with_context(|| format!("there is no {}", file.display()))?;
        tree.open(inner)
    }
}
