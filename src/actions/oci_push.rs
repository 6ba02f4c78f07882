//! The action `oci-push`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, ImageManifest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifact;
use super::oci_image::short;
use super::oci_index::open;
use super::pack::tool_version;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::diagnostics::{Diagnostics, Fault};
use crate::oci::{Layout, REF_NAME, Writer};

/// Push a container image to a registry.
///
/// ```yaml
/// - action: oci-push
///   image: web.oci.tar
///   to: docker://registry.example.org/shop/web:1.0
///   authfile: "{{ authfile }}"
/// ```
///
/// skopeo does it, with every architecture of the image and under the digests that it has here. What refers to the
/// image (its SBOM) is pushed by its digest; registries of version 1.1 of the specification list it with the image.
///
/// It is done when all other actions are, and in every build, whatever the store has: nobody else knows whether the
/// registry still has the image. What it has already is not sent again.
///
/// `authfile` has the credentials, as `skopeo login --authfile FILE` writes it: beside the recipe, or an absolute
/// path. Where it is left out, `REGISTRY_AUTH_FILE` names it, given by `-e` or in debforge's own environment. Nothing
/// of it gets into the log, the store or the plan.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OciPush {
    /// Archive or layout directory among the artifacts.
    pub image: String,
    /// Where it goes: `docker://HOST/NAME:TAG`.
    pub to: String,
    /// File with the credentials: beside the recipe, or an absolute path.
    #[serde(default)]
    pub authfile: Option<String>,
    /// Whether the registry must have a certificate; plain HTTP is tried else.
    #[serde(default = "super::defaults::yes")]
    pub tls_verify: bool,
}

const SKOPEO: (&str, &str) = ("skopeo", "skopeo");

const AUTH_VARIABLE: &str = "REGISTRY_AUTH_FILE";

/// `docker://HOST/NAME` and the tag of a destination.
fn destination(to: &str) -> Option<(&str, &str)> {
    let name = to.strip_prefix("docker://")?;
    let (host, path) = name.split_once('/')?;
    let tag = path.rsplit_once(':').map_or("", |(_, tag)| tag);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    let fits = !host.is_empty() && !path.is_empty() && !path.starts_with(':') && name.chars().all(plain);
    let base = to.len() - if tag.is_empty() { 0 } else { tag.len() + 1 };
    (fits && !path.ends_with([':', '/'])).then(|| (&to[..base], tag))
}

impl OciPush {
    /// The file with the credentials, where there is one.
    fn credentials(&self, cx: &BuildContext<'_>) -> Result<Option<PathBuf>> {
        let path = match &self.authfile {
            Some(path) => cx.recipe_dir.join(path),
            None => match cx.environment.get(AUTH_VARIABLE).cloned().or_else(|| std::env::var(AUTH_VARIABLE).ok()) {
                Some(path) => PathBuf::from(path),
                None => return Ok(None),
            },
        };
        Ok(Some(path.canonicalize().with_context(|| format!("looking for the credentials in {}", path.display()))?))
    }

    /// One call of skopeo; the digest that the registry has it by.
    fn copy(&self, cx: &BuildContext<'_>, source: (&str, &Path, &str), to: &str, auth: Option<&Path>) -> Result<()> {
        let (transport, path, tag) = source;
        let shown = path.to_str().filter(|path| !path.contains(':'));
        let shown = shown.with_context(|| format!("skopeo cannot name {}", path.display()))?;
        let mut from = format!("{transport}:{shown}");
        if !tag.is_empty() {
            from.push_str(&format!(":{tag}"));
        }
        let mut argv: Vec<String> =
            ["skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests"].map(str::to_owned).to_vec();
        if let Some(auth) = auth {
            argv.extend(["--dest-authfile".to_owned(), auth.display().to_string()]);
        }
        argv.extend([format!("--dest-tls-verify={}", self.tls_verify), from, to.to_owned()]);
        // Archives are unpacked on the way.
        let mut runner = cx.host_alone(argv).network(true).env("TMPDIR", cx.scratch.display().to_string());
        for path in [Some(path), auth].into_iter().flatten().filter(|path| !path.starts_with(cx.scratch)) {
            runner = runner.bind(path, path, true);
        }
        if auth.is_none() {
            runner = runner.hint("if the registry wants to know who you are, `authfile` names a file with credentials");
        }
        if self.tls_verify {
            runner = runner.hint("`tls-verify: false` is for registries without a certificate");
        }
        runner.run(&format!("pushing {}", self.image))
    }
}

impl Action for OciPush {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        artifact::check_source(cx, "image", &self.image, out);
        if destination(&self.to).is_none() {
            out.push(
                cx.error("to", format!("`{}` is no place in a registry", self.to))
                    .hint("as in `docker://registry.example.org/web:1.0`"),
            );
        }
        if let Some(path) = &self.authfile
            && cx.files.kind(&cx.recipe_dir.join(path)) != Some(FileKind::File)
        {
            let full = cx.recipe_dir.join(path);
            out.push(
                cx.error("authfile", format!("there is no file `{path}`"))
                    .hint(format!("it is looked for at {}", full.display()))
                    .hint("`skopeo login --authfile FILE HOST` writes one"),
            );
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::OUTSIDE,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs { tools: vec![SKOPEO], network: true, emulation: false },
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: true,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn summary(&self) -> String {
        format!("{} → {}", self.image, self.to)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        cx.add("tool skopeo", tool_version("skopeo"));
        artifact::add_source(cx, &self.image)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let (base, _) = destination(&self.to).context("the destination has no meaning")?;
        let layout = open(cx, &self.image)?;
        let path = cx.artifact(Path::new(&self.image))?.canonicalize().context("looking for the image")?;
        let auth = self.credentials(cx)?;
        let image = main_image(&layout, &self.image)?;
        let tag = image.annotations().as_ref().and_then(|all| all.get(REF_NAME)).cloned().unwrap_or_default();
        let transport = if path.is_dir() { "oci" } else { "oci-archive" };
        cx.progress("pushing the image", None);
        self.copy(cx, (transport, &path, &tag), &self.to, auth.as_deref())?;
        for (number, (descriptor, manifest)) in referrers(&layout)?.into_iter().enumerate() {
            cx.progress("pushing what refers to it", None);
            let alone = cx.scratch.join(format!("referrer-{number}"));
            let writer = Writer::create(&alone)?;
            for blob in manifest.layers().iter().chain([manifest.config(), &descriptor]) {
                layout.copy(blob, &writer)?;
            }
            let to = format!("{base}@{}", descriptor.digest());
            writer.finish(vec![descriptor])?;
            self.copy(cx, ("oci", &alone, ""), &to, auth.as_deref())?;
        }
        let digest = image.digest().to_string();
        cx.log(format!("pushed {base}@{digest}"));
        cx.detail = short(&digest).to_owned();
        Ok(())
    }
}

/// What of a layout is its image: the one thing that is no artifact.
fn main_image(layout: &Layout, name: &str) -> Result<Descriptor> {
    let index = layout.index()?;
    let mut images = index.manifests().iter().filter(|manifest| manifest.artifact_type().is_none());
    match (images.next(), images.next()) {
        (Some(image), None) => Ok(image.clone()),
        (None, _) => Err(Fault::failed(format!("`{name}` has no image")).into()),
        (Some(_), Some(_)) => Err(Fault::failed(format!("`{name}` has several images"))
            .hint("`oci-index` joins images under one name")
            .into()),
    }
}

fn referrers(layout: &Layout) -> Result<Vec<(Descriptor, ImageManifest)>> {
    Ok(layout.manifests()?.into_iter().filter(|(_, manifest)| manifest.subject().is_some()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_a_host_and_a_name() {
        assert_eq!(destination("docker://localhost:5000/a/b:1.0"), Some(("docker://localhost:5000/a/b", "1.0")));
        assert_eq!(destination("docker://r.example/a"), Some(("docker://r.example/a", "")));
        for wrong in ["r.example/a", "docker://a", "docker:///a", "docker://r/a:", "docker://r/:x", "docker://r/a b"] {
            assert_eq!(destination(wrong), None, "{wrong}");
        }
    }
}
