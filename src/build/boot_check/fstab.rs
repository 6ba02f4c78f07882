//! /etc/fstab against the partitions of the image.

use std::ffi::OsStr;
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

    /// Whether a start goes on without it: what is not there, or is of another kind, only keeps systemd's local-fs.target
    /// from being reached. Swap is waited for, and no more.
    fn may_fail(&self) -> bool {
        const WEAK: [&str; 4] = ["nofail", "noauto", "x-systemd.automount", "_netdev"];
        WEAK.iter().any(|option| self.has(option))
            || self.options.contains("x-systemd.wanted-by=")
            || self.options.contains("x-systemd.required-by=")
            || self.kind == "swap"
            || self.path == "/"
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

/// Whether a file system can be mounted by the name of this kind: of several, by one of them.
fn fits(named: &str, is: FilesystemKind) -> bool {
    let own = is.fstab_type().unwrap_or_default();
    // Others may be mounted by programs.
    if is == FilesystemKind::None || is.is_kernels() || named == "auto" || named.contains(['.', ',']) {
        return true;
    }
    match named {
        "ext4" => matches!(own, "ext2" | "ext3" | "ext4"),
        "msdos" => own == "vfat",
        named => named == own,
    }
}

impl Look<'_> {
    /// Looks at the fstab of a system.
    pub(super) fn check_fstab(&mut self, system: &System) -> Result<()> {
        let Some(text) = self.tree().text(system.top.join("etc/fstab"))? else { return Ok(()) };
        let drivers = match &system.kernel {
            Some(kernel) => Some((kernel.clone(), Drivers::of(self.tree(), &system.top, kernel, None)?)),
            None => None,
        };
        // systemd goes on without a program that checks, and waits for what is not there; sysvinit's scripts the other way.
        let systemd = self.tree().find(&system.top.join("lib/systemd/systemd"))?.is_some();
        let stops = self.tree().find(&system.top.join("etc/init.d/checkfs.sh"))?.is_some() && !systemd;
        let made = self.makes_partitions(system)?;
        for line in text.lines().filter_map(Line::parse).filter(|line| !line.may_fail()) {
            let partition = match named(self.spec, &line.device) {
                Named::Partition(partition) => partition.clone(),
                Named::Unknown => continue,
                Named::Nothing if !systemd || made => continue,
                Named::Nothing => {
                    self.add(Finding::new(
                        format!("/etc/fstab has {} on {}, which no partition of `{}` is", line.path, line.device, self.spec.name),
                        "a start waits for it in vain; what is on a disk of the machine's own takes `nofail` among its options",
                    ));
                    continue;
                }
            };
            let kind = partition.contents.kind;
            if systemd && !fits(&line.kind, kind) {
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
            if systemd
                && !kind.is_kernels()
                && let Some((kernel, drivers)) = &drivers
            {
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

    /// Whether the first start makes partitions that the image does not have (repart.d(5)): files beside debforge's own.
    fn makes_partitions(&self, system: &System) -> Result<bool> {
        for directory in ["etc/repart.d", "usr/lib/repart.d"] {
            let names = self.tree().names(system.top.join(directory))?;
            let own = |name: &OsStr| {
                let mut own = self.spec.partitions.iter().map(|it| format!("{:02}-{}.conf", it.number, it.name));
                own.any(|own| name == own.as_str())
            };
            if names.iter().any(|entry| entry.path.file_name().is_some_and(|name| !own(name))) {
                return Ok(true);
            }
        }
        Ok(false)
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
    fn kinds_fit_where_the_driver_takes_them() {
        use FilesystemKind::{Btrfs, Ext2, Ext4, Fat16, Fat32, Ntfs};
        for (named, kind) in [("ext4", Ext2), ("vfat", Fat16), ("auto", Btrfs), ("xfs,ext4", Ext4), ("ntfs-3g", Ntfs)] {
            assert!(fits(named, kind), "{named}");
        }
        for (named, kind) in [("ext4", Btrfs), ("ext2", Ext4), ("xfs", Fat32)] {
            assert!(!fits(named, kind), "{named}");
        }
    }
}
