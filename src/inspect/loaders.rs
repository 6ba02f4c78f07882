//! Boot loaders, by the marks that they leave.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::artifact::{Artifact, Volume};
use super::tree::EntryKind;
use super::{Tree, Window};

/// Something that takes part in starting an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Loader {
    /// What it is: `GRUB for BIOS`, `EFI program`.
    pub name: String,
    /// Where: a path, or a place on the disk.
    pub place: String,
}

impl Loader {
    fn new(name: impl Into<String>, place: impl Into<String>) -> Self {
        Self { name: name.into(), place: place.into() }
    }
}

/// Marks at places of the disk where the firmware of boards looks: offset, bytes, name. From U-Boot's
/// documentation and tools: sunxi_egon.h, rkcommon.c (the header is enciphered), imximage.h, omapimage.h.
const MARKS: [(u64, &[u8], &str); 9] = [
    (0x2004, b"eGON.BT0", "U-Boot SPL for Allwinner"),
    (0x20004, b"eGON.BT0", "U-Boot SPL for Allwinner"),
    (0x8000, b"\x3b\x8c\xdc\xfc\xbe\x9f\x9d\x51\xeb\x30\x34\xce\x24\x51\x1f\x98", "U-Boot SPL for Rockchip"),
    (0x8000, b"RKNS", "U-Boot SPL for Rockchip"),
    (0x400, b"\xd1\x00\x20", "U-Boot SPL for i.MX"),
    (0x8400, b"\xd1\x00\x20", "U-Boot SPL for i.MX"),
    (0x20014, b"CHSETTINGS", "U-Boot SPL for OMAP and AM335x"),
    (0x80_0000, b"\xd0\x0d\xfe\xed", "U-Boot (FIT image)"),
    (0x40000, b"\xd0\x0d\xfe\xed", "U-Boot (FIT image)"),
];

/// Files that say how to go on, and whose.
const MENUS: [(&str, &str); 8] = [
    ("boot/grub/grub.cfg", "GRUB's menu"),
    ("grub/grub.cfg", "GRUB's menu"),
    ("boot/extlinux/extlinux.conf", "extlinux menu (U-Boot)"),
    ("extlinux/extlinux.conf", "extlinux menu (U-Boot)"),
    ("boot/boot.scr", "U-Boot script"),
    ("boot.scr", "U-Boot script"),
    ("loader/loader.conf", "systemd-boot's configuration"),
    ("isolinux/isolinux.cfg", "isolinux menu"),
];

/// All boot loaders of an artifact.
pub fn find(artifact: &Artifact) -> Result<Vec<Loader>> {
    let disk = &artifact.source.bytes;
    let mut found = Vec::new();
    found.extend(in_first_sector(disk));
    let inside = |at: u64| {
        artifact.volumes.iter().any(|volume| {
            let files = volume.filesystem.is_some() && !volume.bytes.is_empty();
            files && !volume.name.is_empty() && (volume.start()..volume.start() + volume.bytes.len()).contains(&at)
        })
    };
    if artifact.table.is_some() {
        for (at, mark, name) in MARKS {
            if disk.has(at, mark) && !inside(at) {
                found.push(Loader::new(name, format!("sector {}", at / 512)));
            }
        }
    }
    for volume in &artifact.volumes {
        let Some(tree) = &volume.tree else {
            found.extend(in_partition(volume));
            continue;
        };
        let place = |path: &Path| match (volume.name.as_str(), &volume.mount) {
            (_, Some(mount)) => mount.join(path).display().to_string(),
            ("", None) => path.display().to_string(),
            (name, None) => format!("{name}:{}", path.display()),
        };
        efi_programs(tree.as_ref(), Path::new("EFI"), 3, &mut |path| {
            found.push(Loader::new("EFI program", place(path)));
        })?;
        for (path, name) in MENUS {
            let there = tree.find(Path::new(path))?;
            // `boot` may lead to the top of the same file system.
            if there.is_some_and(|entry| entry.kind == EntryKind::File && entry.path == Path::new(path)) {
                found.push(Loader::new(name, place(Path::new(path))));
            }
        }
        let entries = tree.names("loader/entries")?;
        if !entries.is_empty() {
            found.push(Loader::new(format!("boot entries ({})", entries.len()), place(Path::new("loader/entries"))));
        }
        for path in ["bootcode.bin", "start4.elf"] {
            if tree.find(Path::new(path))?.is_some() {
                found.push(Loader::new("Raspberry Pi firmware", place(Path::new(path))));
                break;
            }
        }
    }
    Ok(found)
}

fn in_first_sector(disk: &Window) -> Option<Loader> {
    let code = disk.array_at::<440>(0)?;
    let has = |text: &[u8]| code.windows(text.len()).any(|part| part == text);
    let name = match () {
        () if !disk.has(510, b"\x55\xaa") || super::tree::fat::is_fat(disk) => return None,
        () if has(b"GRUB ") => "GRUB for BIOS",
        () if has(b"isolinux.bin") => "isolinux for BIOS",
        () if has(b"Missing operating system") || has(b"SYSLINUX") => "syslinux's boot sector",
        () if code.iter().any(|byte| *byte != 0) => "boot sector",
        () => return None,
    };
    Some(Loader::new(name, "first sector"))
}

/// Partitions that firmware finds by their types.
fn in_partition(volume: &Volume) -> Option<Loader> {
    let partition = volume.partition.as_ref()?;
    let empty = volume.bytes.array_at::<64>(0)?.iter().all(|byte| *byte == 0);
    let name = match super::table::type_name(&partition.kind) {
        "BIOS boot" => "GRUB's core image",
        "SiFive SPL" => "U-Boot SPL for RISC-V",
        "SiFive U-Boot" => "U-Boot for RISC-V",
        _ => return None,
    };
    (!empty).then(|| Loader::new(name, format!("partition {}", partition.number)))
}

fn efi_programs(tree: &dyn Tree, directory: &Path, depth: usize, take: &mut dyn FnMut(&Path)) -> Result<()> {
    for entry in tree.names(directory)? {
        match entry.kind {
            EntryKind::Directory if depth > 0 => efi_programs(tree, &entry.path, depth - 1, take)?,
            EntryKind::File if entry.path.extension().is_some_and(|e| e.eq_ignore_ascii_case("efi")) => {
                take(&entry.path);
            }
            _ => {}
        }
    }
    Ok(())
}
