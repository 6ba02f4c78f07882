//! Partitions that dm-verity protects: their hashes, and who gets to know the root of these.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use memchr::memmem::Finder;
use walkdir::WalkDir;

use super::cover::attributes;
use crate::build::inside::Inside;
use crate::diagnostics::Fault;
use crate::image::filesystem::Tree;
use crate::image::{Spec, TableKind, WriteTarget};

/// Root hashes by the protected partition's name, in hex.
pub type RootHashes = BTreeMap<String, String>;

/// In which order partitions are made, by their indexes: what is protected, then its hashes, then those
/// whose files may name these.
pub fn order(spec: &Spec) -> Vec<usize> {
    let rank = |index: &usize| {
        let partition = &spec.partitions[*index];
        match (spec.hashes_of(&partition.name), &partition.contents.verity) {
            (Some(_), _) => 0,
            (None, Some(_)) => 1,
            (None, None) => 2,
        }
    };
    let mut all: Vec<usize> = (0..spec.partitions.len()).collect();
    all.sort_by_key(rank);
    all
}

/// Refuses bytes that would be put over what is protected.
pub fn check(spec: &Spec) -> Result<()> {
    for write in &spec.writes {
        let WriteTarget::At { partition: Some(name), .. } = &write.target else { continue };
        let hashes = spec.partition(name).is_some_and(|partition| partition.contents.verity.is_some());
        if hashes || spec.hashes_of(name).is_some() {
            let message = format!("`{}` would change `{name}`, which dm-verity protects", write.name);
            return Err(Fault::recipe(message).hint("write it to another partition").into());
        }
    }
    Ok(())
}

/// The specification with the UUIDs that follow from root hashes: of a protected partition the first 128
/// bits, of its hashes the last 128 (the UAPI group's Discoverable Partitions Specification).
pub fn with_uuids(spec: &Spec, hashes: &RootHashes) -> Spec {
    let mut spec = spec.clone();
    if spec.table == TableKind::Gpt {
        for partition in spec.partitions.iter_mut().filter(|partition| !partition.uuid_given) {
            let half = match &partition.contents.verity {
                Some(verity) => hashes.get(&verity.data).and_then(|hash| hash.get(32..)),
                None => hashes.get(&partition.name).and_then(|hash| hash.get(..32)),
            };
            if let Some(uuid) = half.and_then(|half| uuid::Uuid::parse_str(half).ok()) {
                partition.uuid = uuid.to_string();
            }
        }
    }
    spec
}

/// Puts root hashes into the files of a tree that have their placeholders: copies of these, in the
/// directory `scratch`, replace them. The names of the partitions whose hash is wanted are added to `named`.
pub fn tell(spec: &Spec, hashes: &RootHashes, tree: &mut Tree, scratch: &Path, named: &mut Vec<String>) -> Result<()> {
    let Some(top) = tree.top.clone().filter(|_| !hashes.is_empty()) else { return Ok(()) };
    let placeholders: Vec<(&String, String, &String)> =
        hashes.iter().map(|(name, hash)| (name, spec.verity_placeholder(name), hash)).collect();
    let hidden: Vec<PathBuf> = tree.hidden.iter().map(|path| top.join(path)).collect();
    // The directory itself of what is hidden has nothing to be found in.
    let walk = WalkDir::new(&top).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|entry| !hidden.iter().any(|hidden| entry.path() == hidden)) {
        let entry = entry.context("looking for files that name a root hash")?;
        if !entry.file_type().is_file() {
            continue;
        }
        let doing = || format!("putting a root hash into {}", entry.path().display());
        let mut bytes = fs::read(entry.path()).with_context(doing)?;
        let mut found = false;
        for (name, placeholder, hash) in &placeholders {
            let places: Vec<usize> = Finder::new(placeholder).find_iter(&bytes).collect();
            for at in places {
                bytes[at..at + placeholder.len()].copy_from_slice(hash.as_bytes());
                found = true;
                if !named.contains(name) {
                    named.push((*name).clone());
                }
            }
        }
        if found {
            let name = tree.replaced.len().to_string();
            let slot = Inside::open(scratch)?.slot(Path::new(&name))?;
            slot.create_file()?.write_all(&bytes).with_context(doing)?;
            slot.apply(&attributes(entry.path())?)?;
            let below = entry.path().strip_prefix(&top)?.to_owned();
            tree.replaced.push((below, scratch.join(name)));
        }
    }
    Ok(())
}
