//! FAT12, FAT16 and FAT32: made by mkfs.vfat and filled here.
//!
//! mtools would date entries by the clock and take one process for each directory; the crate fatfs
//! cannot open FAT32 file systems below 32 MB, which boot partitions often are. To fill an empty FAT
//! takes one pass: files lie one behind the other, unfragmented, in the order of their names.

mod names;
mod volume;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::walk::{self, Entry};
use super::{FilesystemKind, Request};
use crate::diagnostics::Fault;
use names::Short;
use volume::{ENTRY, Volume, write_sparsely};

/// Entries of the root directory of FAT12 and FAT16, as mkfs.vfat makes it.
const ROOT_ENTRIES: u64 = 512;
/// Entries of a directory at most: 2 MiB.
const MOST_ENTRIES: u64 = 65536;
/// Fewer clusters make a FAT16 of it for those who count them, as the specification has it.
const FAT32_CLUSTERS: u64 = 65525;
/// Clusters that mkfs.vfat makes at most.
const MOST_FAT12: u64 = 4084;
const MOST_FAT16: u64 = 65524;
/// Sectors of a track at most.
const MOST_TRACK: u64 = 63;
/// Sectors that a cluster can have.
const PER_CLUSTER: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// From this size on mkfs.vfat chooses FAT32 (mkfs.fat.c of dosfstools 4.2).
const LARGE: u64 = 512 << 20;
/// Up to this size its clusters of 4 sectors are few enough for FAT12.
const SMALL: u64 = 8 << 20;

/// The kind of FAT that mkfs.vfat chooses for a size in bytes.
pub fn fat_for(bytes: u64) -> FilesystemKind {
    match bytes {
        LARGE.. => FilesystemKind::Fat32,
        0..=SMALL => FilesystemKind::Fat12,
        _ => FilesystemKind::Fat16,
    }
}

/// Bytes of the smallest FAT32 that is one for everybody.
pub fn smallest_fat32(sector_size: u32) -> u64 {
    let sector = u64::from(sector_size);
    let fat = ((FAT32_CLUSTERS + 2) * 4).next_multiple_of(sector);
    32 * sector + 2 * fat + FAT32_CLUSTERS * sector
}

/// A directory that is to be written.
struct Directory {
    name: String,
    modified: i64,
    children: Vec<Node>,
}

enum Node {
    File { name: String, source: PathBuf, length: u64, modified: i64 },
    Directory(Directory),
}

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    let root = read_tree(request)?;
    let formatted = format(request, &root)?;
    request.take(&formatted)?;
    let image = request.open_image()?;
    let mut volume = Volume::open(&image, request.offset)?;
    let fixed = volume.fixed_root.is_some();
    let used = root.clusters(&volume, fixed, 0);
    let needed = volume.length_with(used);
    let root_full = volume.fixed_root.is_some_and(|(_, entries)| root.entries(true) > entries);
    if used > volume.clusters || root_full {
        return Err(request.too_small(needed.max(minimum_of(request, &root))).into());
    }
    fill(request, &image, &mut volume, &root)
}

pub(super) fn minimum(request: &Request<'_>) -> Result<u64> {
    Ok(minimum_of(request, &read_tree(request)?))
}

/// Makes the empty file system in the scratch directory.
fn format(request: &Request<'_>, root: &Directory) -> Result<PathBuf> {
    let contents = request.contents;
    let path = request.scratch_file()?;
    let bits = bits(contents.kind).to_string();
    let hidden = (request.offset / u64::from(request.sector_size)).to_string();
    let sector = request.sector_size.to_string();
    let id = contents.uuid.replace('-', "");
    let mut argv: Vec<String> =
        ["mkfs.vfat", "--invariant", "-i", &id, "-F", &bits, "-S", &sector, "-h", &hidden].map(String::from).into();
    if !contents.label.is_empty() {
        argv.extend(["-n".into(), contents.label.clone()]);
    }
    let entries = root.entries(true);
    if bits != "32" && entries > ROOT_ENTRIES {
        argv.extend(["-r".into(), entries.next_multiple_of(u64::from(request.sector_size) / ENTRY).to_string()]);
    }
    if !contents.mkfs_options.iter().any(|option| option.starts_with("-s")) {
        argv.extend(["-s".into(), sectors_per_cluster(request, root, request.length).to_string()]);
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv.push(path.display().to_string());
    request.run(&request.tool(argv))?;
    Ok(path)
}

fn fill(request: &Request<'_>, image: &File, volume: &mut Volume, root: &Directory) -> Result<()> {
    let mut filler = Filler { image, volume };
    // The label is the root's first entry; mkfs.vfat has dated it on its own.
    let at = match filler.volume.fixed_root {
        Some((at, _)) => at,
        None => {
            let clusters = filler.volume.clusters_of(root.entries(true) * ENTRY).max(1);
            let first = filler.volume.allocate_root(clusters)?;
            filler.volume.place(first)
        }
    };
    let mut label = [0; ENTRY as usize];
    image.read_exact_at(&mut label, at)?;
    let mut bytes = Vec::new();
    if label[11] & 0x08 != 0 {
        date(&mut label, request.epoch);
        bytes.extend_from_slice(&label);
    }
    filler.children(root, 0, &mut bytes)?;
    write_sparsely(image, &bytes, at)?;
    volume.finish(image)
}

struct Filler<'a> {
    image: &'a File,
    volume: &'a mut Volume,
}

impl Filler<'_> {
    /// Writes all that is in a directory whose first cluster is `here` (0 for the root), and adds its
    /// entries to `bytes`.
    fn children(&mut self, directory: &Directory, here: u32, bytes: &mut Vec<u8>) -> Result<()> {
        for (node, short) in directory.children.iter().zip(directory.short_names()) {
            names::long_entries(node.name(), &short).iter().for_each(|entry| bytes.extend_from_slice(entry));
            let entry = match node {
                Node::File { source, length, modified, .. } => {
                    let first = self.volume.allocate(self.volume.clusters_of(*length))?;
                    if first != 0 {
                        self.copy(source, *length, self.volume.place(first))
                            .with_context(|| format!("copying {}", source.display()))?;
                    }
                    entry(&short, 0x20, first, *length as u32, *modified)
                }
                Node::Directory(child) => {
                    let size = child.entries(false) * ENTRY;
                    let first = self.volume.allocate(self.volume.clusters_of(size))?;
                    let mut inner = Vec::new();
                    inner.extend_from_slice(&entry(b".          ", 0x10, first, 0, child.modified));
                    inner.extend_from_slice(&entry(b"..         ", 0x10, here, 0, directory.modified));
                    self.children(child, first, &mut inner)?;
                    write_sparsely(self.image, &inner, self.volume.place(first))?;
                    entry(&short, 0x10, first, 0, child.modified)
                }
            };
            bytes.extend_from_slice(&entry);
        }
        Ok(())
    }

    fn copy(&self, source: &Path, length: u64, mut at: u64) -> std::io::Result<()> {
        let mut reader = File::open(source)?.take(length);
        let mut buffer = vec![0; 1 << 20];
        let mut left = length;
        while left > 0 {
            let part = &mut buffer[..left.min(1 << 20) as usize];
            reader.read_exact(part)?;
            write_sparsely(self.image, part, at)?;
            at += part.len() as u64;
            left -= part.len() as u64;
        }
        Ok(())
    }
}

impl Node {
    fn name(&self) -> &str {
        match self {
            Self::File { name, .. } => name,
            Self::Directory(directory) => &directory.name,
        }
    }
}

impl Directory {
    fn short_names(&self) -> Vec<Short> {
        names::short_names(&self.children.iter().map(Node::name).collect::<Vec<_>>())
    }

    /// Entries that it has, with its label (root) or the two that lead to itself and up.
    fn entries(&self, is_root: bool) -> u64 {
        let short = self.short_names();
        let children: usize =
            self.children.iter().zip(&short).map(|(node, short)| names::entries(node.name(), short)).sum();
        children as u64 + if is_root { 1 } else { 2 }
    }

    /// Clusters of all that is in it, and its own unless it is a root of fixed size.
    fn clusters(&self, volume: &Volume, fixed: bool, depth: u32) -> u64 {
        let own = if fixed { 0 } else { volume.clusters_of(self.entries(depth == 0) * ENTRY).max(1) };
        let children = self.children.iter().map(|node| match node {
            Node::File { length, .. } => volume.clusters_of(*length),
            Node::Directory(directory) => directory.clusters(volume, false, depth + 1),
        });
        own + children.sum::<u64>()
    }

    /// Bytes of all that is in it, in clusters of this size.
    fn bytes(&self, cluster: u64) -> u64 {
        let children = self.children.iter().map(|node| match node {
            Node::File { length, .. } => length.next_multiple_of(cluster),
            Node::Directory(directory) => directory.bytes(cluster),
        });
        (self.entries(false) * ENTRY).next_multiple_of(cluster) + children.sum::<u64>()
    }
}

/// Reads a tree, and refuses what FAT cannot hold.
fn read_tree(request: &Request<'_>) -> Result<Directory> {
    let epoch = request.epoch;
    let mut root = Directory { name: String::new(), modified: epoch, children: Vec::new() };
    // Directories that are open, outermost first: an entry belongs to the last.
    let mut open: Vec<(PathBuf, Directory)> = Vec::new();
    let close = |open: &mut Vec<(PathBuf, Directory)>, root: &mut Directory| {
        if let Some((_, directory)) = open.pop() {
            let parent = open.last_mut().map_or(root, |(_, parent)| parent);
            parent.children.push(Node::Directory(directory));
        }
    };
    for entry in walk::entries(request.tree)? {
        let modified = entry.meta.mtime().min(epoch);
        let Some(name) = entry.path.file_name() else {
            root.modified = modified;
            continue;
        };
        while open.last().is_some_and(|(path, _)| entry.path.parent() != Some(path)) {
            close(&mut open, &mut root);
        }
        let name = name.to_str().ok_or_else(|| refused(request, &entry, "its name is not UTF-8"))?.to_owned();
        if let Some(why) = names::fault(&name) {
            return Err(refused(request, &entry, &why).into());
        }
        if entry.meta.is_dir() {
            open.push((entry.path.clone(), Directory { name, modified, children: Vec::new() }));
            continue;
        }
        let file = file(request, &entry, name, modified)?;
        open.last_mut().map_or(&mut root, |(_, directory)| directory).children.push(file);
    }
    while !open.is_empty() {
        close(&mut open, &mut root);
    }
    check(request, &root, Path::new("/"))?;
    Ok(root)
}

fn file(request: &Request<'_>, entry: &Entry, name: String, modified: i64) -> Result<Node> {
    let kind = entry.meta.file_type();
    if kind.is_symlink() {
        return Err(refused(request, entry, "FAT has no symbolic links").into());
    }
    if !kind.is_file() {
        let what = if kind.is_fifo() || kind.is_socket() { "pipes or sockets" } else { "device nodes" };
        return Err(refused(request, entry, &format!("FAT has no {what}")).into());
    }
    let length = entry.meta.len();
    if length > u64::from(u32::MAX) {
        return Err(refused(request, entry, "files on FAT are smaller than 4 GiB").into());
    }
    Ok(Node::File { name, source: entry.source.clone(), length, modified })
}

fn refused(request: &Request<'_>, entry: &Entry, why: &str) -> Fault {
    request
        .fault(format!("`{}` cannot be on FAT: {why}", entry.shown()))
        .hint("remove or rename the file in a step before, or use another file system for that directory")
}

/// Refuses names that differ in nothing but their case, and directories that are too large.
fn check(request: &Request<'_>, directory: &Directory, path: &Path) -> Result<()> {
    let mut seen = BTreeMap::new();
    for node in &directory.children {
        if let Some(other) = seen.insert(names::folded(node.name()), node.name()) {
            let [a, b] = [other, node.name()].map(|name| path.join(name).display().to_string());
            return Err(request
                .fault(format!("`{a}` and `{b}` cannot both be on FAT, to which they are one name"))
                .hint("remove or rename one of them in a step before")
                .into());
        }
        if let Node::Directory(child) = node {
            check(request, child, &path.join(&child.name))?;
        }
    }
    if directory.entries(false) > MOST_ENTRIES {
        let path = path.display();
        return Err(request
            .fault(format!("`{path}` cannot be on FAT: a directory on FAT has at most 65536 entries"))
            .into());
    }
    Ok(())
}

/// Bytes of a file system that a tree fills.
fn minimum_of(request: &Request<'_>, root: &Directory) -> u64 {
    let sector = u64::from(request.sector_size);
    let given = request.contents.mkfs_options.iter().position(|option| option == "-s");
    let given = given.and_then(|at| request.contents.mkfs_options.get(at + 1)?.parse::<u64>().ok());
    let (least, most) = match bits(request.contents.kind) {
        12 => (16, MOST_FAT12),
        16 => (MOST_FAT12 + 3, MOST_FAT16),
        _ => (FAT32_CLUSTERS + 16, u64::MAX),
    };
    let sizes = PER_CLUSTER.into_iter().filter(|size| given.is_none_or(|given| given == *size));
    for per_cluster in sizes {
        let cluster = sector * per_cluster;
        let clusters = (root.bytes(cluster).div_ceil(cluster) + 1).max(least);
        let total = own_bytes(request, root, cluster, clusters) + clusters * cluster;
        // At this size the same cluster size has to be chosen.
        if clusters <= most && (given.is_some() || per_cluster == sectors_per_cluster(request, root, total)) {
            return total.next_multiple_of(4096);
        }
    }
    u64::MAX
}

/// Bytes beside the clusters, aligned as mkfs.vfat aligns them, with the cluster that this may cost and
/// the sectors that it leaves at the end because they fill no track.
fn own_bytes(request: &Request<'_>, root: &Directory, cluster: u64, clusters: u64) -> u64 {
    let sector = u64::from(request.sector_size);
    let bits = bits(request.contents.kind);
    let fat = ((clusters + 2) * bits).div_ceil(8).next_multiple_of(sector).next_multiple_of(cluster);
    let (reserved, entries) =
        if bits == 32 { (32 * sector, 0) } else { (sector, root.entries(true).max(ROOT_ENTRIES) * ENTRY) };
    reserved.next_multiple_of(cluster) + 2 * fat + entries.next_multiple_of(cluster) + cluster + MOST_TRACK * sector
}

/// The smallest clusters with which a FAT12 or FAT16 of this size is one; for FAT32 those that
/// mkfs.vfat chooses.
fn sectors_per_cluster(request: &Request<'_>, root: &Directory, length: u64) -> u64 {
    let sector = u64::from(request.sector_size);
    let most = match bits(request.contents.kind) {
        12 => MOST_FAT12,
        16 => MOST_FAT16,
        _ => {
            return match length.div_ceil(1 << 20) {
                0..=260 => 1,
                261..=8192 => (4096 / sector).max(1),
                8193..=16384 => (8192 / sector).max(1),
                16385..=32768 => (16384 / sector).max(1),
                _ => (32768 / sector).max(1),
            };
        }
    };
    let few_enough = |per_cluster: &u64| {
        let cluster = sector * per_cluster;
        length.saturating_sub(own_bytes(request, root, cluster, most) / 2) / cluster <= most
    };
    PER_CLUSTER.into_iter().find(few_enough).unwrap_or(128)
}

fn bits(kind: FilesystemKind) -> u64 {
    match kind {
        FilesystemKind::Fat12 => 12,
        FilesystemKind::Fat16 => 16,
        _ => 32,
    }
}

/// A directory entry.
fn entry(short: &Short, attributes: u8, cluster: u32, length: u32, modified: i64) -> [u8; ENTRY as usize] {
    let mut entry = [0; ENTRY as usize];
    entry[..11].copy_from_slice(short);
    entry[11] = attributes;
    entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    entry[28..32].copy_from_slice(&length.to_le_bytes());
    date(&mut entry, modified);
    entry
}

/// Sets an entry's times of creation, access and modification, in UTC; FAT begins in 1980 and ends in
/// 2107.
fn date(entry: &mut [u8; ENTRY as usize], seconds: i64) {
    let seconds = seconds.clamp(315_532_800, 4_354_819_198);
    let Ok(time) = jiff::Timestamp::from_second(seconds).map(|time| jiff::tz::TimeZone::UTC.to_datetime(time)) else {
        return;
    };
    let day = (((time.year() - 1980) as u16) << 9) | ((time.month() as u16) << 5) | time.day() as u16;
    let clock = ((time.hour() as u16) << 11) | ((time.minute() as u16) << 5) | (time.second() as u16 / 2);
    entry[13] = 0;
    for (at, value) in [(14, clock), (16, day), (18, day), (22, clock), (24, day)] {
        entry[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
}
