//! File systems that have a mkfs and nothing that fills them but the kernel.

use anyhow::{Context, Result};

use super::walk::Census;
use super::{FilesystemKind, Request, programs};

/// NILFS2 wants that much at least, with segments of its usual size.
const SMALLEST_NILFS2: u64 = 128 << 20;
const BLOCK: u64 = 4096;

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    if request.tree.top.is_some() {
        let name = request.contents.kind.fstab_type().unwrap_or_default();
        return Err(request
            .fault(format!("{name} cannot be filled without mounting it"))
            .hint("`strategy: mounted` on the `image-partition` fills it through the kernel")
            .into());
    }
    let needed = minimum(request)?;
    if request.length < needed {
        return Err(request.too_small(needed).into());
    }
    let path = request.scratch_file()?;
    let contents = request.contents;
    let (program, _) = programs(contents.kind).first().context("a file system without a mkfs")?;
    let (options, label): (&[&str], &str) = match contents.kind {
        FilesystemKind::Hfs => (&["-h"], "-v"),
        FilesystemKind::Hfsx => (&["-s"], "-v"),
        FilesystemKind::Hfsplus => (&[], "-v"),
        // Not a device, and not what was there before.
        FilesystemKind::Ntfs => (&["-F", "-Q", "-q"], "-L"),
        FilesystemKind::Nilfs2 => (&["-q", "-f"], "-L"),
        _ => (&[], "-L"),
    };
    let mut argv = vec![(*program).to_owned()];
    argv.extend(options.iter().map(|option| (*option).to_owned()));
    if !contents.label.is_empty() {
        argv.extend([label.to_owned(), contents.label.clone()]);
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv.push(path.display().to_string());
    request.run(&request.tool(argv))?;
    request.take(&path)
}

/// Roughly.
pub(super) fn minimum(request: &Request<'_>) -> Result<u64> {
    let census = Census::of(request.tree)?;
    let files: u64 = census.files.iter().map(|file| file.length.next_multiple_of(BLOCK)).sum();
    let used = files + census.inodes * BLOCK;
    let smallest = if request.contents.kind == FilesystemKind::Nilfs2 { SMALLEST_NILFS2 } else { 2 << 20 };
    Ok((used + used / 20).max(smallest).next_multiple_of(BLOCK))
}
