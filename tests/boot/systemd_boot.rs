//! systemd-boot, copied into images, starts them.

use super::qemu::{Machine, boot};
use super::systems::{DONE, nothing_failed, project, reported};

/// An image for systemd-boot. Its root has no systemd-repart, so it grows by sfdisk, on gpt.
const ACTIONS: &str = "
  - action: image-partition
    imagename: systemd-boot.img
    imagesize: 1200MB
    partitiontype: gpt
    partitions:
      - { name: efi, fs: vfat, size: 128MiB, flags: [esp] }
      - { name: root, fs: ext4, size: rest }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /boot/efi, partition: efi }
  - action: run
    chroot: true
    command: |
      rm /usr/bin/systemd-repart
      systemctl disable ssh.service
  - action: filesystem-deploy
  - action: bootloader
    type: systemd-boot
    console: ttyS0
    timeout: 0
    # As on a Raspberry Pi: /etc can be written to when systemd decides what its first start enables.
    append-kernel-cmdline: rw
";

#[test]
fn kernels_start_from_the_efi_partition() {
    needs_root!();
    needs_machine!(Machine::Amd64Efi);
    let project = project("amd64", ACTIONS);
    build!(&project);
    let console = boot(&project, Machine::Amd64Efi, "out/systemd-boot.img", &["--size", "3G"], &[DONE]);
    nothing_failed(&console);
    let root: u64 = reported(&console, "root")[0].trim_end_matches('M').parse().expect("a size");
    assert!(root > 2500, "the root has {root} MiB:\n{console}");
    // Nobody enabled it, and nobody asked systemd to.
    assert_eq!(reported(&console, "networkd"), ["disabled"]);
}
