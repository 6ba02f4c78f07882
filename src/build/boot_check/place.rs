//! Partitions by the names that loaders, kernels and fstab have for them, and paths on them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Look;
use crate::build::bootloader::layout;
use crate::image::{FilesystemKind, Partition, Spec, Strategy, WriteTarget};
use crate::inspect::menu::Choice;
use crate::inspect::tree::{Entry, EntryKind};

/// What a name of a device says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named<'a> {
    /// This partition of the image.
    Partition(&'a Partition),
    /// None of them.
    Nothing,
    /// What it means is not known here.
    Unknown,
}

/// The partition that a word names: `UUID=…` and the like, or a path in /dev/disk.
pub(super) fn named<'a>(spec: &'a Spec, word: &str) -> Named<'a> {
    const WAYS: [(&str, &str); 4] = [
        ("UUID=", "/dev/disk/by-uuid/"),
        ("PARTUUID=", "/dev/disk/by-partuuid/"),
        ("LABEL=", "/dev/disk/by-label/"),
        ("PARTLABEL=", "/dev/disk/by-partlabel/"),
    ];
    let way = WAYS.iter().enumerate().find_map(|(index, (tag, directory))| {
        let value = word.strip_prefix(tag).or_else(|| word.strip_prefix(directory))?;
        Some((index, value.trim_matches('"')))
    });
    let Some((way, value)) = way else { return Named::Unknown };
    let is = |partition: &&Partition| match way {
        0 => partition.contents.uuid.eq_ignore_ascii_case(value),
        1 => partition.uuid.eq_ignore_ascii_case(value),
        2 => partition.contents.label == value,
        _ => partition.label == value,
    };
    let mut all = spec.partitions.iter().filter(is);
    match (all.next(), all.next()) {
        (Some(partition), None) => Named::Partition(partition),
        // `PARTUUID=…/PARTNROFF=1`, and names whose unusual letters udev writes as numbers.
        (None, _) if is_settled(spec) && !value.contains(['/', '\\', '%', '$']) => Named::Nothing,
        _ => Named::Unknown,
    }
}

/// Whether the specification has all names that the partitions will have in the end.
fn is_settled(spec: &Spec) -> bool {
    let written = spec.writes.iter().any(|write| matches!(write.target, WriteTarget::At { .. }));
    spec.strategy == Strategy::Offline
        && spec.partitions.iter().all(|partition| {
            let kind = partition.contents.kind;
            // What is written to the disk may be a file system.
            kind != FilesystemKind::Verity && !kind.is_kernels() && !(written && kind == FilesystemKind::None)
        })
}

/// What is known of a file on a partition.
#[derive(Debug)]
pub(super) enum File {
    /// It is there.
    There(Entry),
    /// There is nothing of that name.
    Missing,
    /// It is there in a way that loaders may see otherwise: a link that leads elsewhere, a device.
    Unknown,
}

impl Look<'_> {
    /// The partition that a file of the root lies on.
    pub(super) fn partition_of(&self, file: &Path) -> Option<&Partition> {
        let mount = self.spec.mount_at(self.slot, &Path::new("/").join(file))?;
        self.spec.partition(&mount.partition)
    }

    /// The partition that a choice's paths lie on. Where a loader finds none of a UUID it stays where it is.
    pub(super) fn partition_for(&self, choice: &Choice) -> Option<&Partition> {
        let searched = choice.on.as_ref().and_then(|uuid| match named(self.spec, &format!("UUID={uuid}")) {
            Named::Partition(partition) => Some(partition),
            Named::Nothing | Named::Unknown => None,
        });
        searched.or_else(|| self.partition_of(&choice.file))
    }

    /// A file of a partition by its path there, as far as the partition is mounted in the root.
    pub(super) fn on_partition(&self, partition: &Partition, path: &Path) -> Result<File> {
        let mut result = File::Unknown;
        for mount in self.spec.mounts_of(self.slot).filter(|mount| mount.partition == partition.name) {
            let below = path.strip_prefix("/").unwrap_or(path);
            let subvolume = mount.subvolume.as_deref().unwrap_or_default().trim_matches('/');
            let Ok(below) = below.strip_prefix(subvolume) else { continue };
            let at = Path::new(&mount.path).join(below);
            if self.spec.mount_at(self.slot, &at).is_none_or(|over| over.path != mount.path) {
                continue;
            }
            match self.look_up(&relative(&at), layout::is_fat(partition.contents.kind))? {
                File::There(entry) => return Ok(File::There(entry)),
                File::Missing => result = File::Missing,
                File::Unknown => return Ok(File::Unknown),
            }
        }
        Ok(result)
    }

    /// A file of the root; on FAT in whatever letters.
    fn look_up(&self, path: &Path, fat: bool) -> Result<File> {
        let mut at = PathBuf::new();
        for part in path.components() {
            let same = |name: &OsStr| match fat {
                true => name.eq_ignore_ascii_case(part.as_os_str()),
                false => name == part.as_os_str(),
            };
            let names = self.tree().names(&at)?;
            match names.into_iter().find(|entry| entry.path.file_name().is_some_and(same)) {
                Some(entry) => at = entry.path,
                None => return Ok(File::Missing),
            }
        }
        let found = self.tree().find(&at)?.filter(|entry| entry.kind == EntryKind::File);
        Ok(found.map_or(File::Unknown, File::There))
    }

    /// Whether a partition is mounted in the root that is looked at.
    pub(super) fn is_mounted(&self, partition: &str) -> bool {
        self.spec.mounts_of(self.slot).any(|mount| mount.partition == partition)
    }
}

/// The path of a file as the root knows it.
pub(super) fn shown(path: &Path) -> String {
    Path::new("/").join(path).display().to_string()
}

/// [`Tree::find`] takes relative paths.
pub(super) fn relative(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}
