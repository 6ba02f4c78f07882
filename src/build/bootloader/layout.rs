//! What boot loaders have to know of an image's layout: pure questions to its specification.

use std::path::Path;

use anyhow::{Context, Result};

use crate::diagnostics::Fault;
use crate::image::{FilesystemKind, Mount, Partition, Spec};

/// Type of an EFI system partition (GPT).
pub const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/// Type of an extended boot loader partition (GPT; Boot Loader Specification).
pub const XBOOTLDR: &str = "BC13C2FF-59E6-4262-A352-B275FD6F7172";

/// Where the EFI system partition is looked for when no partition says that it is one.
const ESP_PATHS: [&str; 3] = ["/boot/efi", "/efi", "/boot"];

/// A path of the root as the boot loader finds it.
#[derive(Debug, Clone)]
pub struct OnDisk<'a> {
    /// The partition that it lies on.
    pub partition: &'a Partition,
    /// Where in the file system: absolute, through the subvolume where there is one; `/` for its top.
    pub path: String,
}

/// Where a path of the root lies when the image is written.
pub fn locate<'a>(spec: &'a Spec, slot: Option<&'a str>, path: &str) -> Result<OnDisk<'a>> {
    let nothing = || Fault::recipe("no partition of the image is mounted at `/`").hint("give one `mountpoint: /`");
    let mount = spec.mount_at(slot, Path::new(path)).ok_or_else(nothing)?;
    let partition = spec.partition(&mount.partition).ok_or_else(nothing)?;
    let below = path.strip_prefix(&mount.path).unwrap_or(path).trim_matches('/');
    let subvolume = mount.subvolume.as_deref().unwrap_or_default().trim_matches('/');
    let parts: Vec<&str> = [subvolume, below].into_iter().filter(|part| !part.is_empty()).collect();
    Ok(OnDisk { partition, path: format!("/{}", parts.join("/")) })
}

/// The EFI system partition of an image, and where it is mounted; the first of several.
pub fn esp<'a>(spec: &'a Spec, slot: Option<&'a str>) -> Result<(&'a Mount, &'a Partition)> {
    esps(spec, slot)?.into_iter().next().context("there is no EFI system partition")
}

/// All EFI system partitions that a deploy mounts, as on disks of a mirror: firmware may start any of them.
pub fn esps<'a>(spec: &'a Spec, slot: Option<&'a str>) -> Result<Vec<(&'a Mount, &'a Partition)>> {
    let mounted = |path: &str| spec.mounts_of(slot).find(|mount| mount.path == path);
    let with_partition = |mount: &'a Mount| Some((mount, spec.partition(&mount.partition)?));
    let mut found = Vec::new();
    for partition in spec.partitions.iter().filter(|partition| is_esp(partition)) {
        match spec.mounts_of(slot).find(|mount| mount.partition == partition.name) {
            Some(mount) => found.push((mount, partition)),
            // Another deploy's.
            None if spec.mounts.iter().any(|mount| mount.partition == partition.name) => {}
            None => {
                return Err(Fault::recipe(format!("the EFI system partition `{}` is mounted nowhere", partition.name))
                    .hint(format!("give it a mount point: `{{mountpoint: /boot/efi, partition: {}}}`", partition.name))
                    .into());
            }
        }
    }
    if found.is_empty() {
        found.extend(
            ESP_PATHS.into_iter().find_map(|path| {
                with_partition(mounted(path)?).filter(|(_, partition)| is_fat(partition.contents.kind))
            }),
        );
    }
    if found.is_empty() {
        return Err(Fault::recipe("the image has no EFI system partition")
            .hint("add one of 64 MiB or more with `fs: fat32` and `flags: [esp]`, mounted at /boot/efi")
            .into());
    }
    if let Some((_, partition)) = found.iter().find(|(_, partition)| !is_fat(partition.contents.kind)) {
        return Err(Fault::recipe(format!("the EFI system partition `{}` has no FAT file system", partition.name))
            .hint("firmware reads FAT only: `fs: fat32`")
            .into());
    }
    Ok(found)
}

/// The EFI system partition, where a loader needs its kernels beside itself and so starts from one only.
pub fn only_esp<'a>(spec: &'a Spec, slot: Option<&'a str>) -> Result<(&'a Mount, &'a Partition)> {
    let all = esps(spec, slot)?;
    let (_, kernels) = kernel_partition(spec, slot)?;
    if let [_, (_, second), ..] = all.as_slice()
        && all.iter().any(|(_, partition)| partition.name == kernels.name)
    {
        return Err(Fault::recipe(format!(
            "`{}` would have no kernels: systemd-boot reads those beside it",
            second.name
        ))
        .hint("give the image one EFI system partition, or an XBOOTLDR with FAT for the kernels of all")
        .hint("or use `grub-efi`, which is installed into all of them")
        .into());
    }
    esp(spec, slot)
}

/// Whether it is an EFI system partition.
pub fn is_esp(partition: &Partition) -> bool {
    partition.kind.eq_ignore_ascii_case(ESP)
        || partition.kind.eq_ignore_ascii_case("ef")
        || partition.flags.iter().any(|flag| flag == "esp")
}

/// Where kernels go that the firmware's file system driver reads: the extended boot loader partition
/// where it is mounted and has a FAT file system, else the EFI system partition.
pub fn kernel_partition<'a>(spec: &'a Spec, slot: Option<&'a str>) -> Result<(&'a Mount, &'a Partition)> {
    let extended = spec.mounts_of(slot).find_map(|mount| {
        let partition = spec.partition(&mount.partition)?;
        let fits = partition.kind.eq_ignore_ascii_case(XBOOTLDR) && is_fat(partition.contents.kind);
        fits.then_some((mount, partition))
    });
    match extended {
        Some(found) => Ok(found),
        None => esp(spec, slot),
    }
}

/// Whether it is FAT.
pub fn is_fat(kind: FilesystemKind) -> bool {
    matches!(kind, FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32)
}

/// A partition that is too small for what the recipe puts there is found when it is filled; what a
/// loader cannot read at all is found here.
pub fn check_readable(loader: &str, at: &OnDisk<'_>, reads: impl Fn(FilesystemKind) -> bool) -> Result<()> {
    let kind = at.partition.contents.kind;
    if reads(kind) {
        return Ok(());
    }
    let name = kind.fstab_type().unwrap_or("this");
    Err(Fault::recipe(format!("{loader} cannot read kernels from the partition `{}`: {name}", at.partition.name))
        .hint("give /boot a partition of its own, with `fs: ext4`")
        .into())
}
