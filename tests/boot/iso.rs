//! Live images, from a CD and as a stick, by BIOS and by EFI, to a program of the squashfs or erofs.

use super::qemu::{Machine, boot};
use crate::harness::Project;

/// What the image's init says, with the type of the file system that it came from.
fn marker(filesystem: &str) -> String {
    format!("debforge-live {filesystem}")
}

fn project(arch: &str, filesystem: &str) -> Project {
    let (flavour, loaders) = match arch {
        "amd64" => ("cloud-amd64", "grub-efi-amd64-signed, shim-signed, grub-common, grub-pc-bin"),
        _ => ("arm64", "grub-efi-arm64-bin, grub-efi-arm64-unsigned"),
    };
    // It ends up as the first process, in place of systemd, which an emulated processor takes minutes for.
    let init = r#"#!/bin/sh
mount -t proc proc /proc
while read -r device place type rest; do
    case "$place" in */filesystem.squashfs) found=$type ;; esac
done < /proc/self/mounts
echo "debforge-live ${found-nothing}" > /dev/console
sleep 1000
"#;
    Project::new().shared_store().file("init", init).recipe(&format!(
        "architecture: {arch}
actions:
  - {{ action: mmdebstrap, suite: trixie, variant: minbase }}
  - action: run
    chroot: true
    command: mkdir -p /etc/initramfs-tools && echo erofs >> /etc/initramfs-tools/modules
  - action: apt
    packages: [linux-image-{flavour}, live-boot, systemd-sysv, udev, {loaders}]
  - {{ action: overlay, source: init, destination: /usr/local/sbin/marker, mode: '0755' }}
  - action: iso
    file: live.iso
    filesystem: {filesystem}
    timeout: 0
    kernel-cmdline: console={console} init=/usr/local/sbin/marker
",
        console = if arch == "amd64" { "ttyS0,115200" } else { "ttyAMA0" },
    ))
}

#[test]
fn a_live_image_boots_from_cd_and_stick_by_bios_and_efi() {
    for machine in [Machine::Amd64Bios, Machine::Amd64Efi] {
        needs_machine!(machine);
    }
    needs_program!("xorriso", "xorriso");
    let project = project("amd64", "squashfs");
    project.build([]).success();
    let marker = marker("squashfs");
    for machine in [Machine::Amd64Bios, Machine::Amd64Efi] {
        for medium in [&["--cdrom"][..], &[]] {
            boot(&project, machine, "out/live.iso", medium, &[&marker]);
        }
    }
}

#[test]
fn a_live_image_starts_where_only_signed_loaders_may() {
    slow!();
    needs_machine!(Machine::Amd64SecureBoot);
    needs_program!("xorriso", "xorriso");
    let project = project("amd64", "squashfs");
    project.build([]).success();
    boot(&project, Machine::Amd64SecureBoot, "out/live.iso", &["--cdrom"], &[&marker("squashfs")]);
}

#[test]
fn a_live_image_with_an_erofs_boots() {
    slow!();
    needs_machine!(Machine::Amd64Efi);
    needs_program!("xorriso", "xorriso");
    let project = project("amd64", "erofs");
    project.build([]).success();
    boot(&project, Machine::Amd64Efi, "out/live.iso", &["--cdrom"], &[&marker("erofs")]);
}

#[test]
fn a_live_image_for_arm64_boots_by_efi() {
    slow!();
    needs_machine!(Machine::Arm64Efi);
    needs_program!("xorriso", "xorriso");
    let project = project("arm64", "squashfs");
    project.build([]).success();
    boot(&project, Machine::Arm64Efi, "out/live.iso", &["--cdrom"], &[&marker("squashfs")]);
}
