//! From properties to [`Spec`]. What is wrong with the properties was reported by the check, so that
//! here every wrong value becomes some right one.

use std::path::{Component, Path};

use super::ImagePartition;
use super::properties::{Mountpoint, Partition};
use crate::debian::Architecture;
use crate::image::filesystem::fat_for;
use crate::image::table::types::{self, Flag};
use crate::image::{self, Contents, FilesystemKind, ImageSize, Layout, Mount, Size, Spec, TableKind};

/// The alignment of what says none, in bytes.
const ALIGNMENT: u64 = 1 << 20;

pub(super) fn declare(given: &ImagePartition, architecture: Architecture, sector_size: u32) -> Spec {
    let kinds: Vec<_> = given.partitions.iter().map(|part| filesystem(part).unwrap_or(FilesystemKind::None)).collect();
    let spec = with_kinds(given, &kinds, architecture, sector_size);
    if !given.partitions.iter().any(|part| part.fs.as_deref() == Some("fat")) || sector_size == 0 {
        return spec;
    }
    let Ok((layout, _)) = Layout::solve(&spec, &mut |_| Ok(1)) else { return spec };
    let parts = given.partitions.iter().enumerate().zip(&kinds);
    let settled: Vec<_> =
        parts.map(|((index, part), kind)| fat_of(part, index, &spec, &layout).unwrap_or(*kind)).collect();
    if settled == kinds { spec } else { with_kinds(given, &settled, architecture, sector_size) }
}

/// The image with these file systems.
fn with_kinds(given: &ImagePartition, kinds: &[FilesystemKind], architecture: Architecture, sector_size: u32) -> Spec {
    let seed = given.seed.clone().unwrap_or_else(|| format!("{} {architecture}", given.imagename));
    let bytes = |text: &str| text.parse::<Size>().ok().and_then(|size| size.bytes(sector_size));
    let disk_id = disk_id(given, &seed);
    let partitions = given.partitions.iter().zip(kinds).enumerate();
    let mut mounts: Vec<Mount> = given.mountpoints.iter().map(mount).collect();
    mounts.sort_by_key(|mount| Path::new(&mount.path).components().count());
    Spec {
        name: given.imagename.clone(),
        size: image_size(given, sector_size),
        table: given.partitiontype,
        sector_size,
        alignment: bytes(&given.align).filter(|bytes| *bytes > 0).unwrap_or(ALIGNMENT),
        gpt_gap: given.gpt_gap.as_deref().and_then(bytes).unwrap_or(0),
        strategy: given.strategy,
        partitions: partitions
            .map(|(index, (part, kind))| {
                partition(given, index, part, *kind, &seed, &disk_id, architecture, sector_size)
            })
            .collect(),
        mounts,
        reserved: given
            .reserved
            .iter()
            .filter_map(|area| {
                let (offset, length) = (bytes(&area.offset)?, bytes(&area.size)?);
                Some(image::Reserved { name: area.name.clone(), offset, length })
            })
            .collect(),
        disk_id,
        seed,
        deploys: Vec::new(),
        writes: Vec::new(),
        deployed: 0,
        written: false,
        boot_check: given.boot_check,
    }
}

/// `imagesize` and `margin`.
fn image_size(given: &ImagePartition, sector_size: u32) -> ImageSize {
    if given.imagesize.trim() == "auto" {
        let margin = given.margin.as_deref().unwrap_or("0");
        return margin_of(margin, sector_size).unwrap_or(ImageSize::Auto { margin: 0, percent: 0 });
    }
    ImageSize::Bytes(given.imagesize.parse::<Size>().ok().and_then(|size| size.bytes(sector_size)).unwrap_or(0))
}

/// `10%` or a size.
pub(super) fn margin_of(text: &str, sector_size: u32) -> Option<ImageSize> {
    if let Some(percent) = text.trim().strip_suffix('%') {
        return Some(ImageSize::Auto { margin: 0, percent: percent.trim().parse().ok()? });
    }
    Some(ImageSize::Auto { margin: text.parse::<Size>().ok()?.bytes(sector_size)?, percent: 0 })
}

fn disk_id(given: &ImagePartition, seed: &str) -> String {
    let derived = Spec::derived_uuid(seed, "disk");
    match given.partitiontype {
        TableKind::Gpt => {
            given.diskid.as_deref().and_then(|text| uuid::Uuid::parse_str(text).ok()).unwrap_or(derived).to_string()
        }
        TableKind::Msdos => {
            given.diskid.as_deref().and_then(hex8).unwrap_or_else(|| hex::encode(&derived.as_bytes()[..4]))
        }
    }
}

/// 8 hex digits, in lower case.
pub(super) fn hex8(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    (digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| digits.to_ascii_lowercase())
}

/// FAT's serial number as `/dev/disk/by-uuid` shows it, from 8 hex digits with or without a dash.
pub(super) fn fat_serial(text: &str) -> Option<String> {
    let digits = match text.split_once('-') {
        Some((front, back)) if front.len() == 4 => format!("{front}{back}"),
        Some(_) => return None,
        None => text.to_owned(),
    };
    let digits = hex8(&digits)?.to_ascii_uppercase();
    Some(format!("{}-{}", &digits[..4], &digits[4..]))
}

/// Bit of a GPT attribute.
pub(super) fn attribute(text: &str) -> Option<u8> {
    let text = text.trim();
    let number: u8 = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok()?,
        None => text.parse().ok()?,
    };
    matches!(number, 0..=2 | 48..=63).then_some(number)
}

/// The number of a partition as the kernel counts: an msdos table with more than four has an extended
/// one in the fourth place.
pub(super) fn number(table: TableKind, count: usize, index: usize) -> u32 {
    let shift = usize::from(table == TableKind::Msdos && count > 4 && index >= 3);
    u32::try_from(index + 1 + shift).unwrap_or(u32::MAX)
}

/// The file system of a partition; of `fat`, whose kind follows from its size, any.
pub(super) fn filesystem(part: &Partition) -> Option<FilesystemKind> {
    if part.verity.is_some() {
        return Some(FilesystemKind::Verity);
    }
    FilesystemKind::named(part.fs.as_deref()?)
}

/// Which FAT a partition gets whose `fs` leaves that open, as mkfs.vfat chooses it: the layout has its size.
/// One that is as large as its contents, which nobody knows yet, gets FAT32.
fn fat_of(part: &Partition, index: usize, spec: &Spec, layout: &Layout) -> Option<FilesystemKind> {
    let open = spec.partitions[index].fill && matches!(spec.size, ImageSize::Auto { .. });
    (part.fs.as_deref() == Some("fat") && part.verity.is_none() && !open)
        .then(|| fat_for(layout.partitions[index].length))
}

#[allow(clippy::too_many_arguments)] // What the image says beside the partition itself.
fn partition(
    given: &ImagePartition,
    index: usize,
    part: &Partition,
    kind: FilesystemKind,
    seed: &str,
    disk_id: &str,
    architecture: Architecture,
    sector_size: u32,
) -> image::Partition {
    let table = given.partitiontype;
    let number = number(table, given.partitions.len(), index);
    let derived = |what: &str| Spec::derived_uuid(seed, &format!("{what} {}", part.name));
    let mut partition_type = types::default_type(table, kind);
    let mut attributes: Vec<u8> = part.partattrs.iter().filter_map(|text| attribute(text)).collect();
    for flag in part.flags.iter().filter_map(|name| types::find_flag(name, table)) {
        if let Flag::Attribute(bit) = flag {
            attributes.push(bit);
        }
        partition_type = types::with_flag(partition_type, flag);
    }
    // As in debos: the type is set last.
    if let Some(named) = part.parttype.as_deref().and_then(|text| types::named(text, table, architecture)) {
        partition_type = named;
    }
    attributes.sort_unstable();
    attributes.dedup();
    let size = part.size.as_deref().filter(|_| !part.fills());
    image::Partition {
        name: part.name.clone(),
        number,
        start: part.start.clone(),
        end: part.end.clone(),
        size: size.map(|size| size.parse::<Size>().ok().and_then(|size| size.bytes(sector_size)).unwrap_or(ALIGNMENT)),
        fill: part.fills() || (part.end.is_none() && part.size.is_none()),
        label: match table {
            TableKind::Gpt => part.partlabel.clone().unwrap_or_else(|| part.name.clone()),
            TableKind::Msdos => String::new(),
        },
        kind: partition_type,
        attributes,
        uuid_given: table == TableKind::Gpt && part.partuuid.is_some(),
        uuid: match table {
            TableKind::Gpt => {
                let given = part.partuuid.as_deref().and_then(|text| uuid::Uuid::parse_str(text).ok());
                given.unwrap_or_else(|| derived("partition")).to_string()
            }
            TableKind::Msdos => format!("{disk_id}-{number:02x}"),
        },
        flags: part.flags.clone(),
        contents: Contents {
            kind,
            label: part.fslabel.clone().unwrap_or_else(|| part.name.clone()),
            uuid: filesystem_uuid(part, kind, derived("filesystem")),
            features: part.features.clone(),
            extended_options: part.extendedoptions.clone(),
            mkfs_options: part.mkfs_options.clone(),
            compression: part.compression.clone(),
            subvolumes: part.subvolumes.clone(),
            fsck: part.fsck,
            verity: part.verity.as_ref().map(|verity| {
                let salt = [derived("verity salt"), derived("verity salt, continued")];
                image::Verity { data: verity.data.clone(), salt: salt.map(|half| half.simple().to_string()).concat() }
            }),
        },
        artifact: part.artifact.clone(),
    }
}

fn filesystem_uuid(part: &Partition, kind: FilesystemKind, derived: uuid::Uuid) -> String {
    let given = part.fsuuid.as_deref();
    match kind {
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => {
            let derived = hex::encode(&derived.as_bytes()[..4]);
            given.and_then(fat_serial).or_else(|| fat_serial(&derived)).unwrap_or_default()
        }
        _ => given.and_then(|text| uuid::Uuid::parse_str(text).ok()).unwrap_or(derived).to_string(),
    }
}

/// An absolute path without `.`, doubled slashes and a slash at its end.
pub(super) fn normal_path(path: &str) -> String {
    let parts = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    let path: String = parts.flat_map(|part| ["/", part]).collect();
    if path.is_empty() { "/".into() } else { path }
}

fn mount(given: &Mountpoint) -> Mount {
    Mount {
        path: normal_path(&given.mountpoint),
        partition: given.partition.clone(),
        subvolume: given.subvolume.clone(),
        options: given.options.clone(),
        build_options: given.build_options.clone(),
        build_time: given.buildtime,
        slot: given.slot.clone(),
    }
}
