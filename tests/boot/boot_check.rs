//! An image says whether it can start: what the check refuses does not start, and what it lets through does, as the
//! other tests here show, whose images all went through it.

use rstest::rstest;

use super::qemu::{Machine, boot};
use super::systems::project;

/// A disk for EFI: the file system of its root, what is done about a system that does not start, what happens to the root
/// at the end.
fn actions(root: &str, boot_check: &str, last: &str) -> String {
    format!(
        "
  - action: image-partition
    imagename: disk.img
    imagesize: 1600MB
    partitiontype: gpt
    boot-check: {boot_check}
    partitions:
      - {{ name: efi, fs: vfat, size: 64MiB, flags: [esp] }}
      - {{ name: boot, fs: ext4, size: 200MiB }}
      - {{ name: root, fs: {root}, size: rest }}
    mountpoints:
      - {{ mountpoint: /, partition: root }}
      - {{ mountpoint: /boot, partition: boot }}
      - {{ mountpoint: /boot/efi, partition: efi }}
  - action: filesystem-deploy
  - action: bootloader
    type: grub-efi
    console: ttyS0
    timeout: 0
  - action: run
    chroot: true
    command: |
      {last}
"
    )
}

/// What the root's file system is, what is done to it, what the build says of it, and what the machine says.
#[rstest]
#[case::no_driver_of_the_root("erofs", "true", "has no module erofs", "(initramfs)")]
#[case::another_root(
    "ext4",
    "sed -i 's/root=UUID=[^ ]*/root=UUID=11111111-2222-3333-4444-555555555555/' /boot/grub/grub.cfg",
    "which no partition of `disk.img` is",
    "does not exist"
)]
#[case::no_initramfs("ext4", "rm /boot/initrd.img-*", "has no such file", "not found")]
fn an_image_that_would_not_start_is_refused(
    #[case] root: &str,
    #[case] last: &str,
    #[case] reason: &str,
    #[case] said: &str,
) {
    needs_root!();
    needs_machine!(Machine::Amd64Efi);
    refused_and_does_not_start(root, last, reason, said);
}

#[test]
fn an_fstab_that_waits_for_a_disk_which_is_not_there_is_refused() {
    slow!();
    needs_root!();
    needs_machine!(Machine::Amd64Efi);
    let last = "echo UUID=11111111-2222-3333-4444-555555555555 /data ext4 defaults 0 2 >> /etc/fstab";
    refused_and_does_not_start("ext4", last, "/etc/fstab has /data on UUID=11111111", "emergency mode");
}

fn refused_and_does_not_start(root: &str, last: &str, reason: &str, said: &str) {
    let warned = project("amd64", &actions(root, "warn", last));
    build!(&warned).says("disk.img would not start").says(reason);
    let refused = project("amd64", &actions(root, "error", last));
    let finished = refused.run(["build", "recipe.yaml", "--artifactdir", "out"]);
    finished.code(1).says("disk.img would not start").says(reason).says("boot-check: warn");
    assert!(!refused.path("out/disk.img").exists());
    boot(&warned, Machine::Amd64Efi, "out/disk.img", &[], &[said]);
}
