//! Partition tables as they stand in images, in words.

use anyhow::Result;

use super::Window;
use crate::debian::Architecture;
use crate::image::TableKind;
use crate::image::table::{Entry, Table};

/// The table of a disk; `None` where there is none. A first sector that ends as tables do but makes no
/// sense as one is a file system's, or a boot loader's.
pub fn read(disk: &Window) -> Result<Option<Table>> {
    if super::tree::fat::is_fat(disk) {
        return Ok(None);
    }
    let table = match crate::image::table::read(disk.file(), None) {
        Ok(table) => table,
        Err(error) if disk.has(512, b"EFI PART") || disk.has(4096, b"EFI PART") => return Err(error),
        Err(_) => None,
    };
    let sane = |part: &Entry| part.start >= 512 && part.start < disk.len();
    Ok(table.filter(|table| table.kind == TableKind::Gpt || table.entries.iter().all(sane)))
}

/// What is set on a partition: names of GPT's attribute bits (UEFI specification, table 5-8; discoverable
/// partitions specification), `boot` on msdos.
pub fn flags(part: &Entry) -> Vec<String> {
    let named = |bit: &u8| match bit {
        0 => "required".to_owned(),
        1 => "no-block-io".to_owned(),
        2 => "legacy-boot".to_owned(),
        59 => "growfs".to_owned(),
        60 => "read-only".to_owned(),
        63 => "no-auto".to_owned(),
        bit => bit.to_string(),
    };
    part.attributes.iter().map(named).chain(part.active.then(|| "boot".to_owned())).collect()
}

/// What a type is called; the id itself where it has no name here.
pub fn type_name(id: &str) -> &str {
    TYPES.iter().find(|(known, _)| *known == id).map_or(id, |(_, name)| name)
}

/// The architecture that a type says its root file system is of (discoverable partitions specification).
pub fn type_architecture(id: &str) -> Option<Architecture> {
    Some(match type_name(id).strip_prefix("root ")? {
        "x86-64" => Architecture::Amd64,
        "x86" => Architecture::I386,
        "arm64" => Architecture::Arm64,
        "arm" => Architecture::Armhf,
        "riscv64" => Architecture::Riscv64,
        "loongarch64" => Architecture::Loong64,
        "ppc64-le" => Architecture::Ppc64el,
        "s390x" => Architecture::S390x,
        _ => return None,
    })
}

/// Types by their ids: the UEFI specification's, the discoverable partitions specification's, those of
/// U-Boot and of other systems; for MBR, those of `sfdisk --list-types` that Debian systems have.
const TYPES: &[(&str, &str)] = &[
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux file system"),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "swap"),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", "XBOOTLDR"),
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "root x86-64"),
    ("44479540-f297-41b2-9af7-d131d5f0458a", "root x86"),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", "root arm64"),
    ("69dad710-2ce4-4e3c-b16c-21a1d49abed3", "root arm"),
    ("72ec70a6-cf74-40e6-bd49-4bda08e8f224", "root riscv64"),
    ("77055800-792c-4f94-b39a-98c91b762bb6", "root loongarch64"),
    ("c31c45e6-3f39-412e-80fb-4809c4980599", "root ppc64-le"),
    ("5eead9a9-fe09-4a1e-a1d7-520d00531306", "root s390x"),
    ("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "root verity x86-64"),
    ("df3300ce-d69f-4c92-978c-9bfb0f38d820", "root verity arm64"),
    ("8484680c-9521-48c6-9c11-b0720656f69e", "usr x86-64"),
    ("b0e01050-ee5f-4390-949a-9101b17104e9", "usr arm64"),
    ("77ff5f63-e7b6-4633-acf4-1565b864c0e6", "usr verity x86-64"),
    ("6e11a4e7-fbca-4ded-b9e9-e1a512bb664e", "usr verity arm64"),
    ("933ac7e1-2eb4-4f13-b844-0e14e2aef915", "home"),
    ("3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "srv"),
    ("4d21b016-b534-45c2-a9fb-5c16e091fd2d", "var"),
    ("7ec6f557-3bc5-4aca-b293-16ef5df639d1", "tmp"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "LVM"),
    ("a19d880f-05fc-4d3b-a006-743f0f84911e", "RAID"),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "basic data"),
    ("5b193300-fc78-40cd-8002-e86c45580b47", "SiFive SPL"),
    ("2e54b353-1271-4842-806f-e436d6af6985", "SiFive U-Boot"),
    ("3de21764-95bd-54bd-a5c3-4abe786f38a8", "U-Boot environment"),
    ("01", "FAT12"),
    ("04", "FAT16"),
    ("05", "extended"),
    ("06", "FAT16"),
    ("0b", "FAT32"),
    ("0c", "FAT32 LBA"),
    ("0e", "FAT16 LBA"),
    ("0f", "extended LBA"),
    ("17", "hidden"),
    ("82", "swap"),
    ("83", "Linux"),
    ("85", "extended Linux"),
    ("8e", "LVM"),
    ("cd", "ISO 9660"),
    ("da", "data"),
    ("ee", "GPT"),
    ("ef", "EFI system"),
    ("fd", "RAID"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_once_and_as_they_are_read() {
        for (index, (id, _)) in TYPES.iter().enumerate() {
            assert!(!TYPES[..index].iter().any(|(other, _)| other == id), "{id}");
            assert_eq!(*id, id.to_lowercase());
            assert!(uuid::Uuid::parse_str(id).is_ok() || id.len() == 2, "{id}");
        }
        assert_eq!(type_architecture("b921b045-1df0-41c3-af44-4c6f280d3fae"), Some(Architecture::Arm64));
        assert_eq!(type_name("42"), "42");
    }
}
