//! Types of partitions, their names, and what parted's flags make of them.

use uuid::{Uuid, uuid};

use crate::debian::Architecture;
use crate::image::{FilesystemKind, TableKind};

/// EFI system partition.
pub const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// GRUB's core image, where the firmware is a BIOS.
pub const BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
/// Linux file system.
pub const LINUX: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
/// Microsoft basic data: FAT, as parted has it.
pub const BASIC_DATA: Uuid = uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");
/// Of Apple's HFS and HFS+.
pub const APPLE_HFS: Uuid = uuid!("48465300-0000-11aa-aa11-00306543ecac");
/// Linux swap.
pub const SWAP: Uuid = uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");
/// Boot loader entries and kernels, beside an ESP.
pub const XBOOTLDR: Uuid = uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172");

/// An extended partition that is addressed by sector, as parted makes it.
pub const EXTENDED: u8 = 0x0f;

/// Types that have a name of their own, for recipes: (name, gpt, msdos).
const NAMED: &[(&str, Uuid, Option<&str>)] = &[
    ("bios-boot", BIOS_BOOT, None),
    ("esp", ESP, Some("ef")),
    ("fat", BASIC_DATA, Some("0c")),
    ("home", uuid!("933ac7e1-2eb4-4f13-b844-0e14e2aef915"), None),
    ("linux", LINUX, Some("83")),
    ("lvm", uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928"), Some("8e")),
    ("prep", uuid!("9e1a2d38-c612-4316-aa26-8b49521e5a8b"), Some("41")),
    ("raid", uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e"), Some("fd")),
    ("srv", uuid!("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"), None),
    ("swap", SWAP, Some("82")),
    ("tmp", uuid!("7ec6f557-3bc5-4aca-b293-16ef5df639d1"), None),
    ("var", uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d"), None),
    ("xbootldr", XBOOTLDR, Some("ea")),
];

/// Types that go with an architecture (UAPI group, "Discoverable Partitions Specification").
const DISCOVERABLE: [&str; 4] = ["root", "root-verity", "usr", "usr-verity"];

/// The types of [`DISCOVERABLE`] for an architecture, in that order.
fn discoverable(architecture: Architecture) -> Option<[Uuid; 4]> {
    Some(match architecture.name() {
        "amd64" => [
            uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
            uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
            uuid!("8484680c-9521-48c6-9c11-b0720656f69e"),
            uuid!("77ff5f63-e7b6-4633-acf4-1565b864c0e6"),
        ],
        "i386" => [
            uuid!("44479540-f297-41b2-9af7-d131d5f0458a"),
            uuid!("d13c5d3b-b5d1-422a-b29f-9454fdc89d76"),
            uuid!("75250d76-8cc6-458e-bd66-bd47cc81a812"),
            uuid!("8f461b0d-14ee-4e81-9aa9-049b6fb97abd"),
        ],
        "arm64" => [
            uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae"),
            uuid!("df3300ce-d69f-4c92-978c-9bfb0f38d820"),
            uuid!("b0e01050-ee5f-4390-949a-9101b17104e9"),
            uuid!("6e11a4e7-fbca-4ded-b9e9-e1a512bb664e"),
        ],
        "armhf" | "armel" => [
            uuid!("69dad710-2ce4-4e3c-b16c-21a1d49abed3"),
            uuid!("7386cdf2-203c-47a9-a498-f2ecce45a2d6"),
            uuid!("7d0359a3-02b3-4f0a-865c-654403e70625"),
            uuid!("c215d751-7bcd-4649-be90-6627490a4c05"),
        ],
        "riscv64" => [
            uuid!("72ec70a6-cf74-40e6-bd49-4bda08e8f224"),
            uuid!("b6ed5582-440b-4209-b8da-5ff7c419ea3d"),
            uuid!("beaec34b-8442-439b-a40b-984381ed097d"),
            uuid!("8f1056be-9b05-47c4-81d6-be53128e5b54"),
        ],
        "ppc64el" => [
            uuid!("c31c45e6-3f39-412e-80fb-4809c4980599"),
            uuid!("906bd944-4589-4aae-a4e4-dd983917446a"),
            uuid!("15bb03af-77e7-4d4a-b12b-c0d084f7491c"),
            uuid!("ee2b9983-21e8-4153-86d9-b6901a54d1ce"),
        ],
        "s390x" => [
            uuid!("5eead9a9-fe09-4a1e-a1d7-520d00531306"),
            uuid!("b325bfbe-c7be-4ab8-8357-139e652d2f6b"),
            uuid!("8a4f5770-50aa-4ed3-874a-99b710db6fea"),
            uuid!("31741cc4-1a2a-4111-a581-e00b447d2d06"),
        ],
        "loong64" => [
            uuid!("77055800-792c-4f94-b39a-98c91b762bb6"),
            uuid!("f3393b22-e9af-4613-a948-9d3bfbd0c535"),
            uuid!("e611c702-575c-4cbe-9a46-434fa0bf7e3f"),
            uuid!("f46b2c26-59ae-48f0-9106-c50ed47f673d"),
        ],
        _ => return None,
    })
}

/// The names that a recipe can give to types.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, _, _)| *name).chain(DISCOVERABLE)
}

/// A type as a recipe gives it: a name, a GUID (gpt), or two hex digits (msdos). As
/// [`crate::image::Partition::kind`] has it.
pub fn named(text: &str, table: TableKind, architecture: Architecture) -> Option<String> {
    let text = text.trim();
    if let Some((_, guid, byte)) = NAMED.iter().find(|(name, _, _)| *name == text) {
        return match table {
            TableKind::Gpt => Some(guid.to_string()),
            TableKind::Msdos => byte.map(str::to_owned),
        };
    }
    if let Some(index) = DISCOVERABLE.iter().position(|name| *name == text) {
        return match table {
            TableKind::Gpt => discoverable(architecture).map(|types| types[index].to_string()),
            TableKind::Msdos => None,
        };
    }
    match table {
        TableKind::Gpt if text.len() == 36 => Uuid::parse_str(text).ok().map(|guid| guid.to_string()),
        TableKind::Gpt => None,
        TableKind::Msdos => {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            let byte = u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)?;
            Some(format!("{byte:02x}"))
        }
    }
}

/// The type of a partition for which the recipe gives none.
pub fn default_type(table: TableKind, contents: FilesystemKind) -> String {
    use FilesystemKind::{Exfat, Fat12, Fat16, Fat32, Hfs, Hfsplus, Hfsx, Ntfs, Swap};
    match table {
        TableKind::Gpt => match contents {
            Fat12 | Fat16 | Fat32 | Exfat | Ntfs => BASIC_DATA,
            Hfs | Hfsplus | Hfsx => APPLE_HFS,
            Swap => SWAP,
            _ => LINUX,
        }
        .to_string(),
        TableKind::Msdos => match contents {
            Fat32 => "0c",
            Fat12 | Fat16 => "0e",
            Swap => "82",
            Exfat | Ntfs => "07",
            Hfs | Hfsplus | Hfsx => "af",
            _ => "83",
        }
        .to_owned(),
    }
}

/// What a flag does to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Makes it of this type: a GUID, or two hex digits.
    Type(&'static str),
    /// Sets an attribute bit (gpt).
    Attribute(u8),
    /// Marks it as the one to boot from (msdos).
    Active,
    /// Makes it the same file system addressed by sector (msdos).
    Lba,
    /// Adds 0x10 to its type (msdos).
    Hidden,
}

/// A flag by the name that parted's `set` has for it.
struct Named {
    name: &'static str,
    gpt: Option<Flag>,
    msdos: Option<Flag>,
}

const fn flag(name: &'static str, gpt: Option<Flag>, msdos: Option<Flag>) -> Named {
    Named { name, gpt, msdos }
}

/// As libparted 3.5 has them (gpt.c, dos.c; `no_automount` came with 3.6).
const FLAGS: &[Named] = &[
    flag("atvrecv", Some(Flag::Type("5265636f-7665-11aa-aa11-00306543ecac")), None),
    flag("bios_grub", Some(Flag::Type("21686148-6449-6e6f-744e-656564454649")), None),
    flag("bls_boot", Some(Flag::Type("bc13c2ff-59e6-4262-a352-b275fd6f7172")), Some(Flag::Type("ea"))),
    flag("boot", Some(Flag::Type("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")), Some(Flag::Active)),
    flag("chromeos_kernel", Some(Flag::Type("fe3a2a5d-4f32-41a7-b725-accc3285a309")), None),
    flag("diag", Some(Flag::Type("de94bba4-06d1-4d40-a16a-bfd50179d6ac")), Some(Flag::Type("12"))),
    flag("esp", Some(Flag::Type("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")), Some(Flag::Type("ef"))),
    flag("hidden", Some(Flag::Attribute(0)), Some(Flag::Hidden)),
    flag("hp-service", Some(Flag::Type("e2a1e728-32e3-11d6-a682-7b03a0000000")), None),
    flag("irst", Some(Flag::Type("d3bfe2de-3daf-11df-ba40-e3a556d89593")), Some(Flag::Type("84"))),
    flag("lba", None, Some(Flag::Lba)),
    flag("legacy_boot", Some(Flag::Attribute(2)), None),
    flag("linux-home", Some(Flag::Type("933ac7e1-2eb4-4f13-b844-0e14e2aef915")), None),
    flag("lvm", Some(Flag::Type("e6d6d379-f507-44c2-a23c-238f2a3df928")), Some(Flag::Type("8e"))),
    flag("msftdata", Some(Flag::Type("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")), None),
    flag("msftres", Some(Flag::Type("e3c9e316-0b5c-4db8-817d-f92df00215ae")), Some(Flag::Type("27"))),
    flag("no_automount", Some(Flag::Attribute(63)), None),
    flag("palo", None, Some(Flag::Type("f0"))),
    flag("prep", Some(Flag::Type("9e1a2d38-c612-4316-aa26-8b49521e5a8b")), Some(Flag::Type("41"))),
    flag("raid", Some(Flag::Type("a19d880f-05fc-4d3b-a006-743f0f84911e")), Some(Flag::Type("fd"))),
    flag("swap", Some(Flag::Type("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")), Some(Flag::Type("82"))),
];

/// The flags that partitions of such a table can have.
pub fn flags(table: TableKind) -> impl Iterator<Item = &'static str> {
    FLAGS.iter().filter(move |flag| flag.of(table).is_some()).map(|flag| flag.name)
}

/// What a flag means in such a table; `None` where it has no such flag.
pub fn find_flag(name: &str, table: TableKind) -> Option<Flag> {
    FLAGS.iter().find(|flag| flag.name == name)?.of(table)
}

impl Named {
    fn of(&self, table: TableKind) -> Option<Flag> {
        match table {
            TableKind::Gpt => self.gpt,
            TableKind::Msdos => self.msdos,
        }
    }
}

/// The type after a flag: two hex digits of msdos are changed by `lba` and `hidden`.
pub fn with_flag(kind: String, flag: Flag) -> String {
    let byte = u8::from_str_radix(&kind, 16);
    match (flag, byte) {
        (Flag::Type(kind), _) => kind.to_owned(),
        (Flag::Lba, Ok(0x0b)) => "0c".into(),
        (Flag::Lba, Ok(0x04 | 0x06)) => "0e".into(),
        (Flag::Hidden, Ok(byte)) => format!("{:02x}", byte | 0x10),
        _ => kind,
    }
}
