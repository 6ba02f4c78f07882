//! The action `oci-index`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifact;
use super::oci_image::{Form, finish, short};
use super::pack::check_artifact_name;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, Fault};
use crate::oci::{Layout, Tag, Writer, join};

/// Join container images of several architectures under one name.
///
/// ```yaml
/// - action: oci-index
///   images: [web-amd64.oci.tar, web-arm64.oci.tar]
///   file: web.oci.tar
///   tag: "1.0"
/// ```
///
/// A client that asks for the image gets that of its own architecture. `images` are artifacts, of this build or of
/// earlier ones: build a recipe with `oci-image` and `file: web-{{ arch }}.oci.tar` once with `-t arch:amd64` and once
/// with `-t arch:arm64`, then one with this action alone. What refers to the images, such as SBOMs, comes along. The
/// same images give the same digest, in whatever order.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OciIndex {
    /// Archives or layout directories among the artifacts.
    pub images: Vec<String>,
    /// Name of the joint image in the artifact directory.
    pub file: String,
    /// `oci-archive` or `oci-dir`; where it is left out an archive if the name ends in `.tar`.
    #[serde(default)]
    pub format: Option<Form>,
    /// What it is called in its layout.
    #[serde(default)]
    pub tag: Tag,
    /// Annotations of the index.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Action for OciIndex {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if self.images.is_empty() {
            out.push(cx.error("images", "there is nothing to join").hint("`images` names images among the artifacts"));
        }
        for (index, image) in self.images.iter().enumerate() {
            let property = format!("images[{index}]");
            artifact::check_source(cx, &property, image, out);
            artifact::check_output(cx, "file", &self.file, image, out);
        }
        if self.images.is_empty() {
            check_artifact_name(cx, "file", &self.file, out);
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs::NOTHING,
            artifacts: vec![self.file.clone()],
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
        format!("{} → {}:{}", self.images.join(", "), self.file, self.tag)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        self.images.iter().try_for_each(|name| artifact::add_source(cx, name))
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let mut layouts = Vec::new();
        for name in &self.images {
            layouts.push((name.clone(), open(cx, name)?));
        }
        let writer = Writer::create(&cx.scratch.join("layout"))?;
        cx.progress("copying images", None);
        let (layout, digest, platforms) = join(&layouts, writer, self.annotations.clone(), &self.tag)?;
        finish(cx, layout, &self.file, self.format.unwrap_or(Form::of(&self.file)))?;
        cx.log(format!("digest of the index: {digest}"));
        cx.detail = format!("{}, {}", platforms.join(", "), short(&digest));
        Ok(())
    }
}

/// An image among the artifacts.
pub(super) fn open(cx: &BuildContext<'_>, name: &str) -> Result<Layout> {
    let path = cx.artifact(Path::new(name))?;
    let layout = Layout::open(&path).with_context(|| format!("reading {name}"))?;
    layout.ok_or_else(|| Fault::failed(format!("`{name}` is no OCI image: neither an archive nor a layout")).into())
}
