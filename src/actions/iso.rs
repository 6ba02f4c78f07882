//! The action `iso`.

mod firmware;
mod system;

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::firmware::{Firmware, Loaders};
use self::system::System;
use super::artifact::Output;
use super::filesystem_image::check_compression;
use super::pack::{check_artifact_name, tool_version};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::image::{Room, make_alone};
use crate::build::inside::Inside;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::debian::host;
use crate::diagnostics::{Diagnostics, size_shown, suggest};
use crate::image::filesystem::{self, Tree};
use crate::image::{Contents, FilesystemKind, Spec};

/// Make a live image that boots from CDs and USB sticks.
///
/// ```yaml
/// - action: iso
///   file: live.iso
///   volume-id: FORGE_LIVE
///   menu: Forge live
///   kernel-cmdline: quiet console=ttyS0,115200 console=tty0
/// ```
///
/// The root goes into a squashfs at `/live/filesystem.squashfs` (or an erofs under the same name), which
/// is mounted read-only when the image boots; what is written stays in memory. The image is hybrid:
/// burnt to a CD or copied to a USB stick (`dd`), it boots by BIOS and by EFI, with secure boot where the
/// root has Debian's signed loaders.
///
/// The root needs:
///
/// | package | for |
/// |---|---|
/// | `linux-image-…` | the kernel; the newest is taken |
/// | `live-boot` | finding and mounting the squashfs |
/// | `systemd-sysv` | an init |
/// | `grub-efi-amd64-signed`, `shim-signed` | EFI with secure boot on amd64; arm64 likewise |
/// | `grub-efi-amd64-bin` or `grub-efi-arm64-bin` | EFI without it |
/// | `grub-pc-bin`, `grub-common` | BIOS |
///
/// What the root lacks of the loaders is taken from this machine's packages of the same names, if they
/// are there. `recipes/live.yaml` is a whole recipe.
///
/// amd64 and i386 boot by both firmwares, all other architectures by EFI; `firmware: [efi]` leaves one
/// out. An erofs wants `erofs` in the root's `/etc/initramfs-tools/modules` before the initrd is made.
///
/// The same root gives the same image. It is found again by an id that follows from its contents, so
/// two images in one machine are not mixed up.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Iso {
    /// Name of the image in the artifact directory.
    pub file: String,
    /// Volume id: at most 32 of `A` to `Z`, digits and `_`; from the file's name where it is left out.
    #[serde(default)]
    pub volume_id: Option<String>,
    /// `squashfs` or `erofs`.
    #[serde(default = "squashfs")]
    pub filesystem: String,
    /// How it is compressed, with the level: `zstd:15`, `xz`, `lz4hc`; zstd (squashfs) or lz4hc (erofs)
    /// where it is left out.
    #[serde(default)]
    pub compression: Option<String>,
    /// What the kernel is told beside `boot=live`. `console=ttyS0` puts the menu on the serial console
    /// as well.
    #[serde(default)]
    pub kernel_cmdline: String,
    /// What the boot menu calls it.
    #[serde(default = "menu")]
    pub menu: String,
    /// Seconds that the menu waits.
    #[serde(default = "timeout")]
    pub timeout: u32,
    /// `bios` and `efi`; all that the architecture has where it is left out.
    #[serde(default)]
    pub firmware: Option<Vec<String>>,
}

fn squashfs() -> String {
    "squashfs".into()
}

fn menu() -> String {
    "Debian live".into()
}

fn timeout() -> u32 {
    5
}

const XORRISO: (&str, &str) = ("xorriso", "xorriso");

/// Packages of the host that loaders may come from.
const LOADERS: [&str; 7] = [
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "grub-efi-arm64-bin",
    "grub-efi-arm64-signed",
    "grub-pc-bin",
    "shim-signed",
];

/// Kinds of file systems.
const FILESYSTEMS: [(&str, FilesystemKind); 2] =
    [("squashfs", FilesystemKind::Squashfs), ("erofs", FilesystemKind::Erofs)];

/// ECMA-119 has no more room.
const LONGEST_VOLUME_ID: usize = 32;

impl Iso {
    fn kind(&self) -> Option<FilesystemKind> {
        FILESYSTEMS.iter().find(|(name, _)| *name == self.filesystem).map(|(_, kind)| *kind)
    }

    /// The host's programs that make it.
    fn tools(&self) -> Vec<(&'static str, &'static str)> {
        let kinds = [self.kind(), Some(FilesystemKind::Fat16)];
        let file_systems = kinds.into_iter().flatten().flat_map(filesystem::programs);
        std::iter::once(&XORRISO).chain(file_systems).copied().collect()
    }

    fn volume_id(&self) -> String {
        self.volume_id.clone().unwrap_or_else(|| {
            let stem = Path::new(&self.file).file_stem().unwrap_or_default().to_string_lossy().to_uppercase();
            let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
            stem.chars().map(plain).take(LONGEST_VOLUME_ID).collect()
        })
    }

    fn firmware(&self, architecture: crate::debian::Architecture) -> Vec<Firmware> {
        let all = Firmware::of(architecture);
        match &self.firmware {
            None => all.to_vec(),
            Some(names) => {
                all.iter().copied().filter(|firmware| names.iter().any(|name| name == firmware.name())).collect()
            }
        }
    }

    fn contents(&self, kind: FilesystemKind, label: &str, seed: &str) -> Contents {
        let uuid = Spec::derived_uuid(seed, label).to_string().to_uppercase();
        let compression = match kind {
            FilesystemKind::Erofs => Some(self.compression.clone().unwrap_or_else(|| "lz4hc".to_owned())),
            FilesystemKind::Squashfs => self.compression.clone(),
            _ => None,
        };
        Contents {
            kind,
            label: label.to_owned(),
            uuid: match kind {
                FilesystemKind::Fat16 => format!("{}-{}", &uuid[..4], &uuid[4..8]),
                _ => uuid.to_lowercase(),
            },
            features: Vec::new(),
            extended_options: Vec::new(),
            mkfs_options: Vec::new(),
            compression,
            subvolumes: Vec::new(),
            fsck: false,
            verity: None,
        }
    }

    /// The root's file system, kernel and initrd, in the image's directory `live`.
    fn live(&self, cx: &BuildContext<'_>, system: &System, live: &Path) -> Result<()> {
        let kind = self.kind().context("the file system has no meaning")?;
        fs::create_dir_all(live).context("making a place for the image's files")?;
        cx.progress(format!("making the {}", self.filesystem), None);
        let path = live.join("filesystem.squashfs");
        File::create(&path).context("making a file for the root")?;
        let protected = cx.protected.iter().map(|(path, letters)| (path.into(), letters.clone())).collect();
        let tree = Tree { top: Some(cx.root.to_owned()), protected, ..Tree::default() };
        let label = if kind == FilesystemKind::Erofs { "live" } else { "" };
        make_alone(cx, &self.filesystem, &self.contents(kind, label, &self.file), &tree, FIT, &path)?;
        system.copy(live)
    }

    fn menu(&self) -> String {
        let mut text = format!("set default=0\nset timeout={}\n", self.timeout);
        if let Some((unit, speed)) = serial(&self.kernel_cmdline) {
            // EFI's own console is on the serial port already.
            text.push_str(&format!(
                "if [ \"$grub_platform\" = pc ]; then\n    serial --unit={unit} --speed={speed}\n    \
                 terminal_input console serial\n    terminal_output console serial\nfi\n"
            ));
        }
        let title = self.menu.replace('\'', "'\\''");
        text.push_str(&format!(
            "menuentry '{title}' {{\n    linux /live/vmlinuz {}\n    initrd /live/initrd.img\n}}\n",
            ["boot=live", self.kernel_cmdline.trim()].join(" ").trim()
        ));
        text
    }
}

const FIT: Room = Room::Contents { margin: 0, percent: 0 };

/// Number and speed of the serial port that the kernel is told to have its console on.
fn serial(cmdline: &str) -> Option<(u32, u32)> {
    let console = cmdline.split_whitespace().find_map(|word| word.strip_prefix("console=ttyS"))?;
    let (unit, speed) = console.split_once(',').unwrap_or((console, ""));
    let digits: String = speed.chars().take_while(char::is_ascii_digit).collect();
    Some((unit.parse().ok()?, digits.parse().unwrap_or(9600)))
}

impl Action for Iso {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_artifact_name(cx, "file", &self.file, out);
        if let Some(id) = &self.volume_id {
            let odd = id.chars().find(|letter| !matches!(letter, 'A'..='Z' | '0'..='9' | '_'));
            if id.is_empty() || id.len() > LONGEST_VOLUME_ID {
                out.push(cx.error(
                    "volume-id",
                    format!("the volume id has {} characters, it must have 1 to {LONGEST_VOLUME_ID}", id.len()),
                ));
            } else if let Some(odd) = odd {
                out.push(
                    cx.error("volume-id", format!("a volume id cannot have `{odd}`"))
                        .hint("it is made of `A` to `Z`, digits and `_`"),
                );
            }
        }
        match self.kind() {
            None => {
                let names = FILESYSTEMS.map(|(name, _)| name);
                let diagnostic = cx.error("filesystem", format!("`{}` cannot be the live root", self.filesystem));
                out.push(match suggest(&self.filesystem, names) {
                    Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                    None => diagnostic.hint("it is `squashfs` or `erofs`"),
                });
            }
            Some(kind) => check_compression(cx, kind, &self.filesystem, self.compression.as_deref(), out),
        }
        for (property, text) in [("kernel-cmdline", &self.kernel_cmdline), ("menu", &self.menu)] {
            if text.chars().any(char::is_control) {
                out.push(cx.error(property, format!("`{property}` has a line break or another control character")));
            }
        }
        if self.kernel_cmdline.contains(['{', '}', ';', '#', '|', '&', '<', '>', '$', '"', '\'', '\\']) {
            out.push(
                cx.error("kernel-cmdline", "the command line has a character that means something else to GRUB")
                    .hint("words without quotes and any of { } ; # | & < > $ \\ are given to the kernel as they are"),
            );
        }
        let possible = Firmware::of(cx.architecture);
        if possible.is_empty() {
            out.push(
                cx.error("", format!("there is no live image for {}", cx.architecture))
                    .hint("GRUB for EFI is there for amd64, arm64, armhf, i386, loong64 and riscv64"),
            );
        }
        for (index, name) in self.firmware.iter().flatten().enumerate() {
            let property = format!("firmware[{index}]");
            let names = ["bios", "efi"];
            if !names.contains(&name.as_str()) {
                let diagnostic = cx.error(&property, format!("there is no firmware `{name}`"));
                out.push(match suggest(name, names) {
                    Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                    None => diagnostic.hint("it is `bios` or `efi`"),
                });
            } else if !possible.iter().any(|firmware| firmware.name() == name) && !possible.is_empty() {
                out.push(
                    cx.error(&property, format!("{} has no BIOS", cx.architecture)).hint("`firmware: [efi]`, or none"),
                );
            }
        }
        if self.firmware.as_ref().is_some_and(Vec::is_empty) {
            out.push(cx.error("firmware", "the image would boot nowhere").hint("it is `bios`, `efi`, or both"));
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
            // 3: the driver of the live root is looked for in the initrd itself.
            version: 3,
            changes: Changes::ARTIFACTS,
            root: RootUse::Spoilt,
            reads: Reads::NOTHING,
            // GRUB's image for the BIOS is made by the root's own program.
            needs: Needs { tools: self.tools(), network: false, emulation: true },
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
        format!("{} ({})", self.file, self.filesystem)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        cx.add("tool xorriso", tool_version("xorriso"));
        for (program, package) in self.tools() {
            if program != XORRISO.0 {
                cx.add(format!("tool {program}"), host::tool_state(program, package));
            }
        }
        for package in LOADERS {
            cx.add(format!("package {package} of the host"), host::package_version(package).unwrap_or_default());
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let inside = Inside::open(cx.root)?;
        let firmware = self.firmware(cx.architecture);
        let system = System::find(&inside, cx.root, cx.architecture, self.filesystem == "erofs")?;
        system.unknown.iter().for_each(|why| cx.warn(format!("whether the live root is mounted is not known: {why}")));
        let loaders = Loaders::find(&inside, cx.architecture, &firmware)?;
        cx.log(format!("kernel {}; {}", system.version, loaders.described()));
        let tree = cx.scratch.join("iso");
        self.live(cx, &system, &tree.join("live"))?;

        let id = system::id(&tree.join("live"), &self.menu())?;
        fs::create_dir_all(tree.join("boot/grub")).context("making a place for the menu")?;
        fs::create_dir_all(tree.join(".disk")).context("making a place for the image's id")?;
        fs::write(tree.join("boot/grub/grub.cfg"), self.menu()).context("writing the menu")?;
        fs::write(tree.join(".disk/info"), format!("{}\n", self.menu)).context("writing the image's id")?;
        fs::write(tree.join(".disk").join(&id), "").context("writing the image's id")?;

        let fat = self.contents(FilesystemKind::Fat16, "ESP", &id);
        let boot = loaders.install(cx, &tree, &id, &fat)?;
        cx.progress("writing the image", None);
        let output = Output::begin(cx, &self.file)?;
        firmware::write(cx, &boot, &tree, &self.volume_id(), &id, output.path())?;
        cx.detail = size_shown(output.finish()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("quiet", None)]
    #[case("console=tty0", None)]
    #[case("console=ttyS0", Some((0, 9600)))]
    #[case("quiet console=tty0 console=ttyS1,115200n8 splash", Some((1, 115_200)))]
    #[case("console=ttySAC0,115200", None)]
    fn the_serial_console_is_that_of_the_kernel(#[case] cmdline: &str, #[case] expected: Option<(u32, u32)>) {
        assert_eq!(serial(cmdline), expected);
    }
}
