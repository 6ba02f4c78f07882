//! What `oci-image` and `bootc-image` share.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::actions::artifact::Output;
use crate::actions::pack::check_artifact_name;
use crate::build::archive::Compression;
use crate::build::oci::{Image, LayerCompression, Settings, division};
use crate::build::{BuildContext, CheckContext, InputContext, protected};
use crate::diagnostics::{Diagnostics, size_shown, suggest};
use crate::oci::{Finished, Tag, chunk, manifest_of};

/// How an image is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A tar archive of a layout.
    OciArchive,
    /// A layout: a directory.
    OciDir,
}

impl Form {
    /// Of a file that nothing more is said of.
    pub(in crate::actions) fn of(file: &str) -> Self {
        if file.ends_with(".tar") { Self::OciArchive } else { Self::OciDir }
    }
}

pub(in crate::actions) fn compression() -> String {
    "zstd".into()
}

/// As many as leave room for layers that others put over it, where [`MOST_LAYERS`] is the end.
pub(in crate::actions) fn max_layers() -> usize {
    96
}

/// Docker's overlay driver takes no more.
const MOST_LAYERS: usize = 127;

/// Properties of both.
pub(in crate::actions) struct Common<'a> {
    pub file: &'a str,
    pub format: Option<Form>,
    pub tag: &'a Tag,
    pub env: &'a BTreeMap<String, String>,
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
    pub compression: &'a str,
    pub max_layers: usize,
    pub previous: Option<&'a str>,
    pub sbom: bool,
}

const FORMATS: [(&str, Compression); 4] =
    [("gzip", Compression::Gz), ("gz", Compression::Gz), ("none", Compression::None), ("zstd", Compression::Zstd)];

impl Common<'_> {
    /// What `compression` means; an error is what is wrong with it, and a way out.
    fn layer_compression(&self) -> Result<LayerCompression, (String, Option<String>)> {
        let (name, level) = match self.compression.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (self.compression, None),
        };
        let Some((_, format)) = FORMATS.iter().find(|(known, _)| *known == name) else {
            let hint = match suggest(name, FORMATS.map(|(name, _)| name)) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "it is one of gzip, none, zstd".to_owned(),
            };
            return Err((format!("layers cannot be compressed with `{name}`"), Some(hint)));
        };
        let Some(level) = level else { return Ok(LayerCompression { format: *format, level: None }) };
        let levels = format.levels().ok_or_else(|| (format!("`{name}` has no levels"), None))?;
        match level.parse() {
            Ok(number) if levels.contains(&number) => Ok(LayerCompression { format: *format, level: Some(number) }),
            _ => Err((
                format!("`{level}` is no level of {name}"),
                Some(format!("it is a number from {} to {}", levels.start(), levels.end())),
            )),
        }
    }

    pub(in crate::actions) fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_artifact_name(cx, "file", self.file, out);
        if let Err((message, hint)) = self.layer_compression() {
            let diagnostic = cx.error("compression", message);
            out.push(match hint {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            });
        }
        if self.max_layers < chunk::FEWEST {
            let message = format!("an image has {} layers or more", chunk::FEWEST);
            out.push(cx.error("max-layers", message).hint("files of no package have up to five of their own"));
        } else if self.max_layers > MOST_LAYERS {
            let message = format!("Docker takes no image of more than {MOST_LAYERS} layers");
            out.push(cx.warning("max-layers", message).hint("podman and bootc do"));
        }
        if let Some(name) = self.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            out.push(cx.error("env", format!("`{name}` is no name of a variable")));
        }
        if let Some(previous) = self.previous {
            let path = cx.recipe_dir.join(previous);
            if cx.files.kind(&path).is_none() {
                out.push(
                    cx.error("previous", format!("there is no `{previous}`"))
                        .hint(format!("it is looked for at {}", path.display()))
                        .hint("the first image has none: leave it out"),
                );
            }
        }
    }

    fn division(&self, recipe_dir: &Path) -> Result<Vec<Vec<String>>> {
        let Some(previous) = self.previous else { return Ok(Vec::new()) };
        Ok(division(&manifest_of(&recipe_dir.join(previous))?))
    }

    pub(in crate::actions) fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        if self.previous.is_some() {
            let division = serde_json::to_vec(&self.division(cx.recipe_dir)?)?;
            cx.add("layers of the previous image", blake3::hash(&division).to_hex().to_string());
        }
        Ok(())
    }

    /// Makes the image; `files` are in it and not in the root.
    pub(in crate::actions) fn make(
        &self,
        cx: &mut BuildContext<'_>,
        settings: Settings,
        files: BTreeMap<PathBuf, Vec<u8>>,
    ) -> Result<()> {
        protected::warn(cx, "a container image")?;
        let name = Path::new(self.file).file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".tar").trim_end_matches(".oci");
        let mut labels = settings.labels.clone();
        labels.extend(self.labels.clone());
        let image = Image {
            root: cx.root,
            scratch: cx.scratch,
            architecture: cx.architecture,
            epoch: cx.source_date_epoch,
            settings: Settings { env: self.env.clone(), labels, ..settings },
            annotations: self.annotations.clone(),
            compression: self.layer_compression().map_err(|(message, _)| anyhow::anyhow!(message))?,
            max_layers: self.max_layers,
            previous: self.division(cx.recipe_dir)?,
            files,
            tag: self.tag.clone(),
            sbom: self.sbom.then(|| name.to_owned()),
        };
        let started = Instant::now();
        let made = image
            .make(&mut |done, total| cx.progress("writing layers", Some((done, total))))
            .with_context(|| format!("making {}", self.file))?;
        let (layers, size) = (made.layers, size_shown(made.size));
        finish(cx, made.layout, self.file, self.format.unwrap_or(Form::of(self.file)))?;
        cx.log(format!("wrote {} in {:.3} s", self.file, started.elapsed().as_secs_f64()));
        cx.log(format!("digest of the image: {}", made.digest));
        cx.detail = format!("{layers} layers, {size}, {}", short(&made.digest));
        Ok(())
    }
}

/// `sha256:0123456789ab`
pub(in crate::actions) fn short(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}

/// Puts a layout among the artifacts.
pub(in crate::actions) fn finish(cx: &BuildContext<'_>, layout: Finished, file: &str, form: Form) -> Result<()> {
    match form {
        Form::OciDir => layout.move_to(&cx.artifacts.join(file)),
        Form::OciArchive => {
            cx.progress(format!("writing {file}"), None);
            let output = Output::begin(cx, file)?;
            let mut to = BufWriter::with_capacity(1 << 20, output.file());
            layout.archive(&mut to)?;
            to.flush().with_context(|| format!("writing {file}"))?;
            drop(to);
            output.file().set_permissions(Permissions::from_mode(0o644))?;
            output.finish().map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(compression: &str) -> Result<LayerCompression, (String, Option<String>)> {
        let (none, tag) = (BTreeMap::new(), Tag::default());
        let common = Common {
            file: "x.tar",
            format: None,
            tag: &tag,
            env: &none,
            labels: &none,
            annotations: &none,
            compression,
            max_layers: 64,
            previous: None,
            sbom: false,
        };
        common.layer_compression()
    }

    #[test]
    fn compressions_have_levels() {
        assert_eq!(compressed("zstd:15").unwrap().level, Some(15));
        assert_eq!(compressed("gzip").unwrap().format, Compression::Gz);
        for wrong in ["xz", "zstd:23", "none:1", "gzip:x"] {
            assert!(compressed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_name_tells_the_form() {
        assert_eq!(Form::of("a.oci.tar"), Form::OciArchive);
        assert_eq!(Form::of("a"), Form::OciDir);
    }
}
