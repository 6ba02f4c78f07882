//! What `mke2fs -d` makes something else of, mended by debugfs: swap files, which get holes where there are zeros,
//! symbolic links that have several names, of which each name becomes a link of its own, and what chattr(1) has set.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::walk::{self, Entry};
use super::{Request, Tree};
use crate::diagnostics::Fault;
use crate::sys::file::{flags, protection_flags};

/// What the file system has to say of a file in the end.
enum Wanted {
    /// Bytes that are its own on the disk.
    Allocated(u64),
    /// Its names, and the number of the first of them among all that is asked for.
    Links(u64, usize),
    /// No more than its inode, for flags.
    Flags(u32),
}

/// Flags of inodes by their numbers, to be set beside those that they have.
pub(super) type Flags = BTreeMap<u64, u32>;

/// Those that a file keeps: synchronous (S), no dump (d), no dates of access (A), synchronous directory (D), top of
/// directories (T). What says how its data are kept is the file system's own business, and what protects a file the
/// tree says itself.
const KEPT: u32 = 0x8 | 0x40 | 0x80 | 0x1_0000 | 0x2_0000;

/// What debugfs says of a file.
struct Told {
    inode: u64,
    links: u64,
    sectors: u64,
}

/// Mends what was made; flags are left to be set.
pub(super) fn amend(request: &Request<'_>) -> Result<Flags> {
    let entries = walk::entries(request.tree)?;
    let swap_files = walk::swap_files(&entries)?;
    let links = linked_links(&entries);
    let flagged = flagged(&entries, request.tree)?;
    if swap_files.is_empty() && links.is_empty() && flagged.is_empty() {
        return Ok(Flags::new());
    }
    let block = block_size(request)?;
    let mut commands = String::new();
    let mut wanted = Vec::new();
    for file in swap_files {
        let name = quoted(file)?;
        commands += &format!("fallocate {name} 0 {}\nstat {name}\n", file.meta.len().div_ceil(block) - 1);
        wanted.push((file, Wanted::Allocated(file.meta.len())));
    }
    for names in &links {
        let (first, count) = (quoted(names[0])?, names.len() as u64);
        for other in &names[1..] {
            let other = quoted(other)?;
            // Its inode becomes zeros: it would else say when it was deleted.
            commands += &format!("kill_file {other}\nclri {other}\nunlink {other}\nln {first} {other}\n");
        }
        commands += &format!("set_inode_field {first} links_count {count}\n");
        let number = wanted.len();
        for name in names {
            commands += &format!("stat {}\n", quoted(name)?);
            wanted.push((name, Wanted::Links(count, number)));
        }
    }
    for (entry, flags) in flagged {
        commands += &format!("stat {}\n", quoted(entry)?);
        wanted.push((entry, Wanted::Flags(flags)));
    }
    let told = run(request, commands)?;
    let mut all = Flags::new();
    for (number, (entry, wanted)) in wanted.iter().enumerate() {
        let has = |number: usize| told.get(number).and_then(Option::as_ref);
        let is = match wanted {
            Wanted::Flags(flags) => has(number).is_some_and(|file| {
                all.insert(file.inode, *flags);
                true
            }),
            Wanted::Allocated(bytes) => has(number).is_some_and(|file| file.sectors * 512 >= *bytes),
            Wanted::Links(count, first) => has(number)
                .zip(has(*first))
                .is_some_and(|(name, first)| name.inode == first.inode && name.links == *count),
        };
        if !is {
            return Err(fault(request, entry, wanted));
        }
    }
    Ok(all)
}

/// Files that have flags, one name of each.
fn flagged<'a>(entries: &'a [Entry], tree: &Tree) -> Result<Vec<(&'a Entry, u32)>> {
    let of = |entry: &&Entry| -> Result<Option<u32>> {
        let kind = entry.meta.file_type();
        if !kind.is_file() && !kind.is_dir() {
            return Ok(None);
        }
        let file = File::open(&entry.source).and_then(|file| flags(file.as_fd()));
        let found = file.with_context(|| format!("reading the flags of {}", entry.source.display()))?;
        let protection = tree.protected.get(&entry.path).map_or(0, |letters| protection_flags(letters));
        let all = found.unwrap_or_default() & KEPT | protection;
        Ok((all != 0).then_some(all))
    };
    let mut seen = HashSet::new();
    let entries: Vec<&Entry> = entries.iter().collect();
    let found = entries.par_iter().map(of).collect::<Result<Vec<_>>>()?;
    let found = entries.into_iter().zip(found).filter_map(|(entry, flags)| Some((entry, flags?)));
    Ok(found.filter(|(entry, _)| seen.insert((entry.meta.dev(), entry.meta.ino()))).collect())
}

fn fault(request: &Request<'_>, entry: &Entry, wanted: &Wanted) -> anyhow::Error {
    let shown = entry.shown();
    match wanted {
        Wanted::Allocated(_) => request
            .fault(format!("the swap file {shown} has holes, which the kernel refuses"))
            .hint("make the partition larger; or make the swap file at the first start, or use a partition of its own"),
        Wanted::Links(..) => request
            .fault(format!("{shown} is a symbolic link with several names, which debugfs has not made one file"))
            .hint("make each of them a link of its own"),
        Wanted::Flags(_) => request.fault(format!("debugfs does not find {shown}, which chattr(1) has flags set of")),
    }
    .into()
}

/// Symbolic links that have several names in the tree, all their names.
fn linked_links(entries: &[Entry]) -> Vec<Vec<&Entry>> {
    let mut all: BTreeMap<(u64, u64), Vec<&Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.meta.is_symlink() && entry.meta.nlink() > 1) {
        all.entry((entry.meta.dev(), entry.meta.ino())).or_default().push(entry);
    }
    let mut all: Vec<Vec<&Entry>> = all.into_values().filter(|names| names.len() > 1).collect();
    // By their names: inodes are the host's.
    all.sort_by(|a, b| a[0].path.cmp(&b[0].path));
    all
}

/// Its name as debugfs reads it.
fn quoted(entry: &Entry) -> Result<String> {
    let name = entry.path.to_str().filter(|name| !name.contains('\n')).ok_or_else(|| {
        Fault::failed(format!(
            "debugfs, which mends what mke2fs makes of {:?}, cannot be told this name",
            entry.shown()
        ))
        .hint("give it one without line breaks, in UTF-8")
    })?;
    Ok(format!("\"/{}\"", name.replace('"', "\"\"")))
}

/// Runs commands; what each `stat` among them said. It ends with success whatever becomes of one.
fn run(request: &Request<'_>, commands: String) -> Result<Vec<Option<Told>>> {
    let image = format!("{}?offset={}", request.image.display(), request.offset);
    let mut tool = request.tool(["debugfs", "-w", "-f", "-", &image].map(String::from).into());
    tool = tool.env("E2FSPROGS_FAKE_TIME", request.epoch.max(1).to_string());
    tool.input = Some(commands);
    tool.writable.push(request.image.into());
    let output = request.run(&tool)?;
    Ok(output.split("\nInode: ").skip(1).map(told).collect())
}

fn told(text: &str) -> Option<Told> {
    let after = |name: &str| text.split_once(name)?.1.split_whitespace().next()?.parse().ok();
    let inode = text.split_whitespace().next()?.parse().ok()?;
    Some(Told { inode, links: after("Links: ")?, sectors: after("Blockcount: ")? })
}

/// Bytes of a block of the file system that was made.
fn block_size(request: &Request<'_>) -> Result<u64> {
    let mut field = [0; 4];
    // s_log_block_size (the kernel's Documentation/filesystems/ext4/super.rst).
    request.open_image()?.read_exact_at(&mut field, request.offset + 1024 + 24).context("reading the superblock")?;
    Ok(1024 << u32::from_le_bytes(field))
}
