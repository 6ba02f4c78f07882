//! What file systems say of themselves.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use uuid::Uuid;

use super::tree::{Directory, Ext, Fat, Iso, Squashfs, Tar, ext, fat, squashfs};
use super::{Tree, Window, Workplace, iso};
use crate::debian::host::find_program;

/// A file system, or something else that fills a partition and says what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileSystem {
    /// `ext4`, `vfat`, `swap`, …
    pub kind: &'static str,
    /// Variant of it, such as FAT16 or a compression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Its label.
    pub label: String,
    /// As `/dev/disk/by-uuid` has it; empty where it has none.
    pub uuid: String,
    /// In bytes, as it says itself.
    pub size: u64,
    /// In bytes, where it says so.
    pub used: Option<u64>,
}

/// Finds out what bytes are, by what they say of themselves (the kernel's headers of each file system).
pub fn probe(bytes: &Window) -> Option<FileSystem> {
    const PROBES: [fn(&Window) -> Option<FileSystem>; 12] =
        [ext_says, fat_says, btrfs, xfs, f2fs, erofs, squashfs_says, swap, verity, luks, lvm, iso_says];
    PROBES.iter().find_map(|probe| probe(bytes))
}

/// Opens the tree of a file system.
pub fn tree(kind: &FileSystem, bytes: &Window, workplace: &Workplace<'_>) -> Result<Box<dyn Tree>> {
    Ok(match kind.kind {
        "ext2" | "ext3" | "ext4" => Box::new(Ext::open(bytes.clone())?),
        "vfat" => Box::new(Fat::open(bytes.clone())?),
        "squashfs" => Box::new(Squashfs::open(bytes.clone())?),
        "iso9660" => Box::new(Iso::open(bytes.clone())?),
        "erofs" => Box::new(taken_out(bytes, workplace, &["fsck.erofs", "erofs-utils"], &|image, to| {
            vec![format!("--extract={to}"), "--force".into(), image.into()]
        })?),
        "btrfs" => Box::new(taken_out(bytes, workplace, &["btrfs", "btrfs-progs"], &|image, to| {
            ["restore", "-i", "-m", "-S", "-s", image, to].map(str::to_owned).into()
        })?),
        kind @ ("xfs" | "f2fs") => Box::new(packed(kind, bytes, workplace)?),
        other => bail!("debforge does not read the files of {other}"),
    })
}

/// Has a program take all files out into a directory.
fn taken_out(
    bytes: &Window,
    workplace: &Workplace<'_>,
    [program, package]: &[&str; 2],
    arguments: &dyn Fn(&str, &str) -> Vec<String>,
) -> Result<Directory> {
    let Some(path) = find_program(program) else {
        bail!("{program} (package {package}), which reads its files, is missing");
    };
    let image = workplace.fresh("filesystem")?;
    let copy = File::options().read(true).write(true).create_new(true).open(&image)?;
    super::source::write_sparse(&mut bytes.clone(), &copy)?;
    let to = workplace.fresh("files")?;
    std::fs::create_dir(&to)?;
    let output = Command::new(path)
        .args(arguments(&image.to_string_lossy(), &to.to_string_lossy()))
        .output()
        .with_context(|| format!("starting {program}"))?;
    let _ = std::fs::remove_file(&image);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{program} could not read its files: {}", said.lines().last().unwrap_or_default().trim());
    }
    Ok(Directory::new(to, nix::unistd::Uid::effective().is_root()))
}

/// Has a kernel mount it, and all files packed.
fn packed(kind: &str, bytes: &Window, workplace: &Workplace<'_>) -> Result<Tar> {
    let Some(take_out) = &workplace.take_out else { bail!("debforge does not read the files of {kind}") };
    let [image, archive] = [workplace.fresh("filesystem")?, workplace.fresh("files.tar")?];
    let copy = File::options().read(true).write(true).create_new(true).open(&image)?;
    super::source::write_sparse(&mut bytes.clone(), &copy)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let taken = take_out(workplace.path()?, &name(&image), kind, &name(&archive));
    let _ = std::fs::remove_file(&image);
    taken?;
    Tar::open(Window::whole(File::open(&archive)?)?)
}

fn little<const N: usize>(bytes: &Window, at: u64) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes.array_at::<N>(at)?);
    Some(u64::from_le_bytes(wide))
}

fn uuid(bytes: &Window, at: u64) -> String {
    let uuid = Uuid::from_bytes(bytes.array_at(at).unwrap_or_default());
    if uuid.is_nil() { String::new() } else { uuid.to_string() }
}

/// Text up to the first zero.
fn text<const N: usize>(bytes: &Window, at: u64) -> String {
    let text = bytes.array_at::<N>(at).unwrap_or([0; N]);
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(N);
    String::from_utf8_lossy(&text[..end]).trim_end().to_owned()
}

/// Linux, fs/ext4/ext4.h: struct ext4_super_block.
fn ext_says(bytes: &Window) -> Option<FileSystem> {
    if !ext::is_ext(bytes) {
        return None;
    }
    let field = |at: u64| little::<4>(bytes, 1024 + at);
    let (compatible, incompatible, read_only) = (field(0x5c)?, field(0x60)?, field(0x64)?);
    // Extents, 64 bits, flexible groups, inline data; huge files and those after them.
    let new = incompatible & (0x40 | 0x80 | 0x200 | 0x8000) != 0 || read_only & !0x7 != 0;
    let kind = match (new, compatible & 0x4 != 0) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    };
    let wide = |low: u64, high: u64| Some(field(low)? | if incompatible & 0x80 != 0 { field(high)? << 32 } else { 0 });
    let block = 1024_u64.checked_shl(u32::try_from(field(0x18)?).ok()?)?;
    let (blocks, free) = (wide(0x04, 0x150)?, wide(0x0c, 0x158)?);
    Some(FileSystem {
        kind,
        variant: None,
        label: text::<16>(bytes, 1024 + 0x78),
        uuid: uuid(bytes, 1024 + 0x68),
        size: blocks.checked_mul(block)?,
        used: blocks.saturating_sub(free).checked_mul(block),
    })
}

fn fat_says(bytes: &Window) -> Option<FileSystem> {
    if !fat::is_fat(bytes) {
        return None;
    }
    let volume = fatfs::FileSystem::new(bytes.clone(), fatfs::FsOptions::new()).ok()?;
    let (variant, id_at) = match volume.fat_type() {
        fatfs::FatType::Fat12 => ("FAT12", 39),
        fatfs::FatType::Fat16 => ("FAT16", 39),
        fatfs::FatType::Fat32 => ("FAT32", 67),
    };
    let id = little::<4>(bytes, id_at)?;
    let label = volume.read_volume_label_from_root_dir().ok().flatten().unwrap_or_else(|| volume.volume_label());
    let sector = little::<2>(bytes, 11)?;
    let sectors = match little::<2>(bytes, 19)? {
        0 => little::<4>(bytes, 32)?,
        few => few,
    };
    let used = volume.stats().ok().map(|stats| {
        u64::from(stats.total_clusters().saturating_sub(stats.free_clusters())) * u64::from(stats.cluster_size())
    });
    Some(FileSystem {
        kind: "vfat",
        variant: Some(variant.into()),
        label: if label.trim() == "NO NAME" { String::new() } else { label.trim().to_owned() },
        uuid: format!("{:04X}-{:04X}", id >> 16, id & 0xffff),
        size: sector.checked_mul(sectors)?,
        used,
    })
}

/// Linux, fs/btrfs/accessors.h: struct btrfs_super_block at 64 KiB.
fn btrfs(bytes: &Window) -> Option<FileSystem> {
    bytes.has(0x10040, b"_BHRfS_M").then_some(())?;
    Some(FileSystem {
        kind: "btrfs",
        variant: None,
        label: text::<256>(bytes, 0x1012b),
        uuid: uuid(bytes, 0x10020),
        size: little::<8>(bytes, 0x10070)?,
        used: little::<8>(bytes, 0x10078),
    })
}

/// Linux, fs/xfs/libxfs/xfs_format.h: struct xfs_dsb.
fn xfs(bytes: &Window) -> Option<FileSystem> {
    bytes.has(0, b"XFSB").then_some(())?;
    let block = u64::from(u32::from_be_bytes(bytes.array_at(4)?));
    let (blocks, free) = (u64::from_be_bytes(bytes.array_at(8)?), u64::from_be_bytes(bytes.array_at(144)?));
    Some(FileSystem {
        kind: "xfs",
        variant: None,
        label: text::<12>(bytes, 108),
        uuid: uuid(bytes, 32),
        size: blocks.checked_mul(block)?,
        used: blocks.saturating_sub(free).checked_mul(block),
    })
}

/// Linux, include/linux/f2fs_fs.h: struct f2fs_super_block.
fn f2fs(bytes: &Window) -> Option<FileSystem> {
    bytes.has(1024, &0xf2f5_2010_u32.to_le_bytes()).then_some(())?;
    let block = 1_u64.checked_shl(u32::try_from(little::<4>(bytes, 1024 + 16)?).ok()?)?;
    let label = bytes.array_at::<1024>(1024 + 124)?;
    let units = label.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(FileSystem {
        kind: "f2fs",
        variant: None,
        label: String::from_utf16_lossy(&units),
        uuid: uuid(bytes, 1024 + 108),
        size: little::<8>(bytes, 1024 + 36)?.checked_mul(block)?,
        used: None,
    })
}

/// Linux, fs/erofs/erofs_fs.h: struct erofs_super_block.
fn erofs(bytes: &Window) -> Option<FileSystem> {
    bytes.has(1024, &0xe0f5_e1e2_u32.to_le_bytes()).then_some(())?;
    let block = 1_u64.checked_shl(u32::try_from(little::<1>(bytes, 1024 + 12)?).ok()?)?;
    let size = little::<4>(bytes, 1024 + 36)?.checked_mul(block)?;
    Some(FileSystem {
        kind: "erofs",
        variant: None,
        label: text::<16>(bytes, 1024 + 64),
        uuid: uuid(bytes, 1024 + 48),
        size,
        used: Some(size),
    })
}

/// Linux, fs/squashfs/squashfs_fs.h: struct squashfs_super_block.
fn squashfs_says(bytes: &Window) -> Option<FileSystem> {
    squashfs::is_squashfs(bytes).then_some(())?;
    let names = ["gzip", "lzma", "lzo", "xz", "lz4", "zstd"];
    let compression = usize::try_from(little::<2>(bytes, 20)?).ok()?.checked_sub(1);
    let size = little::<8>(bytes, 40)?;
    Some(FileSystem {
        kind: "squashfs",
        variant: compression.and_then(|index| Some((*names.get(index)?).to_owned())),
        size,
        used: Some(size),
        ..FileSystem::default()
    })
}

/// Linux, include/linux/swap.h: union swap_header, of pages of 4 KiB.
fn swap(bytes: &Window) -> Option<FileSystem> {
    bytes.has(4086, b"SWAPSPACE2").then_some(())?;
    Some(FileSystem {
        kind: "swap",
        variant: None,
        label: text::<16>(bytes, 1024 + 28),
        uuid: uuid(bytes, 1024 + 12),
        size: (little::<4>(bytes, 1024 + 4)? + 1) * 4096,
        used: None,
    })
}

/// veritysetup's header (cryptsetup wiki, "DMVerity").
fn verity(bytes: &Window) -> Option<FileSystem> {
    bytes.has(0, b"verity\0\0").then_some(())?;
    Some(FileSystem { kind: "verity", uuid: uuid(bytes, 16), size: bytes.len(), ..FileSystem::default() })
}

/// LUKS, both versions: their headers agree on where the UUID is, as text.
fn luks(bytes: &Window) -> Option<FileSystem> {
    bytes.has(0, b"LUKS\xba\xbe").then_some(())?;
    let version = u16::from_be_bytes(bytes.array_at(6)?);
    let (variant, uuid) = (Some(format!("version {version}")), text::<40>(bytes, 168));
    Some(FileSystem { kind: "luks", variant, uuid, size: bytes.len(), ..FileSystem::default() })
}

fn lvm(bytes: &Window) -> Option<FileSystem> {
    bytes.has(512, b"LABELONE").then_some(())?;
    Some(FileSystem { kind: "lvm", uuid: text::<32>(bytes, 512 + 32), size: bytes.len(), ..FileSystem::default() })
}

fn iso_says(bytes: &Window) -> Option<FileSystem> {
    iso::is_iso(bytes).then_some(())?;
    let size = little::<4>(bytes, 16 * 2048 + 80)? * 2048;
    let date = text::<17>(bytes, 16 * 2048 + 830);
    // What udev takes for a UUID: the date of modification.
    let uuid = match date.len() >= 16 && date.bytes().take(16).all(|byte| byte.is_ascii_digit()) {
        true => {
            [&date[..4], &date[4..6], &date[6..8], &date[8..10], &date[10..12], &date[12..14], &date[14..16]].join("-")
        }
        false => String::new(),
    };
    Some(FileSystem {
        kind: "iso9660",
        variant: None,
        label: text::<32>(bytes, 16 * 2048 + 40),
        uuid,
        size,
        used: Some(size),
    })
}

/// Whether a name is that of a file that holds a file system: of live images.
pub(super) fn may_hold_one(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["squashfs", "erofs", "ext4", "img"].iter().any(|known| extension == *known))
}
