//! An artifact taken apart: its table, its volumes, the system in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::filesystem::{self, FileSystem};
use super::image::{self, Image};
use super::tree::{Commit, EntryKind, Iso, Mounted, Tar, tar};
use super::{Source, Tree, Window, Workplace, iso, table};
use crate::debian::Architecture;
use crate::diagnostics::Fault;
use crate::image::table::{Entry, Table};
use crate::oci::{Layout, is_layout, platform, platform_name};
use crate::ostree::Repository;

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// With a partition table, or with a boot sector and nothing that is known.
    Disk,
    /// ISO 9660, perhaps with a partition table too.
    Iso,
    /// A file system alone.
    FileSystem,
    /// A tar archive.
    Archive,
    /// An OCI image: a layout or an archive of one.
    Image,
    /// A commit of an OSTree repository.
    Commit,
}

impl Form {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Iso => "ISO image",
            Self::FileSystem => "file system",
            Self::Archive => "tar archive",
            Self::Image => "OCI image",
            Self::Commit => "OSTree commit",
        }
    }
}

/// An artifact that can be looked into.
pub struct Artifact {
    /// The file.
    pub source: Source,
    /// What it is.
    pub form: Form,
    /// Its partition table.
    pub table: Option<Table>,
    /// What may have files in it: partitions, file systems, the archive; of OCI images, each.
    pub volumes: Vec<Volume>,
    /// The OCI images, in the order of the volumes.
    pub images: Vec<Image>,
    /// The OSTree commit.
    pub commit: Option<CommitFacts>,
}

/// What an OSTree commit says of itself.
#[derive(Debug, Clone)]
pub struct CommitFacts {
    /// Its checksum.
    pub checksum: String,
    /// What it says.
    pub commit: crate::ostree::object::Commit,
    /// Its objects with their sizes in the repository, in bytes.
    pub objects: BTreeMap<String, u64>,
}

impl CommitFacts {
    /// For people: names and values.
    pub fn named(&self) -> Vec<(String, String)> {
        let date =
            i64::try_from(self.commit.timestamp).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
        vec![
            ("commit".to_owned(), self.checksum.clone()),
            ("subject".to_owned(), self.commit.subject.clone()),
            ("date".to_owned(), date.map(|date| date.to_string()).unwrap_or_default()),
            ("parent".to_owned(), self.commit.parent.clone().unwrap_or_default()),
        ]
    }

    /// Bytes that its objects take in the repository.
    pub fn size(&self) -> u64 {
        self.objects.values().sum()
    }
}

/// Something that files, or other contents, may be in.
pub struct Volume {
    /// Number of the partition, or path in an ISO image; empty for the whole artifact.
    pub name: String,
    /// The partition that it is.
    pub partition: Option<Entry>,
    /// Its bytes.
    pub bytes: Window,
    /// What is in it.
    pub filesystem: Option<FileSystem>,
    /// Its files.
    pub tree: Option<Box<dyn Tree>>,
    /// Why its files cannot be read.
    pub unread: Option<String>,
    /// Where the system in the artifact has it.
    pub mount: Option<PathBuf>,
}

impl Artifact {
    /// Opens a file.
    pub fn open(path: &Path, workplace: &Workplace<'_>) -> Result<Self> {
        let doing = || format!("looking into {}", path.display());
        if is_layout(path) {
            let layout = Layout::open(path)?.context("the layout is gone").with_context(doing)?;
            return Self::of_layout(Source::of_layout(path)?, &layout, workplace).with_context(doing);
        }
        if let Some((repository, commit)) = Repository::of_name(path).with_context(doing)? {
            return Self::of_commit(path, repository, commit).with_context(doing);
        }
        let source = Source::open(path, workplace)?;
        let taken_apart = Self::take_apart(source, workplace);
        taken_apart.with_context(doing)
    }

    /// An OSTree commit. Its bytes are those of the commit object, which has the checksums of all others.
    fn of_commit(path: &Path, repository: Repository, checksum: String) -> Result<Self> {
        let source = Source::of_plain_file(path, &repository.commit_file(&checksum))?;
        let commit = repository.commit(&checksum)?;
        let tree = Commit::open(repository, &checksum)?;
        let facts = CommitFacts { checksum, commit, objects: tree.objects.clone() };
        let volume = Volume {
            tree: Some(Box::new(tree)),
            mount: Some("/".into()),
            ..Volume::of(String::new(), source.bytes.clone())
        };
        Ok(Self {
            source,
            form: Form::Commit,
            table: None,
            volumes: vec![volume],
            images: Vec::new(),
            commit: Some(facts),
        })
    }

    /// OCI images. Their bytes are what the layout says is in it, by digests: the same for a directory and an archive.
    fn of_layout(source: Source, layout: &Layout, workplace: &Workplace<'_>) -> Result<Self> {
        let mut volumes = Vec::new();
        let mut images = Vec::new();
        let found = image::open(layout, workplace)?;
        let alone = found.len() == 1;
        for (image, tree) in found {
            let name = if alone { String::new() } else { image.platform.clone() };
            volumes.push(Volume { tree: Some(tree), ..Volume::of(name, source.bytes.clone()) });
            images.push(image);
        }
        // Of several, that which this machine would run is the system.
        let own = platform_name(&platform(Architecture::host()));
        let system = images.iter().position(|image| image.platform == own).unwrap_or(0);
        if let Some(volume) = volumes.get_mut(system) {
            volume.mount = Some("/".into());
        }
        Ok(Self { source, form: Form::Image, table: None, volumes, images, commit: None })
    }

    fn take_apart(source: Source, workplace: &Workplace<'_>) -> Result<Self> {
        let bytes = source.bytes.clone();
        if tar::is_tar(&bytes)
            && let Some(layout) = Layout::of_archive(bytes.file().try_clone()?)?
        {
            let bytes = layout.index_window()?;
            return Self::of_layout(Source { bytes: Window::part_of(bytes)?, ..source }, &layout, workplace);
        }
        if tar::is_tar(&bytes) {
            let tree: Box<dyn Tree> = Box::new(Tar::open(bytes.clone())?);
            let volume = Volume { tree: Some(tree), mount: Some("/".into()), ..Volume::of(String::new(), bytes) };
            return Ok(Self {
                source,
                form: Form::Archive,
                table: None,
                volumes: vec![volume],
                images: Vec::new(),
                commit: None,
            });
        }
        let iso = iso::is_iso(&bytes);
        let table = table::read(&bytes)?;
        let mut volumes = Vec::new();
        if iso {
            let mut volume = Volume::open(String::new(), bytes.clone(), workplace);
            // Windows into the image, which the general tree does not give.
            if let Ok(files) = Iso::open(bytes.clone()) {
                volumes = live_systems(&files, workplace)?;
                volume.tree = Some(Box::new(files));
            }
            volumes.insert(0, volume);
        }
        for partition in table.iter().flat_map(|table| &table.entries).filter(|entry| !entry.is_extended()) {
            let bytes = bytes.part(partition.start, partition.length);
            // The ISO's own partitions lead back into it.
            let mut volume = match iso && iso::is_iso(&bytes) {
                true => Volume::of(partition.number.to_string(), bytes),
                false => Volume::open(partition.number.to_string(), bytes, workplace),
            };
            volume.partition = Some(partition.clone());
            volumes.push(volume);
        }
        let form = match (iso, &table) {
            (true, _) => Form::Iso,
            (false, Some(_)) => Form::Disk,
            (false, None) => {
                let volume = Volume::open(String::new(), bytes.clone(), workplace);
                let form = if volume.filesystem.is_some() { Form::FileSystem } else { Form::Disk };
                if form == Form::Disk && !bytes.has(510, b"\x55\xaa") {
                    return Err(Fault::recipe(format!("{} is nothing that debforge knows", source.path.display()))
                        .hint("it looks into disks, file systems, ISO images and tar archives, also compressed ones")
                        .into());
                }
                volumes.push(volume);
                form
            }
        };
        let mut artifact = Self { source, form, table, volumes, images: Vec::new(), commit: None };
        artifact.mount();
        Ok(artifact)
    }

    /// Says of each volume where the system has it.
    fn mount(&mut self) {
        let is_root = |tree: &dyn Tree| {
            ["etc/os-release", "usr/lib/os-release", "etc/fstab", "var/lib/dpkg/status"]
                .iter()
                .any(|path| tree.find(Path::new(path)).ok().flatten().is_some())
        };
        let root = self.volumes.iter().position(|volume| volume.tree.as_deref().is_some_and(is_root));
        let alone = self.form == Form::FileSystem && self.volumes[0].tree.is_some();
        let Some(root) = root.or(alone.then_some(0)) else { return };
        self.volumes[root].mount = Some("/".into());
        let fstab = self.volumes[root].tree.as_deref().and_then(|tree| tree.text("etc/fstab").ok().flatten());
        for line in fstab.unwrap_or_default().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [device, place, ..] = words.as_slice() else { continue };
            if device.starts_with('#') || !place.starts_with('/') || *place == "/" {
                continue;
            }
            let named = self.volumes.iter_mut().find(|volume| volume.mount.is_none() && volume.is_named(device));
            if let Some(volume) = named {
                volume.mount = Some((*place).into());
            }
        }
    }

    /// The system as it is when it runs: every volume at its place.
    pub fn system(&self) -> Option<Mounted<'_>> {
        let mounts = self.volumes.iter().filter_map(|volume| {
            let place = volume.mount.as_ref()?.strip_prefix("/").ok()?.to_owned();
            Some((place, volume.tree.as_deref()?))
        });
        let mounts: Vec<(PathBuf, &dyn Tree)> = mounts.collect();
        mounts.iter().any(|(place, _)| place == Path::new("")).then(|| Mounted::new(mounts))
    }
}

impl Volume {
    fn of(name: String, bytes: Window) -> Self {
        Self { name, partition: None, bytes, filesystem: None, tree: None, unread: None, mount: None }
    }

    fn open(name: String, bytes: Window, workplace: &Workplace<'_>) -> Self {
        let mut volume = Self::of(name, bytes);
        volume.filesystem = filesystem::probe(&volume.bytes);
        if let Some(found) = &volume.filesystem
            && !["swap", "verity", "luks", "lvm"].contains(&found.kind)
        {
            match filesystem::tree(found, &volume.bytes, workplace) {
                Ok(tree) => volume.tree = Some(tree),
                Err(error) => volume.unread = Some(format!("{error:#}")),
            }
        }
        volume
    }

    /// Where it starts on the disk, in bytes.
    pub fn start(&self) -> u64 {
        self.partition.as_ref().map_or(0, |partition| partition.start)
    }

    /// Whether a first field of fstab(5) means it.
    fn is_named(&self, device: &str) -> bool {
        let (key, value) = device.split_once('=').unwrap_or(("", device));
        let value = value.trim_matches('"');
        let filesystem = self.filesystem.as_ref();
        let partition = self.partition.as_ref();
        match key {
            "UUID" => filesystem.is_some_and(|found| found.uuid.eq_ignore_ascii_case(value)),
            "LABEL" => filesystem.is_some_and(|found| !value.is_empty() && found.label == value),
            "PARTUUID" => partition.is_some_and(|entry| entry.uuid.eq_ignore_ascii_case(value)),
            "PARTLABEL" => partition.is_some_and(|entry| !value.is_empty() && entry.label == value),
            // /dev/vda2, /dev/mmcblk0p2
            _ => {
                let digits = value.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                value.starts_with("/dev/") && partition.is_some_and(|entry| digits.parse() == Ok(entry.number))
            }
        }
    }
}

/// File systems that are files of an ISO image: the systems of live images.
fn live_systems(files: &Iso, workplace: &Workplace<'_>) -> Result<Vec<Volume>> {
    let mut found = Vec::new();
    (files as &dyn Tree).walk(&mut |entry| {
        if entry.kind == EntryKind::File
            && filesystem::may_hold_one(&entry.path)
            && let Some(bytes) = files.window(&entry.path)
        {
            let volume = Volume::open(entry.path.display().to_string(), bytes, workplace);
            found.extend(volume.filesystem.is_some().then_some(volume));
        }
        Ok(())
    })?;
    Ok(found)
}
