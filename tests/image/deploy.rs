//! `filesystem-deploy`: what it leaves in the root, and what of the root is in the image.

use crate::harness::Project;
use crate::image::disk::{debugfs, partition, reads};

/// An ESP, a root, and a partition for the build alone.
const IMAGE: &str = "
  - action: image-partition
    imagename: disk.img
    imagesize: 64 MiB
    partitiontype: gpt
    partitions:
      - {name: esp, fs: fat16, size: 16 MiB, flags: [esp], fsuuid: DEADBEEF}
      - {name: root, fs: ext4, size: rest, fsuuid: 11111111-2222-3333-4444-555555555555}
      - {name: work, fs: ext2, size: 8 MiB}
      - {name: swap, fs: swap, size: 4 MiB, fsuuid: 99999999-2222-3333-4444-555555555555}
    mountpoints:
      - {mountpoint: /, partition: root, options: [noatime]}
      - {mountpoint: /boot/efi, partition: esp, options: [umask=0077]}
      - {mountpoint: /work, partition: work, buildtime: true}
";

fn project(actions: &str) -> Option<Project> {
    Project::new().tiny(&format!("{}{actions}", IMAGE.trim_start_matches('\n')))
}

macro_rules! project {
    ($actions:expr) => {
        match project($actions) {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    };
}

#[test]
fn the_system_finds_its_file_systems() {
    needs_program!("debugfs", "e2fsprogs");
    let project = project!(
        "
  - action: run
    chroot: true
    command: |
      mkdir /etc/kernel
      echo '  console=ttyS0 root=/dev/old ' > /etc/kernel/cmdline
      i=0; while [ $i -lt 100 ]; do echo 'a line that stood here before'; i=$((i+1)); done > /etc/fstab
      chmod 755 /etc/fstab
  - action: filesystem-deploy
    first-boot: false
    append-kernel-cmdline: quiet splash
"
    );
    project.build([]).success();
    let root = partition(&project, 2);
    assert_eq!(
        debugfs(&root, "cat /etc/fstab"),
        "# file system\tmount point\ttype\toptions\tdump\tpass\n\
         UUID=11111111-2222-3333-4444-555555555555\t/\text4\tdefaults,noatime\t0\t1\n\
         UUID=DEAD-BEEF\t/boot/efi\tvfat\tdefaults,umask=0077\t0\t2\n\
         UUID=99999999-2222-3333-4444-555555555555\tnone\tswap\tsw\t0\t0\n"
    );
    assert_eq!(
        debugfs(&root, "cat /etc/kernel/cmdline"),
        "console=ttyS0 root=UUID=11111111-2222-3333-4444-555555555555 quiet splash\n"
    );
    for file in ["/etc/fstab", "/etc/kernel/cmdline"] {
        assert!(debugfs(&root, &format!("stat {file}")).contains("Mode:  0644"), "{file}");
    }
    reads("e2fsck", &["-fn"], &root);
}

#[test]
fn each_file_system_has_its_part_of_the_root() {
    needs_program!("debugfs", "e2fsprogs");
    needs_program!("mdir", "mtools");
    let project = project!(
        "
  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: |
      mkdir /boot/efi/EFI
      echo loader > /boot/efi/EFI/loader.txt
      echo scratch > /work/scratch
      echo later > /etc/later
"
    );
    project.build([]).success();
    let (esp, root, work) = (partition(&project, 1), partition(&project, 2), partition(&project, 3));
    assert_eq!(debugfs(&root, "cat /etc/later"), "later\n");
    let names = |file, path: &str| -> Vec<String> {
        let listing = debugfs(file, &format!("ls -p {path}"));
        let names = listing.lines().filter_map(|line| line.split('/').nth(5)).map(str::to_owned);
        names.filter(|name| !matches!(name.as_str(), "" | "." | ".." | "lost+found")).collect()
    };
    assert_eq!(names(&root, "/boot"), ["efi"]);
    assert_eq!(names(&root, "/boot/efi"), [""; 0]);
    assert!(!names(&root, "/").contains(&"work".into()), "a directory of the build alone");
    assert_eq!(names(&work, "/"), ["scratch"]);
    assert!(reads("mdir", &["-b", "-s", "-i"], &esp).contains("/EFI/loader.txt"));
    assert!(!debugfs(&root, "cat /etc/fstab").contains("/work"));
}

#[test]
fn a_larger_image_runs_no_action_again() {
    let actions = "
  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: echo later > /etc/later
";
    let project = project!(actions);
    assert_eq!(project.build(["--json"]).success().outcomes().last().unwrap(), "ran");
    let again = project.build(["--json"]).success();
    assert!(again.outcomes().iter().all(|outcome| outcome != "ran"), "{again}");
    project.set_actions(&format!("{}{actions}", IMAGE.replace("64 MiB", "72 MiB").trim_start_matches('\n')));
    let larger = project.build(["--json"]).success();
    let ran: Vec<bool> = larger.outcomes().iter().map(|outcome| outcome == "ran").collect();
    assert_eq!(ran[2..], [false, false, true], "{larger}");
    assert_eq!(project.path("out/disk.img").metadata().unwrap().len(), 72 << 20);
}

#[test]
fn partitions_are_found_as_the_recipe_says() {
    needs_program!("debugfs", "e2fsprogs");
    let project = project!(
        "\n  - action: filesystem-deploy\n    first-boot: false\n    fstab-by: partlabel\n    root-by: partuuid\n"
    );
    project.build([]).success();
    let root = partition(&project, 2);
    assert!(debugfs(&root, "cat /etc/fstab").contains("\nPARTLABEL=root\t/\text4\t"));
    let cmdline = debugfs(&root, "cat /etc/kernel/cmdline");
    let table = reads("sfdisk", &["--json"], &project.path("out/disk.img")).to_lowercase();
    let uuid = cmdline.trim().strip_prefix("root=PARTUUID=").expect("a partition's UUID").to_lowercase();
    assert!(table.contains(&uuid), "{uuid} in {table}");
}
