//! GRUB, put into images without a block device, starts them.

use std::fs;

use super::qemu::{Machine, boot};
use super::systems::{DONE, filled, nothing_failed, project, reported};
use crate::harness::{Project, User};
use crate::image::disk::partition;

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
    let words = r#"test.a=$b;c{d}* test.e="f g;h" test.i=j\x2dk"#;
    let project = project("amd64", &format!("{GPT}    append-kernel-cmdline: '{words}'\n"));
    build!(&project);
    let efi = boot(&project, Machine::Amd64SecureBoot, "out/gpt.img", &[], &["Secure boot enabled", DONE]);
    nothing_failed(&efi);
    let bios = boot(&project, Machine::Amd64Bios, "out/gpt.img", &[], &[DONE]);
    nothing_failed(&bios);
    assert_ne!(reported(&efi, "machine-id"), reported(&bios, "machine-id"));
    for finished in [&efi, &bios] {
        let line = reported(finished, "cmdline").concat();
        assert!(line.contains(r#" test.a=$b;c{d}* "test.e=f g;h" test.i=j\x2dk "#), "{line}");
    }
}

#[test]
fn every_system_partition_gets_a_loader() {
    needs_root!();
    needs_program!("mdir", "mtools");
    let second = (
        "      - { name: root, fs: ext4, size: rest }\n",
        "      - { name: other, fs: vfat, size: 64MiB, flags: [esp] }\n",
    );
    let mount = (
        "      - { mountpoint: /boot/efi, partition: efi }\n",
        "      - { mountpoint: /boot/efi2, partition: other }\n",
    );
    let mut actions = GPT.replace("gpt.img", "disk.img");
    for (there, new) in [second, mount] {
        actions = actions.replace(there, &format!("{there}{new}"));
    }
    let project = project("amd64", &actions);
    build!(&project);
    for number in [2, 4] {
        let file = partition(&project, number);
        for loader in ["::/EFI/BOOT/BOOTX64.EFI", "::/EFI/BOOT/grubx64.efi", "::/EFI/debian/shimx64.efi"] {
            let listed =
                std::process::Command::new("mdir").arg("-i").args([&file, std::path::Path::new(loader)]).output();
            assert!(listed.unwrap().status.success(), "{loader} on partition {number}");
        }
    }
}

/// What an unattended upgrade of grub-pc does on the machine, before it reports.
const UPGRADE: &str = "[Service]
Environment=DEBIAN_FRONTEND=noninteractive
ExecStartPre=/bin/sh -c 'dpkg-reconfigure grub-pc >/dev/console 2>&1; echo upgrade ended with $$? >/dev/console'
";

#[test]
fn grub_is_upgraded_on_the_machine() {
    slow!();
    needs_root!();
    needs_machine!(Machine::Amd64Bios);
    let install = "  - action: apt
    packages: [grub-pc]
  - action: overlay
    source: upgrade.conf
    destination: /etc/systemd/system/report.service.d/
";
    let project = project("amd64", &format!("{install}{}", GPT.trim_start_matches('\n')));
    let project = project.file("upgrade.conf", UPGRADE);
    build!(&project);
    let said = boot(&project, Machine::Amd64Bios, "out/gpt.img", &[], &["grub-install success for /dev/", DONE]);
    assert!(said.contains("upgrade ended with 0"), "{said}");
    nothing_failed(&said);
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

/// With a real kernel, its initrd, and all that GRUB's own tools write.
#[test]
fn an_ordinary_user_gets_the_same_image_as_root() {
    needs_root!();
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    // A store of its own for each, so that nothing comes from the other build.
    let [theirs, ours] = [User::current(), user].map(|user| filled(Project::of(user), "amd64", GPT));
    build!(&theirs).says("local, root");
    build!(&ours).says("rootless");
    let [one, other] = [&theirs, &ours].map(|project| project.path("out/gpt.img"));
    if fs::read(&one).expect("an image") != fs::read(&other).expect("an image") {
        let [one, other] = [&one, &other].map(|path| path.to_str().expect("a path"));
        panic!("the images differ: {}", theirs.run(["diff", one, other]));
    }
}

/// As recipes of debos do it: GRUB's own tools, in the mounted image.
const OWN_TOOLS: &str = "
  # {{ or .variant `none` }}
  - action: image-partition
    imagename: own.img
    imagesize: 1200MB
    partitiontype: gpt
    partitions:
      - { name: bios, fs: none, start: 1MiB, end: 2MiB, flags: [bios_grub] }
      - { name: root, fs: ext4, start: 2MiB, end: 100% }
    mountpoints:
      - { mountpoint: /, partition: root }
  - action: filesystem-deploy
  - action: run
    chroot: true
    command: |
      echo 'GRUB_TIMEOUT=0 GRUB_CMDLINE_LINUX=console=ttyS0' | tr ' ' '\\n' > /etc/default/grub
      grub-install --target=i386-pc \"$IMAGE\" && update-grub
  - action: run
    command: |
      findmnt --noheadings --output target $IMAGE-part2
      mount -v -o remount,ro $IMAGE-part2
      ! touch $ROOTDIR/etc/written && test -w /dev/null
      findmnt --output uuid,source --noheadings /dev/disk/by-label/root
      grep -F \"root=UUID=$(lsblk -no UUID $IMAGE-part2)\" $ROOTDIR/boot/grub/grub.cfg
";

#[test]
fn a_recipe_of_debos_may_install_it_itself() {
    needs_root!();
    needs_machine!(Machine::Amd64Bios);
    let project = project("amd64", OWN_TOOLS);
    build!(&project);
    nothing_failed(&boot(&project, Machine::Amd64Bios, "out/own.img", &[], &[DONE]));
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

/// A root with what GRUB asks for; its grub-mkconfig is as Debian's where it looks for devices.
const LATER: &str = "
  - action: image-partition
    imagename: later.img
    imagesize: 64MB
    partitiontype: gpt
    partitions:
      - { name: efi, fs: vfat, size: 33MiB, flags: [esp] }
      - { name: root, fs: ext4, size: rest }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /boot/efi, partition: efi }
  - action: run
    chroot: true
    command: |
      mkdir -p /usr/sbin /usr/local/sbin /boot /usr/lib/shim /usr/lib/grub/x86_64-efi-signed
      for name in /usr/lib/shim/shimx64.efi.signed /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed; do echo > $name; done
      echo kernel > /boot/vmlinuz-1
      cat > /usr/sbin/grub-mkconfig <<'END'
      #!/bin/sh
      set -e
      sbindir=/usr/sbin
      grub_probe=\"${sbindir}/grub-probe\"
      device=$($grub_probe --target=device /)
      for kernel in /boot/vmlinuz-*; do
          echo \"linux $($grub_mkrelpath $kernel) root=$device uuid $($grub_probe --target=fs_uuid --device $device)\"
      done > $2
      END
      printf '#!/bin/sh\\nexec grub-mkconfig -o /boot/grub/grub.cfg\\n' > /usr/sbin/update-grub
      chmod 755 /usr/sbin/grub-mkconfig /usr/sbin/update-grub
  - action: filesystem-deploy
    first-boot: false
  - action: bootloader
    type: grub-efi
  - action: run
    chroot: true
    command: echo kernel > /boot/vmlinuz-2; update-grub
";

#[test]
fn a_kernel_that_comes_after_the_boot_loader_is_in_its_menu() {
    needs_program!("debugfs", "e2fsprogs");
    let Some(project) = Project::new().tiny(LATER) else { skip!("needs busybox-static") };
    if debforge::debian::Architecture::host().name() != "amd64" {
        skip!("needs amd64");
    }
    project.build([]).success();
    let image = project.path("out/later.img");
    let root = project.path("root.ext4");
    let (start, length) = crate::image::disk::partitions(&image)[1];
    let mut bytes = fs::read(&image).unwrap();
    fs::write(&root, bytes.drain(start as usize..(start + length) as usize).as_slice()).unwrap();
    let config = crate::image::disk::debugfs(&root, "cat /boot/grub/grub.cfg");
    let uuid = config.split("uuid ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(
        config,
        ["1", "2"].map(|kernel| format!("linux /boot/vmlinuz-{kernel} root=UUID={uuid} uuid {uuid}\n")).concat()
    );
    for path in ["/usr/local/sbin", "/tmp"] {
        let names = crate::image::disk::debugfs(&root, &format!("ls -p {path}"));
        assert!(!names.contains("grub"), "{names}");
    }
}

#[test]
fn kernel_arguments_are_quoted_in_what_update_grub_reads() {
    needs_program!("debugfs", "e2fsprogs");
    let words = r#"a=$b;c{d} e="f g;h" i=j\x2dk"#;
    let actions = LATER.replace("type: grub-efi\n", &format!("type: grub-efi\n    append-kernel-cmdline: '{words}'\n"));
    let Some(project) = Project::new().tiny(&actions.replace("later.img", "disk.img")) else {
        skip!("needs busybox-static")
    };
    if debforge::debian::Architecture::host().name() != "amd64" {
        skip!("needs amd64");
    }
    project.build([]).success();
    let root = crate::image::disk::partition(&project, 2);
    let settings = crate::image::disk::debugfs(&root, "cat /etc/default/grub.d/50-image.cfg");
    let script = format!("{settings}printf %s \"$GRUB_CMDLINE_LINUX\"");
    let printed = std::process::Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(printed).unwrap(), r" 'a=$b;c{d}' 'e=f g;h' 'i=j\x2dk'");
}

#[test]
fn a_kernel_package_can_come_after_the_boot_loader() {
    slow!();
    needs_root!();
    let later = "
  - action: apt
    packages: [linux-image-amd64]
  - action: run
    chroot: true
    command: grep 'linux.*vmlinuz' /boot/grub/grub.cfg | grep -v cloud | grep root=UUID
";
    let project = project("amd64", &format!("{GPT}{}", later.trim_start_matches('\n')));
    build!(&project);
}
