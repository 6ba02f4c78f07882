//! What can start an image, found out from the image itself.

use std::path::Path;

use anyhow::Result;

use super::iso::{self, Platform};
use super::menu::{self, Menus};
use super::table;
use super::tree::{EntryKind, Ext, Fat};
use super::{Tree, Window};
use crate::debian::Architecture;
use crate::image::table::Table;

/// What an image says of how it wants to be started.
#[derive(Debug, Clone, Default)]
pub struct Bootable {
    /// Its partition table.
    pub table: Option<Table>,
    /// Whether it is an ISO image.
    pub iso: bool,
    /// Programs that EFI firmware starts without being told, and their architectures.
    pub efi: Vec<(Architecture, String)>,
    /// Whether there is code for a BIOS in its first sector, or in an ISO's boot catalogue.
    pub bios: bool,
    /// Whether a menu for U-Boot (extlinux.conf) or a boot script is there.
    pub extlinux: bool,
    /// Of the system in it, where it has one that can be read.
    pub system: Option<Architecture>,
    /// The menus of its boot loaders, as far as their file systems can be read.
    pub menus: Menus,
}

/// Names that EFI firmware looks for in `EFI/BOOT` (UEFI specification, 3.5.1.1).
const REMOVABLE: [(&str, Architecture); 6] = [
    ("BOOTX64.EFI", Architecture::Amd64),
    ("BOOTAA64.EFI", Architecture::Arm64),
    ("BOOTIA32.EFI", Architecture::I386),
    ("BOOTARM.EFI", Architecture::Armhf),
    ("BOOTRISCV64.EFI", Architecture::Riscv64),
    ("BOOTLOONGARCH64.EFI", Architecture::Loong64),
];

/// Files of every system, whose header tells the architecture.
const PROGRAMS: [&str; 3] = ["usr/bin/dpkg", "bin/sh", "sbin/init"];

impl Bootable {
    /// Looks into a disk. What cannot be read counts as not there.
    pub fn of(disk: &Window) -> Result<Self> {
        let mut found = Self { iso: iso::is_iso(disk), table: table::read(disk)?, ..Self::default() };
        found.bios = has_boot_code(disk);
        if found.iso {
            for entry in iso::boot_entries(disk) {
                match entry.platform {
                    Platform::Bios => found.bios = true,
                    Platform::Efi => found.look_into(&entry.bytes),
                    Platform::Other => {}
                }
            }
        }
        let parts = found.table.as_ref().map(|table| table.entries.clone()).unwrap_or_default();
        for part in &parts {
            found.look_into(&disk.part(part.start, part.length));
            found.system = found.system.or(table::type_architecture(&part.kind));
        }
        if parts.is_empty() {
            found.look_into(disk);
        }
        Ok(found)
    }

    /// The architecture: of what the firmware starts, else of the system, else of BIOS code.
    pub fn architecture(&self) -> Option<Architecture> {
        match self.efi.as_slice() {
            [(architecture, _)] => Some(*architecture),
            // One for 32 bits beside the usual one is for old machines.
            several => self
                .system
                .or_else(|| several.iter().map(|(architecture, _)| *architecture).min())
                .or(self.bios.then_some(Architecture::Amd64)),
        }
    }

    /// What EFI firmware of an architecture would start.
    pub fn efi_for(&self, architecture: Architecture) -> Option<&str> {
        self.efi.iter().find(|(of, _)| *of == architecture).map(|(_, path)| path.as_str())
    }

    /// The first serial port of a generic machine, where no kernel of the menus is told to write to it. Of kernels that are
    /// told of none, that of a PC writes to the screen; others follow what the firmware says.
    pub fn silent_port(&self, architecture: Architecture) -> Option<&'static str> {
        let (port, pc) = match architecture {
            Architecture::Amd64 | Architecture::I386 => ("ttyS0", true),
            Architecture::Arm64 | Architecture::Armhf | Architecture::Armel => ("ttyAMA0", false),
            Architecture::Riscv64 | Architecture::Loong64 => ("ttyS0", false),
            _ => return None,
        };
        let mut systems = self.menus.choices.iter().filter(|choice| choice.value("root").is_some()).peekable();
        let known = systems.peek().is_some() && !self.menus.more;
        let silent = systems.all(|choice| match choice.consoles().next() {
            None => pc,
            Some(_) => choice.consoles().all(|console| console != port),
        });
        (known && silent).then_some(port)
    }

    fn look_into(&mut self, bytes: &Window) {
        if super::tree::fat::is_fat(bytes) {
            if let Ok(tree) = Fat::open(bytes.clone()) {
                self.look_at(&tree, Path::new("EFI/BOOT"));
            }
        } else if super::tree::ext::is_ext(bytes)
            && let Ok(tree) = Ext::open(bytes.clone())
        {
            self.look_at(&tree, Path::new("boot/efi/EFI/BOOT"));
        }
    }

    fn look_at(&mut self, tree: &dyn Tree, removable: &Path) {
        for entry in tree.names(removable).unwrap_or_default() {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
            let known = REMOVABLE.iter().find(|(known, _)| *known == name);
            if let Some((name, architecture)) = known
                && removable.starts_with("EFI")
            {
                self.efi.push((*architecture, format!("EFI/BOOT/{name}")));
            }
        }
        let is_file =
            |path: &str| tree.find(Path::new(path)).ok().flatten().is_some_and(|entry| entry.kind == EntryKind::File);
        self.extlinux |= ["extlinux/extlinux.conf", "boot/extlinux/extlinux.conf", "boot.scr", "boot/boot.scr"]
            .into_iter()
            .any(is_file);
        let menus = menu::menus(tree).unwrap_or(Menus { choices: Vec::new(), more: true });
        self.menus.choices.extend(menus.choices);
        self.menus.more |= menus.more;
        if self.system.is_none() {
            self.system = architecture_of(tree);
        }
    }
}

/// The architecture of the system in a tree, by the header of one of its programs.
pub fn architecture_of(tree: &dyn Tree) -> Option<Architecture> {
    PROGRAMS.iter().find_map(|path| elf_architecture(&tree.read_some(Path::new(path), 64).ok()??))
}

/// The architecture of a program by its header (elf(5)).
pub fn elf_architecture(header: &[u8]) -> Option<Architecture> {
    if header.len() < 64 || !header.starts_with(b"\x7fELF") {
        return None;
    }
    let (wide, little) = (header[4] == 2, header[5] == 1);
    let machine = match little {
        true => u16::from_le_bytes([header[18], header[19]]),
        false => u16::from_be_bytes([header[18], header[19]]),
    };
    Some(match (machine, wide, little) {
        (62, ..) => Architecture::Amd64,
        (3, ..) => Architecture::I386,
        (183, ..) => Architecture::Arm64,
        // EF_ARM_ABI_FLOAT_HARD
        (40, ..) if header[37] & 0x04 != 0 => Architecture::Armhf,
        (40, ..) => Architecture::Armel,
        (243, true, _) => Architecture::Riscv64,
        (258, true, _) => Architecture::Loong64,
        (21, _, true) => Architecture::Ppc64el,
        (22, ..) => Architecture::S390x,
        (8, true, true) => Architecture::Mips64el,
        (8, false, true) => Architecture::Mipsel,
        _ => return None,
    })
}

/// Whether a BIOS would find code in the first sector. FAT file systems and parted put a few instructions
/// there that only say that there is nothing to start.
fn has_boot_code(disk: &Window) -> bool {
    let Some(sector) = disk.array_at::<512>(0) else { return false };
    let code = &sector[..440];
    let excuse = |text: &[u8]| code.windows(text.len()).any(|part| part == text);
    sector[510..] == [0x55, 0xaa]
        && code.iter().any(|byte| *byte != 0)
        && !super::tree::fat::is_fat(disk)
        && !excuse(b"not a bootable disk")
        && !starts_like_parted(code)
}

/// The code of parted's new tables, which looks for an active partition's own boot sector.
fn starts_like_parted(code: &[u8]) -> bool {
    code.starts_with(b"\xfa\xb8\x00\x10\x8e\xd0\xbc\x00\xb0\xb8\x00\x00\x8e\xd8\x8e\xc0\xfb\xbe\x00\x7c\xbf\x00\x06")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_its_architecture() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(elf_architecture(&own), Some(Architecture::host()));
        assert_eq!(elf_architecture(b"#!/bin/sh"), None);
        let mut header = [0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x01\x01");
        header[18] = 40;
        assert_eq!(elf_architecture(&header), Some(Architecture::Armel));
        header[37] = 0x04;
        assert_eq!(elf_architecture(&header), Some(Architecture::Armhf));
    }
}
