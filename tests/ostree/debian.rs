//! A real Debian, prepared, committed and put on a disk.

use super::{head, ostree};
use crate::harness::{Project, User};
use crate::image::disk::{debugfs, partition};

/// The base of `recipes/atomic`, in `repo`, and as it was before its users were numbered anew.
const RECIPE: &str = r#"
{% set arch = "amd64" %}
{% set kernel = "linux-image-cloud-amd64" %}
architecture: amd64
actions:
{% include "atomic/base.yaml" %}
{% if shuffled is defined %}
  - action: run
    chroot: true
    network: false
    command: |
      sed -i 's/^systemd-resolve:x:[0-9]*:/systemd-resolve:x:777:/' /etc/passwd
      mkdir -p /var/lib/owned && chown 777 /var/lib/owned
{% endif %}
  - action: apt
    packages: [openssh-server, grub-efi-amd64-signed, shim-signed, grub-pc-bin, python3-minimal]
  - action: ostree-prepare
{% if shuffled is defined %}
    previous: {repository: repo, branch: os}
{% endif %}
  - action: ostree-commit
    repository: repo
    branch: os
{% if shuffled is not defined %}
  - action: bootc-image
    file: os.oci.tar
  - action: image-partition
    imagename: disk.img
    imagesize: 2500MB
    partitiontype: gpt
    partitions:
      - { name: bios, fs: none, size: 1MiB, flags: [bios_grub] }
      - { name: efi, fs: vfat, size: 64MiB, flags: [esp] }
      - { name: root, fs: ext4, size: rest }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /boot/efi, partition: efi }
  - action: ostree-deploy
    repository: repo
    branch: os
  - action: bootloader
    type: grub
    console: ttyS0
{% endif %}
"#;

/// Builds it, or the test ends where the archive cannot be reached.
macro_rules! built {
    ($user:expr, $suite:expr) => {{
        needs_program!("ostree", "ostree");
        let suite = format!("suite:{}", $suite);
        let project = Project::of($user).recipe(RECIPE).shared_store();
        let finished = project.build(["-t", &suite]);
        if finished.stderr.contains("Could not resolve") || finished.stderr.contains("failed to lookup address") {
            skip!("no archive");
        }
        finished.success();
        project
    }};
}

/// What atomic systems have in common.
fn check_layout(project: &Project) {
    let ls = |path: &str| ostree(project, &["--repo=out/repo", "ls", "os", path]);
    let cat = |path: &str| ostree(project, &["--repo=out/repo", "cat", "os", path]);
    let top = ls("/");
    for (name, target) in
        [("home", "var/home"), ("root", "var/roothome"), ("ostree", "sysroot/ostree"), ("opt", "var/opt")]
    {
        assert!(top.contains(&format!("/{name} -> {target}")), "{name}: {top}");
    }
    assert!(!top.contains("/etc") && !top.contains("vmlinuz"), "{top}");
    for empty in ["/var", "/boot", "/dev", "/run", "/proc", "/sys", "/tmp", "/sysroot"] {
        assert_eq!(ls(empty).lines().count(), 1, "{}", ls(empty));
    }
    let tmpfiles = cat("/usr/lib/tmpfiles.d/var-of-image.conf");
    for line in
        ["d /var/roothome 0700 0 0", "L /var/lib/dpkg - - - - ../../usr/share/dpkg/database", "C /var/roothome/.bashrc"]
    {
        assert!(tmpfiles.contains(line), "{line}: {tmpfiles}");
    }
    assert!(cat("/usr/share/dpkg/database/status").contains("Package: openssh-server"));
    assert_eq!(cat("/usr/etc/machine-id"), "");
    let etc = ls("/usr/etc/ssh");
    assert!(!etc.contains("ssh_host_"), "{etc}");
    assert!(cat("/usr/lib/sysusers.d/00-image.conf").contains("u sshd "));
    assert!(cat("/usr/etc/default/useradd").contains("HOME=/var/home"));
    assert!(cat("/usr/share/sbom/system.spdx.json").contains("openssh-server"));
    // Python takes its compiled files whatever their sources' dates are.
    let compiled = ostree(project, &["--repo=out/repo", "ls", "-R", "os", "/usr/lib"]);
    let compiled =
        compiled.lines().filter_map(|line| line.split_whitespace().last()).find(|path| path.ends_with(".pyc"));
    if let Some(path) = compiled {
        let bytes = std::process::Command::new("ostree")
            .args(["--repo=out/repo", "cat", "os", path])
            .current_dir(project.path("."))
            .output();
        assert_eq!(bytes.unwrap().stdout[4] & 1, 1, "{path}");
    }
    let root = partition(project, 3);
    let menu = debugfs(&root, "cat /boot/loader.1/grub.cfg");
    let kernel = menu.split_whitespace().skip_while(|word| *word != "linux").nth(1).unwrap_or_default().to_owned();
    assert!(kernel.starts_with("/boot/ostree/debian-"), "{menu}");
    assert!(debugfs(&root, &format!("stat {kernel}")).contains("Type: regular"), "{menu}");
    assert!(menu.contains("fallback=1") && menu.contains("terminal_output console serial"), "{menu}");
    assert!(debugfs(&root, "stat /boot/grub/grub.cfg").contains("../loader/grub.cfg"));
    project.run(["lint-bootc", "out/os.oci.tar"]).success();
}

#[test]
fn debian_13_is_the_same_for_root_and_users_and_keeps_its_numbers() {
    needs_root!();
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let project = built!(User::current(), "trixie");
    check_layout(&project);
    let rootless = built!(user, "trixie");
    assert_eq!(head(&project, "os"), head(&rootless, "os"));
    let image = |project: &Project, name: &str| blake3::hash(&std::fs::read(project.path(name)).unwrap());
    assert_eq!(image(&project, "out/os.oci.tar"), image(&rootless, "out/os.oci.tar"));
    assert_eq!(image(&project, "out/disk.img"), image(&rootless, "out/disk.img"));
    drop(rootless);
    // A user that packages gave another number gets the old one back, and so do its files.
    let number = |project: &Project| {
        let passwd = ostree(project, &["--repo=out/repo", "cat", "os", "/usr/etc/passwd"]);
        let line = passwd.lines().find(|line| line.starts_with("systemd-resolve:")).unwrap().to_owned();
        line.split(':').nth(2).unwrap().to_owned()
    };
    let before = number(&project);
    project.build(["-t", "suite:trixie", "-t", "shuffled:yes"]).success();
    assert_eq!(number(&project), before);
    let tmpfiles = ostree(&project, &["--repo=out/repo", "cat", "os", "/usr/lib/tmpfiles.d/var-of-image.conf"]);
    assert!(tmpfiles.contains(&format!("d /var/lib/owned 0755 {before} 0")), "{tmpfiles}");
}

#[test]
fn debian_12_has_the_same_layout() {
    slow!();
    needs_root!();
    let project = built!(User::current(), "bookworm");
    check_layout(&project);
}

#[test]
fn what_a_release_cannot_do_is_said_in_the_plan() {
    let project = Project::new()
        .recipe(&RECIPE.replace("action: ostree-prepare\n", "action: ostree-prepare\n    composefs: true\n"));
    let planned = project.run(["plan", "recipe.yaml", "-t", "suite:trixie"]);
    if planned.stderr.contains("Could not resolve") || planned.stderr.contains("failed to lookup address") {
        skip!("no archive");
    }
    planned.code(2).says("is built without composefs");
}
