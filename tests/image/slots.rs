//! Several deploys into one image, and roots that dm-verity protects.

use std::fs;

use crate::harness::Project;
use crate::image::disk::{debugfs, partition, reads};

const SLOTS: &str = "
  - action: image-partition
    imagename: disk.img
    imagesize: 64 MiB
    partitiontype: gpt
    partitions:
      - {name: data, fs: ext4, size: 8 MiB}
      - {name: root-a, fs: ext4, size: 20 MiB}
      - {name: root-b, fs: ext4, size: 20 MiB}
    mountpoints:
      - {mountpoint: /, partition: root-a, slot: a}
      - {mountpoint: /, partition: root-b, slot: b}
      - {mountpoint: /data, partition: data}
  - action: filesystem-deploy
    first-boot: false
    slot: a
    append-kernel-cmdline: slot=a quiet
  - action: run
    chroot: true
    command: echo a > /etc/slot; echo of a > /data/of-a; cp /etc/fstab /etc/fstab.a
  - action: filesystem-deploy
    first-boot: false
    slot: b
    append-kernel-cmdline: slot=b quiet
  - action: run
    chroot: true
    command: echo b > /etc/slot; rm /data/of-a; echo of b > /data/of-b
";

#[test]
fn each_slot_has_the_root_of_its_deploy() {
    needs_program!("debugfs", "e2fsprogs");
    let Some(project) = Project::new().tiny(SLOTS) else { skip!("needs a static busybox") };
    project.build([]).success();
    let (data, a, b) = (partition(&project, 1), partition(&project, 2), partition(&project, 3));
    for (file, slot) in [(&a, "a"), (&b, "b")] {
        reads("e2fsck", &["-fn"], file);
        assert_eq!(debugfs(file, "cat /etc/slot"), format!("{slot}\n"));
        let cmdline = debugfs(file, "cat /etc/kernel/cmdline");
        let uuid = reads("dumpe2fs", &["-h"], file);
        let uuid = uuid.lines().find_map(|line| line.strip_prefix("Filesystem UUID:")).unwrap().trim().to_owned();
        assert_eq!(cmdline, format!("root=UUID={uuid} slot={slot} quiet\n"));
        assert!(debugfs(file, "cat /etc/fstab").contains(&format!("UUID={uuid}\t/\t")));
    }
    // What both mount has what the last deploy left.
    assert_eq!(debugfs(&data, "cat /of-b"), "of b\n");
    assert_eq!(debugfs(&data, "cat /of-a"), "");
    reads("e2fsck", &["-fn"], &data);
    // A change behind the second deploy costs the first one nothing, and changes nothing of it.
    let before = fs::read(&a).unwrap();
    project.set_actions(&SLOTS.replace("echo b > /etc/slot", "echo c > /etc/slot"));
    let again = project.build(["--json"]).success();
    let ran: Vec<bool> = again.outcomes().iter().map(|outcome| outcome == "ran").collect();
    assert_eq!(ran, [false, false, false, false, false, false, true, true], "{again}");
    assert!(fs::read(partition(&project, 2)).unwrap() == before, "the slot of the first deploy");
    assert_eq!(debugfs(&partition(&project, 3), "cat /etc/slot"), "c\n");
}

#[test]
fn a_partition_that_was_measured_too_early_is_found_before_anything_runs() {
    let auto = SLOTS.replace("imagesize: 64 MiB", "imagesize: auto");
    let Some(project) = Project::new().tiny(&auto.replacen("20 MiB", "rest", 1)) else {
        skip!("needs a static busybox")
    };
    project.run(["check", "recipe.yaml"]).success().says_nothing_of("its size when");
    project.set_actions(&auto.replace("root-b, fs: ext4, size: 20 MiB", "root-b, fs: ext4, size: rest"));
    let own = project.run(["check", "recipe.yaml"]).code(2);
    project.set_actions(&auto.replace("size: 8 MiB", "size: rest"));
    let shared = project.run(["check", "recipe.yaml"]).code(0);
    insta::assert_snapshot!(format!("{}\n{}", own.stderr_filtered(), shared.stderr_filtered()), @r"
    error: `root-b` gets its size when the first deploy is written, before this one fills it
       ┌ recipe.yaml:25:13
    25 │   - action: filesystem-deploy
       │             ^^^^^^^^^^^^^^^^^
       = hint: give `root-b` a `size` in `image-partition`, and `size: rest` to one that only the first deploy mounts

    1 error in recipe.yaml

    warning: `data` gets its size when the first deploy is written, and this one fills it anew
       ┌ recipe.yaml:25:13
    25 │   - action: filesystem-deploy
       │             ^^^^^^^^^^^^^^^^^
       = hint: give `data` a `size` in `image-partition`, and `size: rest` to one that only the first deploy mounts

    1 warning in recipe.yaml
    recipe.yaml: good, 6 steps for amd64 · local, root
    ");
}

const PROTECTED: &str = "
  - action: image-partition
    imagename: disk.img
    imagesize: 64 MiB
    partitiontype: gpt
    partitions:
      - {name: boot, fs: ext2, size: 8 MiB}
      - {name: root, fs: ext4, size: 32 MiB, parttype: root}
      - {name: hashes, size: 4 MiB, parttype: root-verity, verity: {data: root}}
    mountpoints:
      - {mountpoint: /, partition: root}
      - {mountpoint: /boot, partition: boot}
  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: mkdir /boot/loader; cp /etc/kernel/cmdline /boot/loader/entry; chown 5:6 /boot/loader/entry; chmod 640 /boot/loader/entry
";

#[test]
fn a_protected_root_is_what_its_boot_loader_expects() {
    needs_program!("veritysetup", "cryptsetup-bin");
    needs_program!("debugfs", "e2fsprogs");
    let Some(project) = Project::new().tiny(PROTECTED) else { skip!("needs a static busybox") };
    project.build([]).success();
    let (boot, root, hashes) = (partition(&project, 1), partition(&project, 2), partition(&project, 3));
    let entry = debugfs(&boot, "cat /loader/entry");
    let hash = entry.split_whitespace().find_map(|word| word.strip_prefix("roothash=")).expect(&entry).to_owned();
    let verify = |hash: &str| {
        let mut command = std::process::Command::new("veritysetup");
        command.arg("verify").args([&root, &hashes]).arg(hash).output().unwrap().status.success()
    };
    assert!(verify(&hash), "{entry}");
    assert!(!verify(&hash.chars().rev().collect::<String>()), "any hash is good enough");
    assert!(entry.contains("root=/dev/mapper/root") && entry.contains(" ro"), "{entry}");
    let stat = debugfs(&boot, "stat /loader/entry");
    assert!(stat.contains("Mode:  0640") && stat.contains("User:     5   Group:     6"), "{stat}");
    let table = reads("sfdisk", &["--json"], &project.path("out/disk.img"));
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    let uuid = |number: usize| {
        let uuid = table["partitiontable"]["partitions"][number]["uuid"].as_str().unwrap();
        uuid.replace('-', "").to_lowercase()
    };
    assert_eq!((uuid(1).as_str(), uuid(2).as_str()), (&hash[..32], &hash[32..]));
    // Another root has another hash.
    project.set_actions(&format!("{PROTECTED}  - action: run\n    chroot: true\n    command: echo > /etc/more\n"));
    project.build([]).success();
    assert!(!debugfs(&partition(&project, 1), "cat /loader/entry").contains(&hash));
}

#[test]
fn what_would_change_a_protected_partition_is_refused() {
    let Some(project) =
        Project::new().tiny(&PROTECTED.replace("partitiontype: gpt", "partitiontype: gpt\n    strategy: mounted"))
    else {
        skip!("needs a static busybox")
    };
    project
        .run(["check", "recipe.yaml"])
        .code(2)
        .says("`root` is protected by dm-verity, and mounting it would change it");
}
