//! EROFS, by mkfs.erofs.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Request, compression, walk};
use crate::diagnostics::fault_of;

/// Where the superblock lies, and its fields in it (`struct erofs_super_block` of the kernel's
/// fs/erofs/erofs_fs.h).
const SUPERBLOCK: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const CHECKSUM: usize = 4;
const FEATURES: usize = 8;
const BLOCK_BITS: usize = 12;
const LABEL: std::ops::Range<usize> = 64..80;
const HAS_CHECKSUM: u32 = 1;

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
    let contents = request.contents;
    let path = request.scratch.join("file-system");
    let mut argv: Vec<String> = ["mkfs.erofs", "--quiet", "-U", &contents.uuid].map(String::from).into();
    if let Some(wanted) = &contents.compression {
        let (name, level) = compression::parts(wanted);
        known(request, name)?;
        argv.push(level.map_or(format!("-z{name}"), |level| format!("-z{name},{level}")));
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv.push(path.display().to_string());
    argv.push(request.top()?.display().to_string());
    // Dates are kept, but for those that are younger.
    let entries = walk::entries(request.tree)?;
    let tool = request.attributes_tool(argv, &entries)?.env("SOURCE_DATE_EPOCH", request.epoch.to_string());
    request.run(&tool).map_err(|error| match entries.iter().find(|entry| has_longest_name(entry)) {
        Some(entry) => explained(request, entry, &error),
        None => error,
    })?;
    if !contents.label.is_empty() {
        set_label(&path, &contents.label).context("writing its label")?;
    }
    Ok(path)
}

/// Whether its name has as many bytes as the kernel allows, which erofs-utils 1.5 does not take and does not say.
fn has_longest_name(entry: &walk::Entry) -> bool {
    entry.path.file_name().is_some_and(|name| name.as_encoded_bytes().len() == 255)
}

fn explained(request: &Request<'_>, entry: &walk::Entry, error: &anyhow::Error) -> anyhow::Error {
    let name = entry.path.file_name().unwrap_or_default().display().to_string();
    let start: String = name.chars().take(20).collect();
    let directory = Path::new("/").join(entry.path.parent().unwrap_or(Path::new("")));
    let mut fault = request
        .fault(format!("mkfs.erofs failed, maybe for the name of 255 bytes in {}: `{start}…`", directory.display()));
    fault.tail = fault_of(error).tail;
    fault.hint("give the file a shorter name; or use a newer erofs-utils, or squashfs").into()
}

/// Refuses a compressor that the installed mkfs.erofs was built without.
fn known(request: &Request<'_>, name: &str) -> Result<()> {
    let help = request.help("mkfs.erofs")?;
    // Version 1.5 calls them available, 1.8 supported.
    let line = help.lines().skip_while(|line| !line.contains("compressors"));
    let names: Vec<&str> =
        line.flat_map(|line| line.split([' ', ',', ':', '\t'])).filter(|word| !word.is_empty()).collect();
    // A version that does not list them says itself what it lacks.
    if names.is_empty() || names.contains(&name) {
        return Ok(());
    }
    Err(request
        .fault(format!("the installed mkfs.erofs cannot compress with {name}"))
        .hint("zstd and deflate want erofs-utils 1.8 (Debian 13); `compression: lz4hc` works with every version")
        .into())
}

/// mkfs.erofs sets labels from version 1.7 on.
fn set_label(path: &Path, label: &str) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = superblock(&file)?;
    ensure!(label.len() <= LABEL.len(), "`{label}` is longer than {} bytes", LABEL.len());
    bytes[LABEL].fill(0);
    bytes[LABEL.start..LABEL.start + label.len()].copy_from_slice(label.as_bytes());
    if number(&bytes, FEATURES) & HAS_CHECKSUM != 0 {
        bytes[CHECKSUM..CHECKSUM + 4].fill(0);
        let sum = !crc32c::crc32c(&bytes);
        bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
    }
    Ok(file.write_all_at(&bytes, SUPERBLOCK)?)
}

/// The superblock with the rest of its block, all of which its checksum covers.
fn superblock(file: &File) -> Result<Vec<u8>> {
    let mut start = [0; 128];
    file.read_exact_at(&mut start, SUPERBLOCK)?;
    ensure!(number(&start, 0) == MAGIC && (9..=16).contains(&start[BLOCK_BITS]), "there is no EROFS");
    let block = 1_u64 << start[BLOCK_BITS];
    let mut bytes = vec![0; block.saturating_sub(SUPERBLOCK).max(128) as usize];
    file.read_exact_at(&mut bytes, SUPERBLOCK)?;
    Ok(bytes)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
