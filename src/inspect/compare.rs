//! What differs between two artifacts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use similar::TextDiff;

use super::artifact::{Artifact, CommitFacts, Form, Volume};
use super::loaders;
use super::system::{Package, System};
use super::table;
use super::tree::{Entry, EntryKind, Mounted};
use super::{Tree, Window};
use crate::build::interrupted;
use crate::diagnostics::{Fault, FaultKind};

/// Texts larger than this are not compared line by line.
const LARGEST_TEXT: u64 = 1 << 20;

/// All differences.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// Whether the bytes are the same, once unpacked.
    pub identical: bool,
    /// Packages that are new, gone, or of another version.
    pub packages: Vec<PackageChange>,
    /// Of the system: its name, kernels, boot loaders.
    pub system: Vec<Fact>,
    /// Of OCI images: what they say of themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<Fact>,
    /// What a client that has the first image fetches for the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch: Option<Fetch>,
    /// Of the disk: its table, partitions, file systems.
    pub disk: Vec<Fact>,
    /// Files, in the order of their paths.
    pub files: Vec<FileChange>,
    /// First byte that differs where nothing else does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<String>,
}

/// Layers that an OCI image has and another has not, or objects of an OSTree commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fetch {
    /// What is counted: `layers` or `objects`.
    pub unit: &'static str,
    /// How many.
    pub layers: usize,
    /// How large they are together, compressed.
    pub bytes: u64,
    /// How many layers the image has.
    pub of_layers: usize,
    /// How large they are together, compressed.
    pub of_bytes: u64,
    /// Source packages in the layers that are fetched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// A package that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct PackageChange {
    pub name: String,
    pub architecture: String,
    /// Version.
    pub before: Option<String>,
    /// Version.
    pub after: Option<String>,
}

/// Something with a value that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is: `disk id`, `partition 2 size`.
    pub what: String,
    /// Nothing where it was not there.
    pub before: Option<String>,
    /// Nothing where it is gone.
    pub after: Option<String>,
}

/// A file that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileChange {
    /// Absolute in the system; with the volume before it where the system does not have it.
    pub path: PathBuf,
    /// Size before; nothing where it was not there.
    pub before: Option<u64>,
    /// Size after; nothing where it is gone.
    pub after: Option<u64>,
    /// What differs: `contents`, `mode 644 → 755`, …; empty where it is new or gone.
    pub differs: Vec<String>,
    /// The lines that differ (unified), where that was asked for and it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Comparison {
    /// Compares. `text` adds the lines that differ in the configuration.
    pub fn of(before: &Artifact, after: &Artifact, text: bool) -> Result<Self> {
        let first = first_difference(&before.source.bytes, &after.source.bytes)?;
        if first.is_none() {
            return Ok(Self { identical: true, ..Self::default() });
        }
        let trees = (before.system(), after.system());
        let system =
            |tree: &Option<Mounted<'_>>| tree.as_ref().map_or_else(|| Ok(System::default()), |t| System::of(t));
        let systems = (system(&trees.0)?, system(&trees.1)?);
        let mut comparison = Self {
            packages: packages(&systems.0.packages, &systems.1.packages),
            system: facts(&system_facts(&systems.0, before)?, &system_facts(&systems.1, after)?),
            image: facts(&image_facts(before), &image_facts(after)),
            fetch: fetch(before, after),
            disk: disk(before, after),
            ..Self::default()
        };
        let mut pairs: Vec<(PathBuf, &dyn Tree, &dyn Tree)> = Vec::new();
        if let (Some(a), Some(b)) = (&trees.0, &trees.1) {
            pairs.push(("/".into(), a, b));
        }
        for volume in before.volumes.iter().filter(|volume| volume.mount.is_none()) {
            let other = after.volumes.iter().find(|other| other.name == volume.name && other.mount.is_none());
            if let (Some(a), Some(b)) = (volume.tree.as_deref(), other.and_then(|other| other.tree.as_deref())) {
                let place = if volume.name.is_empty() { "/".into() } else { format!("{}:/", volume.name) };
                pairs.push((place.into(), a, b));
            }
        }
        for (place, a, b) in pairs {
            comparison.files.extend(files(&place, a, b, text)?);
        }
        let unseen = comparison.packages.is_empty()
            && comparison.system.is_empty()
            && comparison.disk.is_empty()
            && comparison.image.is_empty()
            && comparison.fetch.as_ref().is_none_or(|fetch| fetch.layers == 0)
            && comparison.files.is_empty();
        comparison.first_difference = first.filter(|_| unseen).map(|at| place_of(at, before));
        Ok(comparison)
    }
}

/// The first byte that differs; `None` where none does.
fn first_difference(a: &Window, b: &Window) -> Result<Option<u64>> {
    let mut buffers = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let (mut a, mut b) = (a.clone(), b.clone());
    let mut at = 0;
    loop {
        stop_when_asked()?;
        let (read_a, read_b) = (fill(&mut a, &mut buffers.0)?, fill(&mut b, &mut buffers.1)?);
        let (part_a, part_b) = (&buffers.0[..read_a], &buffers.1[..read_b]);
        if part_a != part_b {
            let same = part_a.iter().zip(part_b).take_while(|(a, b)| a == b).count();
            return Ok(Some(at + same as u64));
        }
        if read_a == 0 {
            return Ok(None);
        }
        at += read_a as u64;
    }
}

fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn stop_when_asked() -> Result<()> {
    if interrupted() {
        return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
    }
    Ok(())
}

/// "byte 1234 (sector 2 of partition 1)"
fn place_of(at: u64, artifact: &Artifact) -> String {
    let inside = |volume: &&Volume| {
        volume.partition.as_ref().is_some_and(|entry| (entry.start..entry.start + entry.length).contains(&at))
    };
    match artifact.volumes.iter().find(inside) {
        Some(volume) => format!("byte {at}, in partition {}", volume.name),
        None => format!("byte {at}"),
    }
}

fn packages(before: &[Package], after: &[Package]) -> Vec<PackageChange> {
    let by_name = |packages: &[Package]| -> BTreeMap<(String, String), BTreeSet<String>> {
        let mut all: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for package in packages {
            let key = (package.name.clone(), package.architecture.clone());
            all.entry(key).or_default().insert(package.version.clone());
        }
        all
    };
    let (before, after) = (by_name(before), by_name(after));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let version = |of: Option<&BTreeSet<String>>| of.map(|all| all.iter().cloned().collect::<Vec<_>>().join(", "));
    keys.into_iter()
        .filter(|key| before.get(key) != after.get(key))
        .map(|key| PackageChange {
            name: key.0.clone(),
            architecture: key.1.clone(),
            before: version(before.get(key)),
            after: version(after.get(key)),
        })
        .collect()
}

/// Named values, in an order that people expect.
type Named = Vec<(String, String)>;

fn facts(before: &Named, after: &Named) -> Vec<Fact> {
    let value = |of: &Named, what: &str| of.iter().find(|(name, _)| name == what).map(|(_, value)| value.clone());
    let mut names: Vec<&String> = before.iter().map(|(name, _)| name).collect();
    names.extend(after.iter().map(|(name, _)| name).filter(|name| value(before, name).is_none()));
    let changed = names.into_iter().map(|name| Fact {
        what: name.clone(),
        before: value(before, name).filter(|text| !text.is_empty()),
        after: value(after, name).filter(|text| !text.is_empty()),
    });
    changed.filter(|fact| fact.before != fact.after).collect()
}

fn system_facts(system: &System, artifact: &Artifact) -> Result<Named> {
    let list = |items: Vec<String>| items.join(", ");
    let mut all = vec![
        ("system".to_owned(), system.name.clone()),
        ("architecture".to_owned(), system.architecture.clone().unwrap_or_default()),
        ("kernels".to_owned(), list(system.kernels.iter().map(|kernel| kernel.version.clone()).collect())),
    ];
    for loader in loaders::find(artifact)? {
        all.push((format!("{} {}", loader.name, loader.place), "there".into()));
    }
    Ok(all)
}

/// What commits and OCI images say of themselves; with their platforms where there are several.
fn image_facts(artifact: &Artifact) -> Named {
    let mut all = artifact.commit.as_ref().map(CommitFacts::named).unwrap_or_default();
    for image in &artifact.images {
        let of = if artifact.images.len() > 1 { format!("{} ", image.platform) } else { String::new() };
        all.push((format!("{of}platform"), image.platform.clone()));
        all.push((format!("{of}tags"), image.tags.join(", ")));
        all.extend(image.configuration.iter().map(|(name, value)| (format!("{of}{name}"), value.clone())));
        all.push((format!("{of}referrers"), image.referrers.join(", ")));
    }
    all
}

/// What is fetched of each image by a client that has the images for the same platforms.
fn fetch(before: &Artifact, after: &Artifact) -> Option<Fetch> {
    if let (Some(before), Some(after)) = (&before.commit, &after.commit) {
        let new = || after.objects.iter().filter(|(object, _)| !before.objects.contains_key(*object));
        return Some(Fetch {
            unit: "objects",
            layers: new().count(),
            bytes: new().map(|(_, size)| size).sum(),
            of_layers: after.objects.len(),
            of_bytes: after.objects.values().sum(),
            sources: Vec::new(),
        });
    }
    if before.images.is_empty() || after.images.is_empty() {
        return None;
    }
    let there: BTreeSet<&str> =
        before.images.iter().flat_map(|image| &image.layers).map(|layer| layer.digest.as_str()).collect();
    let mut fetch = Fetch { unit: "layers", layers: 0, bytes: 0, of_layers: 0, of_bytes: 0, sources: Vec::new() };
    let mut seen = BTreeSet::new();
    for layer in after.images.iter().flat_map(|image| &image.layers).filter(|layer| seen.insert(&layer.digest)) {
        fetch.of_layers += 1;
        fetch.of_bytes += layer.size;
        if !there.contains(layer.digest.as_str()) {
            fetch.layers += 1;
            fetch.bytes += layer.size;
            fetch.sources.extend(layer.sources.iter().cloned());
        }
    }
    fetch.sources.sort();
    Some(fetch)
}

fn disk(before: &Artifact, after: &Artifact) -> Vec<Fact> {
    if before.form == after.form {
        return facts(&disk_facts(before), &disk_facts(after));
    }
    // Of things so different only the files can be compared.
    let form = |artifact: &Artifact| Some(artifact.form.name().to_owned());
    vec![Fact { what: "form".into(), before: form(before), after: form(after) }]
}

fn disk_facts(artifact: &Artifact) -> Named {
    let mut all = Named::new();
    if !matches!(artifact.form, Form::Archive | Form::Image | Form::Commit) {
        all.push(("size".into(), format!("{} bytes", artifact.source.bytes.len())));
    }
    if let Some(table) = &artifact.table {
        all.push(("partition table".into(), format!("{:?}", table.kind).to_lowercase()));
        all.push(("disk id".into(), table.disk_id.clone()));
        all.push(("sector size".into(), table.sector_size.to_string()));
    }
    for volume in &artifact.volumes {
        let of = match (&volume.partition, volume.name.as_str()) {
            (Some(_), number) => format!("partition {number} "),
            (None, "") => String::new(),
            (None, name) => format!("{name} "),
        };
        let mut add = |what: &str, value: String| all.push((format!("{of}{what}"), value));
        if let (Some(entry), Some(table)) = (&volume.partition, &artifact.table) {
            add("first sector", (entry.start / u64::from(table.sector_size)).to_string());
            add("size", format!("{} bytes", entry.length));
            add("type", table::type_name(&entry.kind).to_owned());
            add("name", entry.label.clone());
            add("partition uuid", entry.uuid.clone());
            add("flags", table::flags(entry).join(" "));
        }
        if let Some(found) = &volume.filesystem {
            let variant = found.variant.as_ref().map(|variant| format!(" ({variant})")).unwrap_or_default();
            add("file system", format!("{}{variant}", found.kind));
            add("label", found.label.clone());
            add("uuid", found.uuid.clone());
            if found.size != volume.bytes.len() {
                add("file system size", format!("{} bytes", found.size));
            }
        }
        if let Some(mount) = volume.mount.as_ref().filter(|_| volume.partition.is_some()) {
            add("mounted at", mount.display().to_string());
        }
    }
    all
}

fn index(tree: &dyn Tree) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut all = BTreeMap::new();
    tree.walk(&mut |entry| {
        stop_when_asked()?;
        // Made by mke2fs, not by anybody who fills the tree.
        if entry.path.file_name().is_none_or(|name| name != "lost+found") {
            all.insert(entry.path.clone(), entry);
        }
        Ok(())
    })?;
    Ok(all)
}

fn files(place: &Path, a: &dyn Tree, b: &dyn Tree, text: bool) -> Result<Vec<FileChange>> {
    let (before, after) = (index(a)?, index(b)?);
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for path in paths {
        stop_when_asked()?;
        let (old, new) = (before.get(path), after.get(path));
        let differs = match (old, new) {
            (Some(old), Some(new)) => differences(old, new, a, b)?,
            _ => Vec::new(),
        };
        if old.is_some() && new.is_some() && differs.is_empty() {
            continue;
        }
        let lines = match text && path.starts_with("etc") {
            true => unified(path, (a, old), (b, new))?,
            false => None,
        };
        let size = |entry: Option<&Entry>| entry.map(|entry| entry.size);
        changes.push(FileChange { path: place.join(path), before: size(old), after: size(new), differs, text: lines });
    }
    Ok(changes)
}

fn differences(old: &Entry, new: &Entry, a: &dyn Tree, b: &dyn Tree) -> Result<Vec<String>> {
    let mut found = Vec::new();
    match (&old.kind, &new.kind) {
        (EntryKind::File, EntryKind::File) => {
            let reading = || format!("comparing {}", old.path.display());
            if old.size != new.size || !same_contents(a, b, &old.path).with_context(reading)? {
                found.push("contents".to_owned());
            }
        }
        (EntryKind::Link(old), EntryKind::Link(new)) if old != new => {
            found.push(format!("target {} → {}", old.display(), new.display()));
        }
        (old, new) if std::mem::discriminant(old) != std::mem::discriminant(new) => {
            found.push(format!("{} → {}", kind(old), kind(new)));
        }
        _ => {}
    }
    let is_link = matches!(new.kind, EntryKind::Link(_));
    // Where a file system has no owners, its modes say nothing either.
    if let (Some(owner), Some(other)) = (old.owner, new.owner) {
        if owner != other {
            found.push(format!("owner {}:{} → {}:{}", owner.0, owner.1, other.0, other.1));
        }
        if old.mode != new.mode && !is_link {
            found.push(format!("mode {:o} → {:o}", old.mode, new.mode));
        }
    }
    Ok(found)
}

fn kind(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Link(_) => "link",
        EntryKind::CharacterDevice => "character device",
        EntryKind::BlockDevice => "block device",
        EntryKind::Pipe => "pipe",
        EntryKind::Socket => "socket",
    }
}

fn same_contents(a: &dyn Tree, b: &dyn Tree, path: &Path) -> Result<bool> {
    let (mut a, mut b) = (a.open(path)?, b.open(path)?);
    let mut buffers = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let (read_a, read_b) = (fill(&mut a, &mut buffers.0)?, fill(&mut b, &mut buffers.1)?);
        if buffers.0[..read_a] != buffers.1[..read_b] {
            return Ok(false);
        }
        if read_a == 0 {
            return Ok(true);
        }
    }
}

/// The lines that differ; `None` for what is no text.
fn unified(path: &Path, old: (&dyn Tree, Option<&Entry>), new: (&dyn Tree, Option<&Entry>)) -> Result<Option<String>> {
    let read = |(tree, entry): (&dyn Tree, Option<&Entry>)| -> Result<Option<String>> {
        let Some(entry) = entry else { return Ok(Some(String::new())) };
        if entry.kind != EntryKind::File || entry.size > LARGEST_TEXT {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        tree.open(path)?.read_to_end(&mut bytes)?;
        Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
    };
    let (Some(before), Some(after)) = (read(old)?, read(new)?) else { return Ok(None) };
    if before == after {
        return Ok(None);
    }
    let name = |prefix: &str, entry: Option<&Entry>| match entry {
        Some(_) => format!("{prefix}/{}", path.display()),
        None => "/dev/null".to_owned(),
    };
    let diff = TextDiff::from_lines(before.as_str(), after.as_str());
    let unified = diff.unified_diff().header(&name("a", old.1), &name("b", new.1)).to_string();
    Ok(Some(unified))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package { name: name.into(), version: version.into(), architecture: "amd64".into() }
    }

    #[test]
    fn packages_are_new_gone_or_changed() {
        let changes = packages(
            &[package("a", "1"), package("b", "1"), package("c", "1")],
            &[package("a", "1"), package("c", "2"), package("d", "1")],
        );
        let changes: Vec<_> = changes
            .iter()
            .map(|change| (change.name.as_str(), change.before.as_deref(), change.after.as_deref()))
            .collect();
        assert_eq!(changes, [("b", Some("1"), None), ("c", Some("1"), Some("2")), ("d", None, Some("1"))]);
    }

    #[test]
    fn facts_keep_their_order() {
        let named = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let found = facts(&named(&[("z", "1"), ("a", "1"), ("b", "")]), &named(&[("z", "2"), ("a", "1"), ("n", "1")]));
        let found: Vec<_> = found.iter().map(|fact| (fact.what.as_str(), fact.before.as_deref())).collect();
        assert_eq!(found, [("z", Some("1")), ("n", None)]);
    }
}
