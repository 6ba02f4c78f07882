//! A root that dm-verity protects, found by its hash.

use super::qemu::{Machine, boot};
use super::systems::{DONE, project, reported};

/// dracut's initrd has systemd's generator for dm-verity, which initramfs-tools has nothing like.
const PROTECTED: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /etc/dracut.conf.d
      cat > /etc/dracut.conf.d/small.conf <<'END'
      hostonly=no
      compress=gzip
      add_dracutmodules+=\" systemd-veritysetup \"
      drivers=\" virtio_pci virtio_blk ext4 dm_mod dm_verity \"
      END
  - action: apt
    packages: [dracut, systemd-cryptsetup, cryptsetup-bin]
  - action: image-partition
    imagename: verity.img
    imagesize: 1600MB
    partitiontype: gpt
    partitions:
      - { name: efi, fs: vfat, size: 192MiB, flags: [esp] }
      - { name: root, fs: ext4, size: 1200MB, parttype: root }
      - { name: hashes, size: 16MiB, parttype: root-verity, verity: { data: root } }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /boot/efi, partition: efi }
  - action: filesystem-deploy
  - action: bootloader
    type: systemd-boot
    console: ttyS0
    timeout: 0
";

#[test]
fn a_protected_root_starts_through_dm_verity() {
    slow!();
    needs_root!();
    needs_machine!(Machine::Amd64Efi);
    needs_program!("veritysetup", "cryptsetup-bin");
    let project = project("amd64", PROTECTED);
    build!(&project);
    let console = boot(&project, Machine::Amd64Efi, "out/verity.img", &[], &[DONE]);
    assert_eq!(reported(&console, "source"), ["/dev/mapper/root"], "{console}");
    let mapped = reported(&console, "mapped");
    assert!(mapped[0].starts_with("CRYPT-VERITY-"), "{mapped:?}");
}
