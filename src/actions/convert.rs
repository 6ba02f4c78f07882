//! The action `convert`.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifact::{self, Output};
use super::pack::tool_version;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, InputContext, interrupted};
use crate::diagnostics::{Diagnostics, Fault, FaultKind, size_shown, suggest};
use crate::image::format::identity::{self, settle};
use crate::image::format::qcow2;
use crate::image::{ImageSize, Spec, sparse};

/// Convert a disk image to a format of virtual machines.
///
/// ```yaml
/// - action: convert
///   file: disk.img
/// ```
///
/// leaves `disk.qcow2` beside `disk.img`. Both stay, because later actions may want the image itself;
/// `remove-source: true` takes it away when it is converted. Only what this build made is ever removed.
///
/// ```yaml
/// - action: convert
///   file: disk.img
///   format: vmdk
///   subformat: streamOptimized
///   output: release/disk.vmdk
///   remove-source: true
/// ```
///
/// | `format` | for | `subformat` |
/// |---|---|---|
/// | `qcow2` | QEMU, libvirt, OpenStack | |
/// | `vmdk` | VMware | `monolithicSparse`, `streamOptimized` (as in an OVA) |
/// | `vdi` | VirtualBox | `dynamic`, `fixed` |
/// | `vhdx` | Hyper-V | `dynamic`, `fixed` |
/// | `vhd` | Azure (`fixed`, of an image of whole MiB), Virtual PC | `dynamic`, `fixed` |
/// | `raw` | a sparse copy | |
///
/// The first subformat is taken where none is given. The source is a raw image. What is not used in it
/// takes no room in the result, but in `fixed` ones, which are sparse files.
///
/// A qcow2 can be compressed: `compression: zstd` (read by QEMU 5.1 and later) or `zlib` (by every
/// QEMU). All processors compress.
///
/// The same image gives the same file. vmdk, vdi, vhdx and vhd hold ids and a date, which qemu-img
/// makes up; they are replaced: the ids follow from the contents, so that two different images never
/// have the same, and the date is `SOURCE_DATE_EPOCH`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Convert {
    /// Raw disk image among the artifacts, of this build or of an earlier one.
    pub file: String,
    /// `qcow2`, `vmdk`, `vdi`, `vhdx`, `vhd` or `raw`.
    #[serde(default = "qcow2")]
    pub format: String,
    /// Variant of the format; see above.
    #[serde(default)]
    pub subformat: Option<String>,
    /// Of qcow2: `none`, `zstd` or `zlib`.
    #[serde(default = "none")]
    pub compression: String,
    /// Name of what is left; that of the source with the format's ending where it is left out.
    #[serde(default)]
    pub output: Option<String>,
    /// Whether the source is removed when it is converted.
    #[serde(default)]
    pub remove_source: bool,
}

fn qcow2() -> String {
    "qcow2".into()
}

fn none() -> String {
    "none".into()
}

/// A format.
struct Format {
    /// As in a recipe, and what names end in.
    name: &'static str,
    /// What qemu-img calls it.
    qemu: &'static str,
    /// What must be made the same in every build.
    identity: Option<identity::Format>,
    /// Subformats with qemu-img's option for each.
    subformats: &'static [(&'static str, &'static str)],
    /// Further options of qemu-img.
    options: &'static [&'static str],
}

const SUBFORMATS: &[(&str, &str)] = &[("dynamic", "subformat=dynamic"), ("fixed", "subformat=fixed")];

const FORMATS: &[Format] = &[
    Format { name: "qcow2", qemu: "qcow2", identity: None, subformats: &[], options: &[] },
    Format {
        name: "vmdk",
        qemu: "vmdk",
        identity: Some(identity::Format::Vmdk),
        subformats: &[
            ("monolithicSparse", "subformat=monolithicSparse"),
            ("streamOptimized", "subformat=streamOptimized"),
        ],
        options: &[],
    },
    Format {
        name: "vdi",
        qemu: "vdi",
        identity: Some(identity::Format::Vdi),
        subformats: &[("dynamic", "static=off"), ("fixed", "static=on")],
        options: &[],
    },
    Format { name: "vhdx", qemu: "vhdx", identity: Some(identity::Format::Vhdx), subformats: SUBFORMATS, options: &[] },
    Format {
        name: "vhd",
        qemu: "vpc",
        identity: Some(identity::Format::Vhd),
        subformats: SUBFORMATS,
        // Else the disk would grow to what cylinders and heads can say.
        options: &["force_size=on"],
    },
    Format { name: "raw", qemu: "raw", identity: None, subformats: &[], options: &[] },
];

const COMPRESSIONS: [(&str, Option<qcow2::Method>); 3] =
    [("none", None), ("zlib", Some(qcow2::Method::Zlib)), ("zstd", Some(qcow2::Method::Zstd))];

/// How many reads qemu-img has under way; more than this it does not take.
const COROUTINES: &str = "16";

/// What the size of a fixed VHD has to be a multiple of: Azure takes no other.
const MEBIBYTE: u64 = 1 << 20;

const QEMU_IMG: (&str, &str) = ("qemu-img", "qemu-utils");

impl Convert {
    fn format(&self) -> Option<&'static Format> {
        FORMATS.iter().find(|format| format.name == self.format)
    }

    fn compression(&self) -> Option<Option<qcow2::Method>> {
        COMPRESSIONS.iter().find(|(name, _)| *name == self.compression).map(|(_, method)| *method)
    }

    /// Whether it is done without qemu-img.
    fn is_own(&self) -> bool {
        self.format == "raw" || self.compression().flatten().is_some()
    }

    /// What is wrong with an image of this size; nothing for most.
    fn refused(&self, size: u64) -> Option<(String, String)> {
        let fixed = self.format == "vhd" && self.subformat.as_deref() == Some("fixed");
        (fixed && !size.is_multiple_of(MEBIBYTE)).then(|| {
            let whole = size.div_ceil(MEBIBYTE);
            (
                format!("`{}` has {size} bytes, and a fixed VHD has to have whole mebibytes", self.file),
                format!("Azure takes no other; `imagesize: {whole} MiB` of `image-partition` is the next larger"),
            )
        })
    }

    fn output(&self) -> String {
        self.output.clone().unwrap_or_else(|| {
            let plain = self.file.strip_suffix(".img").or(self.file.strip_suffix(".raw")).unwrap_or(&self.file);
            format!("{plain}.{}", self.format)
        })
    }

    fn by_qemu_img(&self, cx: &BuildContext<'_>, format: &Format, source: &Path, output: &Output) -> Result<()> {
        let mut options: Vec<&str> = format.options.to_vec();
        let named = |name: &String| format.subformats.iter().find(|(known, _)| known == name);
        if let Some((_, option)) = self.subformat.as_ref().and_then(named).or(format.subformats.first()) {
            options.push(option);
        }
        let mut argv = vec!["qemu-img", "convert", "-m", COROUTINES, "-f", "raw", "-O", format.qemu];
        let joined = options.join(",");
        if !options.is_empty() {
            argv.extend(["-o", &joined]);
        }
        let source_text = source.to_str().context("the image's path is not UTF-8")?;
        let output_text = output.path().to_str().context("the artifact directory's path is not UTF-8")?;
        argv.extend([source_text, output_text]);
        let directory = output.path().parent().context("an artifact without a directory")?;
        cx.host_alone(argv).writable(directory).bind(source, source, true).run(&format!("converting {}", self.file))?;
        if let Some(identity) = format.identity {
            // qemu-img wrote to the path, which may be another file by now.
            let written = File::options().read(true).write(true).open(output.path());
            let name = self.output();
            let name = name.rsplit('/').next().unwrap_or_default();
            settle(&written.context("opening the converted image")?, identity, name, cx.source_date_epoch)
                .with_context(|| format!("making the ids of {} follow from its contents", self.output()))?;
        }
        Ok(())
    }

    fn by_hand(&self, cx: &BuildContext<'_>, source: &Path, output: &Output) -> Result<()> {
        let raw = File::open(source).with_context(|| format!("opening {}", self.file))?;
        match self.compression().flatten() {
            Some(method) => qcow2::compress(&raw, output.file(), method, &mut |done, total| {
                if interrupted() {
                    return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
                }
                cx.progress("compressing", Some((done, total)));
                Ok(())
            }),
            None => {
                let length = raw.metadata().context("looking at the image")?.len();
                output.file().set_len(length).context("making a sparse file")?;
                sparse::copy_into(&raw, output.file(), 0, length).context("copying the image")
            }
        }
        .with_context(|| format!("converting {}", self.file))
    }
}

impl Action for Convert {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        let known = artifact::check_source(cx, "file", &self.file, out);
        if known && self.remove_source {
            artifact::check_removal(cx, "remove-source", &self.file, out);
        }
        let Some(format) = self.format() else {
            let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
            let diagnostic = cx.error("format", format!("there is no format `{}`", self.format));
            let close = if self.format == "vpc" { Some("vhd") } else { suggest(&self.format, names.iter().copied()) };
            out.push(match close {
                Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                None => diagnostic.hint(format!("it is one of {}", names.join(", "))),
            });
            return;
        };
        if known || self.output.is_some() {
            artifact::check_output(cx, "output", &self.output(), &self.file, out);
        }
        if let Some(subformat) = &self.subformat
            && !format.subformats.iter().any(|(known, _)| known == subformat)
        {
            let names: Vec<&str> = format.subformats.iter().map(|(name, _)| *name).collect();
            let diagnostic = cx.error("subformat", format!("{} has no subformat `{subformat}`", format.name));
            out.push(match (names.is_empty(), suggest(subformat, names.iter().copied())) {
                (true, _) => diagnostic.hint("leave it out"),
                (_, Some(close)) => diagnostic.hint(format!("did you mean `{close}`?")),
                _ => diagnostic.hint(format!("it is one of {}", names.join(", "))),
            });
        }
        if let Some(Spec { name, size: ImageSize::Bytes(size), .. }) = cx.image
            && *name == self.file
            && let Some((message, hint)) = self.refused(*size)
        {
            out.push(cx.error("file", message).hint(hint));
        }
        match self.compression() {
            None => {
                let names = COMPRESSIONS.map(|(name, _)| name);
                let said = self.compression.as_str();
                let close = if matches!(said, "gz" | "gzip") { Some("zlib") } else { suggest(said, names) };
                let diagnostic = cx.error("compression", format!("qcow2 has no compression `{said}`"));
                out.push(match close {
                    Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                    None => diagnostic.hint(format!("it is one of {}", names.join(", "))),
                });
            }
            Some(Some(_)) if format.name != "qcow2" => {
                out.push(cx.error("compression", format!("{} cannot be compressed in itself", format.name)).hint(
                    match format.name {
                        "vmdk" => "`subformat: streamOptimized` is compressed",
                        _ => "the action `compress` after this one compresses the file",
                    },
                ));
            }
            Some(_) => {}
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs::tools((!self.is_own()).then_some(QEMU_IMG)),
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
        if !self.is_own() {
            cx.add("tool qemu-img", tool_version("qemu-img"));
        }
        artifact::add_source(cx, &self.file)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let format = self.format().context("the format has no meaning")?;
        let source = artifact::source(cx, &self.file)?;
        let size = source.metadata().with_context(|| format!("looking at {}", self.file))?.len();
        if let Some((message, hint)) = self.refused(size) {
            return Err(Fault::failed(message).hint(hint).into());
        }
        let output = Output::begin(cx, &self.output())?;
        cx.progress("converting", None);
        if self.is_own() {
            self.by_hand(cx, &source, &output)?;
        } else {
            self.by_qemu_img(cx, format, &source, &output)?;
        }
        let size = output.finish()?;
        if self.remove_source {
            artifact::remove_source(cx, &self.file)?;
        }
        cx.detail = size_shown(size);
        Ok(())
    }
}
