//! What is wrong with mount points.

use std::path::{Component, Path};

use super::super::properties::{Mountpoint, Partition};
use super::super::{ImagePartition, declare};
use crate::build::CheckContext;
use crate::diagnostics::{Diagnostics, suggest};
use crate::image::FilesystemKind;

/// Options of mount that only some file systems have: (option, those that have it).
const OPTIONS: &[(&str, &[&str])] = &[
    ("compress", &["btrfs"]),
    ("compress-force", &["btrfs"]),
    ("data", &["ext3", "ext4"]),
    ("dmask", &["vfat"]),
    ("fmask", &["vfat"]),
    ("gid", &["vfat"]),
    ("iocharset", &["vfat"]),
    ("journal_checksum", &["ext4"]),
    ("shortname", &["vfat"]),
    ("ssd", &["btrfs"]),
    ("subvol", &["btrfs"]),
    ("subvolid", &["btrfs"]),
    ("uid", &["vfat"]),
    ("umask", &["vfat"]),
];

/// Directories with what mounts all others: fstab, mount(8), its libraries.
const EARLY: [&str; 8] = ["/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libo32", "/libx32"];

pub(super) fn check(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    for (index, mount) in given.mountpoints.iter().enumerate() {
        path(index, mount, cx, out);
        twice(given, index, cx, out);
        let Some(part) = given.partitions.iter().find(|part| part.name == mount.partition) else {
            let property = format!("mountpoints[{index}].partition");
            let names: Vec<&str> = given.partitions.iter().map(|part| part.name.as_str()).collect();
            let diagnostic = cx.error(&property, format!("the image has no partition `{}`", mount.partition));
            out.push(match suggest(&mount.partition, names.iter().copied()) {
                Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                None => diagnostic.hint(format!("it has {}", names.join(", "))),
            });
            continue;
        };
        let Some(kind) = declare::filesystem(part) else { continue };
        filesystem(index, part, kind, cx, out);
        subvolume(index, mount, part, kind, cx, out);
        options(index, mount, kind, cx, out);
    }
    root(given, cx, out);
}

fn path(index: usize, mount: &Mountpoint, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let property = format!("mountpoints[{index}].mountpoint");
    let path = Path::new(&mount.mountpoint);
    if !path.is_absolute() {
        let diagnostic = cx.error(&property, format!("`{}` is not an absolute path", mount.mountpoint));
        out.push(diagnostic.hint(format!("write `{}`", declare::normal_path(&mount.mountpoint))));
    } else if path.components().any(|part| part == Component::ParentDir) {
        let diagnostic = cx.error(&property, format!("`{}` climbs with `..`", mount.mountpoint));
        out.push(diagnostic.hint("write the path as it is in the root"));
    } else if ["/proc", "/sys", "/dev", "/run"].iter().any(|taken| path.starts_with(taken)) {
        let diagnostic = cx.error(&property, format!("`{}` lies in a directory of the kernel's", mount.mountpoint));
        out.push(diagnostic.hint("what is mounted there is gone when the system has booted"));
    } else if EARLY.iter().any(|needed| path == Path::new(needed)) && !mount.buildtime {
        let message = format!("nothing can mount `{}` when the system starts", mount.mountpoint);
        let diagnostic = cx.error(&property, message);
        out.push(diagnostic.hint("what mounts it lies in it; of directories that are needed so early only /usr works"));
    }
}

/// Whether two mount points can belong to the same deploy.
fn meet(one: &Mountpoint, other: &Mountpoint) -> bool {
    one.slot.is_none() || other.slot.is_none() || one.slot == other.slot
}

/// Reports what an earlier mount point has already.
fn twice(given: &ImagePartition, index: usize, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let mount = &given.mountpoints[index];
    for other in given.mountpoints[..index].iter().filter(|other| meet(mount, other)) {
        if declare::normal_path(&other.mountpoint) == declare::normal_path(&mount.mountpoint) {
            let message = format!("{} is a mount point already, of `{}`", mount.mountpoint, other.partition);
            let diagnostic = cx.error(&format!("mountpoints[{index}].mountpoint"), message);
            out.push(diagnostic.hint("mount points of different deploys have a `slot` each"));
            return;
        }
        if other.partition == mount.partition && other.subvolume == mount.subvolume {
            let message = format!("`{}` is mounted on {} already", mount.partition, other.mountpoint);
            let diagnostic = cx.error(&format!("mountpoints[{index}].partition"), message);
            out.push(diagnostic.hint("only subvolumes of btrfs have several places"));
            return;
        }
    }
}

fn filesystem(index: usize, part: &Partition, kind: FilesystemKind, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let property = format!("mountpoints[{index}].partition");
    let name = &part.name;
    match kind {
        FilesystemKind::None => {
            let diagnostic = cx.error(&property, format!("`{name}` has no file system to mount"));
            out.push(diagnostic.hint("give it an `fs`"));
        }
        FilesystemKind::Verity => {
            let diagnostic = cx.error(&property, format!("`{name}` holds hashes, which are not mounted"));
            out.push(diagnostic.hint("mount the partition that it protects"));
        }
        FilesystemKind::Swap => {
            let diagnostic = cx.error(&property, format!("`{name}` is swap, which is not mounted"));
            out.push(diagnostic.hint("leave the mount point out: /etc/fstab has the swap anyway"));
        }
        _ => {}
    }
}

fn subvolume(
    index: usize,
    mount: &Mountpoint,
    part: &Partition,
    kind: FilesystemKind,
    cx: &CheckContext<'_>,
    out: &mut Diagnostics,
) {
    let Some(subvolume) = &mount.subvolume else { return };
    let property = format!("mountpoints[{index}].subvolume");
    if kind != FilesystemKind::Btrfs {
        let fs = part.fs.as_deref().unwrap_or("verity");
        out.push(cx.error(&property, format!("`{}` is {fs}, which has no subvolumes", part.name)));
    } else if !part.subvolumes.contains(subvolume) {
        let names = || part.subvolumes.iter().map(String::as_str);
        let diagnostic = cx.error(&property, format!("`{}` has no subvolume `{subvolume}`", part.name));
        out.push(match suggest(subvolume, names()) {
            Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
            None => diagnostic.hint(format!("list it: `subvolumes: [\"{subvolume}\"]`")),
        });
    }
}

fn options(index: usize, mount: &Mountpoint, kind: FilesystemKind, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let Some(fs) = kind.fstab_type() else { return };
    for (name, given) in [("options", &mount.options), ("build-options", &mount.build_options)] {
        for (place, text) in given.iter().enumerate() {
            let property = format!("mountpoints[{index}].{name}[{place}]");
            if text.trim().is_empty() || text.contains(char::is_whitespace) {
                let diagnostic = cx.error(&property, format!("`{text}` is not a mount option"));
                out.push(diagnostic.hint("options have no spaces; each stands for itself in the list"));
                continue;
            }
            for option in text.split(',') {
                let word = option.split('=').next().unwrap_or(option);
                let Some((_, those)) = OPTIONS.iter().find(|(known, _)| *known == word) else { continue };
                if !those.contains(&fs) {
                    let message =
                        format!("{fs} has no mount option `{word}`: {} would not be mounted", mount.mountpoint);
                    let hint = format!("it is one of {}", those.join(" and "));
                    out.push(cx.error(&property, message).hint(hint));
                }
            }
        }
    }
}

/// Reports deploys without a root.
fn root(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let is_root = |mount: &&Mountpoint| declare::normal_path(&mount.mountpoint) == "/";
    let mut slots: Vec<Option<&str>> = given.mountpoints.iter().map(|mount| mount.slot.as_deref()).collect();
    slots.sort_unstable();
    slots.dedup();
    // Mount points of all deploys belong to each slot.
    if slots.len() > 1 {
        slots.retain(Option::is_some);
    }
    for slot in slots {
        let mut own = given.mountpoints.iter().filter(|mount| mount.slot.is_none() || mount.slot.as_deref() == slot);
        if own.clone().any(|mount| is_root(&mount)) {
            continue;
        }
        let Some(first) = own.next() else { continue };
        let index = given.mountpoints.iter().position(|mount| std::ptr::eq(mount, first)).unwrap_or(0);
        let whose = slot.map_or_else(String::new, |slot| format!(" of slot `{slot}`"));
        let diagnostic =
            cx.error(&format!("mountpoints[{index}].mountpoint"), format!("no partition is the root{whose}"));
        out.push(diagnostic.hint("one of the mount points must be `/`"));
    }
}
