//! XFS, by mkfs.xfs from a prototype file.
//!
//! Prototypes know neither dates nor sticky bits, nor owners beyond the signed range, and mkfs.xfs
//! dates inodes by the clock and numbers their generations at random. So each file gets its number in
//! the tree for an owner, and by that its inode is found and set right afterwards.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};

use super::walk::{self, Census, Entry};
use super::{Request, sparse, xfs_inodes};

/// mkfs.xfs makes nothing smaller (since 5.19).
const SMALLEST: u64 = 300 << 20;
/// Longest target of a symbolic link.
const LONGEST_TARGET: u64 = 1023;
const BLOCK: u64 = 4096;
const INODE_SIZE: u64 = 512;

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    let needed = minimum(request)?;
    if request.length < SMALLEST {
        return Err(request.too_small(needed).into());
    }
    let entries = walk::entries(request.tree)?;
    check(request, &entries)?;
    let contents = request.contents;
    let path = request.scratch_file()?;
    let sector = format!("size={}", request.sector_size);
    let mut argv: Vec<String> = ["mkfs.xfs", "-q", "-K", "-s", &sector].map(String::from).into();
    argv.extend(["-m".into(), format!("uuid={}", contents.uuid)]);
    if !contents.label.is_empty() {
        argv.extend(["-L".into(), contents.label.clone()]);
    }
    argv.extend(contents.features.iter().flat_map(|feature| ["-m".into(), feature.clone()]));
    let prototype = request.scratch.join("prototype");
    let mut tree = request.tree.clone();
    // Newer ones keep holes.
    for (number, swap) in walk::swap_files(&entries)?.into_iter().enumerate() {
        let whole = request.scratch.join(format!("swap-{number}"));
        let copied = File::open(&swap.source).and_then(|from| sparse::copy_whole(&from, &File::create(&whole)?));
        copied.with_context(|| format!("copying {}", swap.shown()))?;
        tree.replaced.push((swap.path.clone(), whole));
    }
    let filled = Request { tree: &tree, ..*request };
    if !entries.is_empty() {
        std::fs::write(&prototype, describe(request, &entries)?).context("writing the prototype")?;
        argv.extend(["-p".into(), prototype.display().to_string()]);
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv.push(path.display().to_string());
    if let Err(error) = request.run(&filled.tool(argv)) {
        return Err(request.perhaps_too_small(needed, error));
    }
    let whole = xfs_inodes::settle(&path, &entries, request.epoch).unwrap_or(false);
    if !whole {
        // Up to 6.12 at least, what does not fit into one extent is written over whatever follows.
        return Err(request
            .fault("mkfs.xfs has damaged it, which it does when a file is larger than any free space in one piece")
            .hint("make the partition larger, or use `strategy: mounted` or another file system")
            .into());
    }
    request.take(&path)
}

/// A bit more than the tree wants: what the allocation groups keep for themselves follows from
/// options that nobody gives here.
pub(super) fn minimum(request: &Request<'_>) -> Result<u64> {
    let census = Census::of(request.tree)?;
    // mkfs.xfs writes holes out.
    let files: u64 = census.files.iter().map(|file| file.length.next_multiple_of(BLOCK)).sum();
    let names = |names: &Vec<usize>| {
        names.iter().map(|name| 24 + *name as u64).sum::<u64>().next_multiple_of(BLOCK) + 2 * BLOCK
    };
    let directories: u64 = census.directories.iter().map(names).sum();
    let links = census.links.len() as u64 * BLOCK;
    let used = files + directories + links + census.inodes * INODE_SIZE * 5 / 4;
    let log = 64 << 20;
    Ok((used + used / 50 + log + (8 << 20)).max(SMALLEST).next_multiple_of(BLOCK))
}

/// Refuses what a prototype cannot say.
fn check(request: &Request<'_>, entries: &[Entry]) -> Result<()> {
    let mut linked = HashSet::new();
    for entry in entries {
        let kind = entry.meta.file_type();
        let name = entry.path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        let blank = |bytes: &[u8]| bytes.iter().any(|byte| b" \t\n".contains(byte));
        let attributes = walk::attributes(&entry.source)?;
        let target = || std::fs::read_link(&entry.source).map(|target| target.into_os_string());
        let why = if let Some((name, _)) = attributes.first() {
            format!("it has the attribute {}", name.display())
        } else if blank(name) {
            "its name has a space".into()
        } else if name.starts_with(b":") || name == b"$" {
            "its name means something else to mkfs.xfs".into()
        } else if kind.is_symlink() && blank(target()?.as_bytes()) {
            "it is a link to a name that has a space".into()
        } else if kind.is_symlink() && entry.meta.len() > LONGEST_TARGET {
            "it is a link whose target is longer than XFS takes".into()
        } else if kind.is_socket() {
            "it is a socket".into()
        } else if !kind.is_dir() && entry.meta.nlink() > 1 && !linked.insert((entry.meta.dev(), entry.meta.ino())) {
            "it is a hard link to another file".into()
        } else {
            continue;
        };
        return Err(request
            .fault(format!("`{}` cannot be on an XFS that is made without a device: {why}", entry.shown()))
            .hint("`strategy: mounted` fills XFS through the kernel; ext4 and erofs keep everything offline too")
            .into());
    }
    Ok(())
}

/// The prototype (mkfs.xfs(8), `-p`).
fn describe(request: &Request<'_>, entries: &[Entry]) -> Result<String> {
    let top = request.top()?;
    let mut text = String::from("-\n0 0\n");
    let mut open: Vec<&Path> = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        while open.last().is_some_and(|directory| entry.path.parent() != Some(directory)) {
            open.pop();
            text += "$\n";
        }
        let (kind, meta) = (entry.meta.file_type(), &entry.meta);
        let rest = if kind.is_dir() {
            open.push(&entry.path);
            "d".to_owned()
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&entry.source).with_context(|| format!("reading {}", entry.shown()))?;
            format!("l {}", target.to_str().with_context(|| format!("reading {}", entry.shown()))?)
        } else if kind.is_char_device() || kind.is_block_device() {
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            format!("{} {major} {minor}", if kind.is_char_device() { "c" } else { "b" })
        } else if kind.is_fifo() {
            "p".into()
        } else {
            format!("- {}", top.join(&entry.path).display())
        };
        let (letter, rest) = rest.split_at(1);
        let name = match entry.path.file_name() {
            Some(name) => format!("{} ", name.to_str().with_context(|| format!("{} is not UTF-8", entry.shown()))?),
            None => String::new(),
        };
        let _ = writeln!(text, "{name}{letter}--{:03o} {} 0{rest}", meta.mode() & 0o777, xfs_inodes::owner(number));
    }
    open.iter().for_each(|_| text += "$\n");
    Ok(text)
}
