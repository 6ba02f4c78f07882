//! What of a boot loader can be told to be wrong before anything runs.

use anyhow::{Error, Result};

use super::{Bootloader, LoaderKind, has_bios};
use crate::build::CheckContext;
use crate::build::bootloader::grub_word::kernel_word;
use crate::build::bootloader::{efi_names, extlinux, grub, layout, raspberrypi};
use crate::debian::Architecture;
use crate::diagnostics::{Diagnostic, Diagnostics, Fault, fault_of};
use crate::image::{self, Layout, Spec};

/// Reports every fault of the properties, and of the layout that the action is to boot from.
pub(super) fn check(action: &Bootloader, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    check_words(action, cx, out);
    check_properties(action, cx, out);
    if !runs_on(action.kind, cx.architecture) {
        out.push(cx.error("type", format!("{} does not boot {}", action.kind.name(), cx.architecture)).hint(format!(
            "for {}: {}",
            cx.architecture,
            loaders_of(cx.architecture).join(", ")
        )));
        return;
    }
    match cx.image {
        None => out.push(
            cx.error("", "there is no image to boot from")
                .hint("an `image-partition` before this action says what it looks like"),
        ),
        Some(spec) if spec.deploys.is_empty() => out.push(
            cx.error("", "a boot loader is installed into a root that is deployed already")
                .hint("put this action after `filesystem-deploy`"),
        ),
        Some(spec) => check_layout(action, cx, spec, out),
    }
}

fn check_words(action: &Bootloader, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    for (property, text) in
        [("kernel-cmdline", &action.kernel_cmdline), ("append-kernel-cmdline", &action.append_kernel_cmdline)]
    {
        let Some(text) = text else { continue };
        if text.matches('"').count() % 2 == 1 {
            out.push(cx.error(property, "a quote is not closed"));
            continue;
        }
        if text.trim().contains(['\n', '\0']) {
            out.push(cx.error(property, "the kernel command line is one line").hint("join the lines by spaces"));
            continue;
        }
        check_arguments(action.kind, cx, property, &crate::build::image::split(text), out);
    }
    // What the deploy before put there, unless it is replaced.
    if let Some(deploy) = cx.image.and_then(|spec| spec.deploys.last()).filter(|_| action.kernel_cmdline.is_none()) {
        check_arguments(action.kind, cx, "type", &deploy.words, out);
    }
    if let Some(console) = &action.console {
        let word = |c: char| c.is_ascii_alphanumeric() || c == ',';
        if console.is_empty() || !console.chars().all(word) {
            out.push(
                cx.error("console", format!("`{console}` is not a console of the kernel's"))
                    .hint("write the device without /dev, as in `ttyS0` or `ttyAMA0,115200`"),
            );
        }
    }
}

/// Reports words that a loader would give the kernel as others.
fn check_arguments(kind: LoaderKind, cx: &CheckContext<'_>, property: &str, words: &[String], out: &mut Diagnostics) {
    for word in words {
        let checked = match kind {
            LoaderKind::Grub | LoaderKind::GrubEfi | LoaderKind::GrubBios => kernel_word(word).map(drop),
            LoaderKind::Extlinux => extlinux::check_word(word),
            LoaderKind::SystemdBoot | LoaderKind::RaspberryPi => Ok(()),
        };
        let Err(error) = checked else { continue };
        let fault = fault_of(&error);
        let diagnostic = cx.error(property, fault.message);
        out.push(fault.hints.into_iter().fold(diagnostic, Diagnostic::hint));
    }
}

/// Reports properties that a loader has no use for: nothing is ignored silently.
fn check_properties(action: &Bootloader, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let kind = action.kind;
    let is_efi = matches!(kind, LoaderKind::Grub | LoaderKind::GrubEfi | LoaderKind::SystemdBoot);
    let mut unused = |property: &str| {
        out.push(cx.error(property, format!("`{property}` means nothing to {}", kind.name())).hint("leave it out"));
    };
    if !is_efi && !action.removable {
        unused("removable");
    }
    if !is_efi && action.secure_boot.is_some() {
        unused("secure-boot");
    }
    if kind == LoaderKind::RaspberryPi && action.timeout.is_some() {
        unused("timeout");
    }
    if action.secure_boot == Some(true) && is_efi && efi_names(cx.architecture).is_some_and(|names| !names.signed) {
        out.push(cx.error("secure-boot", format!("Debian signs no boot loader for {}", cx.architecture)));
    }
}

fn runs_on(kind: LoaderKind, architecture: Architecture) -> bool {
    let arm = matches!(architecture, Architecture::Arm64 | Architecture::Armhf | Architecture::Armel);
    match kind {
        LoaderKind::Grub => efi_names(architecture).is_some() || has_bios(architecture),
        LoaderKind::GrubEfi | LoaderKind::SystemdBoot => efi_names(architecture).is_some(),
        LoaderKind::GrubBios => has_bios(architecture),
        LoaderKind::Extlinux => true,
        LoaderKind::RaspberryPi => arm,
    }
}

fn loaders_of(architecture: Architecture) -> Vec<&'static str> {
    use LoaderKind::{Extlinux, Grub, GrubBios, GrubEfi, RaspberryPi, SystemdBoot};
    let all = [Grub, GrubEfi, GrubBios, SystemdBoot, Extlinux, RaspberryPi];
    all.into_iter().filter(|kind| runs_on(*kind, architecture)).map(LoaderKind::name).collect()
}

fn check_layout(action: &Bootloader, cx: &CheckContext<'_>, spec: &Spec, out: &mut Diagnostics) {
    let slot = spec.deploys.last().and_then(|deploy| deploy.slot.as_deref());
    let (efi, bios) = action.kind.ways(spec, cx.architecture);
    let mut report = |property: &str, error: &Error| {
        let fault = fault_of(error);
        let mut diagnostic = cx.error(property, fault.message);
        for hint in fault.hints {
            diagnostic = diagnostic.hint(hint);
        }
        out.push(diagnostic);
    };
    let boot = layout::locate(spec, slot, "/boot");
    let readable = |loader: &str, reads: fn(image::FilesystemKind) -> bool| match &boot {
        Ok(boot) => layout::check_readable(loader, boot, reads).err(),
        // Said of `filesystem-deploy` already.
        Err(_) => None,
    };
    let faults: Vec<Option<Error>> = match action.kind {
        LoaderKind::Grub if !efi && !bios => {
            vec![layout::esp(spec, slot).err(), image::grub::place(spec).err().filter(|_| has_bios(cx.architecture))]
        }
        LoaderKind::Grub => vec![check_gap(spec).err().filter(|_| bios), readable("GRUB", grub::reads)],
        LoaderKind::GrubEfi => vec![layout::esp(spec, slot).err(), readable("GRUB", grub::reads)],
        LoaderKind::GrubBios => vec![check_gap(spec).err(), readable("GRUB", grub::reads)],
        LoaderKind::SystemdBoot => vec![layout::only_esp(spec, slot).err()],
        LoaderKind::Extlinux => vec![readable("U-Boot", extlinux::reads)],
        LoaderKind::RaspberryPi => vec![raspberrypi::partition(spec, slot).err()],
    };
    for error in faults.into_iter().flatten() {
        report("type", &error);
    }
    let beside_kernels = !matches!(action.kind, LoaderKind::SystemdBoot | LoaderKind::RaspberryPi);
    if let Ok(boot) = &boot
        && beside_kernels
        && spec.hashes_of(&boot.partition.name).is_some()
    {
        let name = &boot.partition.name;
        out.push(
            cx.error("type", format!("the root hash of `{name}` cannot be in a file of `{name}` itself"))
                .hint("give /boot a partition of its own, or use `systemd-boot`"),
        );
    }
    if spec.deploys.len() > 1 && bios {
        out.push(
            cx.error("type", "GRUB for BIOS starts one deploy only").hint("`grub-efi` and `systemd-boot` know several"),
        );
    }
    if spec.deploys.len() > 1 && matches!(action.kind, LoaderKind::Extlinux | LoaderKind::RaspberryPi) {
        out.push(
            cx.warning("type", "the firmware starts the first deploy that it finds")
                .hint("`grub-efi` and `systemd-boot` offer several"),
        );
    }
}

/// Whether there is room for GRUB's core image, as far as that can be told without it.
fn check_gap(spec: &Spec) -> Result<()> {
    let partition = image::grub::place(spec)?;
    // What is wrong with the layout itself was said of `image-partition`.
    let Ok(layout) = Layout::of(spec, &mut |_| Ok(0)) else { return Ok(()) };
    let (_, room) = image::grub::room(spec, &layout, partition)?;
    if room >= image::grub::LEAST_ROOM {
        return Ok(());
    }
    let place = partition.map_or("before the first partition".to_owned(), |name| format!("in `{name}`"));
    Err(Fault::recipe(format!("GRUB's core image wants 32 KiB or more; there are {room} bytes {place}"))
        .hint(match partition {
            Some(_) => "make it larger: 1 MiB is usual",
            None => "let the first partition start at 1 MiB, as it does where no `start` is given",
        })
        .into())
}
