//! /etc/fstab against the partitions of the image.

use std::path::Path;

use anyhow::Result;

use super::drivers::Drivers;
use super::place::{Named, named, relative};
use super::{Finding, Look, System};
use crate::image::FilesystemKind;

/// A line of fstab(5).
struct Line {
    device: String,
    path: String,
    kind: String,
    options: String,
    pass: u32,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        if fields.len() < 3 || field(0).starts_with('#') {
            return None;
        }
        let pass = field(5).parse().unwrap_or(0);
        Some(Self {
            device: unescaped(field(0)),
            path: unescaped(field(1)),
            kind: field(2).into(),
            options: unescaped(field(3)),
            pass,
        })
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|known| known == option)
    }

    /// Whether a start goes on without it.
    fn may_fail(&self) -> bool {
        ["nofail", "noauto", "x-systemd.automount"].iter().any(|option| self.has(option))
    }
}

/// A field without fstab's octal numbers.
fn unescaped(field: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let number = (*first == b'\\').then(|| after.get(..3)).flatten();
        let number = number.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(number.unwrap_or(*first));
        rest = if number.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Kinds that one driver mounts, whichever of them fstab names.
fn same_kind(named: &str, is: FilesystemKind) -> bool {
    let ext = |name: &str| matches!(name, "ext2" | "ext3" | "ext4");
    let fat = |name: &str| matches!(name, "vfat" | "msdos");
    let Some(own) = is.fstab_type() else { return true };
    let ntfs = |name: &str| name.starts_with("ntfs");
    named == own || (ext(named) && ext(own)) || (fat(named) && fat(own)) || (ntfs(named) && ntfs(own))
}

impl Look<'_> {
    /// Looks at the fstab of a system.
    pub(super) fn check_fstab(&mut self, system: &System) -> Result<()> {
        let Some(text) = self.tree().text(system.top.join("etc/fstab"))? else { return Ok(()) };
        let drivers = match &system.kernel {
            Some(kernel) => Some((kernel.clone(), Drivers::of(self.tree(), &system.top, kernel, None)?)),
            None => None,
        };
        // systemd goes on without the program; the scripts of sysvinit stop at it.
        let stops = self.tree().find(&system.top.join("etc/init.d/checkfs.sh"))?.is_some()
            && self.tree().find(&system.top.join("lib/systemd/systemd"))?.is_none();
        for line in text.lines().filter_map(Line::parse).filter(|line| !line.may_fail()) {
            let partition = match named(self.spec, &line.device) {
                Named::Partition(partition) => partition.clone(),
                Named::Nothing => {
                    let what = if line.kind == "swap" { "swap".to_owned() } else { line.path.clone() };
                    self.add(Finding::new(
                        format!("/etc/fstab has {what} on {}, which no partition of `{}` is", line.device, self.spec.name),
                        "a start waits for it in vain; what is on a disk of the machine's own takes `nofail` among its options",
                    ));
                    continue;
                }
                Named::Unknown => continue,
            };
            let kind = partition.contents.kind;
            if line.kind != "auto" && kind != FilesystemKind::None && !same_kind(&line.kind, kind) {
                self.add(Finding::new(
                    format!(
                        "/etc/fstab mounts {} as {}, and the partition `{}` is {}",
                        line.path,
                        line.kind,
                        partition.name,
                        kind.fstab_type().unwrap_or("none")
                    ),
                    "leave the line to `filesystem-deploy`, or name the kind that `image-partition` has",
                ));
                continue;
            }
            if let Some((kernel, drivers)) = &drivers {
                self.check_late(kernel, drivers, kind, &line.path);
            }
            let program = system.top.join("sbin").join(format!("fsck.{}", line.kind));
            if stops
                && line.pass > 0
                && line.kind != "auto"
                && self.tree().find(&relative(Path::new(&program)))?.is_none()
            {
                self.add(Finding::new(
                    format!("/etc/fstab has {} checked at every start, and there is no fsck.{}", line.path, line.kind),
                    "install it (e2fsprogs, dosfstools, f2fs-tools), or set `fsck: false` for the partition",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_unescaped() {
        let line = Line::parse("LABEL=my\\040disk /mnt/a\\011b ext4 defaults,nofail 0 2").unwrap();
        assert_eq!((line.device.as_str(), line.path.as_str(), line.pass), ("LABEL=my disk", "/mnt/a\tb", 2));
        assert!(line.may_fail());
        assert!(Line::parse("# UUID=1 / ext4").is_none() && Line::parse("").is_none());
        assert_eq!(unescaped("\\0"), "\\0");
    }

    #[test]
    fn kinds_of_one_driver_are_one() {
        assert!(same_kind("ext4", FilesystemKind::Ext2) && same_kind("vfat", FilesystemKind::Fat16));
        assert!(!same_kind("ext4", FilesystemKind::Btrfs) && !same_kind("xfs", FilesystemKind::Fat32));
    }
}
