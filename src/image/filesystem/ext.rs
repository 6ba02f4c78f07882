//! ext2, ext3 and ext4, by `mke2fs -d`.

use anyhow::{Context, Result};

use super::walk::{self, Census};
use super::{Contents, FilesystemKind, Request, ext_amend, ext_inodes};

/// Features and sizes that do not depend on the host's /etc/mke2fs.conf, which differs between
/// releases: an image for bookworm that is made on trixie would else have features that bookworm's
/// GRUB cannot read.
const CONFIGURATION: &str = "\
[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext2 = {
	}
	ext3 = {
		features = has_journal
	}
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
	floppy = {
	}
	small = {
	}
	big = {
	}
	huge = {
	}
";

/// Bytes for an inode that the file system has, unless the tree wants more of them.
const INODE_RATIO: u64 = 16384;
/// Bytes of an inode.
const INODE_SIZE: u64 = 256;
/// Inodes that no file of a tree gets: ten special ones and lost+found.
const RESERVED_INODES: u64 = 11;
/// File systems below this size have blocks of 1024 bytes. Larger ones may be grown to a card of any
/// size, which small blocks make slow.
const SMALL: u64 = 32 << 20;

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    let contents = request.contents;
    let rough = Census::rough(request.tree)?;
    let census = if is_roomy(contents, &rough, request.length) { rough } else { Census::of(request.tree)? };
    let block = block_size(contents, &census, request.length, request.sector_size);
    let needed = size(contents, &census, block);
    // What is needed leaves nothing free, not even for root; so less is certain to fail.
    if request.length < unreserved(&census, block) {
        return Err(request.too_small(needed).into());
    }
    let configuration = request.scratch.join("mke2fs.conf");
    std::fs::write(&configuration, CONFIGURATION).context("writing mke2fs.conf")?;
    // Which attributes of a file are in its inode, and which in a block of their own, follows from their order.
    let mut tool = request.attributes_tool(arguments(request, &census, block), &walk::entries(request.tree)?)?;
    tool = tool
        .env("MKE2FS_CONFIG", configuration.display().to_string())
        // 0 stands for no date.
        .env("E2FSPROGS_FAKE_TIME", request.epoch.max(1).to_string());
    tool.writable.push(request.image.into());
    if let Err(error) = request.run(&tool) {
        return Err(request.perhaps_too_small(needed, error));
    }
    std::fs::remove_file(&configuration).context("removing mke2fs.conf")?;
    let flags = ext_amend::amend(request)?;
    ext_inodes::settle(&request.open_image()?, request.offset, request.tree.top.as_deref(), request.epoch, &flags)
}

/// Whether a tree fits with large blocks by far, whatever attributes its files have: then the file system
/// is the same without knowing more of it.
fn is_roomy(contents: &Contents, rough: &Census, length: u64) -> bool {
    let block = given_block_size(contents).unwrap_or(4096);
    length >= SMALL && size(contents, rough, block) + rough.inodes * block <= length
}

pub(super) fn minimum(request: &Request<'_>) -> Result<u64> {
    let contents = request.contents;
    let census = Census::of(request.tree)?;
    let small = size(contents, &census, 1024);
    if small < SMALL && !needs_large_blocks(&census) && request.sector_size <= 1024 && option(contents, "-b").is_none()
    {
        return Ok(small);
    }
    let block = given_block_size(contents).unwrap_or(4096);
    Ok(size(contents, &census, block))
}

fn arguments(request: &Request<'_>, census: &Census, block: u64) -> Vec<String> {
    let contents = request.contents;
    let kind = contents.kind.fstab_type().unwrap_or("ext4");
    // Nothing is lazy that would be left to the first boot; but the journal's blocks are zeros already.
    let mut extended = vec![
        format!("offset={}", request.offset),
        format!("hash_seed={}", contents.uuid),
        "root_owner=0:0".into(),
        "lazy_itable_init=0".into(),
        "lazy_journal_init=1".into(),
    ];
    extended.extend(contents.extended_options.iter().cloned());
    let mut argv: Vec<String> =
        ["mke2fs", "-q", "-F", "-t", kind, "-U", &contents.uuid, "-E", &extended.join(",")].map(String::from).into();
    let mut push = |name: &str, value: String| argv.extend([name.into(), value]);
    if option(contents, "-b").is_none() {
        push("-b", block.to_string());
    }
    let inodes = inodes(census);
    let by_ratio = request.length / INODE_RATIO;
    if ["-N", "-i", "-T"].iter().all(|name| option(contents, name).is_none()) && inodes > by_ratio {
        push("-N", inodes.to_string());
    }
    if !contents.label.is_empty() {
        push("-L", contents.label.clone());
    }
    if !contents.features.is_empty() {
        push("-O", contents.features.join(","));
    }
    if let Some(top) = &request.tree.top {
        push("-d", top.display().to_string());
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv.push(request.image.display().to_string());
    argv.push(format!("{}k", request.length / 1024));
    argv
}

/// The value of an option among the recipe's: `-b 1024` or `-b1024`.
fn option<'a>(contents: &'a Contents, name: &str) -> Option<&'a str> {
    let options = &contents.mkfs_options;
    options.iter().enumerate().find_map(|(index, option)| match option.strip_prefix(name) {
        Some("") => options.get(index + 1).map(String::as_str),
        other => other,
    })
}

fn given_block_size(contents: &Contents) -> Option<u64> {
    option(contents, "-b")?.parse().ok().filter(|size| (1024..=65536).contains(size))
}

fn block_size(contents: &Contents, census: &Census, length: u64, sector: u32) -> u64 {
    if let Some(given) = given_block_size(contents) {
        return given;
    }
    if needs_large_blocks(census) {
        return 4096;
    }
    let smaller = length < SMALL || size(contents, census, 4096) > length;
    if smaller && sector <= 1024 { 1024 } else { 4096 }
}

/// Whether something in a tree has to lie in one block and is too large for a small one.
fn needs_large_blocks(census: &Census) -> bool {
    let attributes = |all: &Vec<(usize, usize)>| all.iter().map(|(name, value)| 24 + name + value).sum::<usize>();
    census.links.iter().any(|length| *length >= 1000) || census.attributes.iter().any(|all| attributes(all) > 900)
}

/// Inodes for a tree, and a few to spare.
fn inodes(census: &Census) -> u64 {
    census.inodes + census.inodes / 10 + RESERVED_INODES + 16
}

/// Bytes that hold a tree, by any account.
fn unreserved(census: &Census, block: u64) -> u64 {
    (content_blocks(census, block, true) + inodes(census) * INODE_SIZE / block) * block
}

/// Blocks of everything that a tree holds.
fn content_blocks(census: &Census, block: u64, extents: bool) -> u64 {
    let files = census.files.iter().map(|file| {
        let data = file.data.div_ceil(block);
        data + if extents { extent_blocks(file.runs, data, block) } else { indirect_blocks(data, block) }
    });
    let directories = census.directories.iter().map(|names| {
        let bytes: u64 = names.iter().map(|name| (8 + *name as u64).next_multiple_of(4)).sum();
        // A name is never split, so that most blocks have a gap at their end.
        (24 + bytes).div_ceil(block - 12 - 24).max(1)
    });
    // Short targets are kept in the inode.
    let links = census.links.iter().filter(|length| **length >= 60).map(|length| length.div_ceil(block));
    let attributes = census.attributes.iter().filter(|all| {
        let bytes: usize =
            all.iter().map(|(name, value)| 16 + name.next_multiple_of(4) + value.next_multiple_of(4)).sum();
        bytes as u64 > INODE_SIZE - 128 - 32 - 8
    });
    let lost_and_found = 16384 / block;
    files.sum::<u64>() + directories.sum::<u64>() + links.sum::<u64>() + attributes.count() as u64 + lost_and_found
}

fn extent_blocks(runs: u64, data: u64, block: u64) -> u64 {
    // Four extents are kept in the inode; a long run is cut where a group's own blocks lie.
    let extents = runs + data / (8 * block) * 2;
    if extents <= 4 { 0 } else { extents.div_ceil(block / 12 - 2) }
}

fn indirect_blocks(data: u64, block: u64) -> u64 {
    let each = block / 4;
    let mut left = data.saturating_sub(12);
    let mut blocks = 0;
    if left > 0 {
        blocks += 1;
        left = left.saturating_sub(each);
    }
    if left > 0 {
        blocks += 2 + left.div_ceil(each);
    }
    blocks
}

/// Bytes of a file system that a tree fills, without a block to spare but those reserved to root.
fn size(contents: &Contents, census: &Census, block: u64) -> u64 {
    let ext4 = contents.kind == FilesystemKind::Ext4;
    let fixed = content_blocks(census, block, ext4);
    let reserved: f64 = option(contents, "-m").and_then(|percent| percent.parse().ok()).unwrap_or(5.0);
    // The file system's own blocks grow with it: a few rounds find where that ends.
    let mut total = fixed;
    for _ in 0..20 {
        let metadata = own_blocks(contents, census, block, total);
        let used = fixed + metadata;
        let next = (used as f64 / (1.0 - reserved.clamp(0.0, 50.0) / 100.0)).ceil() as u64;
        if next <= total {
            break;
        }
        total = next;
    }
    // The last group must be large enough to be kept, or mke2fs leaves it away.
    let in_last = total % (8 * block);
    let smallest = own_blocks(contents, census, block, 8 * block) + 64;
    if total > 8 * block && in_last < smallest {
        total += smallest - in_last;
    }
    (total * block).next_multiple_of(4096)
}

/// Blocks that a file system of this many blocks has for itself.
fn own_blocks(contents: &Contents, census: &Census, block: u64, total: u64) -> u64 {
    let per_group = 8 * block;
    let groups = total.div_ceil(per_group).max(1);
    let descriptor = if contents.kind == FilesystemKind::Ext4 { 64 } else { 32 };
    let descriptors = (groups * descriptor).div_ceil(block);
    // Room to grow a thousandfold (resize_inode), at most as many blocks as one block can name.
    let grown = (groups * 1024 * descriptor).div_ceil(block).min(block / 4 + descriptors);
    // Copies are in groups 0, 1 and the powers of 3, 5 and 7 (sparse_super).
    let copies = (0..groups).filter(|group| has_copy(*group)).count() as u64;
    let inodes = (total * block / INODE_RATIO).max(inodes(census));
    // Each group's table fills whole blocks.
    let tables = (inodes.div_ceil(groups) * INODE_SIZE).div_ceil(block) * groups;
    let first = u64::from(block == 1024);
    first + copies * (1 + grown) + groups * 2 + tables + journal(contents, total) + 8
}

fn has_copy(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || [3, 5, 7].into_iter().any(power_of)
}

/// Blocks of the journal that mke2fs chooses (`ext2fs_default_journal_size`).
fn journal(contents: &Contents, total: u64) -> u64 {
    if contents.kind == FilesystemKind::Ext2 || contents.features.iter().any(|feature| feature == "^has_journal") {
        return 0;
    }
    match total {
        0..2048 => 0,
        2048..32768 => 1024,
        32768..262_144 => 4096,
        262_144..524_288 => 8192,
        524_288..4_194_304 => 16384,
        4_194_304..8_388_608 => 32768,
        8_388_608..16_777_216 => 65536,
        16_777_216..33_554_432 => 131_072,
        _ => 262_144,
    }
}
