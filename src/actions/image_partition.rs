//! The action `image-partition`.

mod check;
mod declare;
mod properties;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::properties::{Mountpoint, Partition, Reserved};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;
use crate::image::{BootCheck, FilesystemKind, Strategy, TableKind};

/// Say what the disk image looks like: its partition table, its file systems, and where they are
/// mounted.
///
/// ```yaml
/// - action: image-partition
///   imagename: board.img
///   imagesize: 4 GiB
///   partitiontype: gpt
///   partitions:
///     - name: esp
///       fs: vfat
///       size: 512 MiB
///       flags: [esp]
///     - name: root
///       fs: ext4
///       size: rest
///   mountpoints:
///     - mountpoint: /
///       partition: root
///     - mountpoint: /boot/efi
///       partition: esp
///       options: [umask=0077]
/// ```
///
/// The action itself writes nothing. A `filesystem-deploy` binds the root to the image, and the image
/// is written when everything is in place: each file system is made and filled straight from the root,
/// at its place in a sparse file, without a loop device, without mounting anything, without being
/// root.
///
/// A partition has a `size`, and follows the one before at the next multiple of `align` (1 MiB). One
/// partition, wherever it stands, can take the `rest`. With `imagesize: auto` the image becomes as
/// large as what is in that partition, and `margin` more.
///
/// ```yaml
/// - action: image-partition
///   imagename: tree.img
///   imagesize: 4 GiB
///   partitiontype: gpt
///   strategy: mounted
///   partitions:
///     - name: root
///       fs: btrfs
///       size: rest
///       parttype: root
///       compression: zstd:3
///       subvolumes: ["@", "@home"]
///   mountpoints:
///     - mountpoint: /
///       partition: root
///       subvolume: "@"
///     - mountpoint: /home
///       partition: root
///       subvolume: "@home"
/// ```
///
/// Without `strategy: mounted`, subvolumes take btrfs-progs 6.12 or newer (Debian 13), and have the names
/// of the directories that they are mounted on: `home` on /home.
///
/// **Positions.** `start` and `end` say it exactly instead, as parted reads them: `1MiB`, `256MB`,
/// `2048s` (sectors), `50%`, `-1MiB` (from the end); a number alone is in MB. A position in a decimal
/// unit or in percent moves by up to half a unit to where free space starts or ends; one in bytes,
/// sectors or a binary unit is taken as it stands. An `end` in sectors is the last one of the
/// partition. `0%` is the first free sector, which is aligned to nothing: leave `start` out instead.
///
/// **Sizes** are `512 MiB` (or `512MiB`, binary), `512MB` (decimal), bytes, or sectors as in `2048s`.
/// A sector has 512 bytes, or as many as the recipe's `sectorsize` says: 4096.
///
/// **Partition types** follow from the file system and the flags: `esp` (or `boot` with gpt) makes an
/// EFI system partition, `bios_grub` one for GRUB's core image, `swap` swap; others become Linux
/// file systems, FAT Microsoft basic data. `parttype` takes another: a GUID (gpt) or two hex digits
/// (msdos), or a name: `root`, `usr`, `root-verity`, `usr-verity` (those of the recipe's architecture,
/// which systemd mounts by itself), `home`, `srv`, `var`, `tmp`, `xbootldr`, `esp`, `swap`,
/// `bios-boot`, `linux`.
///
/// **File systems**: `ext2`, `ext3`, `ext4`, `vfat` (FAT32; also `fat32`, `fat16`, `fat12`, and `fat`
/// for what suits the size, as mkfs.vfat chooses: FAT12 up to 8 MiB, FAT16 below 512 MiB), `btrfs`,
/// `xfs`, `f2fs`, `erofs`, `squashfs`, `swap`, or `none` for a partition that a `raw` fills; `exfat`, `hfs`,
/// `hfsplus`, `hfsx`, `nilfs2` and `ntfs`, which only the kernel fills (`strategy: mounted`) and whose UUIDs and
/// dates are others each time. UUIDs that
/// are not given follow from `seed`, so that the same recipe gives the same image.
///
/// **msdos** tables have four places. A recipe with more partitions gets an extended one in the fourth,
/// and the rest become logical: they are numbers 5 and up, each behind a sector that describes it.
///
/// **Boot loaders** that live outside of partitions are written by `raw`, which is checked against the
/// table, the partitions, and the `reserved` areas:
///
/// ```yaml
/// - action: image-partition
///   imagename: rock64.img
///   imagesize: 2 GiB
///   partitiontype: gpt
///   reserved:
///     - name: U-Boot environment
///       offset: "0x3F8000"
///       size: 32 KiB
///   partitions:
///     - name: root
///       fs: ext4
///       start: 32768s
///       end: 100%
///   mountpoints:
///     - mountpoint: /
///       partition: root
/// ```
///
/// **Integrity**: a partition with `verity: {data: root}` holds the dm-verity hashes of another.
///
/// **A/B**: mount points with a `slot` are those of the `filesystem-deploy` with the same `slot`.
///
/// **Whether it starts** is looked at before it is written, as its firmware, its boot loader and its initramfs
/// would: whether the loader's menu names files that are there, `root=` and /etc/fstab partitions of this image, and
/// whether the kernel and its initramfs have the drivers of their file systems. What would keep the system from
/// starting is an error; `boot-check: warn` makes the image anyway. What cannot be known when it is built is no error,
/// and an image without a boot loader's menu is not looked at.
///
/// With `strategy: mounted` the image is written right after the deploy, and the steps after it work in
/// the mounted image, through loop devices: for recipes whose steps need a device. That takes root, or
/// a machine.
///
/// **Compared with debos**: `size`, `align`, `imagesize: auto`, `reserved`, `seed`, `strategy`,
/// `subvolumes`, `compression`, `mkfs-options`, `artifact`, `verity`, `slot`, `boot-check` and the names of types are
/// new; everything wrong with a layout is said before anything runs.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImagePartition {
    /// File in the artifact directory.
    pub imagename: String,
    /// How large the image is: `4 GiB` (binary) or `4GB` (decimal); `auto` for as large as its contents.
    pub imagesize: String,
    /// Free space in the partition that takes the rest, where the image is as large as its contents:
    /// `200 MiB`, or `10%` of the contents.
    #[serde(default)]
    pub margin: Option<String>,
    /// Partition table: `gpt` or `msdos`.
    pub partitiontype: TableKind,
    /// GUID of the disk (gpt), or 8 hex digits (msdos).
    #[serde(default)]
    pub diskid: Option<String>,
    /// Where the entries of a GPT start, in bytes (`1MB`, `64s`), to leave the sectors in front of them to
    /// a boot loader; behind the header where it is left out.
    #[serde(default, rename = "gpt_gap")]
    pub gpt_gap: Option<String>,
    /// What partitions without a `start` are aligned to.
    #[serde(default = "one_mebibyte")]
    pub align: String,
    /// How the image is written: `offline` at the end from the root, or `mounted`.
    #[serde(default)]
    pub strategy: Strategy,
    /// Text that UUIDs which nobody gave are made from; the image's name and architecture where it is
    /// left out.
    #[serde(default)]
    pub seed: Option<String>,
    /// What is done where the image does not start: `error`, or `warn`, which says so and makes it. Recipes that are
    /// read as debos reads them warn where they do not say it.
    #[serde(default)]
    pub boot_check: BootCheck,
    /// Areas that only a boot loader may use.
    #[serde(default)]
    pub reserved: Vec<Reserved>,
    /// The partitions, in the order of their numbers.
    pub partitions: Vec<Partition>,
    /// Where they are mounted.
    #[serde(default)]
    pub mountpoints: Vec<Mountpoint>,
}

fn one_mebibyte() -> String {
    "1 MiB".into()
}

impl Action for ImagePartition {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check::check(self, cx, out);
    }

    fn nature(&self) -> Nature {
        let partitions = self.partitions.iter().filter_map(|partition| partition.artifact.clone());
        Nature {
            version: 1,
            changes: Changes::NOTHING,
            root: RootUse::Unused,
            reads: Reads::NOTHING,
            needs: Needs::NOTHING,
            artifacts: std::iter::once(self.imagename.clone()).chain(partitions).collect(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        let filled = |name: &str| self.mountpoints.iter().any(|mount| mount.partition == name);
        let kinds = self.partitions.iter().filter(|part| filled(&part.name)).filter_map(declare::filesystem);
        kinds.into_iter().any(FilesystemKind::is_kernels)
    }

    fn image(&self, cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::Declares(Box::new(declare::declare(self, cx.architecture, cx.sector_size)))
    }

    fn summary(&self) -> String {
        let table = match self.partitiontype {
            TableKind::Gpt => "gpt",
            TableKind::Msdos => "msdos",
        };
        let count = self.partitions.len();
        let partitions = if count == 1 { "partition" } else { "partitions" };
        format!("{}: {table}, {count} {partitions}, {}", self.imagename, self.imagesize)
    }

    fn inputs(&self, _cx: &mut InputContext<'_>) -> Result<()> {
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        cx.detail = self.summary();
        Ok(())
    }
}
