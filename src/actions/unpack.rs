//! The action `unpack`.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::overlay::check_destination;
use super::pack::{tool_version, unknown_compression};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::archive::{Archive, Compression, Unpacked, unpack};
use crate::build::inside::Inside;
use crate::build::origin::Origin;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, size_shown};

/// Unpack an archive into the root.
///
/// ```yaml
/// - action: unpack
///   file: ospack.tar.gz
/// ```
///
/// The archive is a `.tar` (plain or compressed), a `.zip` or a `.deb` (whose data are unpacked,
/// nothing is installed). It is looked for among the artifacts: those that this recipe made before,
/// else those of an earlier build. With `origin: recipe` it stands beside the recipe; with the name of
/// a `download` it is what was downloaded.
///
/// ```yaml
/// - action: download
///   url: https://mirror.example/firmware-1.2.tar.xz
///   name: firmware
///   sha256sum: 7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069
///
/// - action: unpack
///   origin: firmware
///   destdir: /usr/lib/firmware
/// ```
///
/// Owners (by number), modes, times, extended attributes, capabilities, ACLs, hard links and holes are
/// as the archive has them; a zip has no owners, so its files are root's. Files that are there already
/// are replaced, directories keep what is in them, and a link to a directory (`/lib` → `usr/lib`) is
/// followed inside the root. The first archive of a recipe makes the root.
///
/// Nothing an archive holds gets out of the root: a name with `..` is refused, an absolute name or a
/// link counts from the root's top. Device nodes in the root's `/dev` are left out, because the
/// kernel fills `/dev` itself; elsewhere only root may make them.
///
/// **Compared with debos**: nothing is lost that tar can hold, the format is found out from the
/// contents, and hostile archives stay inside.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Unpack {
    /// Archive below the origin; left out where the origin is a downloaded file.
    #[serde(default)]
    pub file: Option<String>,
    /// Where it is: `artifacts` (where it is left out), `recipe`, `filesystem`, or the `name` of a
    /// `download`.
    #[serde(default)]
    pub origin: Option<String>,
    /// Directory of the root that its files go to; made if it is missing.
    #[serde(default = "super::defaults::slash")]
    pub destdir: String,
    /// `bzip2`, `gz`, `lzip`, `lzma`, `lzop`, `xz`, `zstd` or `none`; found out where it is left out.
    #[serde(default)]
    pub compression: Option<String>,
}

impl Unpack {
    fn origin(&self) -> &str {
        self.origin.as_deref().unwrap_or("artifacts")
    }

    fn file(&self) -> &str {
        self.file.as_deref().unwrap_or("")
    }

    /// For messages: the file, or the download.
    fn name(&self) -> &str {
        if self.file().is_empty() { self.origin() } else { self.file() }
    }

    fn compression(&self) -> Option<Compression> {
        self.compression.as_deref().and_then(Compression::named).or_else(|| {
            // Only to know which program will be needed.
            (Compression::by_ending(self.file()) == Compression::Lzop).then_some(Compression::Lzop)
        })
    }

    /// The host's program that unpacks it, where debforge does not.
    fn program(&self) -> Option<(&'static str, &'static str)> {
        self.compression().and_then(|compression| compression.program(true))
    }
}

impl Action for Unpack {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_destination(cx, "destdir", &self.destdir, out);
        if let Some(compression) = &self.compression
            && Compression::named(compression).is_none()
        {
            out.push(unknown_compression(cx, compression, &[]));
        }
        if self.file().is_empty() && self.origin.is_none() {
            out.push(
                cx.error("", "`unpack` needs `file` or `origin`")
                    .hint("`file` names the archive, `origin` alone a `download` that is one file"),
            );
            return;
        }
        if !cx.check_origin("origin", self.origin(), out) {
            return;
        }
        let origin = Origin::named(self.origin());
        if self.file().is_empty() && !matches!(origin, Origin::Download(_)) {
            out.push(cx.error("origin", format!("in `{}` there are many files: `file` is missing", self.origin())));
            return;
        }
        match origin {
            Origin::Recipe => {
                cx.check_recipe_file("file", self.file(), out);
            }
            Origin::Artifacts => {
                let known = cx.any_artifacts
                    || cx.artifacts.iter().any(|artifact| artifact == self.file())
                    || cx.files.kind(&cx.artifact_dir.join(self.file())).is_some();
                if !known {
                    let diagnostic = cx
                        .error("file", format!("there is no `{}` among the artifacts", self.file()))
                        .suggest(self.file(), cx.artifacts.iter().map(String::as_str));
                    let beside = cx.files.kind(&cx.recipe_dir.join(self.file())).is_some();
                    out.push(if beside {
                        diagnostic.hint("beside the recipe there is one: set `origin: recipe`")
                    } else {
                        diagnostic.hint(format!(
                            "no action before this one makes it, and it is not in {}",
                            cx.artifact_dir.display()
                        ))
                    });
                }
            }
            Origin::Filesystem | Origin::Download(_) => {}
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads {
                artifacts: Origin::named(self.origin()).is_made(),
                repositories: false,
                image: false,
                host: false,
            },
            needs: Needs::tools(self.program()),
            artifacts: Vec::new(),
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

    fn release_after(&self, _before: Option<String>) -> Option<String> {
        None
    }

    fn summary(&self) -> String {
        format!("{} → {}", self.name(), self.destdir)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        if let Some((program, _)) = self.program() {
            cx.add(format!("tool {program}"), tool_version(program));
        }
        let path = match Origin::named(self.origin()) {
            Origin::Recipe => cx.recipe_dir.join(self.file()),
            Origin::Artifacts if !cx.is_planned(self.file()) => {
                let path = cx.artifact_dir.join(self.file());
                // A `run` outside the chroot may make it yet.
                if !path.exists() {
                    return Ok(());
                }
                path
            }
            Origin::Artifacts | Origin::Filesystem | Origin::Download(_) => return Ok(()),
        };
        let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
        cx.add_tree(self.file(), &path)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let located = cx.locate(self.origin(), self.file())?;
        let file = File::open(&located.path).with_context(|| format!("opening {}", self.name()))?;
        let inside = Inside::open(cx.root)?;
        let compression = self.compression.as_deref().and_then(Compression::named);
        let archive = Archive { file, name: self.name(), compression };
        let unpacked = unpack(archive, &inside, Path::new(&self.destdir), &mut |done, total| {
            cx.progress("unpacking", Some((done, total)));
        })?;
        report(cx, &unpacked);
        Ok(())
    }
}

/// Tells what came of unpacking, and what was left out.
pub(super) fn report(cx: &mut BuildContext<'_>, unpacked: &Unpacked) {
    if unpacked.devices_left_out > 0 {
        cx.log(format!("left out {} device nodes of /dev", unpacked.devices_left_out));
    }
    for attribute in &unpacked.attributes_left_out {
        cx.warn(format!(
            "the attribute {attribute} of some files was left out: the kernel does not let it be set here"
        ));
    }
    cx.detail = format!("{} files, {}", unpacked.members, size_shown(unpacked.bytes));
}
