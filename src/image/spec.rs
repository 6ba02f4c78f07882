//! What a recipe says of an image, with names resolved and defaults filled in.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names UUIDs that follow from a recipe.
const NAMESPACE: Uuid = Uuid::from_bytes(*b"debforge-images\0");

/// An image as the steps so far describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spec {
    /// File in the artifact directory.
    pub name: String,
    /// How large it is.
    pub size: ImageSize,
    /// Its partition table.
    pub table: TableKind,
    /// GUID (gpt) or 8 hex digits (msdos) of the disk.
    pub disk_id: String,
    /// Bytes of a sector: 512 or 4096.
    pub sector_size: u32,
    /// What starts without being told where are multiples of this, in bytes.
    pub alignment: u64,
    /// Bytes that a GPT's entries are moved behind the start of the disk (debos's `gpt_gap`); 0 for
    /// the usual place.
    pub gpt_gap: u64,
    /// How it is written.
    pub strategy: Strategy,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// Where partitions are mounted, parents first.
    pub mounts: Vec<Mount>,
    /// Places that belong to boot loaders and that nothing else may use.
    pub reserved: Vec<Reserved>,
    /// What UUIDs that nobody gave are made from.
    pub seed: String,
    /// The deploys so far.
    pub deploys: Vec<Deploy>,
    /// What is written over it in the end, in order.
    pub writes: Vec<Write>,
    /// Whether an `image` step has written the file before this one: a later deploy adds to it.
    #[serde(default)]
    pub written: bool,
    /// How many of the deploys are in that file.
    #[serde(default)]
    pub deployed: usize,
    /// What is done where it does not start.
    #[serde(default, skip_serializing_if = "BootCheck::is_default")]
    pub boot_check: BootCheck,
}

/// What is done where an image does not start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootCheck {
    /// The build fails.
    #[default]
    Error,
    /// It is said, and the image is made.
    Warn,
}

impl BootCheck {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How large an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSize {
    /// This many bytes.
    Bytes(u64),
    /// As its contents want it, and this much free space in the partition that fills the rest.
    Auto {
        /// Bytes, beside what `percent` comes to.
        margin: u64,
        /// Of the contents.
        percent: u32,
    },
}

/// Kinds of partition tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// GUID partition table (UEFI specification, chapter 5).
    Gpt,
    /// Master boot record, with logical partitions behind the third where there are more than four.
    #[serde(alias = "mbr", alias = "dos")]
    Msdos,
}

/// How an image is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// From the tree, without a device, when all is done.
    #[default]
    Offline,
    /// File systems are mounted (loop devices by offset) from the deploy on, for steps that need that.
    Mounted,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// Unique in the image.
    pub name: String,
    /// 1 and up; as the kernel counts them. On msdos logical ones start at 5.
    pub number: u32,
    /// Where it starts as the recipe has it: parted's form, `0%` and the like; `None`: behind the one before.
    pub start: Option<String>,
    /// Where it ends, likewise; `None`: by `size`.
    pub end: Option<String>,
    /// Bytes; `None` where `end` says it, or where it fills the rest.
    pub size: Option<u64>,
    /// Whether it takes what no other partition has.
    pub fill: bool,
    /// GPT name, at most 36 UTF-16 units; empty on msdos.
    pub label: String,
    /// Type: a GUID (gpt) or two hex digits (msdos).
    pub kind: String,
    /// GPT attribute bits that are set (0 to 2, 48 to 63).
    pub attributes: Vec<u8>,
    /// GPT unique id; on msdos what the kernel calls PARTUUID: `DISKID-NN`.
    pub uuid: String,
    /// Whether the recipe gave `uuid`. Where it did not, a partition that is protected by dm-verity, and
    /// that of its hashes, take theirs from the root hash in the end.
    #[serde(default)]
    pub uuid_given: bool,
    /// parted's names: boot, esp, bios_grub, legacy_boot, lba, …
    pub flags: Vec<String>,
    /// What is in it.
    pub contents: Contents,
    /// File in the artifact directory that gets the partition alone.
    pub artifact: Option<String>,
}

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Contents {
    /// Its file system.
    pub kind: FilesystemKind,
    /// Label of the file system.
    pub label: String,
    /// As the mkfs of its kind takes it, and as `/dev/disk/by-uuid` shows it (`DEAD-BEEF` for FAT).
    pub uuid: String,
    /// Of mkfs's `-O`.
    pub features: Vec<String>,
    /// Of mkfs's `-E` (ext2 to ext4).
    pub extended_options: Vec<String>,
    /// Further arguments of mkfs.
    pub mkfs_options: Vec<String>,
    /// Of btrfs, erofs, squashfs and f2fs: `zstd`, `zstd:3`, `lz4`, …
    pub compression: Option<String>,
    /// Subvolumes of btrfs, in the recipe's order.
    pub subvolumes: Vec<String>,
    /// Whether the system checks it at boot (fstab's last field).
    pub fsck: bool,
    /// Set on a partition that holds the hashes of another.
    pub verity: Option<Verity>,
}

/// A partition of dm-verity hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verity {
    /// Name of the partition that is protected.
    pub data: String,
    /// Hex; from the seed.
    pub salt: String,
}

/// Kinds of file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum FilesystemKind {
    None,
    Ext2,
    Ext3,
    Ext4,
    /// With the number of bits that the recipe asks for, or as mkfs.vfat chooses.
    Fat12,
    Fat16,
    Fat32,
    Btrfs,
    Xfs,
    F2fs,
    Erofs,
    Squashfs,
    Swap,
    /// These are filled by the kernel alone; see [`FilesystemKind::is_kernels`].
    Exfat,
    Hfs,
    Hfsplus,
    /// HFS+ that tells upper case from lower.
    Hfsx,
    Nilfs2,
    Ntfs,
    /// Hashes of another partition.
    Verity,
}

/// A partition in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Mount {
    /// Absolute, without a slash at its end (but `/`).
    pub path: String,
    /// Name of the partition.
    pub partition: String,
    /// Subvolume of it (btrfs).
    pub subvolume: Option<String>,
    /// fstab's options.
    pub options: Vec<String>,
    /// Options while the image is built (mounted strategy).
    pub build_options: Vec<String>,
    /// Mounted only while the image is built: no fstab entry, and no directory in the root.
    pub build_time: bool,
    /// The deploy that it belongs to; `None` for all of them.
    pub slot: Option<String>,
}

/// Somewhere that only a boot loader writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reserved {
    /// "U-Boot environment".
    pub name: String,
    /// In bytes from the start of the disk.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
}

/// A root that goes into the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deploy {
    /// Which of several.
    pub slot: Option<String>,
    /// Whether its first start is prepared when the image is written.
    #[serde(default)]
    pub first_boot: bool,
    /// Words that it put into the kernel command line, which a later deploy does not take over.
    #[serde(default)]
    pub words: Vec<String>,
}

/// Bytes that are put over the image when its file systems are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Write {
    /// For messages: `u-boot.itb`.
    pub name: String,
    /// Where the bytes come from.
    pub source: WriteSource,
    /// Where they go.
    pub target: WriteTarget,
    /// How many they are at most, as far as that is known before they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

/// See [`Write::source`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteSource {
    /// Kept by the step of this number when it ran.
    Step(usize),
    /// A file of the root as it is deployed.
    Root(PathBuf),
}

/// See [`Write::target`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteTarget {
    /// At this byte of the disk, or of the partition of this name.
    At {
        /// The partition; `None` for the whole disk.
        partition: Option<String>,
        /// In bytes.
        offset: u64,
    },
    /// GRUB's first sector: all of it but the partition table and the disk's id, with the place of the
    /// core image, which is in the partition of this name (or behind the table where there is none)
    /// filled in.
    GrubBoot {
        /// The BIOS boot partition.
        core: Option<String>,
    },
    /// GRUB's core image, with its own block list filled in.
    GrubCore {
        /// The BIOS boot partition.
        partition: Option<String>,
    },
}

impl Spec {
    /// A partition by its name.
    pub fn partition(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.name == name)
    }

    /// The mounts of a deploy, parents first.
    pub fn mounts_of<'a>(&'a self, slot: Option<&'a str>) -> impl Iterator<Item = &'a Mount> {
        self.mounts.iter().filter(move |mount| mount.slot.is_none() || mount.slot.as_deref() == slot)
    }

    /// The mount that a path of a deploy lies on.
    pub fn mount_at<'a>(&'a self, slot: Option<&'a str>, path: &std::path::Path) -> Option<&'a Mount> {
        self.mounts_of(slot)
            .filter(|mount| path.starts_with(&mount.path))
            .max_by_key(|mount| std::path::Path::new(&mount.path).components().count())
    }

    /// The partition that holds the dm-verity hashes of another.
    pub fn hashes_of(&self, data: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.contents.verity.as_ref().is_some_and(|it| it.data == data))
    }

    /// What stands for the root hash of a protected partition as long as nobody knows it: as long as the
    /// hash itself (64 hex digits). Files of other partitions that have it get the hash when the image
    /// is written.
    pub fn verity_placeholder(&self, partition: &str) -> String {
        let [one, other] = ["first", "second"].map(|half| {
            Self::derived_uuid(&self.seed, &format!("{half} half of the root hash of {partition}")).simple().to_string()
        });
        one + &other
    }

    /// A UUID that follows from the recipe: the same `what` has the same one in every build.
    pub fn derived_uuid(seed: &str, what: &str) -> Uuid {
        Uuid::new_v5(&NAMESPACE, format!("{seed}\0{what}").as_bytes())
    }
}

impl FilesystemKind {
    /// The names that recipes have for them; `fat` becomes what suits its size where that is known.
    pub const NAMES: [(&'static str, Self); 23] = [
        ("none", Self::None),
        ("ext2", Self::Ext2),
        ("ext3", Self::Ext3),
        ("ext4", Self::Ext4),
        ("fat12", Self::Fat12),
        ("fat16", Self::Fat16),
        ("fat32", Self::Fat32),
        ("msdos", Self::Fat32),
        ("vfat", Self::Fat32),
        ("fat", Self::Fat32),
        ("btrfs", Self::Btrfs),
        ("xfs", Self::Xfs),
        ("f2fs", Self::F2fs),
        ("erofs", Self::Erofs),
        ("squashfs", Self::Squashfs),
        ("swap", Self::Swap),
        ("linux-swap", Self::Swap),
        ("exfat", Self::Exfat),
        ("hfs", Self::Hfs),
        ("hfsplus", Self::Hfsplus),
        ("hfsx", Self::Hfsx),
        ("nilfs2", Self::Nilfs2),
        ("ntfs", Self::Ntfs),
    ];

    /// By its name in a recipe.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// How many bytes its label can have; 0 where it has none.
    pub fn longest_label(self) -> usize {
        match self {
            Self::None | Self::Verity | Self::Squashfs => 0,
            Self::Ext2 | Self::Ext3 | Self::Ext4 => 16,
            Self::Fat12 | Self::Fat16 | Self::Fat32 | Self::Exfat => 11,
            Self::Hfs => 27,
            Self::Nilfs2 => 80,
            Self::Ntfs => 128,
            Self::Btrfs | Self::Hfsplus | Self::Hfsx => 255,
            Self::Xfs => 12,
            Self::F2fs => 512,
            Self::Erofs | Self::Swap => 15,
        }
    }

    /// What it can compress its files with; the first is a good choice.
    pub fn compressions(self) -> &'static [&'static str] {
        match self {
            Self::Btrfs => &["zstd", "zlib", "lzo"],
            Self::Erofs => &["lz4hc", "lz4", "lzma", "deflate", "zstd"],
            Self::Squashfs => &["zstd", "gzip", "xz", "lzo", "lz4", "lzma"],
            Self::F2fs => &["lzo", "lz4", "zstd", "lzo-rle"],
            _ => &[],
        }
    }

    /// As in /etc/fstab; `None` for what cannot be mounted.
    pub fn fstab_type(self) -> Option<&'static str> {
        Some(match self {
            Self::None | Self::Verity => return None,
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Fat12 | Self::Fat16 | Self::Fat32 => "vfat",
            Self::Btrfs => "btrfs",
            Self::Xfs => "xfs",
            Self::F2fs => "f2fs",
            Self::Erofs => "erofs",
            Self::Squashfs => "squashfs",
            Self::Swap => "swap",
            Self::Exfat => "exfat",
            Self::Hfs => "hfs",
            Self::Hfsplus | Self::Hfsx => "hfsplus",
            Self::Nilfs2 => "nilfs2",
            Self::Ntfs => "ntfs3",
        })
    }

    /// Whether only the kernel can put files into it, so that it takes an image that is mounted. Its UUID is
    /// what its mkfs makes of the time and of chance.
    pub fn is_kernels(self) -> bool {
        matches!(self, Self::Exfat | Self::Hfs | Self::Hfsplus | Self::Hfsx | Self::Nilfs2 | Self::Ntfs)
    }

    /// Whether it can never be written to.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Erofs | Self::Squashfs)
    }
}
