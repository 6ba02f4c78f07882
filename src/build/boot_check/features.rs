//! Features of file systems against the kernel and GRUB: what mkfs of this machine turns on by itself may be newer than
//! those of the image.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Finding;
use crate::image::{FilesystemKind, Partition};

/// A feature: its bit, its name, and the first kernel that mounts it for writing, or the first GRUB that reads it.
type Feature = (u32, &'static str, (u32, u32));

/// Where a kind's superblock keeps a set of features.
struct Set {
    /// What the superblock begins with, and where.
    magic: (u64, &'static [u8]),
    /// Of the set.
    at: u64,
    little_endian: bool,
    /// Whether a kernel that does not know them can read all the same.
    for_writing: bool,
    features: &'static [Feature],
}

// From the headers of Linux: fs/ext4/ext4.h, fs/xfs/libxfs/xfs_format.h, include/uapi/linux/btrfs.h, fs/erofs/erofs_fs.h.
const EXT: (u64, &[u8]) = (1024 + 0x38, b"\x53\xef");
const XFS: (u64, &[u8]) = (0, b"XFSB");
const BTRFS: (u64, &[u8]) = (0x1_0040, b"_BHRfS_M");
const EROFS: (u64, &[u8]) = (1024, b"\xe2\xe1\xf5\xe0");

/// Where an erofs says what it has.
const EROFS_FEATURES: u64 = 1024 + 80;

const SETS: [Set; 7] = [
    Set {
        magic: EXT,
        at: 1024 + 0x60,
        little_endian: true,
        for_writing: false,
        features: &[
            (0x2000, "metadata_csum_seed", (4, 4)),
            (0x4000, "large_dir", (4, 13)),
            (0x10000, "encrypt", (4, 1)),
            (0x20000, "casefold", (5, 2)),
        ],
    },
    Set {
        magic: EXT,
        at: 1024 + 0x64,
        little_endian: true,
        for_writing: true,
        features: &[(0x2000, "project", (4, 5)), (0x8000, "verity", (5, 4))],
    },
    Set {
        magic: XFS,
        at: 212,
        little_endian: false,
        for_writing: true,
        features: &[(0x2, "rmapbt", (4, 8)), (0x4, "reflink", (4, 9)), (0x8, "inobtcount", (5, 10))],
    },
    Set {
        magic: XFS,
        at: 216,
        little_endian: false,
        for_writing: false,
        features: &[
            (0x8, "bigtime", (5, 10)),
            (0x20, "nrext64", (5, 19)),
            (0x40, "exchange", (6, 10)),
            (0x80, "parent", (6, 10)),
            (0x100, "metadir", (6, 13)),
            (0x200, "zoned", (6, 15)),
        ],
    },
    Set {
        magic: BTRFS,
        at: 0x1_00b4,
        little_endian: true,
        for_writing: true,
        features: &[(0x1, "free-space-tree", (4, 5)), (0x4, "verity", (5, 15)), (0x8, "block-group-tree", (6, 1))],
    },
    Set {
        magic: BTRFS,
        at: 0x1_00bc,
        little_endian: true,
        for_writing: false,
        features: &[(0x1000, "zoned", (5, 12)), (0x4000, "raid-stripe-tree", (6, 7)), (0x1_0000, "squota", (6, 7))],
    },
    Set {
        magic: EROFS,
        at: EROFS_FEATURES,
        little_endian: true,
        for_writing: false,
        features: &[
            (0x4, "chunked files", (5, 15)),
            (0x10, "ztailpacking", (5, 17)),
            (0x20, "fragments", (6, 1)),
            (0x40, "prefixes of attributes", (6, 4)),
            (0x80, "48-bit addresses", (6, 15)),
        ],
    },
];

/// No GRUB reads it yet.
const NEVER: (u32, u32) = (u32::MAX, 0);

/// What GRUB does not read (grub-core/fs of GRUB; tried with grub-fstest of 2.06 and 2.12).
const OF_GRUB: [Set; 3] = [
    Set {
        magic: EXT,
        at: 1024 + 0x60,
        little_endian: true,
        for_writing: false,
        features: &[(0x400, "ea_inode", NEVER), (0x8000, "inline_data", NEVER), (0x20000, "casefold", NEVER)],
    },
    Set {
        magic: EXT,
        at: 1024 + 0x64,
        little_endian: true,
        for_writing: false,
        features: &[(0x200, "bigalloc", NEVER)],
    },
    Set {
        magic: XFS,
        at: 216,
        little_endian: false,
        for_writing: false,
        features: &[(0x40, "exchange", (2, 14)), (0x80, "parent", (2, 14)), (0x100, "metadir", (2, 14))],
    },
];

/// Set where an erofs says which compressions it has, and where: a bit each.
const EROFS_CONFIGURED: u32 = 0x2;
const EROFS_ALGORITHMS: u64 = 1024 + 84;
const ALGORITHMS: [Feature; 3] = [(0x2, "lzma", (5, 16)), (0x4, "deflate", (6, 6)), (0x8, "zstd", (6, 10))];

/// What a file system in the image has that a kernel of this release does not know, to read it alone or to write, too.
pub fn check(image: &File, start: u64, partition: &Partition, read_only: bool, kernel: &str) -> Vec<Finding> {
    let Some(version) = version(kernel) else { return Vec::new() };
    let kind = partition.contents.kind.fstab_type().unwrap_or("none");
    let found = found(image, start, partition.contents.kind, read_only);
    found
        .into_iter()
        .filter(|(_, _, first)| version < *first)
        .map(|(_, name, (major, minor))| {
            Finding::new(
                format!(
                    "`{}` is {kind} with {name}, of Linux {major}.{minor} and newer, and the kernel is {kernel}",
                    partition.name
                ),
                hint(partition.contents.kind, name),
            )
        })
        .collect()
}

/// What a file system in the image has for which GRUB of this version does not find what it starts there.
pub fn check_grub(image: &File, start: u64, partition: &Partition, grub: &str) -> Vec<Finding> {
    let Some(version) = version(grub) else { return Vec::new() };
    let kind = partition.contents.kind.fstab_type().unwrap_or("none");
    let read = reader(image, start);
    if let Some(compression) = squashfs_compression(&read).filter(|_| kind == "squashfs") {
        return vec![Finding::new(
            format!("GRUB's menu is on `{}`, squashfs with {compression}, which GRUB does not read", partition.name),
            "`compression: xz`, `lzo` or `gzip`; or give /boot a partition of its own, with ext4",
        )];
    }
    let found = found_of(&OF_GRUB, &read);
    found
        .into_iter()
        .filter(|(_, _, first)| version < *first)
        .map(|(_, name, first)| {
            let since = match first {
                NEVER => "which GRUB does not read".to_owned(),
                (major, minor) => format!("which GRUB reads from {major}.{minor} on, and this one is {grub}"),
            };
            Finding::new(
                format!("GRUB's menu is on `{}`, {kind} with {name}, {since}", partition.name),
                hint(partition.contents.kind, name),
            )
        })
        .collect()
}

/// How a squashfs is compressed (squashfs_fs.h of Linux), where GRUB does not know it.
fn squashfs_compression(read: &Read<'_>) -> Option<&'static str> {
    let bytes: [u8; 2] = read(20, 2).filter(|_| is(read, (0, b"hsqs")))?.try_into().ok()?;
    match u16::from_le_bytes(bytes) {
        1 | 3 | 4 => None,
        2 => Some("lzma"),
        5 => Some("lz4"),
        6 => Some("zstd"),
        _ => Some("a compression that is not known here"),
    }
}

/// How a feature is turned off.
fn hint(kind: FilesystemKind, name: &str) -> String {
    match kind {
        FilesystemKind::Xfs if name == "parent" => "turn it off: `mkfs-options: [\"-n\", \"parent=0\"]`".to_owned(),
        FilesystemKind::Xfs => {
            format!("turn it off: `mkfs-options: [\"-i\", \"{name}=0\"]`, or `features` for those of `-m`")
        }
        FilesystemKind::Erofs => "choose a `compression` of before: `lz4hc`".to_owned(),
        _ => format!("turn it off: `features: [\"^{name}\"]`"),
    }
}

fn found(image: &File, start: u64, kind: FilesystemKind, read_only: bool) -> Vec<Feature> {
    let read = reader(image, start);
    let sets = SETS.iter().filter(|set| !(read_only && set.for_writing));
    let mut all = found_of(sets, &read);
    let configured = || number(&read, EROFS_FEATURES, true).is_some_and(|bits| bits & EROFS_CONFIGURED != 0);
    if kind == FilesystemKind::Erofs && is(&read, EROFS) && configured() {
        let bits = number(&read, EROFS_ALGORITHMS, true).unwrap_or(0) & 0xffff;
        all.extend(ALGORITHMS.iter().filter(|(bit, ..)| bits & bit != 0));
    }
    all
}

/// Features of some sets that a file system has.
fn found_of<'a>(sets: impl IntoIterator<Item = &'a Set>, read: &Read<'_>) -> Vec<Feature> {
    let mut all = Vec::new();
    for set in sets.into_iter().filter(|set| is(read, set.magic)) {
        let bits = number(read, set.at, set.little_endian).unwrap_or(0);
        all.extend(set.features.iter().filter(|(bit, ..)| bits & bit != 0));
    }
    all
}

/// Reads a few bytes of a file system.
type Read<'a> = dyn Fn(u64, usize) -> Option<Vec<u8>> + 'a;

fn reader(image: &File, start: u64) -> impl Fn(u64, usize) -> Option<Vec<u8>> {
    move |at, length| {
        let mut bytes = vec![0; length];
        image.read_exact_at(&mut bytes, start + at).ok().map(|()| bytes)
    }
}

fn is(read: &Read<'_>, (at, magic): (u64, &[u8])) -> bool {
    read(at, magic.len()).is_some_and(|bytes| bytes == magic)
}

fn number(read: &Read<'_>, at: u64, little_endian: bool) -> Option<u32> {
    let bytes: [u8; 4] = read(at, 4)?.try_into().ok()?;
    Some(if little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
}

/// "6.12.43+deb13-amd64" as (6, 12).
fn version(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_their_first_numbers() {
        assert_eq!(version("6.12.43+deb13-amd64"), Some((6, 12)));
        assert_eq!(version("5.10.0-32-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("mine"), None);
    }

    #[test]
    fn features_are_found_where_the_superblock_has_them() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let at = |offset: u64, bytes: &[u8]| file.write_all_at(bytes, 4096 + offset).unwrap();
        at(1024, b"\xe2\xe1\xf5\xe0");
        at(1024 + 80, &0x22_u32.to_le_bytes());
        at(1024 + 84, &0x9_u16.to_le_bytes());
        let names = |kind| found(&file, 4096, kind, false).into_iter().map(|(_, name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(FilesystemKind::Erofs), ["fragments", "zstd"]);
        assert_eq!(found(&file, 0, FilesystemKind::Erofs, false), []);
        at(0, b"XFSB");
        at(216, &0x28_u32.to_be_bytes());
        assert!(names(FilesystemKind::Xfs).contains(&"nrext64"));
        at(216, &0x6b_u32.to_be_bytes());
        let grub: Vec<_> = found_of(&OF_GRUB, &reader(&file, 4096)).into_iter().map(|(_, name, _)| name).collect();
        assert_eq!(grub, ["exchange"]);
        at(0, b"hsqs");
        at(20, &6_u16.to_le_bytes());
        assert_eq!(squashfs_compression(&reader(&file, 4096)), Some("zstd"));
    }
}
