//! Two roots in one image: the first starts, and says which is to start next.

use super::qemu::{Machine, boot};
use super::systems::{DONE, nothing_failed, project, reported};

/// The first root has the second one started the next time, as one that has updated it would.
const SLOTS: &str = "
  - action: image-partition
    imagename: slots.img
    imagesize: 2600MB
    partitiontype: gpt
    partitions:
      - { name: efi, fs: vfat, size: 64MiB, flags: [esp] }
      - { name: root-a, fs: ext4, size: 1200MB }
      - { name: root-b, fs: ext4, size: 1200MB }
    mountpoints:
      - { mountpoint: /, partition: root-a, slot: a }
      - { mountpoint: /, partition: root-b, slot: b }
      - { mountpoint: /boot/efi, partition: efi }
  - { action: filesystem-deploy, slot: a }
  - { action: bootloader, type: grub-efi, console: ttyS0, timeout: 1 }
  - action: overlay
    source: next.conf
    destination: /etc/systemd/system/report.service.d/
  - { action: filesystem-deploy, slot: b }
  - { action: bootloader, type: grub-efi, console: ttyS0, timeout: 1 }
  - action: run
    chroot: true
    command: rm -r /etc/systemd/system/report.service.d
";

const NEXT: &str = "[Service]
ExecStartPre=grub-editenv /boot/efi/EFI/debian/grubenv set slot=b
";

#[test]
fn the_slot_that_the_system_names_starts() {
    slow!();
    needs_root!();
    needs_machine!(Machine::Amd64SecureBoot);
    let project = project("amd64", SLOTS).file("next.conf", NEXT);
    build!(&project);
    for device in ["/dev/vda2", "/dev/vda3", "/dev/vda3"] {
        let console = boot(&project, Machine::Amd64SecureBoot, "out/slots.img", &["--persist"], &[DONE]);
        nothing_failed(&console);
        assert_eq!(reported(&console, "source"), [device], "{console}");
    }
}
