//! The action `pack`.

use std::num::NonZero;
use std::path::{Component, Path};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::overlay::check_destination;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::archive::{Compression, pack};
use crate::build::inside::{Inside, Kind};
use crate::build::{BuildContext, CheckContext, InputContext, protected};
use crate::diagnostics::{Diagnostics, Fault, size_shown};

/// Pack the root into a tar archive.
///
/// ```yaml
/// - action: pack
///   file: root.tar.zst
///   compression: auto
/// ```
///
/// The archive holds everything in the root (or in `subdir`), named `./etc/hostname` as by
/// `tar -C root .`: modes, times, extended attributes, capabilities, ACLs, hard links, device nodes,
/// and holes of sparse files; owners by number. Sockets are left out. To unpack it with nothing lost:
///
/// ```sh
/// tar -x --numeric-owner --xattrs --xattrs-include='*' -f root.tar.zst
/// ```
///
/// `compression` is `gz` where it is left out, whatever the name of the file; `auto` goes by the
/// name's ending (`.tar.gz`, `.tgz`, `.tar.bz2`, `.tar.xz`, `.tar.zst`, `.tar.lz`, `.tar.lzma`,
/// `.tar.lzo`, or none of these for a plain `.tar`). gz and bzip2 and xz and zstd work on all
/// processors; `lzip` and `lzop` need the programs of these names.
///
/// The archive of the same tree is the same bit for bit, on any machine, with any number of
/// processors, made by root or not. A build that fails leaves an older archive untouched.
///
/// **Compared with debos**: sorted, numeric owners, ACLs, reproducible, and several times as fast.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pack {
    /// Name of the archive in the artifact directory.
    pub file: String,
    /// `bzip2`, `gz`, `lzip`, `lzma`, `lzop`, `xz`, `zstd`, `none`, or `auto`: by the name's ending.
    #[serde(default = "gz")]
    pub compression: String,
    /// Directory of the root to pack; all of it where it is left out.
    #[serde(default)]
    pub subdir: Option<String>,
}

fn gz() -> String {
    "gz".into()
}

impl Pack {
    fn compression(&self) -> Option<Compression> {
        match self.compression.as_str() {
            "auto" => Some(Compression::by_ending(&self.file)),
            name => Compression::named(name),
        }
    }
}

impl Action for Pack {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_artifact_name(cx, "file", &self.file, out);
        match self.compression() {
            None => out.push(unknown_compression(cx, &self.compression, &["auto"])),
            Some(compression) => {
                let ending = Compression::by_ending(&self.file);
                if ending != compression && ending != Compression::None {
                    let message = format!(
                        "`{}` ends as if compressed with {}, but `compression` is {}",
                        self.file,
                        ending.name(),
                        compression.name()
                    );
                    out.push(cx.warning("file", message).hint("`compression: auto` goes by the name"));
                }
            }
        }
        if let Some(subdir) = &self.subdir {
            check_destination(cx, "subdir", &format!("/{}", subdir.trim_start_matches('/')), out);
        }
        check_root(cx, "to pack", out);
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 2,
            changes: Changes::ARTIFACTS,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs::tools(self.compression().and_then(|compression| compression.program(false))),
            artifacts: vec![self.file.clone()],
            removes: Vec::new(),
            works_on_disk: true,
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
        match &self.subdir {
            Some(subdir) => format!("{subdir} → {}", self.file),
            None => self.file.clone(),
        }
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        if let Some((program, _)) = self.compression().and_then(|compression| compression.program(false)) {
            cx.add(format!("tool {program}"), tool_version(program));
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let compression = self.compression().context("the compression has no meaning")?;
        protected::warn(cx, "a tar archive")?;
        let inside = Inside::open(cx.root)?;
        let subdir = Path::new(self.subdir.as_deref().unwrap_or("/"));
        match inside.kind(subdir)? {
            Some(Kind::Directory) => {}
            Some(other) => {
                return Err(Fault::failed(format!("{} is {other}, not a directory", subdir.display())).into());
            }
            None => return Err(Fault::failed(format!("the root has no directory {}", subdir.display())).into()),
        }
        // The root itself by its own path: one through a descriptor would show up in no message.
        let tree = cx.root.join(inside.resolve(subdir)?);
        let target = cx.artifacts.join(&self.file);
        let directory = target.parent().unwrap_or(cx.artifacts);
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let partial = tempfile::Builder::new()
            .prefix(".debforge-pack-")
            .tempfile_in(directory)
            .with_context(|| format!("making a file in {}", directory.display()))?;
        let file = partial.as_file().try_clone().context("opening the archive once more")?;
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let packed = pack(&tree, file, compression, threads, &mut |done, total| {
            cx.progress("packing", Some((done, total)));
        })
        .with_context(|| format!("packing {}", self.file))?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        partial.as_file().set_permissions(permissions).with_context(|| format!("making {}", self.file))?;
        partial.persist(&target).with_context(|| format!("naming {}", self.file))?;
        cx.detail = size_shown(packed.size);
        Ok(())
    }
}

/// Reports a name that is not one of a file in the artifact directory.
pub(super) fn check_artifact_name(cx: &CheckContext<'_>, property: &str, name: &str, out: &mut Diagnostics) {
    let path = Path::new(name);
    if name.is_empty() || name.ends_with('/') {
        out.push(cx.error(property, format!("`{name}` is not the name of a file")));
    } else if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        out.push(
            cx.error(property, format!("`{name}` leads out of the artifact directory"))
                .hint("it is relative to the artifact directory; see `--artifactdir`"),
        );
    }
}

/// What is wrong with a compression's name, and which names there are beside `others`.
pub(super) fn unknown_compression(
    cx: &CheckContext<'_>,
    said: &str,
    others: &[&str],
) -> crate::diagnostics::Diagnostic {
    let names: Vec<&str> = Compression::ALL.iter().map(|(name, _)| *name).chain(others.iter().copied()).collect();
    let diagnostic = cx.error("compression", format!("there is no compression `{said}`"));
    let alias = Compression::by_ending(&format!("x.{said}"));
    let close = match alias {
        Compression::None => crate::diagnostics::suggest(said, names.iter().copied()),
        alias => Some(alias.name()),
    };
    match close {
        Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
        None => diagnostic.hint(format!("it is one of {}", names.join(", "))),
    }
}

/// Reports that there is no root for an action that reads it; `doing` as in "to pack".
pub(super) fn check_root(cx: &CheckContext<'_>, doing: &str, out: &mut Diagnostics) {
    if !cx.has_root {
        out.push(
            cx.error("file", format!("there is no root {doing} yet"))
                .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
        );
    }
}

/// First line of what a program says about its version; empty where it cannot be asked.
pub(super) fn tool_version(program: &str) -> String {
    let output = std::process::Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match text.lines().next() {
        Some(version) if !version.trim().is_empty() => version.to_owned(),
        _ => crate::debian::host::tool_state(program, program),
    }
}
