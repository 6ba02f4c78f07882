//! Boot loaders against the partition table: whether firmware finds them, and they their menus.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::place::shown;
use super::{Finding, Look};
use crate::build::bootloader::layout;
use crate::image::{Partition, Strategy, TableKind};
use crate::inspect::menu::{Choice, Menu};
use crate::inspect::tree::EntryKind;

/// GPT's attribute of partitions that a BIOS (and U-Boot) starts from: "legacy BIOS bootable".
const LEGACY_BOOT: u8 = 2;

impl Look<'_> {
    /// Looks at the loaders that are needed for the menus; `more` says that there may be others.
    pub(super) fn check_loaders(&mut self, choices: &[Choice], more: bool) -> Result<()> {
        let menus: BTreeSet<_> = choices.iter().map(|choice| (choice.menu, choice.file.clone())).collect();
        let efi = menus.iter().all(|(menu, _)| matches!(menu, Menu::Grub | Menu::Entries));
        if more || menus.is_empty() {
            return Ok(());
        }
        if efi {
            return self.check_efi();
        }
        let files: Vec<_> = menus.into_iter().collect();
        if let [(Menu::Extlinux, file)] = files.as_slice()
            && let Some(partition) = self.partition_of(file).cloned()
        {
            self.check_bootable(file, &partition);
        }
        Ok(())
    }

    /// Whether there is an EFI program on the partition that is for them, where nothing else starts the image.
    fn check_efi(&mut self) -> Result<()> {
        // A step may have written to the disk itself, and a board's firmware may be anywhere.
        if self.spec.strategy == Strategy::Mounted || self.spec.written || !self.spec.writes.is_empty() {
            return Ok(());
        }
        let is_fat = |partition: &&Partition| layout::is_fat(partition.contents.kind);
        let fat: Vec<Partition> = self.spec.partitions.iter().filter(is_fat).cloned().collect();
        // Without one, a hypervisor or a firmware with a GRUB of its own may start it.
        let Some(esp) = fat.iter().find(|partition| layout::is_esp(partition)) else { return Ok(()) };
        // Firmware may start those of others with FAT, too.
        for partition in &fat {
            if !self.is_mounted(&partition.name) || self.has_efi_program(partition)? {
                return Ok(());
            }
        }
        self.add(Finding::new(
            format!("there is a boot loader's menu, and no EFI program on `{}` that would show it", esp.name),
            "the action `bootloader` installs one: `type: grub-efi`, `grub` or `systemd-boot`",
        ));
        Ok(())
    }

    fn has_efi_program(&self, partition: &Partition) -> Result<bool> {
        for mount in self.spec.mounts_of(self.slot).filter(|mount| mount.partition == partition.name) {
            let top = Path::new(mount.path.trim_start_matches('/'));
            let efi = self
                .tree()
                .names(top)?
                .into_iter()
                .filter(|entry| entry.path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("EFI")));
            for efi in efi {
                for directory in self.tree().names(&efi.path)? {
                    let programs = self.tree().names(&directory.path)?;
                    let is_program = |ending: &std::ffi::OsStr| ending.eq_ignore_ascii_case("efi");
                    if programs.iter().any(|entry| {
                        entry.kind != EntryKind::Directory && entry.path.extension().is_some_and(is_program)
                    }) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// U-Boot looks at the partitions that are marked as bootable, and at others only where none is
    /// (`part list -bootable`, `bootdev_find_in_blk`).
    fn check_bootable(&mut self, file: &Path, partition: &Partition) {
        let gpt = self.spec.table == TableKind::Gpt;
        // Whether an EFI system partition counts depends on U-Boot's version.
        if layout::is_esp(partition) {
            return;
        }
        let marked = |partition: &Partition| match gpt {
            true => partition.attributes.contains(&LEGACY_BOOT),
            false => partition.flags.iter().any(|flag| flag == "boot" || flag == "bootable"),
        };
        let others: Vec<&str> =
            self.spec.partitions.iter().filter(|other| marked(other)).map(|other| other.name.as_str()).collect();
        let (false, Some(other)) = (marked(partition), others.first()) else { return };
        let flag = if gpt { "legacy_boot" } else { "boot" };
        self.add(Finding::new(
            format!(
                "U-Boot reads {} from partitions that are marked as bootable: `{other}` is, `{}` is not",
                shown(file),
                partition.name
            ),
            format!("give `{}` the flag: `flags: [{flag}]`", partition.name),
        ));
    }
}
