//! The action `bmap`.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifact::{self, Output};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, size_shown};
use crate::image::format::bmap;

/// Write the block map of a disk image, for `bmaptool`.
///
/// ```yaml
/// - action: bmap
///   file: disk.img
///
/// - action: compress
///   file: disk.img
///   remove-source: true
/// ```
///
/// leaves `disk.img.bmap`. `bmaptool copy --bmap disk.img.bmap disk.img.zst /dev/sdX` then writes only
/// what the image uses, which takes a fraction of the time, and checks each range by its SHA-256. The
/// map is that of the raw image, and good for the image in any compression.
///
/// What is left out is what file systems do not use: ext2 to ext4 and FAT are asked block for block,
/// squashfs and erofs for their length. All of it is written where nobody can tell: other file systems,
/// boot loaders, space between partitions. So a card may hold anything beforehand. The space of a
/// partition that is all zeros is left out but for a MiB at either end.
///
/// The same image has the same map, whatever its file's holes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bmap {
    /// Raw disk image among the artifacts, of this build or of an earlier one.
    pub file: String,
    /// Name of the map; that of the image with `.bmap` where it is left out.
    #[serde(default)]
    pub output: Option<String>,
    /// Bytes of a sector of an image with an msdos table: `512` or `4096`; that of the recipe's image
    /// where it is left out.
    #[serde(default)]
    pub sectorsize: Option<u32>,
}

impl Bmap {
    fn output(&self) -> String {
        self.output.clone().unwrap_or_else(|| format!("{}.bmap", self.file))
    }
}

impl Action for Bmap {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        artifact::check_source(cx, "file", &self.file, out);
        if let Some(output) = &self.output {
            artifact::check_output(cx, "output", output, &self.file, out);
        }
        if let Some(size) = self.sectorsize.filter(|size| !matches!(size, 512 | 4096)) {
            out.push(cx.error("sectorsize", format!("sectors of {size} bytes are not known")).hint("512 or 4096"));
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs::NOTHING,
            artifacts: vec![self.output()],
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn summary(&self) -> String {
        self.output()
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        artifact::add_source(cx, &self.file)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let source = artifact::source(cx, &self.file)?;
        let image = File::open(&source).with_context(|| format!("opening {}", self.file))?;
        let sector_size = self.sectorsize.or(cx.image.map(|spec| spec.sector_size)).unwrap_or(512);
        let map = bmap::map(&image, sector_size, &|done, total| {
            cx.progress("reading", Some((done, total)));
        })
        .with_context(|| format!("mapping {}", self.file))?;
        for part in &map.whole {
            cx.log(format!("{part} is written whole: what is free in it cannot be told"));
        }
        let output = Output::begin(cx, &self.output())?;
        output.file().write_all(map.xml().as_bytes()).with_context(|| format!("writing {}", self.output()))?;
        output.finish()?;
        cx.detail = format!("{} of {} to write", size_shown(map.mapped()), size_shown(map.size));
        Ok(())
    }
}
