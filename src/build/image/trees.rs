//! What of the root belongs to which file system.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cover::Covers;
use crate::build::inside::{Inside, Kind};
use crate::build::protected::Protected;
use crate::diagnostics::Fault;
use crate::image::Spec;
use crate::image::filesystem::Tree;

/// A mount of a deploy with its place in the root, links resolved.
struct Place<'a> {
    partition: &'a str,
    subvolume: Option<&'a str>,
    path: &'a str,
    /// Relative to the root.
    at: PathBuf,
    /// Where its contents are, if no longer in the root.
    taken: Option<PathBuf>,
}

/// The root as its partitions divide it.
pub struct Trees<'a> {
    root: &'a Path,
    protected: &'a Protected,
    places: Vec<Place<'a>>,
    /// What is no longer in the root as long as this lives.
    covers: Covers,
}

impl<'a> Trees<'a> {
    /// Divides the root of a deploy; its mount points must be there. Those of the build alone are taken out
    /// of the root, to the directory `aside`.
    pub fn of(
        spec: &'a Spec,
        slot: Option<&'a str>,
        root: &'a Path,
        protected: &'a Protected,
        aside: &Path,
    ) -> Result<Self> {
        let inside = Inside::open(root)?;
        let mut places = Vec::new();
        for mount in spec.mounts_of(slot).filter(|mount| mount.path.starts_with('/')) {
            let path = Path::new(&mount.path);
            if inside.kind(path)? != Some(Kind::Directory) {
                return Err(Fault::failed(format!("the root has no directory {} to mount on", mount.path))
                    .hint("`filesystem-deploy` made it, a later action must have removed it")
                    .into());
            }
            let at = inside.resolve(path)?;
            let (partition, subvolume) = (mount.partition.as_str(), mount.subvolume.as_deref());
            places.push(Place { partition, subvolume, path: &mount.path, at, taken: None });
        }
        let mut trees = Self { root, protected, places, covers: Covers::default() };
        for mount in spec.mounts_of(slot).filter(|mount| mount.build_time && mount.path != "/") {
            trees.take(&mount.path, aside)?;
        }
        Ok(trees)
    }

    /// Takes a mount point out of the root, unless another lies below it.
    fn take(&mut self, path: &str, aside: &Path) -> Result<()> {
        let Some(number) = self.places.iter().position(|place| place.path == path) else { return Ok(()) };
        let at = self.places[number].at.clone();
        if self.places.iter().any(|place| place.at != at && place.at.starts_with(&at)) {
            return Ok(());
        }
        self.places[number].taken = Some(self.covers.take(&self.root.join(at), aside)?);
        Ok(())
    }

    /// Puts everything back into the root.
    pub fn put_back(self) -> Result<()> {
        self.covers.undo()
    }

    /// What a partition holds; an empty tree where it is not mounted.
    pub fn tree(&self, partition: &str) -> Result<Tree> {
        let mine: Vec<&Place<'_>> = self.places.iter().filter(|place| place.partition == partition).collect();
        let Some(first) = mine.iter().min_by_key(|place| place.at.components().count()) else {
            return Ok(Tree::default());
        };
        let top = first.taken.clone().unwrap_or_else(|| self.root.join(&first.at));
        let mut tree = Tree { top: Some(top), ..Tree::default() };
        for place in &mine {
            let Ok(below) = place.at.strip_prefix(&first.at) else {
                return Err(Fault::recipe(format!(
                    "`{partition}` is mounted on {} and on {}, and neither is in the other",
                    first.path, place.path
                ))
                .hint("give each its own partition, or mount the partition above both")
                .into());
            };
            match place.subvolume {
                Some(subvolume) => tree.subvolumes.push((subvolume.to_owned(), below.to_owned())),
                None if below.as_os_str().is_empty() => {}
                None => tree.hidden.push(below.to_owned()),
            }
        }
        let others = self.places.iter().filter(|place| place.partition != partition && place.at != first.at);
        let others = others.filter(|place| place.taken.is_none());
        tree.hidden.extend(others.filter_map(|place| place.at.strip_prefix(&first.at).ok().map(Path::to_owned)));
        outermost(&mut tree.hidden);
        let mine = self.protected.iter().filter_map(|(path, letters)| {
            Some((Path::new(path).strip_prefix(&first.at).ok()?.to_owned(), letters.clone()))
        });
        tree.protected =
            mine.filter(|(path, _)| !tree.hidden.iter().any(|at| path != at && path.starts_with(at))).collect();
        if let Some((subvolume, path)) = tree.subvolumes.iter().find(|(_, path)| covered(&tree.hidden, path)) {
            return Err(Fault::recipe(format!(
                "the subvolume `{subvolume}` of `{partition}` is mounted on {}, below another partition",
                self.root_path(&first.at.join(path)).display()
            ))
            .hint("a file system is filled from one tree: mount the subvolume elsewhere")
            .into());
        }
        Ok(tree)
    }

    /// A path of the root as the system knows it.
    fn root_path(&self, at: &Path) -> PathBuf {
        Path::new("/").join(at)
    }
}

fn covered(hidden: &[PathBuf], path: &Path) -> bool {
    hidden.iter().any(|hidden| path.starts_with(hidden))
}

/// Leaves out what lies below another.
pub(super) fn outermost(paths: &mut Vec<PathBuf>) {
    paths.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths.drain(..) {
        if !covered(&kept, &path) {
            kept.push(path);
        }
    }
    *paths = kept;
}

/// The mount points of a deploy, made in the root where they are missing.
pub fn make_mount_points(spec: &Spec, slot: Option<&str>, root: &Path) -> Result<()> {
    let inside = Inside::open(root)?;
    for mount in spec.mounts_of(slot).filter(|mount| mount.path.starts_with('/')) {
        let path = Path::new(&mount.path);
        let doing = || format!("making the mount point {}", mount.path);
        let missing = inside.kind(path).with_context(doing)?.is_none();
        inside.create_dir_all(path).with_context(doing)?;
        if missing && (mount.path == "/tmp" || mount.path == "/var/tmp") {
            inside.slot(path)?.set_mode(0o1777)?;
        }
    }
    Ok(())
}
