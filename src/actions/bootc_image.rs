//! The action `bootc-image`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::oci_image::{Common, Form, compression, max_layers};
use super::pack::check_root;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::files::RootFiles;
use crate::build::image;
use crate::build::oci::Settings;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, Fault};
use crate::inspect::bootc::{Finding, Level, lint};
use crate::inspect::tree::Directory;
use crate::oci::Tag;

/// Make a bootc image of the root: a container image that machines install and update themselves from.
///
/// ```yaml
/// - action: bootc-image
///   file: system.oci.tar
///   tag: "13"
///   kargs: [console=ttyS0, quiet]
/// ```
///
/// The root must be prepared for it, as for an OSTree commit but with its configuration in /etc: a kernel with its
/// initramfs as `/usr/lib/modules/VERSION/vmlinuz` and `initramfs.img`, `/sysroot`, `/ostree` → `sysroot/ostree`, and
/// empty /boot, /dev, /proc, /run, /sys and /tmp. What is in /var is for containers, and for machines when they are
/// installed; tmpfiles.d makes it on those that are updated.
///
/// Before anything is written the root goes through the fourteen checks of `bootc container lint`; a fatal one that
/// fails ends the build, others are warnings. `debforge lint-bootc` does the same for a directory, archive or image.
///
/// The image has the labels `containers.bootc=1` and `ostree.bootable=1` and runs /sbin/init. `kargs` goes into
/// `/usr/lib/bootc/kargs.d/10-debforge.toml` of the image, not of the root. For layers, digests, `previous`, `sbom` and
/// clients see `oci-image`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BootcImage {
    /// Name of the image in the artifact directory.
    pub file: String,
    /// `oci-archive` or `oci-dir`; where it is left out an archive if the name ends in `.tar`.
    #[serde(default)]
    pub format: Option<Form>,
    /// What the image is called in its layout.
    #[serde(default)]
    pub tag: Tag,
    /// What the kernel is told, an argument each: `dyndbg="file a.c +p"`.
    #[serde(default)]
    pub kargs: Vec<String>,
    /// Whether checks that only warn end the build too.
    #[serde(default)]
    pub fatal_warnings: bool,
    /// Variables of the environment when it runs as a container.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Labels of the image, beside bootc's.
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

const KARGS: &str = "usr/lib/bootc/kargs.d/10-debforge.toml";

#[derive(Serialize)]
struct KernelArguments<'a> {
    kargs: &'a [String],
}

impl BootcImage {
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

    fn lint(&self, cx: &BuildContext<'_>) -> Result<()> {
        cx.progress("checking the root", None);
        let findings = lint(&Directory::new(cx.root.to_owned(), true)).context("checking the root")?;
        let mut faults = Vec::new();
        for Finding { name, level, fault } in findings {
            let Some(fault) = fault else { continue };
            match level {
                Level::Warning if !self.fatal_warnings => cx.warn(format!("{name}: {fault}")),
                _ => faults.push(format!("{name}: {fault}")),
            }
        }
        match faults.len() {
            0 => Ok(()),
            1 => Err(Fault::failed(format!("the root makes no bootc image: {}", faults[0])).into()),
            count => {
                Err(Fault::failed(format!("the root makes no bootc image: {count} checks failed")).tail(faults).into())
            }
        }
    }

    /// That there is something to boot, which bootc does not check before it installs.
    fn kernel(root: &RootFiles) -> Result<()> {
        let modules = "/usr/lib/modules";
        let kernels: Vec<String> = root.names(modules)?;
        let with = |file: &str| kernels.iter().find(|kernel| root.has(&format!("{modules}/{kernel}/{file}")));
        let Some(kernel) = with("vmlinuz") else {
            return Err(Fault::failed(format!("the root has no kernel: there is no {modules}/VERSION/vmlinuz"))
                .hint("install one, and copy it there from /boot")
                .into());
        };
        if !root.has(&format!("{modules}/{kernel}/initramfs.img")) {
            return Err(Fault::failed(format!("the kernel has no initramfs: there is no {modules}/{kernel}/initramfs.img"))
                .hint(format!("dracut --force --no-hostonly --reproducible --add ostree --kver {kernel} {modules}/{kernel}/initramfs.img"))
                .into());
        }
        Ok(())
    }
}

impl Action for BootcImage {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        self.common().check(cx, out);
        check_root(cx, "to make an image of", out);
        for (index, argument) in self.kargs.iter().enumerate() {
            let words = image::split(argument);
            let is_closed = argument.matches('"').count().is_multiple_of(2);
            if words.len() != 1 || words[0] != *argument || !is_closed || argument.contains(char::is_control) {
                out.push(
                    cx.error(&format!("kargs[{index}]"), format!("`{argument}` is not one kernel argument"))
                        .hint("each argument is an item of the list; spaces stand in quotes: `dyndbg=\"file a.c +p\"`"),
                );
            }
        }
        for label in ["containers.bootc", "ostree.bootable"] {
            if self.labels.contains_key(label) {
                out.push(cx.error("labels", format!("`{label}` is set already")).hint("leave it out"));
            }
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
        self.lint(cx)?;
        Self::kernel(&RootFiles::open(cx.root)?)?;
        let labels = [("containers.bootc", "1"), ("ostree.bootable", "1")];
        let settings = Settings {
            cmd: vec!["/sbin/init".to_owned()],
            stop_signal: Some("SIGRTMIN+3".to_owned()),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Settings::default()
        };
        let mut files = BTreeMap::new();
        if !self.kargs.is_empty() {
            let text = toml::to_string(&KernelArguments { kargs: &self.kargs }).context("writing kernel arguments")?;
            files.insert(PathBuf::from(KARGS), text.into_bytes());
        }
        self.common().make(cx, settings, files)
    }
}
