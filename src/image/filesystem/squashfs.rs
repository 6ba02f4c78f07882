//! SquashFS, by mksquashfs.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::walk::{self, Entry};
use super::{Request, compression};

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    let made = build(request)?;
    request.take(&made)
}

/// As large as it comes out, which nothing but making it can tell.
pub(super) fn minimum(request: &Request<'_>) -> Result<u64> {
    let made = build(request)?;
    let length = made.metadata().context("looking at it")?.len();
    std::fs::remove_file(&made).context("removing it")?;
    Ok(length)
}

fn build(request: &Request<'_>) -> Result<PathBuf> {
    let entries = walk::entries(request.tree)?;
    refuse_lists(request, &entries)?;
    let contents = request.contents;
    let path = request.scratch.join("file-system");
    let (top, image) = (request.top()?.display().to_string(), path.display().to_string());
    let mut argv: Vec<String> =
        ["mksquashfs", &top, &image, "-noappend", "-quiet", "-no-progress"].map(String::from).into();
    // gzip, its own default, takes ten times as long as zstd and comes out larger.
    let (name, level) = compression::parts(contents.compression.as_deref().unwrap_or("zstd"));
    argv.extend(["-comp".into(), name.into()]);
    if let Some(level) = level {
        argv.extend(["-Xcompression-level".into(), level.into()]);
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    // Dates are kept, but for those that are younger.
    request.run(&request.attributes_tool(argv, &entries)?.env("SOURCE_DATE_EPOCH", request.epoch.to_string()))?;
    Ok(path)
}

/// The list that every Debian with systemd has: systemd-tmpfiles sets it anew at each boot
/// (`/usr/lib/tmpfiles.d/systemd.conf`).
const SET_AT_BOOT: &str = "var/log/journal";

/// SquashFS keeps no ACLs.
fn refuse_lists(request: &Request<'_>, entries: &[Entry]) -> Result<()> {
    let lists = |(name, _): &(std::ffi::OsString, Vec<u8>)| name.as_encoded_bytes().starts_with(b"system.posix_acl_");
    for entry in entries {
        if entry.path.starts_with(SET_AT_BOOT) {
            continue;
        }
        if walk::attributes(&entry.source)?.iter().any(lists) {
            return Err(request
                .fault(format!("`{}` has an access control list, which SquashFS cannot keep", entry.shown()))
                .hint("take it away in a step before (`setfacl -b FILE`), or use erofs, which keeps it")
                .into());
        }
    }
    Ok(())
}
