//! Swap space, by mkswap.

use anyhow::Result;

use super::Request;

pub(super) use crate::image::sparse::SMALLEST_SWAP as SMALLEST;

pub(super) fn make(request: &Request<'_>) -> Result<()> {
    if request.length < SMALLEST {
        return Err(request.too_small(SMALLEST).into());
    }
    let path = request.scratch_file()?;
    let contents = request.contents;
    // The page size is the target's, which is 4096 bytes on all of Debian's architectures but a few
    // kernels; the host's would be taken else.
    let mut argv: Vec<String> =
        ["mkswap", "--quiet", "--pagesize", "4096", "--uuid", &contents.uuid].map(String::from).into();
    if !contents.label.is_empty() {
        argv.extend(["--label".into(), contents.label.clone()]);
    }
    argv.extend(contents.mkfs_options.iter().cloned());
    argv.push(path.display().to_string());
    request.run(&request.tool(argv))?;
    request.take(&path)
}
