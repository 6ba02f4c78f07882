//! The action `oci-image`.

mod common;

use std::collections::BTreeMap;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use self::common::{Common, Form, compression, finish, max_layers, short};
use super::pack::check_root;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::files::RootFiles;
use crate::build::oci::Settings;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, Fault};
use crate::oci::Tag;

/// Make a container image of the root.
///
/// ```yaml
/// - action: oci-image
///   file: web.oci.tar
///   tag: "1.0"
///   entrypoint: [/usr/sbin/nginx, -g, daemon off;]
///   exposed-ports: [80/tcp]
///   labels:
///     org.opencontainers.image.source: https://git.example.org/web
/// ```
///
/// The image is an oci-archive, which podman, skopeo and others take as `oci-archive:web.oci.tar:1.0`, or a layout
/// directory (`oci:web:1.0`). `oci-push` puts it into a registry; `oci-index` joins those of several architectures.
///
/// Its layers are divided by package, so that a client that has an earlier image fetches little more than what
/// changed: the largest source packages have a layer each, the others share some, each always the same one. Files that
/// no package has come last: those beside the kernel, configuration, /var, and what changes with every package (dpkg's
/// database). `previous` names an earlier image whose division is kept where packages came or grew.
///
/// zstd, the default, is read by podman, skopeo, buildah and containerd of Debian 12 and later, and by Docker from 23
/// on: not by Docker and umoci of Debian 12 (20.10 and 0.4.7), nor by any umoci before 0.5. For these there is
/// `compression: gzip`. `zstd:15` names a level.
///
/// With `sbom: true` the packages are listed as an SPDX document beside the image, which refers to it (an OCI
/// *referrer*); the layout then has two manifests, and the image must be asked for by its tag.
///
/// Contents of /dev, /proc and /sys are left out, since containers have their own. The same root gives the same digest,
/// on any machine, with any number of processors, made by root or not.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OciImage {
    /// Name of the image in the artifact directory.
    pub file: String,
    /// `oci-archive` or `oci-dir`; where it is left out an archive if the name ends in `.tar`.
    #[serde(default)]
    pub format: Option<Form>,
    /// What the image is called in its layout.
    #[serde(default)]
    pub tag: Tag,
    /// The program that containers run.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Its arguments, or the program where there is no `entrypoint`.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Variables of its environment, beside `PATH`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Who it runs as: a name or number of the root's, with a group after `:`.
    #[serde(default)]
    pub user: Option<String>,
    /// Directory that it runs in.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Ports that it listens on: `80/tcp`.
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    /// Directories that outlive a container.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Signal that ends it: `SIGTERM`.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Labels of the image.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations of its manifest.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// `zstd`, `gzip` or `none`, with a level: `zstd:15`.
    #[serde(default = "compression")]
    pub compression: String,
    /// How many layers it has at most.
    #[serde(default = "max_layers")]
    pub max_layers: usize,
    /// An earlier image or its manifest, whose layers are kept: beside the recipe, or an absolute path.
    #[serde(default)]
    pub previous: Option<String>,
    /// Whether an SPDX document of the packages refers to it.
    #[serde(default)]
    pub sbom: bool,
}

impl OciImage {
    fn common(&self) -> Common<'_> {
        Common {
            file: &self.file,
            format: self.format,
            tag: &self.tag,
            env: &self.env,
            labels: &self.labels,
            annotations: &self.annotations,
            compression: &self.compression,
            max_layers: self.max_layers,
            previous: self.previous.as_deref(),
            sbom: self.sbom,
        }
    }
}

impl Action for OciImage {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        self.common().check(cx, out);
        check_root(cx, "to make an image of", out);
        for (index, port) in self.exposed_ports.iter().enumerate() {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            if number.parse::<u16>().is_err() || !["tcp", "udp", "sctp"].contains(&protocol) {
                out.push(
                    cx.error(&format!("exposed-ports[{index}]"), format!("`{port}` is no port")).hint("as in `80/tcp`"),
                );
            }
        }
        let volumes = self.volumes.iter().enumerate().map(|(index, path)| (format!("volumes[{index}]"), path));
        for (property, path) in volumes.chain(self.workdir.iter().map(|path| ("workdir".to_owned(), path))) {
            if !path.starts_with('/') {
                out.push(cx.error(&property, format!("`{path}` is not absolute")));
            }
        }
        if let Some(signal) = self.stop_signal.as_ref().filter(|signal| !is_signal(signal)) {
            out.push(
                cx.error("stop-signal", format!("`{signal}` is no signal")).hint("as in `SIGTERM`, or its number"),
            );
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Used,
            reads: Reads::NOTHING,
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
        format!("{}:{}", self.file, self.tag)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        self.common().inputs(cx)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let settings = Settings {
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            exposed_ports: self.exposed_ports.clone(),
            volumes: self.volumes.clone(),
            stop_signal: self.stop_signal.clone(),
            ..Settings::default()
        };
        if let Some(user) = &self.user {
            check_user(&RootFiles::open(cx.root)?, user)?;
        }
        self.common().make(cx, settings, BTreeMap::new())
    }
}

/// That the root knows the user, and the group after `:`; numbers need no name.
fn check_user(root: &RootFiles, user: &str) -> Result<()> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    for (name, file, what) in [(Some(user), "/etc/passwd", "user"), (group, "/etc/group", "group")] {
        let Some(name) = name.filter(|name| !name.chars().all(|c| c.is_ascii_digit())) else { continue };
        let known = root.text(file)?.unwrap_or_default();
        if !known.lines().any(|line| line.split(':').next() == Some(name)) {
            return Err(Fault::failed(format!("the root has no {what} `{name}`, which containers would run as"))
                .hint("make it before this action, or give its number")
                .into());
        }
    }
    Ok(())
}

fn is_signal(text: &str) -> bool {
    let name = text.strip_prefix("SIG").unwrap_or_default();
    text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number))
        || (!name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_or_numbers() {
        assert!(is_signal("SIGTERM") && is_signal("9") && is_signal("SIGRTMIN+3"));
        assert!(!is_signal("TERM") && !is_signal("0") && !is_signal("65") && !is_signal("SIG"));
    }
}
