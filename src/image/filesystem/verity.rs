//! Hashes of a partition for dm-verity, by veritysetup.

use std::fs::File;

use anyhow::{Context, Result, ensure};

use super::Request;
use crate::image::sparse;

/// Bytes of the blocks that are hashed, and of those that hashes fill.
const BLOCK: u64 = 4096;
/// SHA-256 hashes in a block.
const HASHES: u64 = BLOCK / 32;

/// Fills the request's partition with the hashes of another part of the same image, whose bytes must
/// not change any more, and returns the root hash in hex. The salt is that of the request's
/// [`Contents::verity`](crate::image::Contents::verity), the UUID that of its contents.
pub fn verity(request: &Request<'_>, data_offset: u64, data_length: u64) -> Result<String> {
    let salt = request.contents.verity.as_ref().map_or("-", |verity| verity.salt.as_str());
    let needed = verity_length(data_length);
    if needed > request.length {
        return Err(request.too_small(needed).into());
    }
    let doing = || request.doing();
    let data = request.scratch.join("data");
    let file = File::create(&data).with_context(doing)?;
    file.set_len(data_length).with_context(doing)?;
    sparse::copy_range(&request.open_image()?, data_offset, &file, 0, data_length).with_context(doing)?;
    let hashes = request.scratch_file()?;
    let (data_path, hashes_path) = (data.display().to_string(), hashes.display().to_string());
    let blocks = format!("--data-blocks={}", data_length / BLOCK);
    let (salt, uuid) = (format!("--salt={salt}"), format!("--uuid={}", request.contents.uuid));
    let mut argv: Vec<String> =
        ["veritysetup", "format", &data_path, &hashes_path, &salt, &uuid, &blocks].map(String::from).into();
    argv.extend(["--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096"].map(String::from));
    let output = request.run(&request.tool(argv))?;
    std::fs::remove_file(&data).with_context(doing)?;
    let root = output.lines().find_map(|line| line.strip_prefix("Root hash:")).map(str::trim).unwrap_or_default();
    ensure!(root.len() == 64 && hex::decode(root).is_ok(), "{}: veritysetup told no root hash", request.doing());
    request.take(&hashes)?;
    Ok(root.to_owned())
}

/// Bytes that the hashes of so many bytes of data take, with the block that describes them.
pub fn verity_length(data_length: u64) -> u64 {
    let mut level = data_length.div_ceil(BLOCK);
    let mut blocks = 1;
    while level > 1 {
        level = level.div_ceil(HASHES);
        blocks += level;
    }
    blocks * BLOCK
}
