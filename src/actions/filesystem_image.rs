//! The action `filesystem-image`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::artifact::Output;
use super::overlay::check_destination;
use super::pack::check_artifact_name;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::image::{Room, make_alone};
use crate::build::inside::{Inside, Kind};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::debian::host;
use crate::diagnostics::{Diagnostics, Fault, size_shown, suggest};
use crate::image::filesystem::{self, Tree, fat_for};
use crate::image::{Contents, FilesystemKind, Size, Spec};

/// Put the root into a file system of its own, without a disk around it.
///
/// ```yaml
/// - action: filesystem-image
///   file: root.squashfs
/// ```
///
/// The kind is that of the name's ending where `filesystem` does not say it. `subdir` takes a part of the
/// root:
///
/// ```yaml
/// - action: filesystem-image
///   file: data.img
///   filesystem: ext4
///   subdir: /srv
///   size: auto
///   margin: 20%
///   label: data
/// ```
///
/// | `filesystem` | |
/// |---|---|
/// | `squashfs`, `erofs` | read-only; as large as they come out. squashfs is always compressed |
/// | `ext2`, `ext3`, `ext4`, `btrfs`, `xfs`, `f2fs` | as large as the contents want, with `margin`; or `size` |
/// | `fat12`, `fat16`, `fat32` (`vfat`), `fat` for what suits the `size` | without owners and modes |
///
/// Owners, modes, times, capabilities, extended attributes, hard links and holes are kept as far as the
/// kind can; where it cannot, the build fails and says so. Such an image is mounted by `mount -o loop`,
/// or is the root of a machine. The same root gives the same image.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilesystemImage {
    /// Name of the image in the artifact directory.
    pub file: String,
    /// Kind of the file system; by the name's ending where it is left out.
    #[serde(default)]
    pub filesystem: Option<String>,
    /// Directory of the root that is put into it; all of it where it is left out.
    #[serde(default)]
    pub subdir: Option<String>,
    /// How large it is: `512MiB`, `2GB`, … or `auto`, as its contents want it.
    #[serde(default = "auto")]
    pub size: String,
    /// Free space, with `size: auto`: a size or per cent of the contents. 10 % where it is left out.
    #[serde(default)]
    pub margin: Option<String>,
    /// Label of the file system.
    #[serde(default)]
    pub label: Option<String>,
    /// UUID of the file system (8 hex digits of a FAT); follows from the file's name where it is left out.
    #[serde(default)]
    pub uuid: Option<String>,
    /// How it is compressed, with the level: `zstd:15`, `xz`, `lz4hc`.
    #[serde(default)]
    pub compression: Option<String>,
    /// Further arguments of mkfs.
    #[serde(default)]
    pub mkfs_options: Vec<String>,
}

fn auto() -> String {
    "auto".into()
}

/// Room for what a system writes, where nobody says how much.
const MARGIN: Room = Room::Contents { margin: 0, percent: 10 };

/// Sectors that sizes may be counted in.
const SECTOR: u32 = 512;

impl FilesystemImage {
    /// As it is written, or as the file's name ends.
    fn filesystem(&self) -> &str {
        self.filesystem.as_deref().unwrap_or_else(|| self.file.rsplit_once('.').map_or("", |(_, ending)| ending))
    }

    fn kind(&self) -> Option<FilesystemKind> {
        let size = self.size.parse::<Size>().ok().and_then(|size| size.bytes(SECTOR));
        let kind = match (self.filesystem(), size) {
            ("fat", Some(bytes)) => Some(fat_for(bytes)),
            (name, _) => FilesystemKind::named(name),
        };
        use FilesystemKind::{None, Swap, Verity};
        kind.filter(|kind| !(matches!(kind, None | Swap | Verity) || kind.is_kernels()))
    }

    /// The host's programs that make it.
    fn tools(&self) -> Vec<(&'static str, &'static str)> {
        self.kind().map_or(&[][..], filesystem::programs).to_vec()
    }

    fn room(&self) -> Option<Room> {
        let bytes = |text: &str| text.parse::<Size>().ok()?.bytes(SECTOR);
        if self.size.trim() != "auto" {
            return bytes(&self.size).map(Room::Bytes);
        }
        let Some(margin) = self.margin.as_deref().map(str::trim) else { return Some(MARGIN) };
        Some(match margin.strip_suffix('%') {
            Some(percent) => Room::Contents { margin: 0, percent: percent.trim().parse().ok()? },
            None => Room::Contents { margin: bytes(margin)?, percent: 0 },
        })
    }

    /// As mkfs takes it; `None` where it is no UUID of this kind.
    fn uuid(&self, kind: FilesystemKind) -> Option<String> {
        let fat = matches!(kind, FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32);
        let derived = || Spec::derived_uuid(&self.file, "file system").to_string();
        if !fat {
            let given = self.uuid.as_deref().map_or_else(|| Ok(Uuid::nil()), Uuid::parse_str).ok()?;
            return Some(if self.uuid.is_some() { given.to_string() } else { derived() });
        }
        let digits = self.uuid.clone().unwrap_or_else(|| derived()[..8].to_owned()).replace('-', "").to_uppercase();
        let whole = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole.then(|| format!("{}-{}", &digits[..4], &digits[4..]))
    }
}

/// Reports a compression that a kind of file system does not have. Levels stand behind a colon.
pub(super) fn check_compression(
    cx: &CheckContext<'_>,
    kind: FilesystemKind,
    filesystem: &str,
    compression: Option<&str>,
    out: &mut Diagnostics,
) {
    let Some(said) = compression else { return };
    let (name, level) = said.split_once(':').map_or((said, None), |(name, level)| (name, Some(level)));
    let names = kind.compressions();
    if !names.contains(&name) {
        let diagnostic = cx.error("compression", format!("{filesystem} cannot be compressed with `{name}`"));
        out.push(match (names.is_empty(), suggest(name, names.iter().copied())) {
            (true, _) => diagnostic.hint("btrfs, erofs, f2fs and squashfs compress"),
            (_, Some(close)) => diagnostic.hint(format!("did you mean `{close}`?")),
            _ => diagnostic.hint(format!("it is one of {}", names.join(", "))),
        });
    } else if let Some(level) = level.filter(|level| level.parse::<u32>().is_err()) {
        out.push(
            cx.error("compression", format!("`{level}` is not a level of {name}"))
                .hint(format!("it is as in `{name}:3`")),
        );
    }
}

impl Action for FilesystemImage {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_artifact_name(cx, "file", &self.file, out);
        let filesystem = self.filesystem();
        match self.kind() {
            None if self.filesystem.is_none() => out.push(
                cx.error("file", format!("`{}` does not say what file system it is to be", self.file))
                    .hint("give it by `filesystem`: `squashfs`, `erofs`, `ext4`, …"),
            ),
            None => {
                let offline = FilesystemKind::NAMES.iter().filter(|(_, kind)| !kind.is_kernels());
                let names = offline.map(|(name, _)| *name);
                let diagnostic = cx.error("filesystem", format!("`{filesystem}` is no file system that holds files"));
                out.push(match suggest(filesystem, names) {
                    Some(close) if close != filesystem => diagnostic.hint(format!("did you mean `{close}`?")),
                    _ => diagnostic.hint("for instance `squashfs`, `erofs` or `ext4`"),
                });
            }
            Some(kind) => {
                check_compression(cx, kind, filesystem, self.compression.as_deref(), out);
                if let Some(label) = self.label.as_deref().filter(|label| label.len() > kind.longest_label()) {
                    let message = match kind.longest_label() {
                        0 => format!("{filesystem} has no label"),
                        longest => format!("the label has {} bytes, {filesystem} takes {longest}", label.len()),
                    };
                    out.push(cx.error("label", message));
                }
                match &self.uuid {
                    Some(_) if kind == FilesystemKind::Squashfs => {
                        out.push(cx.error("uuid", "squashfs has no UUID").hint("leave it out; erofs has one"));
                    }
                    Some(uuid) if self.uuid(kind).is_none() => {
                        out.push(cx.error("uuid", format!("`{uuid}` is not a UUID of {filesystem}")));
                    }
                    _ => {}
                }
                if kind.is_read_only() && self.margin.is_some() {
                    out.push(
                        cx.error("margin", format!("nothing is ever written to {filesystem}")).hint("leave it out"),
                    );
                }
            }
        }
        if self.room().is_none() {
            let property = if self.size.trim() == "auto" { "margin" } else { "size" };
            let said = if property == "size" { &self.size } else { self.margin.as_ref().unwrap_or(&self.size) };
            out.push(cx.error(property, format!("`{said}` is not a size")).hint("for instance `512MiB` or `2GB`"));
        } else if self.size.trim() != "auto" && self.margin.is_some() {
            out.push(cx.error("margin", "`margin` means nothing with a fixed size").hint("set `size: auto`"));
        }
        if let Some(subdir) = &self.subdir {
            check_destination(cx, "subdir", &format!("/{}", subdir.trim_start_matches('/')), out);
        }
        if !cx.has_root {
            out.push(
                cx.error("file", "there is no root to put into it yet")
                    .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
            );
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            // 2: what mkfs took from the host in btrfs, and the order of several attributes in squashfs and erofs.
            version: 3,
            changes: Changes::ARTIFACTS,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs::tools(self.tools()),
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
        for (program, package) in self.tools() {
            cx.add(format!("tool {program}"), host::tool_state(program, package));
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let kind = self.kind().context("the file system has no meaning")?;
        let room = self.room().context("the size has no meaning")?;
        let inside = Inside::open(cx.root)?;
        let subdir = Path::new(self.subdir.as_deref().unwrap_or("/"));
        match inside.kind(subdir)? {
            Some(Kind::Directory) => {}
            Some(other) => {
                return Err(Fault::failed(format!("{} is {other}, not a directory", subdir.display())).into());
            }
            None => return Err(Fault::failed(format!("the root has no directory {}", subdir.display())).into()),
        }
        let at = inside.resolve(subdir)?;
        let top: PathBuf = cx.root.join(&at);
        let protected = cx
            .protected
            .iter()
            .filter_map(|(path, letters)| Some((Path::new(path).strip_prefix(&at).ok()?.to_owned(), letters.clone())));
        let contents = Contents {
            kind,
            label: self.label.clone().unwrap_or_default(),
            uuid: self.uuid(kind).context("the UUID has no meaning")?,
            features: Vec::new(),
            extended_options: Vec::new(),
            mkfs_options: self.mkfs_options.clone(),
            compression: self.compression.clone(),
            subvolumes: Vec::new(),
            fsck: false,
            verity: None,
        };
        cx.progress(format!("making the {}", self.filesystem()), None);
        let output = Output::begin(cx, &self.file)?;
        let tree = Tree { top: Some(top), protected: protected.collect(), ..Tree::default() };
        make_alone(cx, &self.file, &contents, &tree, room, output.path())?;
        cx.detail = size_shown(output.finish()?);
        Ok(())
    }
}
