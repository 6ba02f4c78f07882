//! Boot loaders against the partition table: whether firmware finds them, and they their menus.

use std::path::Path;

use anyhow::Result;

use super::place::shown;
use super::{Finding, Look};
use crate::build::bootloader::layout::{self, XBOOTLDR};
use crate::image::{Partition, Strategy, TableKind};
use crate::inspect::menu::{Choice, Menu};
use crate::inspect::tree::EntryKind;

/// GPT's attribute of partitions that a BIOS (and U-Boot) starts from: "legacy BIOS bootable".
const LEGACY_BOOT: u8 = 2;

impl Look<'_> {
    pub(super) fn check_loaders(&mut self, choices: &[Choice]) -> Result<()> {
        let menus: std::collections::BTreeSet<_> =
            choices.iter().map(|choice| (choice.menu, choice.file.clone())).collect();
        for (menu, file) in &menus {
            let Some(partition) = self.partition_of(file).cloned() else { continue };
            match menu {
                Menu::Extlinux => self.check_bootable(file, &partition),
                // Others read such entries, too.
                Menu::Entries if menus.iter().all(|(menu, _)| *menu == Menu::Entries) => {
                    self.check_entries(file, &partition);
                }
                Menu::Entries | Menu::Grub | Menu::RaspberryPi => {}
            }
        }
        let by_grub = menus.iter().any(|(menu, _)| *menu == Menu::Grub);
        let only_grub = menus.iter().all(|(menu, _)| *menu == Menu::Grub);
        if by_grub && only_grub { self.check_grub() } else { Ok(()) }
    }

    /// Whether anything starts GRUB.
    fn check_grub(&mut self) -> Result<()> {
        // A step may have written to the disk itself, and a board's firmware may be anywhere.
        if self.spec.strategy == Strategy::Mounted || self.spec.written || !self.spec.writes.is_empty() {
            return Ok(());
        }
        let esps: Vec<Partition> =
            self.spec.partitions.iter().filter(|partition| layout::is_esp(partition)).cloned().collect();
        for esp in &esps {
            if !self.is_mounted(&esp.name) || self.has_efi_program(esp)? {
                return Ok(());
            }
        }
        let what = match esps.first() {
            Some(esp) => format!("there is no EFI program on `{}`", esp.name),
            None => "there is no EFI system partition, and no GRUB for a BIOS".to_owned(),
        };
        self.add(Finding::new(
            format!("GRUB has its menu in the image, and nothing starts GRUB: {what}"),
            "the action `bootloader` installs it: `type: grub-efi`, `grub-bios` or `grub`",
        ));
        Ok(())
    }

    fn has_efi_program(&self, esp: &Partition) -> Result<bool> {
        for mount in self.spec.mounts_of(self.slot).filter(|mount| mount.partition == esp.name) {
            let top = Path::new(mount.path.trim_start_matches('/'));
            for directory in self.tree().names(top.join("EFI"))? {
                let programs = self.tree().names(&directory.path)?;
                if programs.iter().any(|entry| {
                    entry.kind == EntryKind::File
                        && entry.path.extension().is_some_and(|it| it.eq_ignore_ascii_case("efi"))
                }) {
                    return Ok(true);
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

    /// systemd-boot reads two kinds of partitions, those with FAT by itself.
    fn check_entries(&mut self, file: &Path, partition: &Partition) {
        let read = layout::is_esp(partition) || partition.kind.eq_ignore_ascii_case(XBOOTLDR);
        if !read && self.spec.partitions.iter().any(layout::is_esp) {
            self.add(Finding::new(
                format!(
                    "{} is on the partition `{}`, where systemd-boot does not look for it",
                    shown(file),
                    partition.name
                ),
                "it reads entries of partitions with FAT and `flags: [esp]`, or `parttype: xbootldr`",
            ));
        }
    }
}
