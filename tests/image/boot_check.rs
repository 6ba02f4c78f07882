//! An image says whether it can start: what is wrong with menu, kernel and file systems is said before it is written.

use rstest::rstest;

use crate::harness::Project;

/// A card for U-Boot with a kernel of Linux 4.9, which mounts ext4 by itself.
const KERNEL: &str = "mkdir -p /boot/extlinux /lib/modules/4.9.0-test /data; echo kernel > /boot/vmlinuz-4.9.0-test; echo kernel/fs/ext4/ext4.ko > /lib/modules/4.9.0-test/modules.builtin; echo 'CONFIG_INITRAMFS_SOURCE=\"\"' > /boot/config-4.9.0-test";

/// Lets the root look like one of systemd, which waits for what fstab has.
const SYSTEMD: &str = "mkdir -p /lib/systemd; echo > /lib/systemd/systemd; ";

fn recipe(menu: &str, command: &str, partition: &str, boot_check: &str) -> String {
    format!(
        r#"
  - action: run
    chroot: true
    command: {KERNEL}
  - action: image-partition
    imagename: card.img
    imagesize: 64MiB
    partitiontype: msdos
    boot-check: {boot_check}
    partitions:
      - {{ name: root, fs: ext4, size: 24MiB }}
      - {{ name: data, fs: ext4, size: rest{partition} }}
    mountpoints:
      - {{ mountpoint: /, partition: root }}
      - {{ mountpoint: /data, partition: data }}
  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: |
      printf 'label l0\n linux /boot/vmlinuz-4.9.0-test\n {menu}\n' > /boot/extlinux/extlinux.conf
      {command}
"#
    )
}

const WITH_INITRAMFS: &str = "initrd /boot/initrd.img\\n append root=LABEL=root";

/// Makes an initramfs that has these files.
fn initramfs(files: &str) -> String {
    format!(
        "mkdir /i; cd /i; for f in {files}; do mkdir -p $(dirname $f); echo > $f; done; find . | busybox cpio -o -H newc > /boot/initrd.img; cd /; rm -r /i"
    )
}

const GOOD: &str = "append root=/dev/mmcblk0p1 console=ttyS0";

#[rstest]
#[case::good(GOOD, "true", "", "")]
#[case::no_menu("", "rm -r /boot/extlinux; rm /etc/fstab", "", "")]
#[case::initramfs_understands("append root=LABEL=root", "true", "", "which only one understands")]
#[case::initramfs_in_the_kernel(
    "append root=LABEL=root",
    "echo 'CONFIG_INITRAMFS_SOURCE=\"a\"' > /boot/config-4.9.0-test",
    "",
    ""
)]
#[case::kernel_without_its_configuration("append root=LABEL=root", "rm /boot/config-4.9.0-test", "", "")]
#[case::module_only(
    GOOD,
    "cd /lib/modules/4.9.0-test; mv modules.builtin modules.dep; sed -i 's/$/:/' modules.dep; touch modules.builtin",
    "",
    "has ext4 as a module only, and no initramfs"
)]
#[case::no_module(
    GOOD,
    "cd /lib/modules/4.9.0-test; echo > modules.builtin; echo > modules.dep",
    "",
    "has no module ext4"
)]
#[case::device_tree(
    "fdt /boot/board.dtb\\n append root=/dev/mmcblk0p1",
    "true",
    "",
    "starts /boot/board.dtb, and the partition `root` has no such file"
)]
#[case::kernel(
    GOOD,
    "rm /boot/vmlinuz*",
    "",
    "starts /boot/vmlinuz-4.9.0-test, and the partition `root` has no such file"
)]
#[case::kernel_by_a_link(GOOD, "mv /boot/vmlinuz* /boot/k; ln -s /elsewhere/k /boot/vmlinuz-4.9.0-test", "", "")]
#[case::bootable(GOOD, "true", ", flags: [boot]", "`data` is, `root` is not")]
#[case::feature(
    GOOD,
    "true",
    ", features: [casefold]",
    "ext4 with casefold, of Linux 5.2 and newer, and the kernel is 4.9.0-test"
)]
#[case::feature_of_another_kernel(
    GOOD,
    "mkdir /lib/modules/6.1.0-new; cp /lib/modules/4.9.0-test/* /lib/modules/6.1.0-new; echo > /boot/vmlinuz-6.1.0-new; printf 'label l1\\n linux /boot/vmlinuz-6.1.0-new\\n append root=/dev/vda1\\n' >> /boot/extlinux/extlinux.conf",
    ", features: [casefold]",
    ""
)]
#[case::another_partition("append root=/dev/nvme0n1p2", "true", "", "")]
#[case::uuid(
    "append root=PARTUUID=00000000-01",
    "true",
    "",
    "`root=PARTUUID=00000000-01`, which no partition of `card.img` is"
)]
#[case::computed("append root=PARTUUID=${uuid}", "true", "", "")]
#[case::another_label(
    GOOD,
    "printf 'label l1\\n linux /boot/vmlinuz-gone\\n append root=/dev/vda1\\n' >> /boot/extlinux/extlinux.conf",
    "",
    ""
)]
#[case::no_label_at_all(
    GOOD,
    "printf 'label l1\\n linux /boot/vmlinuz-gone\\n append root=/dev/vda1\\n' >> /boot/extlinux/extlinux.conf; rm /boot/vmlinuz*",
    "",
    "starts /boot/vmlinuz-gone"
)]
#[case::kind(GOOD, &format!("{SYSTEMD} sed -i '/data/s/ext4/xfs/' /etc/fstab"), "", "mounts /data as xfs, and the partition `data` is ext4")]
#[case::older_kind(GOOD, &format!("{SYSTEMD} sed -i '/data/s/ext4/ext2/' /etc/fstab"), "", "mounts /data as ext2")]
#[case::kinds(GOOD, &format!("{SYSTEMD} sed -i '/data/s/ext4/xfs,ext4/' /etc/fstab"), "", "")]
#[case::disk(GOOD, &format!("{SYSTEMD} echo UUID=0b1c /srv auto defaults 0 0 >> /etc/fstab"), "", "has /srv on UUID=0b1c")]
#[case::other_disk(GOOD, &format!("{SYSTEMD} echo UUID=0b1c /srv auto nofail 0 0 >> /etc/fstab"), "", "")]
#[case::network_disk(GOOD, &format!("{SYSTEMD} echo UUID=0b1c /srv ext4 _netdev 0 0 >> /etc/fstab"), "", "")]
#[case::disk_made_at_first(
    GOOD,
    &format!("{SYSTEMD} mkdir /etc/repart.d; echo > /etc/repart.d/50-srv.conf; echo LABEL=srv /srv auto defaults 0 0 >> /etc/fstab"),
    "",
    ""
)]
#[case::disk_that_nothing_waits_for(GOOD, "echo UUID=0b1c /srv auto defaults 0 0 >> /etc/fstab", "", "")]
#[case::swap(GOOD, &format!("{SYSTEMD} echo LABEL=swap none swap sw 0 0 >> /etc/fstab"), "", "")]
#[case::checker(
    GOOD,
    "mkdir -p /etc/init.d; echo > /etc/init.d/checkfs.sh; echo LABEL=data /srv ext4 defaults 0 2 >> /etc/fstab",
    "",
    "there is no fsck.ext4"
)]
#[case::initramfs_of_another(WITH_INITRAMFS, &initramfs("lib/modules/4.8.0-other/ext4.ko"), "", "has no driver of any disk")]
#[case::no_disk(WITH_INITRAMFS, &initramfs("lib/modules/4.9.0-test/ext4.ko"), "", "has no driver of any disk")]
#[case::disk_and_root(WITH_INITRAMFS, &initramfs("lib/modules/4.9.0-test/sd_mod.ko.xz"), "", "")]
#[case::modules_of_their_own(WITH_INITRAMFS, &initramfs("init ext4.ko sd_mod.ko"), "", "")]
#[case::modules_in_an_image(WITH_INITRAMFS, &initramfs("squashfs-root.img lib/modules/4.9.0-test/loop.ko"), "", "")]
#[case::not_in_initramfs(
    WITH_INITRAMFS,
    &format!("cd /lib/modules/4.9.0-test; : > modules.builtin; echo kernel/fs/ext4/ext4.ko.xz: > modules.dep; {}", initramfs("lib/modules/4.9.0-test/sd_mod.ko lib/modules/4.8.0-other/ext4.ko")),
    "",
    "the initramfs of 4.9.0-test has no module ext4 (it has those of 4.8.0-other)"
)]
#[case::not_all_in_initramfs(
    WITH_INITRAMFS,
    &format!("cd /lib/modules/4.9.0-test; : > modules.builtin; printf 'kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\\nkernel/fs/jbd2/jbd2.ko:\\n' > modules.dep; {}", initramfs("lib/modules/4.9.0-test/sd_mod.ko lib/modules/4.9.0-test/ext4.ko")),
    "",
    "the initramfs of 4.9.0-test has no module jbd2"
)]
#[case::without_root("initrd /boot/initrd.img\\n append quiet", &initramfs("lib/modules/4.9.0-test/sd_mod.ko scripts/local"), "", "without `root=`")]
#[case::live("initrd /boot/initrd.img\\n append boot=live", &initramfs("lib/modules/4.9.0-test/sd_mod.ko scripts/local"), "", "")]
#[case::over_the_network("initrd /boot/initrd.img\\n append root=/dev/nfs", &initramfs("lib/modules/4.9.0-test/nfs.ko"), "", "")]
fn what_keeps_a_card_from_starting(
    #[case] menu: &str,
    #[case] command: &str,
    #[case] partition: &str,
    #[case] reason: &str,
) {
    needs_program!("mke2fs", "e2fsprogs");
    let project = |boot_check| Project::new().tiny(&recipe(menu, command, partition, boot_check));
    let Some(strict) = project("error") else { skip!("needs a static busybox") };
    let finished = strict.build([]);
    if reason.is_empty() {
        finished.success().says_nothing_of("would not start").says_nothing_of("is not known");
        return;
    }
    finished.code(1).says("card.img would not start: ").says(reason).says("`boot-check: warn`");
    assert!(!strict.path("out/card.img").exists());
    let Some(lenient) = project("warn") else { return };
    lenient.build([]).success().says("warning: card.img would not start: ").says(reason);
    assert!(lenient.path("out/card.img").exists());
}

#[test]
fn an_initramfs_that_cannot_be_read_is_said_and_refuses_nothing() {
    needs_program!("mke2fs", "e2fsprogs");
    let menu = "initrd /boot/initrd.img\\n append root=LABEL=root";
    let command = "echo packed > /boot/initrd.img";
    let Some(project) = Project::new().tiny(&recipe(menu, command, "", "error")) else {
        skip!("needs a static busybox")
    };
    project.build([]).success().says("whether card.img starts is not known: /boot/initrd.img cannot be read");
}

/// GRUB's menu in the place of U-Boot's, in a root that has GRUB of this version.
fn grub_menu(version: &str) -> String {
    format!(
        "rm -r /boot/extlinux; mkdir -p /boot/grub /var/lib/dpkg; printf \
         'menuentry Debian {{\\nlinux /boot/vmlinuz-4.9.0-test root=/dev/vda1\\n}}\\n' > /boot/grub/grub.cfg; \
         printf 'Package: grub-common\\nStatus: install ok installed\\nVersion: {version}\\n' > /var/lib/dpkg/status; \
         mkdir -p /sbin; echo > /sbin/init"
    )
}

#[rstest]
#[case::older_grub("2.12-9", "inline_data", "ext4 with inline_data, which GRUB does not read")]
#[case::older_grub_again("2.06-13", "bigalloc", "ext4 with bigalloc, which GRUB does not read")]
#[case::known_feature("2.12-9", "metadata_csum_seed", "")]
fn what_grub_does_not_read_is_found(#[case] version: &str, #[case] feature: &str, #[case] reason: &str) {
    needs_program!("mke2fs", "e2fsprogs");
    let recipe = recipe("", &grub_menu(version), "", "error");
    let size = "fs: ext4, size: 24MiB";
    assert!(recipe.contains(size));
    let recipe = recipe.replace(size, &format!("{size}, features: [{feature}]"));
    let Some(project) = Project::new().tiny(&recipe) else { skip!("needs a static busybox") };
    match reason {
        "" => project.build([]).success().says_nothing_of("GRUB does not read").says_nothing_of("is not known"),
        reason => project.build([]).code(1).says("card.img would not start: GRUB's menu is on `root`").says(reason),
    };
}
