//! What a recipe gives of partitions and mount points.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::defaults::yes;

/// A partition.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Partition {
    /// What mount points and `raw` call it; unique in the image.
    pub name: String,
    /// File system, or `none`. Left out where `verity` is given.
    #[serde(default)]
    pub fs: Option<String>,
    /// How large it is: `512 MiB`, `1GB`, `2048s`; or `rest` (also `fill`, `100%`) for all that other
    /// partitions leave.
    #[serde(default)]
    pub size: Option<String>,
    /// Where it starts, as parted reads it; behind the partition before, aligned, where it is left out.
    #[serde(default)]
    pub start: Option<String>,
    /// Where it ends, as parted reads it.
    #[serde(default)]
    pub end: Option<String>,
    /// GPT name, at most 36 characters; `name` where it is left out.
    #[serde(default)]
    pub partlabel: Option<String>,
    /// Label of the file system; `name` where it is left out.
    #[serde(default)]
    pub fslabel: Option<String>,
    /// Type: a GUID (gpt), two hex digits (msdos), or a name such as `root`.
    #[serde(default)]
    pub parttype: Option<String>,
    /// GPT attribute bits to set: 0 to 2, 48 to 63.
    #[serde(default)]
    pub partattrs: Vec<String>,
    /// GUID of the partition (gpt).
    #[serde(default)]
    pub partuuid: Option<String>,
    /// Flags by parted's names: `boot`, `esp`, `bios_grub`, `legacy_boot`, `lba`, …
    #[serde(default)]
    pub flags: Vec<String>,
    /// Features of the file system (mkfs's `-O`).
    #[serde(default)]
    pub features: Vec<String>,
    /// Extended options (mkfs's `-E`, ext2 to ext4).
    #[serde(default)]
    pub extendedoptions: Vec<String>,
    /// Further arguments of mkfs.
    #[serde(default)]
    pub mkfs_options: Vec<String>,
    /// Compression of btrfs, erofs, squashfs and f2fs: `zstd`, `zstd:3`, `lz4`, …
    #[serde(default)]
    pub compression: Option<String>,
    /// Subvolumes of btrfs.
    #[serde(default)]
    pub subvolumes: Vec<String>,
    /// Whether the system checks the file system when it boots.
    #[serde(default = "yes")]
    pub fsck: bool,
    /// UUID of the file system; 8 hex digits for FAT.
    #[serde(default)]
    pub fsuuid: Option<String>,
    /// File in the artifact directory that gets the partition alone.
    #[serde(default)]
    pub artifact: Option<String>,
    /// Makes it the dm-verity hashes of another partition.
    #[serde(default)]
    pub verity: Option<Verity>,
}

/// dm-verity hashes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Verity {
    /// Name of the partition that is protected.
    pub data: String,
}

/// Where a partition is mounted.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mountpoint {
    /// Directory in the root.
    pub mountpoint: String,
    /// Name of the partition.
    pub partition: String,
    /// Options in /etc/fstab.
    #[serde(default)]
    pub options: Vec<String>,
    /// Options while the image is built, with `strategy: mounted`.
    #[serde(default)]
    pub build_options: Vec<String>,
    /// Whether it is mounted only while the image is built: /etc/fstab does not have it, nor has the
    /// root its directory.
    #[serde(default)]
    pub buildtime: bool,
    /// Subvolume of the partition (btrfs).
    #[serde(default)]
    pub subvolume: Option<String>,
    /// The deploy that it belongs to, where there are several.
    #[serde(default)]
    pub slot: Option<String>,
}

/// An area that only a boot loader may use.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reserved {
    /// What it is, for messages.
    pub name: String,
    /// Where it starts on the disk: bytes (also hex), `Ns` sectors, or with a unit.
    pub offset: String,
    /// How large it is.
    pub size: String,
}

impl Partition {
    /// Whether it takes what other partitions leave.
    pub(super) fn fills(&self) -> bool {
        self.size.as_deref().is_some_and(|size| matches!(size.trim(), "rest" | "fill" | "100%"))
    }
}
