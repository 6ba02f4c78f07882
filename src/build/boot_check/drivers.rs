//! What a kernel can do by itself, with its initramfs, and with all its modules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::image::FilesystemKind;
use crate::inspect::Tree;
use crate::inspect::initrd::{Initrd, module_name};

/// Drivers of one kernel.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    /// Part of the kernel itself; `None` where nothing says so.
    builtin: Option<BTreeSet<String>>,
    /// Modules that the system has, each with those that it needs; `None` where they are not listed.
    modules: Option<BTreeMap<String, Vec<String>>>,
    /// Modules of the initramfs; `None` where there is none that can be read, or they may be elsewhere in it.
    initrd: Option<BTreeSet<String>>,
}

/// Whether something is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Has {
    Yes,
    /// Not, for want of this module.
    No(String),
    Unknown,
}

impl Drivers {
    /// Those of a kernel whose system is in a directory of the tree.
    pub(super) fn of(tree: &dyn Tree, system: &Path, kernel: &str, initrd: Option<&Initrd>) -> Result<Self> {
        let directory = system.join("lib/modules").join(kernel);
        let builtin = match tree.text(directory.join("modules.builtin"))? {
            Some(text) => Some(text),
            None => initrd.and_then(|initrd| initrd.text_of(kernel, "modules.builtin")).map(str::to_owned),
        };
        let modules = tree.text(directory.join("modules.dep"))?;
        Ok(Self {
            builtin: builtin.map(|text| text.lines().filter_map(module_name).collect()),
            modules: modules.map(|text| text.lines().filter_map(needed).collect()),
            initrd: initrd.filter(|initrd| !initrd.has_modules_elsewhere()).map(|initrd| initrd.modules(kernel)),
        })
    }

    /// Whether a module can be used before the root is mounted: of the kernel itself, or of the initramfs with all
    /// that it needs.
    pub(super) fn early(&self, name: &str, with_initrd: bool) -> Has {
        let empty = BTreeSet::new();
        let initrd = match (&self.initrd, with_initrd) {
            (Some(initrd), true) => initrd,
            (None, true) => return Has::Unknown,
            (_, false) => &empty,
        };
        if self.builtin.as_ref().is_some_and(|builtin| builtin.contains(name)) {
            return Has::Yes;
        }
        if !initrd.contains(name) {
            return if self.builtin.is_some() { Has::No(name.to_owned()) } else { Has::Unknown };
        }
        let (Some(builtin), Some(modules)) = (&self.builtin, &self.modules) else { return Has::Yes };
        let missing =
            modules.get(name).into_iter().flatten().find(|it| !initrd.contains(*it) && !builtin.contains(*it));
        missing.map_or(Has::Yes, |missing| Has::No(missing.clone()))
    }

    /// Whether a module can be used once the system is up.
    pub(super) fn late(&self, name: &str) -> Has {
        match (&self.builtin, &self.modules) {
            (Some(builtin), _) if builtin.contains(name) => Has::Yes,
            (_, Some(modules)) if modules.contains_key(name) => Has::Yes,
            (Some(_), Some(_)) => Has::No(name.to_owned()),
            _ => Has::Unknown,
        }
    }

    /// Whether there is a driver for any disk before the root is mounted; `None` where that is not known.
    pub(super) fn any_disk(&self) -> Option<bool> {
        let (builtin, initrd) = (self.builtin.as_ref()?, self.initrd.as_ref()?);
        Some(DISKS.iter().any(|name| builtin.contains(*name) || initrd.contains(*name)))
    }

    /// The first of several that can be used before the root is mounted.
    pub(super) fn early_any(&self, names: &[&str], with_initrd: bool) -> Has {
        let mut worst = Has::Unknown;
        for (index, name) in names.iter().enumerate() {
            match self.early(name, with_initrd) {
                Has::Yes => return Has::Yes,
                Has::Unknown => return Has::Unknown,
                no if index == 0 => worst = no,
                Has::No(_) => {}
            }
        }
        worst
    }
}

/// Drivers of disks, and of what they are reached by.
const DISKS: [&str; 26] = [
    "ahci",
    "aoe",
    "ata_piix",
    "dasd_eckd_mod",
    "dasd_fba_mod",
    "floppy",
    "hv_storvsc",
    "ide_gd_mod",
    "libata",
    "mmc_block",
    "mpt3sas",
    "mtdblock",
    "nbd",
    "nvme",
    "nvme_apple",
    "nvme_core",
    "pmem",
    "scsi_mod",
    "sd_mod",
    "uas",
    "ubi",
    "ufshcd_core",
    "usb_storage",
    "virtio_blk",
    "virtio_scsi",
    "xen_blkfront",
];

/// A line of modules.dep: a module, and all that it needs, in the order to load them backwards.
fn needed(line: &str) -> Option<(String, Vec<String>)> {
    let (name, needed) = line.split_once(':')?;
    Some((module_name(name)?, needed.split_whitespace().filter_map(module_name).collect()))
}

/// Modules that mount a kind of file system; any of them does. None where the kernel needs none, or nobody knows which.
pub(super) fn of_filesystem(kind: FilesystemKind) -> &'static [&'static str] {
    use FilesystemKind as Kind;
    match kind {
        Kind::None | Kind::Swap | Kind::Verity => &[],
        Kind::Ext2 => &["ext4", "ext2"],
        Kind::Ext3 => &["ext4", "ext3"],
        Kind::Ext4 => &["ext4"],
        Kind::Fat12 | Kind::Fat16 | Kind::Fat32 => &["vfat"],
        Kind::Btrfs => &["btrfs"],
        Kind::Xfs => &["xfs"],
        Kind::F2fs => &["f2fs"],
        Kind::Erofs => &["erofs"],
        Kind::Squashfs => &["squashfs"],
        Kind::Exfat => &["exfat"],
        Kind::Hfs => &["hfs"],
        Kind::Hfsplus | Kind::Hfsx => &["hfsplus"],
        Kind::Nilfs2 => &["nilfs2"],
        Kind::Ntfs => &["ntfs3", "ntfs"],
    }
}
