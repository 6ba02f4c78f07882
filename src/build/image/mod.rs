//! From the root and a [`Spec`] to an image among the artifacts.

mod alone;
mod cover;
mod fstab;
mod mounted;
mod tools;
mod trees;
mod verity;
mod write;
mod writes;

use std::collections::BTreeMap;

use anyhow::Result;

use super::InputContext;
use crate::debian::host;
use crate::image::{FilesystemKind, Spec, Strategy, filesystem};

pub use alone::{Room, make_alone};
pub use fstab::{FindBy, command_line, device, fstab, is_protectable, root_words, split};
pub use mounted::{Disk, Loop, MountedImage, Part, mounts, refused};
pub use trees::make_mount_points;
pub use write::{extract_partitions, write};

/// The host's programs (and the Debian package of each) that write an image.
pub fn programs(spec: &Spec) -> BTreeMap<&'static str, &'static str> {
    let kinds = spec.partitions.iter().map(|partition| partition.contents.kind);
    let mut programs: BTreeMap<_, _> = kinds.clone().flat_map(filesystem::programs).copied().collect();
    if spec.strategy == Strategy::Mounted && kinds.into_iter().any(|kind| kind == FilesystemKind::Btrfs) {
        programs.insert("btrfs", "btrfs-progs");
    }
    programs
}

/// What an image's bytes depend on beside its specification and the steps before: the programs that
/// make its file systems.
pub fn inputs(spec: &Spec, cx: &mut InputContext<'_>) -> Result<()> {
    for (program, package) in programs(spec) {
        cx.add(format!("tool {program}"), host::tool_state(program, package));
    }
    Ok(())
}

/// Whether the root has to be changed while an image is written from it: directories of mount points
/// that are there for the build alone go, and what cannot be mounted over is moved aside.
pub fn spoils_root(spec: &Spec, mounts: bool) -> bool {
    !mounts || spec.mounts.iter().any(|mount| mount.build_time)
}

/// A few words on an image: "gpt, esp vfat, root ext4".
pub fn summary(spec: &Spec) -> String {
    let parts = spec.partitions.iter().map(|partition| {
        let kind = partition.contents.kind.fstab_type().unwrap_or("none");
        format!("{} {kind}", partition.name)
    });
    format!("{}: {}", spec.name, parts.collect::<Vec<_>>().join(", "))
}
