//! Btrfs, by `mkfs.btrfs --rootdir`.
//!
//! It takes the order of directories from the host, and before version 6.12 inode numbers too: so it sees
//! the tree through [`Uniform`](crate::sandbox::Uniform), which makes the same bytes of the same tree.

use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};

use super::walk::{self, Census, Entry};
use super::{Request, btrfs_nodes, compression};

const BLOCK: u64 = 4096;
/// What mkfs.btrfs wants at least, and what its chunks leave unused, roughly.
const OVERHEAD: u64 = 200 << 20;

/// What the installed mkfs.btrfs can do.
struct Abilities {
    /// From 6.12 on; by then it knows hard links too.
    subvolumes: bool,
    compression: bool,
}

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    let needed = minimum(request)?;
    let help = request.help("mkfs.btrfs")?;
    let has = |option: &str| help.split([' ', '\n', '\t', '|', ',']).any(|word| word == option);
    let abilities = Abilities { subvolumes: has("--subvol"), compression: has("--compress") };
    let entries = walk::entries(request.tree)?;
    check(request, &entries, &abilities)?;
    let path = request.scratch_file()?;
    let mut argv = arguments(request, &abilities);
    argv.push(path.display().to_string());
    if let Err(error) = request.run(&request.uniform_tool(argv)) {
        return Err(request.perhaps_too_small(needed, error));
    }
    btrfs_nodes::settle(&path, &request.contents.uuid, entries.first(), request.epoch)
        .context("setting its dates and UUIDs")?;
    request.take(&path)
}

pub(super) fn minimum(request: &Request<'_>) -> Result<u64> {
    let census = Census::of(request.tree)?;
    let files: u64 = census.files.iter().map(|file| file.length.next_multiple_of(BLOCK)).sum();
    let names: u64 = census.directories.iter().flatten().map(|name| 2 * (80 + *name as u64)).sum();
    let attributes: u64 = census.attributes.iter().flatten().map(|(name, value)| (60 + name + value) as u64).sum();
    // Metadata is kept twice, in blocks that are half full.
    let metadata = census.inodes * 300 + names + attributes + files / 1000;
    Ok((files + files / 50 + 4 * metadata + OVERHEAD).next_multiple_of(BLOCK))
}

fn arguments(request: &Request<'_>, abilities: &Abilities) -> Vec<String> {
    let contents = request.contents;
    let mut argv: Vec<String> =
        ["mkfs.btrfs", "-q", "-K", "-s", "4096", "--uuid", &contents.uuid].map(String::from).into();
    let mut push = |name: &str, value: String| argv.extend([name.into(), value]);
    if !contents.label.is_empty() {
        push("-L", contents.label.clone());
    }
    if !contents.features.is_empty() {
        push("-O", contents.features.join(","));
    }
    if let Some(top) = &request.tree.top {
        push("--rootdir", top.display().to_string());
        for (_, path) in &request.tree.subvolumes {
            push("--subvol", format!("rw:{}", path.display()));
        }
        match &contents.compression {
            Some(wanted) if abilities.compression => {
                let (name, level) = compression::parts(wanted);
                push("--compress", level.map_or_else(|| name.into(), |level| format!("{name}:{level}")));
            }
            Some(_) => request.tools.progress("this mkfs.btrfs does not compress: what is written later will be"),
            None => {}
        }
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv
}

/// Refuses what the installed mkfs.btrfs would make something else of.
fn check(request: &Request<'_>, entries: &[Entry], abilities: &Abilities) -> Result<()> {
    let mounted = "`strategy: mounted` fills btrfs through the kernel";
    let newer = "btrfs-progs 6.12 and newer can (Debian 13)";
    let subvolumes = || request.contents.subvolumes.iter();
    if let Some(name) = subvolumes().next().filter(|_| !abilities.subvolumes) {
        let why = format!("the installed mkfs.btrfs cannot make the subvolume `{name}`");
        return Err(request.fault(why).hint(newer).hint(mounted).into());
    }
    // It makes subvolumes of directories where they are; it cannot give them another name.
    let in_place = |name: &String| {
        request.tree.subvolumes.iter().any(|(other, path)| other == name && Path::new(name) == path.as_path())
    };
    if let Some(name) = subvolumes().find(|name| !in_place(name)) {
        let why = format!("the subvolume `{name}` has another name than the directory it is mounted on");
        return Err(request.fault(why).hint(mounted).into());
    }
    if let Some(entry) = walk::swap_files(entries)?.first() {
        let why =
            format!("`{}` is swap space, of which mkfs.btrfs makes a file that the kernel refuses", entry.shown());
        return Err(request.fault(why).hint(mounted).hint("or give swap a partition of its own").into());
    }
    let device = |entry: &&Entry| entry.meta.file_type().is_char_device() || entry.meta.file_type().is_block_device();
    if let Some(entry) = entries.iter().find(device) {
        let why = format!("`{}` is a device node, whose numbers mkfs.btrfs loses", entry.shown());
        return Err(request.fault(why).hint(mounted).into());
    }
    let mut linked = HashSet::new();
    let second = |entry: &&Entry| {
        let meta = &entry.meta;
        !meta.is_dir() && meta.nlink() > 1 && !linked.insert((meta.dev(), meta.ino()))
    };
    if abilities.subvolumes {
        return Ok(());
    }
    if let Some(entry) = entries.iter().find(second) {
        let why = format!("`{}` is a hard link, of which the installed mkfs.btrfs makes a damaged file", entry.shown());
        return Err(request.fault(why).hint(newer).hint(mounted).into());
    }
    Ok(())
}
