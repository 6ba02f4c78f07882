//! The action `raw`.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::origin::Origin;
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::diagnostics::{Diagnostics, Fault};
use crate::image::{Layout, Size, Spec, Write, WriteSource, WriteTarget};

/// Write a file over the image: a boot loader, mostly.
///
/// ```yaml
/// - action: raw
///   origin: filesystem
///   source: /usr/lib/u-boot/rockpro64-rk3399/idbloader.img
///   offset: 64s
/// ```
///
/// The bytes go to `offset` of the disk, or of a `partition`: a number of bytes (`32768`, also hex:
/// `0x8000`), with a unit (`8 KiB`), or in sectors (`64s`; a sector has 512 bytes, or as many as the
/// recipe's `sectorsize` says).
///
/// They are taken when the recipe comes to this action, and written when the image is: what later
/// actions do to the file does not count.
///
/// Nothing is destroyed by it: bytes that would fall on the partition table, on a GPT's entries or
/// their copy, on a partition with a file system, on a `reserved` area of `image-partition` or on what
/// another `raw` wrote are an error. How many bytes there are is known before anything runs where the
/// file stands beside the recipe; where it does not, `max-size` promises how many there will be at
/// most.
///
/// ```yaml
/// - action: raw
///   origin: u-boot
///   source: u-boot.itb
///   partition: loader
///   max-size: 2 MiB
/// ```
///
/// **Compared with debos**: checked against all that is on the disk; `max-size` is new.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Raw {
    /// File below the origin; left out where the origin is a download that is a single file.
    #[serde(default)]
    pub source: Option<String>,
    /// Where the file is: `recipe` (beside the recipe), `artifacts`, `filesystem` (the root), or the
    /// `name` of a `download`.
    #[serde(default = "super::defaults::recipe_origin")]
    pub origin: String,
    /// Where its bytes go: bytes, or sectors as in `64s`.
    #[serde(default = "nowhere")]
    pub offset: String,
    /// Name of the partition to write to; the whole disk where it is left out.
    #[serde(default)]
    pub partition: Option<String>,
    /// How large the file is at most.
    #[serde(default)]
    pub max_size: Option<String>,
    /// Old form: the file, where `source` is the name of the origin.
    #[serde(default)]
    pub path: Option<String>,
}

fn nowhere() -> String {
    "0".into()
}

impl Raw {
    fn source(&self) -> &str {
        self.path.as_ref().or(self.source.as_ref()).map(String::as_str).unwrap_or("")
    }

    fn origin(&self) -> &str {
        match (&self.path, &self.source) {
            (Some(_), Some(origin)) => origin,
            _ => &self.origin,
        }
    }

    /// Warns of the form that debos had before there were origins.
    fn check_old_form(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        let (Some(path), given) = (&self.path, cx.spans.values.contains_key("origin")) else { return };
        match &self.source {
            Some(source) if !given => out.push(
                cx.warning("path", "`source` and `path` are an old form")
                    .hint(format!("write `origin: {source}` and `source: {path}`")),
            ),
            _ => out.push(
                cx.error("path", "`path` is an old form, and takes an origin by `source` alone")
                    .hint("write `origin` and `source`"),
            ),
        }
    }

    /// What messages call it: the file's name.
    fn name(&self) -> String {
        let path = self.source().trim_end_matches('/');
        match path.rsplit('/').next() {
            None | Some("") => self.origin().to_owned(),
            Some(name) => name.to_owned(),
        }
    }

    fn max_size(&self, sector_size: u32) -> Option<u64> {
        self.max_size.as_deref()?.parse::<Size>().ok()?.bytes(sector_size)
    }

    fn write(&self, sector_size: u32) -> Write {
        let offset = self.offset.parse::<Size>().ok().and_then(|offset| offset.bytes(sector_size)).unwrap_or(0);
        Write {
            name: self.name(),
            source: WriteSource::Step(0),
            target: WriteTarget::At { partition: self.partition.clone(), offset },
            length: self.max_size(sector_size),
        }
    }

    fn check_sizes(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) -> bool {
        let sizes = [("offset", Some(&self.offset)), ("max-size", self.max_size.as_ref())];
        let mut good = true;
        for (property, text) in sizes.into_iter().filter_map(|(property, text)| Some((property, text?))) {
            let fault = match text.parse::<Size>() {
                Err(message) => Some(message),
                Ok(size) if size.bytes(cx.sector_size).is_none() => Some(format!("`{text}` is beyond any disk")),
                Ok(Size::Bytes(0) | Size::Sectors(0)) if property == "max-size" => {
                    Some("`max-size` leaves nothing to write".into())
                }
                Ok(_) => None,
            };
            if let Some(message) = fault {
                good = false;
                out.push(cx.error(property, message).hint("it is as in `32768`, `0x8000`, `32 KiB` or `64s`"));
            }
        }
        good
    }

    /// Whether the file can be there.
    fn check_source(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) -> bool {
        let before = out.iter().count();
        if !cx.check_origin(if self.path.is_some() { "source" } else { "origin" }, self.origin(), out) {
            return false;
        }
        let origin = Origin::named(self.origin());
        if self.source().trim_matches('/').is_empty() && !matches!(origin, Origin::Download(_)) {
            out.push(cx.error("source", "`raw` needs `source`: the file to write"));
            return false;
        }
        match origin {
            Origin::Recipe => match cx.check_recipe_file("source", self.source(), out) {
                None | Some(FileKind::File) => {}
                Some(_) => out.push(cx.error("source", format!("`{}` is not a file", self.source()))),
            },
            Origin::Filesystem if !cx.has_root => out.push(
                cx.error("origin", "there is no root to take it from yet")
                    .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
            ),
            _ => {}
        }
        let size = self.image_bytes(cx).filter(|_| origin == Origin::Recipe);
        if let (Some(size), Some(most)) = (size, self.max_size(cx.sector_size))
            && size > most
        {
            let message = format!("`{}` has {size} bytes, more than `max-size`", self.name());
            out.push(cx.error("max-size", message));
        }
        if size == Some(0) {
            out.push(cx.error("source", format!("`{}` is empty", self.name())));
        }
        out.iter().count() == before
    }

    /// Where the bytes go, and what they would destroy.
    fn check_target(&self, cx: &CheckContext<'_>, spec: &Spec, out: &mut Diagnostics) {
        if let Some(partition) = &self.partition
            && spec.partition(partition).is_none()
        {
            let names = || spec.partitions.iter().map(|partition| partition.name.as_str());
            let diagnostic = cx.error("partition", format!("the image has no partition `{partition}`"));
            out.push(match crate::diagnostics::suggest(partition, names()) {
                Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                None => diagnostic.hint(format!("it has {}", names().collect::<Vec<_>>().join(", "))),
            });
            return;
        }
        let Ok((layout, _)) = Layout::solve(spec, &mut |_| Ok(1)) else { return };
        let earlier: Vec<(&Write, u64)> = spec.writes.iter().map(|write| (write, write.length.unwrap_or(1))).collect();
        // Of a file that nobody has seen at least its first byte will be there.
        let length = self.image_bytes(cx).unwrap_or(1);
        for overwrite in layout.overwrites(spec, &self.write(cx.sector_size), length, &earlier) {
            let property = if cx.spans.values.contains_key("offset") { "offset" } else { "source" };
            out.push(cx.error(property, overwrite.message).hint(overwrite.hint));
        }
    }
}

impl Action for Raw {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        self.check_old_form(cx, out);
        let sizes = self.check_sizes(cx, out);
        let source = self.check_source(cx, out);
        match cx.image {
            None => out.push(
                cx.error("", "there is no image to write to")
                    .hint("an `image-partition` before this action says what it looks like"),
            ),
            Some(spec) if sizes && source => self.check_target(cx, spec, out),
            Some(_) => {}
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::WRITE,
            root: RootUse::Used,
            reads: Reads {
                artifacts: Origin::named(self.origin()).is_made(),
                repositories: false,
                image: false,
                host: false,
            },
            needs: Needs::NOTHING,
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::Writes(vec![self.write(cx.sector_size)])
    }

    fn image_bytes(&self, cx: &CheckContext<'_>) -> Option<u64> {
        let size = match Origin::named(self.origin()) {
            Origin::Recipe => cx.files.size(&cx.recipe_dir.join(self.source().trim_start_matches('/'))),
            _ => None,
        };
        size.or(self.max_size(cx.sector_size))
    }

    fn summary(&self) -> String {
        let target = match &self.partition {
            Some(partition) if self.offset == "0" => partition.clone(),
            Some(partition) => format!("{partition}, {}", self.offset),
            None => self.offset.clone(),
        };
        format!("{} → {target}", self.name())
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let source = self.source().trim_start_matches('/').to_owned();
        let path = match Origin::named(self.origin()) {
            Origin::Recipe => cx.recipe_dir.join(&source),
            Origin::Artifacts if !cx.is_planned(&source) => {
                let path = cx.artifact_dir.join(&source);
                // A command before may make it without saying so.
                if !path.exists() {
                    return Ok(());
                }
                path
            }
            // What the root, downloads and planned artifacts have follows from the steps before.
            Origin::Artifacts | Origin::Filesystem | Origin::Download(_) => return Ok(()),
        };
        let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
        cx.add_tree(&source, &path)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let located = cx.locate(self.origin(), self.source())?;
        let name = self.name();
        let meta = std::fs::metadata(&located.path).with_context(|| format!("looking at `{name}`"))?;
        if !meta.is_file() {
            return Err(Fault::failed(format!("`{name}` is not a file")).into());
        }
        let length = meta.len();
        if length == 0 {
            return Err(Fault::failed(format!("`{name}` is empty")).into());
        }
        let sector_size = cx.image.map_or(512, |spec| spec.sector_size);
        if let Some(most) = self.max_size(sector_size).filter(|most| length > *most) {
            return Err(Fault::failed(format!("`{name}` has {length} bytes, more than its `max-size`: {most}"))
                .hint("raise `max-size`; then the image is checked again")
                .into());
        }
        if let Some(spec) = cx.image {
            self.check_again(cx, spec, length)?;
        }
        let kept = cx.scratch.join("bytes");
        reflink_copy::reflink_or_copy(&located.path, &kept).with_context(|| format!("keeping `{name}`"))?;
        cx.origin = Some(PathBuf::from("bytes"));
        cx.detail = crate::diagnostics::size_shown(length);
        Ok(())
    }
}

impl Raw {
    /// With the bytes at hand, what could not be told before anything ran.
    fn check_again(&self, cx: &BuildContext<'_>, spec: &Spec, length: u64) -> Result<()> {
        let (layout, _) = Layout::solve(spec, &mut |_| Ok(1))?;
        let mut earlier = Vec::new();
        for write in &spec.writes {
            let length = match &write.source {
                WriteSource::Step(step) => match cx.writes.get(step) {
                    Some(path) => File::open(path).and_then(|file| file.metadata())?.len(),
                    None => continue,
                },
                WriteSource::Root(_) => write.length.unwrap_or(1),
            };
            earlier.push((write, length));
        }
        match layout.overwrites(spec, &self.write(spec.sector_size), length, &earlier).into_iter().next() {
            Some(overwrite) => Err(Fault::failed(overwrite.message).hint(overwrite.hint).into()),
            None => Ok(()),
        }
    }
}
