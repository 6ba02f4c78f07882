//! A file system in a file of its own, without a disk around it.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use super::tools::SandboxTools;
use crate::build::BuildContext;
use crate::image::filesystem::{self, Request, Tree};
use crate::image::{Contents, format::extent};

/// How large a file system is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// This many bytes.
    Bytes(u64),
    /// As its contents want it, and this much more; what cannot be written to is as it comes out.
    Contents {
        /// Bytes, beside what `percent` comes to.
        margin: u64,
        /// Of the contents.
        percent: u32,
    },
}

/// Sizes are multiples of this.
const STEP: u64 = 1 << 20;

/// More than any file system of one tree, for kinds whose size only making them tells.
const PLENTY: u64 = 1 << 43;

/// Makes a file system in an empty file. `name` is what messages call it, `tree` is below the root or the
/// step's scratch directory.
pub fn make_alone(
    cx: &BuildContext<'_>,
    name: &str,
    contents: &Contents,
    tree: &Tree,
    room: Room,
    path: &Path,
) -> Result<()> {
    let scratch = cx.scratch.join("file-system");
    let stand_ins = cx.scratch.join("stand-ins");
    for directory in [&scratch, &stand_ins] {
        std::fs::create_dir_all(directory).context("making a place for a file system")?;
    }
    let tools = SandboxTools::new(cx, stand_ins);
    let request = |length| Request {
        name,
        contents,
        tree,
        image: path,
        offset: 0,
        length,
        sector_size: 512,
        epoch: cx.source_date_epoch,
        scratch: &scratch,
        tools: &tools,
    };
    let file = File::options().read(true).write(true).open(path).context("opening the file of the file system")?;
    if contents.kind.is_read_only() {
        filesystem::make(&request(PLENTY))?;
        let length = extent(&file, 0)?.context("there is no file system where one was made")?;
        let length = match room {
            Room::Bytes(bytes) if bytes < length => {
                return Err(crate::diagnostics::Fault::failed(format!(
                    "making {name}: the contents need {length} bytes, `size` is {bytes}"
                ))
                .into());
            }
            Room::Bytes(bytes) => bytes,
            Room::Contents { .. } => length.next_multiple_of(4096),
        };
        return file.set_len(length).context("cutting the file to its size");
    }
    let length = match room {
        Room::Bytes(bytes) => bytes,
        Room::Contents { margin, percent } => {
            let least = filesystem::minimum(&request(0))?;
            (least + margin + least / 100 * u64::from(percent)).next_multiple_of(STEP)
        }
    };
    file.set_len(length).context("making a sparse file")?;
    filesystem::make(&request(length))
}
