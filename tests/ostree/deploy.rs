//! Disks with a small system that has all that OSTree looks at, but starts nothing.

use rstest::rstest;

use super::{head, ostree};
use crate::harness::{Project, User};
use crate::image::disk::{debugfs, partition, reads};

const DISK: &str = "
  - action: run
    chroot: true
    command: |
      rm -rf /etc/mtab /tmp/* && mkdir -p /usr/lib/modules/6.1/ /usr/etc /sysroot && ln -s sysroot/ostree /ostree
      echo kernel > /usr/lib/modules/6.1/vmlinuz && echo initramfs > /usr/lib/modules/6.1/initramfs.img
      printf 'NAME=Test\\nID=test\\nPRETTY_NAME=\"Test 1\"\\n' > /usr/lib/os-release
      echo base > /etc/setting && rmdir /usr/etc
  - action: ostree-commit
    repository: repo
    branch: os/test
  - action: image-partition
    imagename: disk.img
    imagesize: 96 MiB
    partitiontype: gpt
    partitions:
      - {name: boot, fs: ext2, size: 16 MiB}
      - {name: root, fs: ext4, size: rest}
    mountpoints:
      - {mountpoint: /, partition: root}
      - {mountpoint: /boot, partition: boot}
  - action: ostree-deploy
    repository: repo
    branch: os/test
    os: test
    remote-repository: http://example.org/repo
    append-kernel-cmdline: quiet
";

/// The menu of U-Boot, and a file that is put into the deployment.
const AFTER: &str = "
  - {action: overlay, source: files, destination: /etc}
  - {action: bootloader, type: extlinux, console: ttyS0}
";

macro_rules! built {
    ($user:expr, $actions:expr) => {{
        needs_program!("ostree", "ostree");
        let project = Project::of($user).file("files/added", "later\n").tiny($actions);
        let Some(project) = project else { skip!("needs a static busybox") };
        project.build([]).success();
        project
    }};
}

#[test]
fn the_disk_has_a_deployment_and_a_menu() {
    needs_root!();
    let project =
        built!(User::current(), &format!("{}{}", DISK.trim_start_matches('\n'), AFTER.trim_start_matches('\n')));
    let commit = head(&project, "os/test");
    let (boot, root) = (partition(&project, 1), partition(&project, 2));
    let deployment = format!("/ostree/deploy/test/deploy/{commit}.0");
    let cat = |file: &std::path::Path, path: &str| debugfs(file, &format!("cat {path}"));
    assert_eq!(cat(&root, &format!("{deployment}/usr/lib/modules/6.1/vmlinuz")), "kernel\n");
    // /etc was moved in the commit, and is there for the machine to change.
    assert_eq!(cat(&root, &format!("{deployment}/usr/etc/setting")), "base\n");
    assert_eq!(cat(&root, &format!("{deployment}/etc/setting")), "base\n");
    assert_eq!(cat(&root, &format!("{deployment}/etc/added")), "later\n");
    let fstab = cat(&root, &format!("{deployment}/etc/fstab"));
    assert!(fstab.contains("\t/boot\text2") && !fstab.contains("\t/\text4"), "{fstab}");
    let origin = cat(&root, &format!("{deployment}.origin"));
    assert!(origin.contains("refspec=origin:os/test"), "{origin}");
    let config = cat(&root, "/ostree/repo/config");
    for line in ["readonly=true", "bootloader=syslinux", "url=http://example.org/repo", "gpg-verify=false"] {
        assert!(config.contains(line), "{line}: {config}");
    }
    let menu = cat(&boot, "/extlinux/extlinux.conf");
    let menu = if menu.contains("KERNEL") { menu } else { cat(&boot, "/loader.1/syslinux.cfg") };
    assert!(menu.contains("root=UUID=") && menu.contains(" rw ") && menu.contains(" quiet"), "{menu}");
    assert!(menu.contains("console=ttyS0,115200") && menu.contains("ostree=/ostree/boot.1/test/"), "{menu}");
    let kernel = menu.split_whitespace().skip_while(|word| *word != "KERNEL").nth(1).unwrap().to_owned();
    assert_eq!(cat(&boot, &kernel), "kernel\n");
    reads("e2fsck", &["-fn"], &root);
    reads("e2fsck", &["-fn"], &boot);
}

/// What GRUB is installed from; nothing of it runs.
const SIGNED: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /usr/lib/grub/x86_64-efi-signed /usr/lib/shim
      echo grub > /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed && echo shim > /usr/lib/shim/shimx64.efi.signed
";

/// `DISK` for EFI.
fn with_grub(words: &str) -> String {
    let disk = DISK.replace("mountpoints:\n", "mountpoints:\n      - {mountpoint: /boot/efi, partition: efi}\n");
    let disk =
        disk.replace("partitions:\n", "partitions:\n      - {name: efi, fs: fat16, size: 16 MiB, flags: [esp]}\n");
    let disk = disk.replace("append-kernel-cmdline: quiet", &format!("append-kernel-cmdline: '{words}'"));
    format!("{}{}  - {{action: bootloader, type: grub-efi}}\n", SIGNED.trim_start_matches('\n'), &disk[1..])
}

#[test]
fn kernel_arguments_are_quoted_for_grub() {
    needs_root!();
    let project = built!(User::current(), &with_grub(r#"rd.a=1;2 b=$c {d} dyndbg="file a.c +p; file b.c" u=a\x2db"#));
    let menu = debugfs(&partition(&project, 2), "cat /loader.1/grub.cfg");
    let line = menu.lines().find(|line| line.trim_start().starts_with("linux ")).unwrap_or_default();
    assert!(line.contains(r" 'rd.a=1;2' 'b=$c' '{d}' 'dyndbg=file a.c +p; file b.c' 'u=a\x2db'"), "{menu}");
    // In OSTree's entry, which updates are made from, they are as the recipe has them.
    let entry = debugfs(&partition(&project, 2), "cat /loader.1/entries/ostree-1-test.conf");
    assert!(entry.contains(r#" rd.a=1;2 b=$c {d} dyndbg="file a.c +p; file b.c" u=a\x2db"#), "{entry}");
}

#[test]
fn kernel_arguments_that_a_loader_spoils_are_said_before_anything_runs() {
    for (actions, said) in [
        (with_grub(r"a=\n"), r"GRUB cannot give the kernel the argument `a=\n`"),
        (
            format!("{}{}", DISK.replace("quiet", "a=$b"), &AFTER[1..]),
            "U-Boot cannot give the kernel the argument `a=$b`",
        ),
    ] {
        let Some(project) = Project::new().file("files/added", "later\n").tiny(&actions) else {
            skip!("needs a static busybox")
        };
        project.run(["check", "recipe.yaml"]).code(2).says(said);
    }
}

#[test]
fn root_and_users_make_the_same_disk() {
    needs_root!();
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let (root, rootless) = (built!(User::current(), DISK), built!(user, DISK));
    let image = |project: &Project| std::fs::read(project.path("out/disk.img")).unwrap();
    assert!(image(&root) == image(&rootless), "the images differ");
}

#[test]
fn a_cached_commit_is_deployed_without_its_root() {
    needs_root!();
    let project = built!(User::current(), DISK);
    project.set_actions(&DISK.replace("quiet", "quiet splash"));
    let outcomes = project.build(["--json"]).success().outcomes();
    assert_eq!(outcomes, ["cached", "cached", "cached", "cached", "ran", "ran"]);
    // One that was committed long ago, by a recipe that makes no root at all.
    let (_, rest) = DISK.split_once("  - action: image-partition").unwrap();
    let architecture = debforge::debian::Architecture::host();
    project.write("recipe.yaml", format!("architecture: {architecture}\nactions:\n  - action: image-partition{rest}"));
    project.build([]).success();
    ostree(&project, &["--repo=out/repo", "fsck"]);
}

#[rstest]
#[case("branch: os/none", "the repository `repo` has no branch `os/none`")]
#[case("os: 'a b'", "`a b` cannot be a name in OSTree")]
#[case("gpg-keys: [none.asc]", "there is no `none.asc`")]
#[case("remote-repository: example", "`example` is not an address")]
fn wrong_properties_are_said_before_anything_runs(#[case] property: &str, #[case] said: &str) {
    let name = property.split(':').next().unwrap_or_default();
    let (before, deploy) = DISK.split_once("  - action: ostree-deploy\n").unwrap();
    let kept = deploy.lines().filter(|line| !line.trim_start().starts_with(&format!("{name}:")));
    let lines: String = kept.map(|line| format!("{line}\n")).collect();
    let actions = format!("{before}  - action: ostree-deploy\n{lines}    {property}\n");
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox") };
    project.run(["check", "recipe.yaml"]).code(2).says(said);
}

#[test]
fn layouts_that_ostree_cannot_use_are_said_before_anything_runs() {
    let Some(project) = Project::new().tiny(&DISK.replace("fs: ext4", "fs: squashfs")) else {
        skip!("needs a static busybox")
    };
    project.run(["check", "recipe.yaml"]).code(2).says("OSTree cannot keep systems in the partition `root` (squashfs)");
    project.set_actions(&DISK.replace("fs: ext2, size: 16 MiB", "fs: fat16, size: 16 MiB"));
    project
        .run(["check", "recipe.yaml"])
        .code(2)
        .says("OSTree cannot keep boot entries in the partition `boot` (vfat)");
    let with_loader = |kind: &str, loader: &str| {
        let disk = DISK.replace("fs: ext2, size: 16 MiB", &format!("fs: {kind}, size: 300 MiB"));
        format!("{}  - {{action: bootloader, type: {loader}}}\n", disk.replace("96 MiB", "600 MiB"))
    };
    project.set_actions(&with_loader("xfs", "extlinux"));
    project.run(["check", "recipe.yaml"]).code(2).says("U-Boot cannot read kernels from the partition `boot`: xfs");
    project.set_actions(&DISK.replace("mountpoint: /boot,", "mountpoint: /home,"));
    project.run(["check", "recipe.yaml"]).code(2).says("mounted on /home, where OSTree's disk has nothing");
}
