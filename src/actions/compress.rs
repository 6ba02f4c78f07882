//! The action `compress`.

use std::fs::File;
use std::num::NonZero;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifact::{self, Output};
use super::pack::{tool_version, unknown_compression};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::archive::{Compression, compress};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, size_shown};

/// Compress an artifact.
///
/// ```yaml
/// - action: compress
///   file: disk.img
/// ```
///
/// leaves `disk.img.zst` beside `disk.img`. Both stay, because later actions may want the image itself
/// (`bmap`, `convert`); `remove-source: true` takes it away when it is compressed. Only what this build
/// made is ever removed.
///
/// ```yaml
/// - action: compress
///   file: disk.img
///   compression: xz
///   level: 9
///   output: release/disk.img.xz
///   remove-source: true
/// ```
///
/// | `compression` | `level` | where it is left out | |
/// |---|---|---|---|
/// | `zstd` | 1 to 22 | 3 | fast both ways |
/// | `xz` | 0 to 9 | 6 | smallest, slow |
/// | `gz` | 1 to 9 | 6 | read everywhere |
/// | `bzip2` | 1 to 9 | 9 | |
/// | `lzma`, `lzip`, `lzop` | | | one processor; the last two need the programs of these names |
///
/// All processors work, or as many as `threads` says; the result is the same for any number of them.
/// Nothing is held in memory but what is being compressed, and holes of sparse images cost next to
/// nothing.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Compress {
    /// Artifact to compress, of this build or of an earlier one.
    pub file: String,
    /// `zstd`, `xz`, `gz`, `bzip2`, `lzip`, `lzma` or `lzop`.
    #[serde(default = "zstd")]
    pub compression: String,
    /// How hard it tries; see above.
    #[serde(default)]
    pub level: Option<u32>,
    /// Threads; as many as there are processors where it is left out.
    #[serde(default)]
    pub threads: Option<NonZero<u16>>,
    /// Name of what is left; that of the source with the compression's ending where it is left out.
    #[serde(default)]
    pub output: Option<String>,
    /// Whether the source is removed when it is compressed.
    #[serde(default)]
    pub remove_source: bool,
}

fn zstd() -> String {
    "zstd".into()
}

impl Compress {
    fn compression(&self) -> Option<Compression> {
        Compression::named(&self.compression).filter(|compression| *compression != Compression::None)
    }

    fn output(&self) -> String {
        self.output.clone().unwrap_or_else(|| {
            let ending = self.compression().map_or("", Compression::ending);
            format!("{}.{ending}", self.file)
        })
    }
}

impl Action for Compress {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if artifact::check_source(cx, "file", &self.file, out) && self.remove_source {
            artifact::check_removal(cx, "remove-source", &self.file, out);
        }
        let Some(compression) = self.compression() else {
            out.push(unknown_compression(cx, &self.compression, &[]));
            return;
        };
        if let Some(output) = &self.output {
            artifact::check_output(cx, "output", output, &self.file, out);
            let ending = Compression::by_ending(output);
            if ending != compression && ending != Compression::None {
                let message = format!(
                    "`{output}` ends as if compressed with {}, but `compression` is {}",
                    ending.name(),
                    compression.name()
                );
                out.push(cx.warning("output", message).hint("without `output` the ending is the right one"));
            }
        }
        if let Some(level) = self.level {
            match compression.levels() {
                None => out.push(cx.error("level", format!("{} has no levels", compression.name()))),
                Some(levels) if !levels.contains(&level) => {
                    let (least, most) = (levels.start(), levels.end());
                    out.push(
                        cx.error("level", format!("{} has no level {level}", compression.name()))
                            .hint(format!("they are {least} to {most}")),
                    );
                }
                Some(_) => {}
            }
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs::tools(self.compression().and_then(|compression| compression.program(false))),
            artifacts: vec![self.output()],
            removes: self.remove_source.then(|| self.file.clone()).into_iter().collect(),
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
        format!("{} → {}", self.file, self.output())
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        if let Some((program, _)) = self.compression().and_then(|compression| compression.program(false)) {
            cx.add(format!("tool {program}"), tool_version(program));
        }
        artifact::add_source(cx, &self.file)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let compression = self.compression().context("the compression has no meaning")?;
        let source = artifact::source(cx, &self.file)?;
        let file = File::open(&source).with_context(|| format!("opening {}", self.file))?;
        let output = Output::begin(cx, &self.output())?;
        let threads = self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, NonZero::get),
            |threads| usize::from(threads.get()),
        );
        compress(&file, output.handle()?, compression, self.level, threads, &mut |done, total| {
            cx.progress("compressing", Some((done, total)));
        })
        .with_context(|| format!("compressing {}", self.file))?;
        let size = output.finish()?;
        if self.remove_source {
            artifact::remove_source(cx, &self.file)?;
        }
        cx.detail = size_shown(size);
        Ok(())
    }
}
