//! Atomic systems: updated and rolled back in a machine, by `debforge test-atomic`.

use super::qemu::{Machine, alone};
use crate::harness::Project;
use crate::harness::project::Finished;
use crate::harness::repository::Key;

/// What both systems have. Its steps are those of `ostree/debian.rs`, which are made once for all.
const BASE: &str = r#"
{% set arch = "amd64" %}
{% set suite = "SUITE" %}
{% set kernel = "linux-image-cloud-amd64" %}
architecture: amd64
actions:
{% include "atomic/base.yaml" %}
  - action: apt
    packages: [openssh-server, grub-efi-amd64-signed, shim-signed, grub-pc-bin, python3-minimal]
  - action: run
    description: an initramfs that an emulated machine reads quickly
    chroot: true
    command: printf 'drivers=" virtio_pci virtio_blk ext4 overlay "\n' > /etc/dracut.conf.d/60-quickly-read.conf
"#;

/// The system that is installed.
const FIRST: &str = "architecture: amd64
actions:
  - { action: recipe, recipe: base.yaml }
  - action: run
    chroot: true
    command: echo 1 > /etc/default/example; echo 1 > /usr/share/example-1
  - action: ostree-prepare
  - action: ostree-commit
    repository: repo
    branch: test/SUITE
    metadata: { version: '1' }
    sign: { key: secret.asc }
  - action: image-partition
    imagename: first.img
    imagesize: 3GB
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
    branch: test/SUITE
    remote-repository: http://os.example.org/repo
    gpg-keys: [public.asc]
  - action: bootloader
    type: grub
    console: ttyS0
    timeout: 1
";

/// What it is updated to: another kernel, another default in /etc, other files, a user more.
const SECOND: &str = "architecture: amd64
actions:
  - { action: recipe, recipe: base.yaml }
  - action: run
    chroot: true
    command: printf 'dracutmodules=\"base\"\\ncompress=\"cat\"\\n' > /etc/dracut.conf.d/90-thrown-away.conf
  - action: apt
    packages: [linux-image-amd64]
  - action: run
    chroot: true
    command: |
      rm /etc/dracut.conf.d/90-thrown-away.conf
      apt-get --yes purge 'linux-image-*cloud-amd64'
      useradd --system newsvc
      echo 2 > /etc/default/example
      echo 2 > /etc/default/example-new
      echo 2 > /usr/share/example-2
  - action: ostree-prepare
  - action: ostree-commit
    repository: repo
    branch: test/SUITE
    metadata: { version: '2' }
    sign: { key: secret.asc }
";

/// A project with both recipes, signed by a key of its own.
fn project(suite: &str) -> Project {
    let key = Key::new();
    let of_suite = |text: &str| text.replace("SUITE", suite);
    Project::new()
        .shared_store()
        .file("base.yaml", of_suite(BASE))
        .file("a.yaml", of_suite(FIRST))
        .file("b.yaml", of_suite(SECOND))
        .file("secret.asc", key.secret())
        .file("public.asc", key.public())
}

/// Ends a test where such systems cannot be made or started.
macro_rules! needs_atomic {
    () => {
        needs_root!();
        needs_machine!(Machine::Amd64Efi);
        needs_program!("ostree", "ostree");
        needs_program!("gpg", "gpg");
        needs_program!("debugfs", "e2fsprogs");
    };
}

/// The outcome of each stage, of a run with `--json`.
fn stages(finished: &Finished) -> Vec<(String, String)> {
    let text = |event: &serde_json::Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let events = finished.events();
    let ends = events.iter().filter(|event| event["event"] == "stage-finished");
    ends.map(|event| (text(event, "stage"), text(event, "outcome"))).collect()
}

fn test(project: &Project, more: &[&str]) -> Vec<(String, String)> {
    let words = ["test-atomic", "a.yaml", "b.yaml", "--json", "--log", "log", "--timeout", "900", "--accel", "tcg"];
    let finished = project.run(words.into_iter().chain(more.iter().copied())).success();
    for event in finished.events().iter().filter(|event| event["event"] == "stage-finished") {
        eprintln!("{} {} s: {}", event["stage"], event["seconds"], event["detail"]);
    }
    stages(&finished)
}

fn passed(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), "passed".to_owned())).collect()
}

const ALL: [&str; 8] = ["boot", "update", "rollback", "same-kernel", "unsigned", "rebase", "power-cut", "fsck"];

#[test]
fn a_system_is_updated_and_rolled_back() {
    needs_atomic!();
    let _alone = alone();
    let project = project("trixie");
    let run = test(&project, &["--fast", "--stage", "rollback", "--stage", "unsigned"]);
    assert_eq!(run, passed(&["boot", "update", "rollback", "unsigned"]));
}

#[test]
fn a_system_holds_through_its_own_boot_loader() {
    slow!();
    needs_atomic!();
    let _alone = alone();
    assert_eq!(test(&project("trixie"), &["--secure-boot"]), passed(&ALL));
}

#[test]
fn a_system_of_debian_12_holds() {
    slow!();
    needs_atomic!();
    let _alone = alone();
    assert_eq!(test(&project("bookworm"), &["--firmware", "bios"]), passed(&ALL));
}
