//! F2FS, by mkfs.f2fs and sload.f2fs.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::walk::{self, Census, Entry};
use super::{Request, compression};

const BLOCK: u64 = 4096;
/// Where the two superblocks lie, and what of them matters (`struct f2fs_super_block` of the kernel's
/// include/linux/f2fs_fs.h).
const SUPERBLOCKS: [u64; 2] = [1024, BLOCK + 1024];
const MAGIC: u32 = 0xf2f5_2010;
const SEGMENT_BITS: usize = 20;
const BLOCKS: usize = 36;
const MAIN: usize = 92;
const ROOT: usize = 96;
/// Two texts of the kernel that the file system was made with.
const VERSIONS: std::ops::Range<usize> = 1668..1668 + 512;
const FEATURES: usize = VERSIONS.end;
const HAS_CHECKSUMS: u32 = 0x20 | 0x800;
/// sload.f2fs writes owners with 16 bits.
const LARGEST_OWNER: u32 = 0xffff;
/// What mkfs.f2fs takes for itself beside the contents, roughly.
const OVERHEAD: u64 = 80 << 20;

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    let entries = walk::entries(request.tree)?;
    check(request, &entries)?;
    // sload.f2fs may cut a file off and say nothing where there is no room for it.
    let needed = minimum(request)?;
    if needed > request.length {
        return Err(request.too_small(needed).into());
    }
    let contents = request.contents;
    let path = request.scratch_file()?;
    let image = path.display().to_string();
    let mut features = contents.features.clone();
    if contents.compression.is_some() {
        features.extend(["extra_attr".into(), "compression".into()]);
    }
    let (epoch, sector) = (request.epoch.to_string(), request.sector_size.to_string());
    // -r: numbers that are not random.
    let mut argv: Vec<String> =
        ["mkfs.f2fs", "-q", "-f", "-r", "-U", &contents.uuid, "-T", &epoch, "-w", &sector].map(String::from).into();
    if !contents.label.is_empty() {
        argv.extend(["-l".into(), contents.label.clone()]);
    }
    if !features.is_empty() {
        argv.extend(["-O".into(), features.join(",")]);
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv.push(image.clone());
    request.run(&request.tool(argv))?;
    if let Some(top) = &request.tree.top {
        let top = top.display().to_string();
        let mut argv: Vec<String> = ["sload.f2fs", "-f", &top, "-t", "/", "-P"].map(String::from).into();
        // Every file's date, or the same for all: so where one is too young.
        if entries.iter().any(|entry| entry.meta.mtime() > request.epoch) {
            argv.extend(["-T".into(), epoch]);
        }
        if let Some(wanted) = &contents.compression {
            let (name, _) = compression::parts(wanted);
            argv.extend(["-c".into(), "-a".into(), name.to_uppercase()]);
        }
        argv.push(image);
        request.run(&request.tool(argv))?;
    }
    settle(&path, entries.first(), request.epoch).context("writing its superblock")?;
    request.take(&path)
}

pub(super) fn minimum(request: &Request<'_>) -> Result<u64> {
    let census = Census::of(request.tree)?;
    let files: u64 = census.files.iter().map(|file| file.length.next_multiple_of(BLOCK)).sum();
    let directories: u64 = census.directories.iter().map(|names| names.len() as u64 * 40 + 2 * BLOCK).sum();
    // An inode takes a block, and so do a thousand of its blocks.
    let used = files + files / 900 + directories + (census.inodes + census.links.len() as u64) * BLOCK;
    // What is kept free for cleaning grows with the root of the size.
    Ok((used + used / 10 + OVERHEAD).next_multiple_of(2 << 20))
}

/// Refuses what sload.f2fs leaves away.
fn check(request: &Request<'_>, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let kind = entry.meta.file_type();
        let why = if kind.is_char_device() || kind.is_block_device() {
            "it is a device node".to_owned()
        } else if kind.is_fifo() || kind.is_socket() {
            "it is a pipe or a socket".into()
        } else if let Some((name, _)) = walk::attributes(&entry.source)?.first() {
            format!("it has the attribute {}", name.display())
        } else if entry.meta.uid().max(entry.meta.gid()) > LARGEST_OWNER && entry.path != Path::new("") {
            format!("its owner or group is larger than {LARGEST_OWNER}")
        } else {
            continue;
        };
        return Err(request
            .fault(format!("`{}` cannot be on an F2FS that is made without a device: {why}", entry.shown()))
            .hint("`strategy: mounted` fills F2FS through the kernel; ext4 and erofs keep everything offline too")
            .into());
    }
    Ok(())
}

/// Takes the builder's kernel out, and gives the top directory its owner, mode and date.
fn settle(path: &Path, top: Option<&Entry>, epoch: i64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = vec![0; 3072];
    for at in SUPERBLOCKS {
        file.read_exact_at(&mut bytes, at)?;
        ensure!(number(&bytes, 0) == MAGIC, "there is no F2FS");
        ensure!(number(&bytes, FEATURES) & HAS_CHECKSUMS == 0, "its features have checksums, which are not known here");
        file.write_all_at(&vec![0; VERSIONS.len()], at + VERSIONS.start as u64)?;
    }
    let Some(Entry { meta, .. }) = top else { return Ok(()) };
    let mut inode = [0; 72];
    let at = root(&file, &bytes)?;
    file.read_exact_at(&mut inode, at)?;
    inode[..2].copy_from_slice(&(meta.mode() as u16).to_le_bytes());
    inode[4..8].copy_from_slice(&meta.uid().to_le_bytes());
    inode[8..12].copy_from_slice(&meta.gid().to_le_bytes());
    let date = meta.mtime().min(epoch).to_le_bytes();
    for time in [32, 40, 48] {
        inode[time..time + 8].copy_from_slice(&date);
    }
    inode[56..68].fill(0);
    Ok(file.write_all_at(&inode, at)?)
}

/// Where the root's inode lies: mkfs.f2fs puts it at the beginning of a segment, and a block of nodes
/// ends with the inode's number, twice.
fn root(file: &File, superblock: &[u8]) -> Result<u64> {
    let segment = BLOCK << number(superblock, SEGMENT_BITS);
    let (main, end) = (u64::from(number(superblock, MAIN)) * BLOCK, u64::from(number(superblock, BLOCKS)) * BLOCK);
    let root = number(superblock, ROOT).to_le_bytes();
    let mut found = Vec::new();
    for at in (main..end).step_by(segment as usize) {
        let mut footer = [0; 8];
        file.read_exact_at(&mut footer, at + BLOCK - 24)?;
        if footer[..4] == root && footer[4..] == root {
            found.push(at);
        }
    }
    ensure!(found.len() == 1, "its top directory is not where it is expected");
    Ok(found[0])
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
