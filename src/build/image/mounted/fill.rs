//! File systems that the kernel fills: those whose tools cannot take in all that a tree has.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::{Loop, Part, private_dir, unmount};
use crate::image::filesystem::{self, Request, Tree};
use crate::image::{Contents, FilesystemKind, Tool, sparse};
use crate::sys::file::{flags, protection_flags, set_flags, set_protection};

/// Whether a mounted image gets the contents of such a file system by copying: FAT has no owners to
/// lose, ext2 to ext4 take everything offline, and what is read-only can only be made whole.
pub fn is_copied(kind: FilesystemKind) -> bool {
    matches!(kind, FilesystemKind::Xfs | FilesystemKind::Btrfs | FilesystemKind::F2fs) || kind.is_kernels()
}

/// Makes a file system and copies its tree into it while it is mounted.
pub fn fill(request: &Request<'_>) -> Result<()> {
    let contents = Contents { subvolumes: Vec::new(), ..request.contents.clone() };
    filesystem::make(&Request { contents: &contents, tree: &Tree::default(), ..*request })?;
    let (nodes, at) = (request.scratch.join("nodes"), request.scratch.join("mounted"));
    private_dir(&nodes)?;
    private_dir(&at)?;
    let part = Part {
        image: request.image,
        offset: request.offset,
        length: request.length,
        read_only: false,
        sector_size: 512,
        partitioned: false,
    };
    let device = Loop::attach(&part, &nodes)?;
    let kind = contents.kind.fstab_type().context("a file system that cannot be mounted")?;
    let options = match (contents.kind, &contents.compression) {
        (FilesystemKind::Xfs, _) => "nouuid".to_owned(),
        (FilesystemKind::Btrfs, Some(how)) => format!("compress-force={how}"),
        _ => String::new(),
    };
    mount(Some(&device.node), &at, Some(kind), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mounting `{}` as {kind}", request.name))?;
    let copied = copy(request, &at);
    let unmounted = unmount(&at);
    copied?;
    unmounted?;
    device.detach()
}

/// Copies the tree and its subvolumes.
fn copy(request: &Request<'_>, at: &Path) -> Result<()> {
    let tree = request.tree;
    let wanted = &request.contents.subvolumes;
    let mounted = tree.subvolumes.iter().map(|(name, _)| name).filter(|name| !wanted.contains(name));
    for subvolume in wanted.iter().chain(mounted) {
        let path = at.join(subvolume.trim_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        let mut tool = Tool::new(["btrfs", "subvolume", "create"]);
        tool.argv.push(path.display().to_string());
        tool.writable.push(at.into());
        request.tools.run(&tool, &format!("making the subvolume `{subvolume}` of `{}`", request.name))?;
    }
    let Some(top) = &tree.top else { return Ok(()) };
    if !tree.subvolumes.iter().any(|(_, path)| path.as_os_str().is_empty()) {
        one(request, top, Path::new(""), at)?;
    }
    for (subvolume, path) in &tree.subvolumes {
        one(request, &top.join(path), path, &at.join(subvolume.trim_matches('/')))?;
    }
    Ok(())
}

/// Copies a part of the tree, without what lies on other file systems or in other subvolumes.
fn one(request: &Request<'_>, from: &Path, below: &Path, to: &Path) -> Result<()> {
    let tree = request.tree;
    let top = tree.top.as_deref().unwrap_or(from);
    let elsewhere = tree.subvolumes.iter().map(|(_, path)| path).filter(|path| *path != below);
    let hidden = tree.hidden.iter().chain(elsewhere).filter(|path| path.starts_with(below));
    let mut hidden: Vec<PathBuf> = hidden.map(|path| top.join(path)).collect();
    super::super::trees::outermost(&mut hidden);
    let replaced = tree.replaced.iter().filter(|(path, _)| path.starts_with(below));
    // The others have no owners and modes to keep.
    let plain = matches!(request.contents.kind, FilesystemKind::Exfat | FilesystemKind::Hfs | FilesystemKind::Ntfs);
    let how: &[&str] = if plain { &["-r", "--preserve=timestamps"] } else { &["-a"] };
    let tool = Tool {
        argv: ["cp"]
            .into_iter()
            .chain(how.iter().copied())
            .chain(["--sparse=auto", "--"])
            .map(str::to_owned)
            .chain([from.join(".").display().to_string(), to.display().to_string()])
            .collect(),
        hidden,
        replaced: replaced.map(|(path, really)| (top.join(path), really.clone())).collect(),
        writable: vec![to.into()],
        ..Tool::default()
    };
    request.tools.run(&tool, &format!("copying into `{}`", request.name))?;
    let elsewhere = tool.hidden.iter().filter_map(|path| path.strip_prefix(from).ok());
    let part = Tree { top: Some(from.to_owned()), hidden: elsewhere.map(Path::to_owned).collect(), ..Tree::default() };
    for file in filesystem::swap_files(&part)? {
        let (source, copy) = (from.join(&file), to.join(&file));
        write_swap(&source, &copy).with_context(|| format!("copying /{}", below.join(&file).display()))?;
    }
    // What is below a directory before the directory.
    for (path, letters) in tree.protected.iter().rev().filter(|(path, _)| path.starts_with(below)) {
        if hidden_in(&tool.hidden, &top.join(path)) {
            continue;
        }
        protect(&to.join(path.strip_prefix(below).unwrap_or(path)), letters)
            .with_context(|| format!("protecting /{} (`chattr +{letters}`) in `{}`", path.display(), request.name))?;
    }
    Ok(())
}

/// Whether a path is below one of those.
fn hidden_in(hidden: &[PathBuf], path: &Path) -> bool {
    hidden.iter().any(|hidden| path != hidden && path.starts_with(hidden))
}

fn protect(path: &Path, letters: &str) -> std::io::Result<()> {
    let no_follow = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::File::options().read(true).custom_flags(no_follow).open(path)?;
    set_protection(file.as_fd(), protection_flags(letters))
}

/// Makes the copy of a swap file one that the kernel takes: without holes, and on btrfs without checksums.
fn write_swap(source: &Path, copy: &Path) -> std::io::Result<()> {
    const WITHOUT_CHECKSUMS: u32 = 0x0080_0000;
    let meta = fs::metadata(source)?;
    let to = fs::File::options().write(true).truncate(true).open(copy)?;
    if nix::sys::statfs::fstatfs(&to)?.filesystem_type() == nix::sys::statfs::BTRFS_SUPER_MAGIC {
        let all = flags(to.as_fd())?.unwrap_or_default();
        set_flags(to.as_fd(), all | WITHOUT_CHECKSUMS)?;
    }
    sparse::copy_whole(&fs::File::open(source)?, &to)?;
    to.sync_all()?;
    to.set_modified(meta.modified()?)
}
