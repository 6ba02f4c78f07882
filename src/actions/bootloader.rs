//! The action `bootloader`.

mod check;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::bootloader::{Options, Site, efi_names, extlinux, grub, layout, raspberrypi, systemd_boot};
use crate::build::ostree::boot::Loader;
use crate::build::{BuildContext, CheckContext, InputContext, ostree};
use crate::debian::Architecture;
use crate::diagnostics::{Diagnostics, Fault};
use crate::image::{self, Spec, Write, WriteSource, WriteTarget};

/// Make the disk image boot.
///
/// ```yaml
/// - action: bootloader
///   type: grub-efi
///   console: ttyS0
///   timeout: 1
/// ```
///
/// Installs a boot loader into the root after `filesystem-deploy`, without a block device: UUIDs, mount
/// points and the place on the disk are those of `image-partition`. The loader itself and the kernel
/// come from packages that the root has already; an `apt` before `filesystem-deploy` installs them.
/// What would add a kernel later belongs before this action too.
///
/// | `type` | boots | wants of the root | wants of the layout |
/// |---|---|---|---|
/// | `grub-efi` | EFI: amd64, arm64, i386, armhf, riscv64 | `grub-efi-amd64-signed` and `shim-signed`, or `grub-efi-amd64-bin` (arm64 and others likewise) | an EFI system partition |
/// | `grub-bios` | BIOS: amd64, i386 | `grub-pc-bin` | gpt: a partition with `flags: [bios_grub]`; msdos: 1 MiB before the first partition |
/// | `grub` | both ways, as far as the layout has them | of both | one of both |
/// | `systemd-boot` | EFI | `systemd-boot-efi` | an EFI system partition with room for the kernels |
/// | `extlinux` | U-Boot | `u-boot-menu` | a /boot that U-Boot reads: ext4 or FAT |
/// | `raspberrypi` | Raspberry Pi | `raspi-firmware` (non-free-firmware) | FAT mounted at /boot/firmware |
///
/// The EFI system partition is the one of its type (`flags: [esp]`), best mounted at /boot/efi; of several, GRUB
/// is installed into each. Where the root has the package `grub-pc`, it is told that the disk with this partition table
/// is the one that its upgrades install GRUB on. With
/// Debian's signed shim and GRUB the image starts where secure boot is on; `secure-boot: true` makes
/// sure of that, `secure-boot: false` takes the unsigned programs.
///
/// The kernel command line is that of `/etc/kernel/cmdline`, which `filesystem-deploy` writes, with the
/// words of `append-kernel-cmdline` and, for `console: ttyS0`, `console=tty0 console=ttyS0,115200`. It
/// is kept there, and where the loader's own tools look for it, so that kernels that are installed on
/// the running system get the same: in /etc/default/grub.d, /etc/u-boot-menu/conf.d or
/// /etc/default/raspi-firmware. In grub.cfg its words are quoted. What a loader would give the kernel as
/// another word is refused: with GRUB backslashes and stray quotes, with U-Boot backslashes, `'` and `$`.
///
/// grub.cfg is written by the root's own grub-mkconfig, with all that is in /etc/default/grub and
/// /etc/grub.d, and again whenever a later action runs update-grub, as kernel packages do. With several deploys (`slot`), each calls for an action `bootloader` after it; the EFI
/// system partition, which they share, then offers all of them. systemd-boot's entries are copies of
/// the kernels, unless /boot is on the partition that it reads.
///
/// Where dm-verity protects the root, the kernel command line names its root hash, which the protected
/// partition cannot hold itself: systemd-boot's entries are elsewhere anyway, GRUB and U-Boot want a
/// /boot of its own.
///
/// ```yaml
/// - action: image-partition
///   imagename: box.img
///   imagesize: 2GB
///   partitiontype: gpt
///   partitions:
///     - { name: bios, fs: none, size: 1MiB, flags: [bios_grub] }
///     - { name: efi, fs: vfat, size: 64MiB, flags: [esp] }
///     - { name: root, fs: ext4, size: rest }
///   mountpoints:
///     - { mountpoint: /, partition: root }
///     - { mountpoint: /boot/efi, partition: efi }
///
/// - action: filesystem-deploy
///
/// - action: bootloader
///   type: grub
///   append-kernel-cmdline: quiet
/// ```
///
/// **Compared with debos**: there is no such action there; recipes run `grub-install` in the image.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bootloader {
    /// Which one: `grub`, `grub-efi`, `grub-bios`, `systemd-boot`, `extlinux` or `raspberrypi`.
    #[serde(rename = "type")]
    pub kind: LoaderKind,
    /// The kernel command line in the place of what /etc/kernel/cmdline says; the layout's `root=` is
    /// added where it has none.
    #[serde(default)]
    pub kernel_cmdline: Option<String>,
    /// Further words for the kernel command line.
    #[serde(default)]
    pub append_kernel_cmdline: Option<String>,
    /// Seconds that the menu waits. Where it is left out: GRUB and U-Boot 5, systemd-boot none.
    #[serde(default)]
    pub timeout: Option<u32>,
    /// A console beside the screen for the kernel, and for GRUB's menu where it is a serial port of a
    /// PC: `ttyS0`, `ttyAMA0`, `ttyS1,57600`.
    #[serde(default)]
    pub console: Option<String>,
    /// EFI: whether the loader is also where firmware looks on a disk that it does not know
    /// (EFI/BOOT/BOOTX64.EFI). Without, something must add a boot entry to the firmware.
    #[serde(default = "super::defaults::yes")]
    pub removable: bool,
    /// EFI: `true` insists on signed programs, `false` takes none. Where it is left out, signed ones
    /// are taken if the root has them.
    #[serde(default)]
    pub secure_boot: Option<bool>,
}

/// Kinds of boot loaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoaderKind {
    /// GRUB for EFI and for BIOS, as far as the layout has both.
    Grub,
    /// GRUB for EFI.
    GrubEfi,
    /// GRUB for BIOS.
    GrubBios,
    /// systemd-boot.
    SystemdBoot,
    /// extlinux.conf for U-Boot.
    Extlinux,
    /// The Raspberry Pi's own firmware.
    #[serde(rename = "raspberrypi")]
    RaspberryPi,
}

impl LoaderKind {
    /// As in a recipe.
    fn name(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::GrubEfi => "grub-efi",
            Self::GrubBios => "grub-bios",
            Self::SystemdBoot => "systemd-boot",
            Self::Extlinux => "extlinux",
            Self::RaspberryPi => "raspberrypi",
        }
    }

    /// Which of EFI and BIOS it makes a layout boot by: (EFI, BIOS).
    fn ways(self, spec: &Spec, architecture: Architecture) -> (bool, bool) {
        let slot = spec.deploys.last().and_then(|deploy| deploy.slot.as_deref());
        match self {
            Self::GrubEfi | Self::SystemdBoot => (true, false),
            Self::GrubBios => (false, true),
            Self::Extlinux | Self::RaspberryPi => (false, false),
            Self::Grub => {
                let efi = efi_names(architecture).is_some() && layout::esp(spec, slot).is_ok();
                (efi, has_bios(architecture) && image::grub::place(spec).is_ok())
            }
        }
    }
}

/// Whether machines of an architecture have a BIOS.
fn has_bios(architecture: Architecture) -> bool {
    matches!(architecture, Architecture::Amd64 | Architecture::I386)
}

impl Bootloader {
    fn options(&self) -> Options {
        Options {
            kernel_cmdline: self.kernel_cmdline.clone(),
            append: self.append_kernel_cmdline.clone(),
            timeout: self.timeout,
            console: self.console.clone(),
            removable: self.removable,
            secure_boot: self.secure_boot,
        }
    }
}

impl Bootloader {
    /// Installs it on a disk that OSTree deploys to.
    fn install_for_ostree(&self, cx: &BuildContext<'_>) -> Result<String> {
        let spec = cx.image.context("no step before describes an image")?;
        let (efi, bios) = self.kind.ways(spec, cx.architecture);
        let loader = match self.kind {
            LoaderKind::Grub | LoaderKind::GrubEfi | LoaderKind::GrubBios => Loader::Grub { bios },
            LoaderKind::Extlinux => Loader::Extlinux,
            LoaderKind::SystemdBoot | LoaderKind::RaspberryPi => {
                return Err(Fault::recipe(format!("OSTree writes no configuration for {}", self.kind.name()))
                    .hint("it knows `grub` (PC and EFI machines) and `extlinux` (U-Boot)")
                    .into());
            }
        };
        let names = efi_names(cx.architecture).filter(|_| efi);
        let kernels = ostree::boot::install(cx, loader, names.as_ref(), &self.options())?;
        Ok(format!("{}{kernels}", shown_ways(efi, bios)))
    }
}

impl Action for Bootloader {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check::check(self, cx, out);
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 4,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs { tools: Vec::new(), network: false, emulation: self.kind != LoaderKind::SystemdBoot },
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: true,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, cx: ImageSurroundings<'_>) -> ImageRole {
        let Some(spec) = cx.spec.filter(|spec| self.kind.ways(spec, cx.architecture).1) else {
            return ImageRole::None;
        };
        let Ok(core) = image::grub::place(spec) else { return ImageRole::None };
        let core = core.map(str::to_owned);
        let write = |name: &str, path: &str, target, length| Write {
            name: name.into(),
            source: WriteSource::Root(path.into()),
            target,
            length: Some(length),
        };
        ImageRole::Writes(vec![
            write("boot.img", grub::BOOT_IMAGE, WriteTarget::GrubBoot { core: core.clone() }, image::grub::SECTOR),
            write("core.img", grub::CORE_IMAGE, WriteTarget::GrubCore { partition: core }, image::grub::LEAST_ROOM),
        ])
    }

    fn summary(&self) -> String {
        let console = self.console.as_ref().map(|console| format!(", console {console}")).unwrap_or_default();
        format!("{}{console}", self.kind.name())
    }

    /// What loaders find their files by, rather than the image as a whole: a larger image is no reason
    /// to install them again.
    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let spec = cx.image.context("no step before describes an image")?;
        cx.add("partition table", image_table(spec));
        for mount in &spec.mounts {
            let Some(partition) = spec.partition(&mount.partition) else { continue };
            let what = match &mount.slot {
                Some(slot) => format!("partition at {} (slot {slot})", mount.path),
                None => format!("partition at {}", mount.path),
            };
            let subvolume = mount.subvolume.as_deref().unwrap_or_default();
            let contents = &partition.contents;
            let kind = contents.kind.fstab_type().unwrap_or("none");
            cx.add(what, format!("{kind} {} {} {} {subvolume}", contents.uuid, partition.kind, partition.uuid));
        }
        let slots: Vec<&str> = spec.deploys.iter().map(|deploy| deploy.slot.as_deref().unwrap_or("-")).collect();
        cx.add("deploys", slots.join(" "));
        let slot = spec.deploys.last().and_then(|deploy| deploy.slot.as_deref());
        cx.add("root of the kernel command line", crate::build::image::root_words(spec, slot, None).join(" "));
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let architecture = cx.architecture;
        if ostree::is_sysroot(cx.root) {
            cx.detail = self.install_for_ostree(cx)?;
            return Ok(());
        }
        let site = Site::new(cx, self.options())?;
        let (efi, bios) = self.kind.ways(site.spec, architecture);
        let names = efi_names(architecture).filter(|_| efi);
        match (self.kind, names) {
            (LoaderKind::Grub | LoaderKind::GrubEfi | LoaderKind::GrubBios, names) => {
                grub::install(&site, names.as_ref(), bios)?;
            }
            (LoaderKind::SystemdBoot, names) => {
                systemd_boot::install(&site, &names.context("this architecture has no EFI")?)?;
            }
            (LoaderKind::Extlinux, _) => extlinux::install(&site)?,
            (LoaderKind::RaspberryPi, _) => raspberrypi::install(&site)?,
        }
        let kernels = site.kernels()?;
        let ways = shown_ways(efi, bios);
        let versions: Vec<&str> = kernels.iter().map(|kernel| kernel.version.as_str()).collect();
        let detail = format!("{ways}{}", versions.join(", "));
        drop(site);
        cx.detail = detail;
        Ok(())
    }
}

/// The ways to boot, in front of what is booted.
fn shown_ways(efi: bool, bios: bool) -> &'static str {
    match (efi, bios) {
        (true, true) => "EFI and BIOS, ",
        (true, false) => "EFI, ",
        (false, true) => "BIOS, ",
        (false, false) => "",
    }
}

fn image_table(spec: &Spec) -> String {
    let place = image::grub::place(spec).ok().flatten().unwrap_or_default();
    format!("{} {place}", grub::table(spec.table))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_recipes() {
        for kind in ["grub", "grub-efi", "grub-bios", "systemd-boot", "extlinux", "raspberrypi"] {
            let action: Bootloader = serde_json::from_value(json!({ "type": kind })).unwrap();
            assert_eq!(action.kind.name(), kind);
        }
    }
}
