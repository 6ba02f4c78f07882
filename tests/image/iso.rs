//! Live images as they lie in the file; that they boot is shown by the boot tests.

use std::fs;
use std::process::Command;

use super::artifacts::output;
use crate::harness::{Project, find_program};

fn program(name: &str) -> Command {
    Command::new(find_program(name).unwrap_or_else(|| panic!("there is no {name}")))
}

/// A root with all that a live image looks for, none of which would start.
const ROOT: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /boot /usr/share/initramfs-tools/hooks /usr/lib/grub/x86_64-efi-signed /usr/lib/shim
      echo kernel > /boot/vmlinuz-6.12.3-test; echo initrd > /boot/initrd.img-6.12.3-test
      echo hook > /usr/share/initramfs-tools/hooks/live; ln -s ../bin/busybox /sbin/init
      echo grub > /usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed
      echo shim > /usr/lib/shim/shimx64.efi.signed
";

fn project(user: crate::harness::User, actions: &str) -> Option<Project> {
    // The names of EFI's loaders are those of an architecture.
    let amd64 = debforge::debian::Architecture::host() == debforge::debian::Architecture::Amd64;
    let project = Project::of(user).tiny("").filter(|_| amd64)?;
    project.set_actions(actions);
    Some(project)
}

#[test]
fn an_image_has_its_parts_in_their_places_and_is_the_same_for_everybody() {
    for (name, package) in [
        ("xorriso", "xorriso"),
        ("mksquashfs", "squashfs-tools"),
        ("mkfs.vfat", "dosfstools"),
        ("mtype", "mtools"),
        ("sfdisk", "fdisk"),
    ] {
        needs_program!(name, package);
    }
    let mut first: Option<Vec<u8>> = None;
    for user in crate::golden::users() {
        let actions = format!(
            "{ROOT}  - {{ action: iso, file: live.iso, volume-id: FORGE, firmware: [efi], kernel-cmdline: quiet }}\n"
        );
        let Some(project) = project(user, &actions) else { skip!("needs a static busybox, on amd64") };
        project.build([]).success();
        let image = project.path("out/live.iso");
        let read = |path: &str| {
            let to = project.path("extracted");
            let _ = fs::remove_file(&to);
            let mut xorriso = program("xorriso");
            xorriso.args(["-osirrox", "on", "-indev"]).arg(&image).args(["-extract", path]).arg(&to);
            output(&mut xorriso);
            fs::read(&to).unwrap()
        };
        assert_eq!(read("/live/vmlinuz"), b"kernel\n");
        assert_eq!(read("/live/initrd.img"), b"initrd\n");
        assert!(read("/live/filesystem.squashfs").starts_with(b"hsqs"));
        let menu = String::from_utf8(read("/boot/grub/grub.cfg")).unwrap();
        assert!(menu.contains("linux /live/vmlinuz boot=live quiet\n"), "{menu}");
        let table = output(program("sfdisk").arg("--dump").arg(&image));
        let esp = table.lines().find(|line| line.contains("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")).unwrap();
        let start: u64 = esp.split_once("start=").unwrap().1.split_once(',').unwrap().0.trim().parse().unwrap();
        let on_esp = |path: &str| {
            let mut mtype = program("mtype");
            output(mtype.arg("-i").arg(format!("{}@@{}", image.display(), start * 512)).arg(format!("::{path}")))
        };
        assert_eq!(on_esp("EFI/BOOT/BOOTX64.EFI"), "shim\n");
        assert_eq!(on_esp("EFI/BOOT/grubx64.efi"), "grub\n");
        let seek = on_esp("boot/grub/grub.cfg");
        // What GRUB looks for is there.
        let id = seek.split_once("search --no-floppy --set=root --file /.disk/").unwrap().1.lines().next().unwrap();
        assert_eq!(read(&format!("/.disk/{id}")), b"");
        let bytes = fs::read(&image).unwrap();
        assert!(*first.get_or_insert(bytes.clone()) == bytes, "live.iso differs");
    }
}

#[test]
fn a_root_that_cannot_run_live_is_told_the_packages() {
    needs_program!("xorriso", "xorriso");
    needs_program!("mksquashfs", "squashfs-tools");
    let user = crate::harness::User::current();
    let Some(project) = project(user, "  - { action: iso, file: live.iso }\n") else {
        skip!("needs a static busybox, on amd64")
    };
    project.build([]).code(1).says("it lacks a kernel, live-boot, an init").says("linux-image-amd64, live-boot");
    assert!(!project.path("out/live.iso").exists());
}
