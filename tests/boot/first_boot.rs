//! Copies of one image become systems of their own, as large as their disks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::grub::GPT;
use super::qemu::{Machine, boot};
use super::systems::{DONE, nothing_failed, project, reported};
use crate::harness::{Project, find_program};

const MSDOS: &str = "
  - action: image-partition
    imagename: msdos.img
    imagesize: 1GB
    partitiontype: msdos
    partitions:
      - { name: root, fs: ext4, size: rest, flags: [boot] }
    mountpoints:
      - { mountpoint: /, partition: root }
  - action: filesystem-deploy
  - action: bootloader
    type: grub-bios
    console: ttyS0
    timeout: 1
";

/// Bytes of the disk that images are put on.
const DISK: u64 = 3 << 30;

/// Puts an image on a larger disk, as dd would, and lets a machine write to it.
fn boot_on_a_larger_disk(project: &Project, image: &str) -> String {
    let disk = project.path("disk.img");
    let status = Command::new("cp").arg("--sparse=always").arg(project.path(image)).arg(&disk).status();
    assert!(status.expect("starting cp").success());
    File::options().write(true).open(&disk).and_then(|file| file.set_len(DISK)).expect("a larger disk");
    let console = boot(project, Machine::Amd64Bios, "disk.img", &["--persist"], &[DONE]);
    nothing_failed(&console);
    let root: u64 = reported(&console, "root")[0].trim_end_matches('M').parse().expect("a size");
    assert!(root > 2500, "the root has {root} MiB:\n{console}");
    console
}

/// What sfdisk says of a disk's table and its last partition: "sound", and the last sector.
fn verify(disk: &Path) -> (String, u64) {
    let sfdisk = find_program("sfdisk").expect("sfdisk");
    let output = Command::new(&sfdisk).arg("--verify").arg(disk).output().expect("starting sfdisk");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let json = Command::new(&sfdisk).arg("--json").arg(disk).output().expect("starting sfdisk");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("sfdisk's JSON");
    let partitions = json["partitiontable"]["partitions"].as_array().expect("partitions");
    let end =
        |partition: &serde_json::Value| partition["start"].as_u64().unwrap() + partition["size"].as_u64().unwrap();
    (said, partitions.iter().map(end).max().unwrap())
}

fn keys(console: &str) -> BTreeSet<String> {
    reported(console, "key").into_iter().map(str::to_owned).collect()
}

#[test]
fn copies_of_an_image_share_no_identity_and_fill_their_disks() {
    needs_root!();
    needs_machine!(Machine::Amd64Bios);
    needs_program!("sfdisk", "fdisk");
    let secrets = "  - {action: apt, packages: [ssl-cert]}\n";
    let project = project("amd64", &format!("{secrets}{}", GPT.trim_start_matches('\n')));
    build!(&project);
    let first = boot_on_a_larger_disk(&project, "out/gpt.img");
    let (said, end) = verify(&project.path("disk.img"));
    assert!(said.contains("No errors detected"), "{said}");
    assert!(end * 512 > DISK - (4 << 20), "the last partition ends at sector {end}");
    let second = boot(&project, Machine::Amd64Bios, "out/gpt.img", &[], &[DONE]);
    for (console, what) in [(&first, "first"), (&second, "second")] {
        let id = reported(console, "machine-id");
        assert!(id.len() == 1 && id[0].len() == 32, "machine-id of the {what} copy: {id:?}");
        assert!(keys(console).iter().any(|key| key.ends_with("snakeoil.key")), "no new key of ssl-cert:\n{console}");
        assert!(keys(console).len() >= 4, "keys of the {what} copy: {:?}", keys(console));
    }
    assert_ne!(reported(&first, "machine-id"), reported(&second, "machine-id"));
    assert_eq!(keys(&first).intersection(&keys(&second)).count(), 0);
    // What has started once keeps what it made.
    let again = boot(&project, Machine::Amd64Bios, "disk.img", &[], &[DONE]);
    assert_eq!(reported(&first, "machine-id"), reported(&again, "machine-id"));
    assert_eq!(keys(&first), keys(&again));
    fs::remove_file(project.path("disk.img")).expect("removing the disk");
}

#[test]
fn an_msdos_table_grows_too() {
    needs_root!();
    needs_machine!(Machine::Amd64Bios);
    needs_program!("sfdisk", "fdisk");
    // Of a release whose systemd has no units for it.
    let project = project("amd64", MSDOS);
    let newer = ["systemd-boot-efi, ", "systemd-repart, "];
    let recipe = project.read("recipe.yaml").replace("suite: trixie", "suite: bookworm");
    project.write("recipe.yaml", newer.iter().fold(recipe, |recipe, package| recipe.replace(package, "")));
    build!(&project);
    boot_on_a_larger_disk(&project, "out/msdos.img");
    let (said, end) = verify(&project.path("disk.img"));
    assert!(said.contains("No errors detected"), "{said}");
    assert_eq!(end * 512, DISK);
}
