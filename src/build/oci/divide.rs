//! A root divided into layers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::owners::Owners;
use crate::build::archive::{PackEntry, PackItem};
use crate::oci::chunk::{self, Kind};

/// What a layer will hold.
pub(super) struct Layer<'a> {
    pub kind: Kind,
    /// Names of source packages.
    pub sources: Vec<String>,
    /// Its files, with the directories above them.
    pub items: Vec<PackItem<'a>>,
    /// Of its files, in bytes.
    pub size: u64,
}

/// What every container has its own of.
const MOUNTED: [&str; 3] = ["dev", "proc", "sys"];

/// Whether a file of a root is none of an image.
pub(super) fn is_left_out(path: &Path) -> bool {
    let inside = |top: &&str| path.starts_with(*top) && path != Path::new(*top);
    path.as_os_str().is_empty() || MOUNTED.iter().any(inside)
}

/// Whose a file is.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Owner<'a> {
    Source(&'a str),
    Nobody(Kind),
}

/// Divides the entries of a tree (sorted, directories first) among at most `most` layers. Each layer brings the
/// directories above its files with it, as they are in the root, so that nothing depends on the order in which layers
/// are unpacked. All names of a file are in one layer.
pub(super) fn layers<'a>(
    tree: &'a Path,
    entries: &'a [PackEntry],
    owners: &Owners,
    previous: &[Vec<String>],
    most: usize,
) -> Vec<Layer<'a>> {
    let mut full = vec![false; entries.len()];
    let directories: HashMap<&Path, usize> = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.meta.is_dir())
        .map(|(index, entry)| (entry.path.as_path(), index))
        .collect();
    let above = |entry: &PackEntry| entry.path.parent().and_then(|parent| directories.get(parent)).copied();
    for entry in entries.iter().filter(|entry| !is_left_out(&entry.path)) {
        above(entry).into_iter().for_each(|parent| full[parent] = true);
    }
    // What goes where: files, and directories with nothing in them.
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    let mut owned: BTreeMap<Owner<'_>, Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate().filter(|(index, _)| !full[*index]) {
        if is_left_out(&entry.path) {
            continue;
        }
        let first = entry.linked.as_ref().unwrap_or(&entry.path);
        let owner = match owners.source(first) {
            Some(source) => Owner::Source(source),
            None => Owner::Nobody(kind(first, owners.database.as_deref())),
        };
        if let Owner::Source(source) = owner {
            *sizes.entry(source.to_owned()).or_default() += size(entry);
        }
        owned.entry(owner).or_default().push(index);
    }
    let layer = |kind: Kind, sources: Vec<String>, files: &mut dyn Iterator<Item = usize>| {
        let mut wanted = BTreeSet::new();
        for file in files {
            let mut at = Some(file);
            while let Some(index) = at.filter(|index| !entries[*index].path.as_os_str().is_empty()) {
                if !wanted.insert(index) {
                    break;
                }
                at = above(&entries[index]);
            }
        }
        let items: Vec<PackItem<'a>> = wanted.into_iter().map(|index| (tree, &entries[index])).collect();
        let size = items.iter().map(|(_, entry)| size(entry)).sum();
        Layer { kind, sources, items, size }
    };
    let mut layers = Vec::new();
    for sources in chunk::divide(&sizes, previous, most) {
        let mut files = sources.iter().filter_map(|source| owned.get(&Owner::Source(source))).flatten().copied();
        let files: Vec<usize> = files.by_ref().collect();
        layers.push(layer(Kind::Packages, sources, &mut files.into_iter()));
    }
    for kind in [Kind::Boot, Kind::Files, Kind::State, Kind::Database] {
        if let Some(files) = owned.get(&Owner::Nobody(kind)) {
            layers.push(layer(kind, Vec::new(), &mut files.iter().copied()));
        }
    }
    layers
}

/// Bytes that a file takes in an archive, about.
fn size(entry: &PackEntry) -> u64 {
    512 + if entry.meta.is_file() && entry.linked.is_none() { entry.meta.len() } else { 0 }
}

/// The layer of a file that no package has.
fn kind(path: &Path, database: Option<&Path>) -> Kind {
    const BOOT: [&str; 3] = ["boot", "usr/lib/modules", "lib/modules"];
    const STATE: [&str; 4] = ["var", "usr/lib/udev/hwdb.bin", "usr/share/mime", "usr/share/info/dir"];
    // All of these are written anew whenever a package is.
    const WITH_EVERY_PACKAGE: [&str; 4] =
        ["etc/ld.so.cache", "var/cache/ldconfig", "var/lib/apt/extended_states", "var/log"];
    let below = |tops: &[&str]| tops.iter().any(|top| path.starts_with(top));
    match () {
        () if below(&BOOT) => Kind::Boot,
        () if below(&WITH_EVERY_PACKAGE) || database.is_some_and(|top| path.starts_with(top)) => Kind::Database,
        () if below(&STATE) => Kind::State,
        () => Kind::Files,
    }
}
