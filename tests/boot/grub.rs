//! GRUB, put into images without a block device, starts them.

use std::fs;

use super::qemu::{Machine, boot};
use super::systems::{DONE, nothing_failed, project, reported};
use crate::harness::Project;

/// A GPT for EFI and BIOS, its root last.
pub const GPT: &str = "
  - action: image-partition
    imagename: gpt.img
    imagesize: 1200MB
    partitiontype: gpt
    partitions:
      - { name: bios, fs: none, size: 1MiB, flags: [bios_grub] }
      - { name: efi, fs: vfat, size: 64MiB, flags: [esp] }
      - { name: root, fs: ext4, size: rest }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /boot/efi, partition: efi }
  - action: filesystem-deploy
  - action: bootloader
    type: grub
    console: ttyS0
    timeout: 1
";

#[test]
fn one_image_boots_by_efi_with_secure_boot_and_by_bios() {
    needs_root!();
    needs_machine!(Machine::Amd64SecureBoot);
    needs_machine!(Machine::Amd64Bios);
    let project = project("amd64", GPT);
    build!(&project);
    let efi = boot(&project, Machine::Amd64SecureBoot, "out/gpt.img", &[], &["Secure boot enabled", DONE]);
    nothing_failed(&efi);
    let bios = boot(&project, Machine::Amd64Bios, "out/gpt.img", &[], &[DONE]);
    nothing_failed(&bios);
    assert_ne!(reported(&efi, "machine-id"), reported(&bios, "machine-id"));
}

#[test]
fn arm64_boots_by_efi() {
    needs_root!();
    needs_machine!(Machine::Arm64Efi);
    if !std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        skip!("needs qemu-user for arm64, registered with the kernel");
    }
    let actions = GPT
        .replace("      - { name: bios, fs: none, size: 1MiB, flags: [bios_grub] }\n", "")
        .replace("ttyS0", "ttyAMA0");
    let project = project("arm64", &actions);
    build!(&project);
    nothing_failed(&boot(&project, Machine::Arm64Efi, "out/gpt.img", &[], &[DONE]));
}

#[test]
fn the_example_for_old_machines_boots() {
    needs_root!();
    needs_machine!(Machine::Amd64Bios);
    let project = Project::new().shared_store();
    build!(&project, "bios.yaml");
    boot(&project, Machine::Amd64Bios, "out/bios-amd64.img", &[], &["bios login:"]);
}

#[test]
fn the_example_for_efi_boots() {
    slow!();
    needs_root!();
    needs_machine!(Machine::Amd64Efi);
    let project = Project::new().shared_store();
    build!(&project, "efi.yaml");
    boot(&project, Machine::Amd64Efi, "out/efi-amd64.img", &[], &["efi login:"]);
}

#[test]
fn the_same_recipe_gives_the_same_image() {
    needs_root!();
    // Two stores, so that nothing comes from the other build.
    let images = [Project::new(), Project::new()].map(|project| {
        let built = project.tiny(TINY)?;
        built.build([]).success();
        Some(fs::read(built.path("out/tiny.img")).expect("an image"))
    });
    let [Some(one), Some(other)] = images else { skip!("needs busybox-static") };
    assert!(one == other, "the images differ");
}

/// Boot loaders in a root that has only what they ask for.
const TINY: &str = "
  - action: image-partition
    imagename: tiny.img
    imagesize: 64MB
    partitiontype: gpt
    partitions:
      - { name: efi, fs: vfat, size: 32MiB, flags: [esp] }
      - { name: root, fs: ext4, size: rest }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /boot/efi, partition: efi }
  - action: run
    chroot: true
    command: |
      mkdir -p /usr/lib/systemd/boot/efi /boot
      echo kernel > /boot/vmlinuz-1
      echo initrd > /boot/initrd.img-1
      for name in x64 aa64 ia32 riscv64; do echo loader > /usr/lib/systemd/boot/efi/systemd-boot$name.efi; done
  - action: filesystem-deploy
  - action: bootloader
    type: systemd-boot
    timeout: 3
    append-kernel-cmdline: quiet
";
