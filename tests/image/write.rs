//! Images written from a root without a device.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rstest::rstest;

use crate::harness::project::Finished;
use crate::harness::{Project, confinement};
use crate::image::disk::{
    CAPABILITY, FILES, archive_listing, assert_same, debugfs, mounted_listing, partition, reads, with_capability,
};
use crate::whole::places::places;

const IMAGE: &str = "
  - action: image-partition
    imagename: disk.img
    imagesize: 64 MiB
    partitiontype: gpt
    partitions:
      - {name: boot, fs: ext2, size: 16 MiB}
      - {name: root, fs: ext4, size: rest, artifact: parts/root.ext4}
    mountpoints:
      - {mountpoint: /, partition: root}
      - {mountpoint: /boot, partition: boot}
  - action: filesystem-deploy
    first-boot: false
";

fn actions() -> String {
    format!("{}{CAPABILITY}{}", IMAGE.trim_start_matches('\n'), FILES.trim_start_matches('\n'))
}

fn project() -> Option<Project> {
    Project::new().file("cap.tar", with_capability()).tiny(&actions())
}

macro_rules! project {
    () => {
        match project() {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    };
}

#[test]
fn the_file_systems_hold_what_the_root_held() {
    needs_root!();
    let project = project!();
    project.set_actions(&format!("{}  - action: pack\n    file: tree.tar\n    compression: none\n", actions()));
    project.build([]).success();
    let (boot, root) = (partition(&project, 1), partition(&project, 2));
    let Some(mut image) = mounted_listing(&project, &[(&root, "-t ext4 -o", ""), (&boot, "-t ext2 -o", "/boot")])
    else {
        skip!("cannot mount ext4 here");
    };
    for own in ["lost+found", "boot/lost+found"] {
        image.remove(own);
    }
    let tree = archive_listing(&project, &project.path("out/tree.tar"));
    assert!(tree["srv/capable"].contains("security.capability"), "{tree:?}");
    assert_same(&image, &tree);
    // Without its mounts the root has the directory alone.
    let alone = mounted_listing(&project, &[(&root, "-t ext4 -o", "")]).unwrap();
    assert!(alone.contains_key("boot") && !alone.contains_key("boot/efi"), "{alone:?}");
}

#[test]
fn holes_stay_holes_on_the_whole_way() {
    let project = project!();
    project.build([]).success();
    let data = |path: &std::path::Path| fs::metadata(path).unwrap().blocks() * 512;
    let image = project.path("out/disk.img");
    assert_eq!(fs::metadata(&image).unwrap().len(), 64 << 20);
    let busybox = data(&image);
    assert!(busybox < 8 << 20, "{busybox} bytes of data for less than 3 MB of files");
    let stored = walkdir::WalkDir::new(project.store()).into_iter().flatten();
    let stored: Vec<_> = stored.filter(|entry| entry.file_name() == "disk.img").collect();
    assert_eq!(stored.len(), 1);
    assert!(data(stored[0].path()) < 8 << 20);
    // Its last partition alone is the same bytes.
    let alone = fs::read(project.path("out/parts/root.ext4")).unwrap();
    assert!(alone == fs::read(partition(&project, 2)).unwrap(), "the partition as an artifact of its own");
    assert!(data(&project.path("out/parts/root.ext4")) < 8 << 20);
}

#[rstest]
#[case::ext4("ext4")]
#[case::btrfs("btrfs")]
fn every_place_gives_the_same_bytes(#[case] root: &str) {
    needs_root!();
    let large = ["imagesize: 400 MiB", "fs: btrfs"];
    let small = ["imagesize: 64 MiB", "fs: ext4"];
    let mut actions = actions();
    if root == "btrfs" {
        needs_program!("mkfs.btrfs", "btrfs-progs");
        for (small, large) in small.iter().zip(large) {
            actions = actions.replace(small, large);
        }
        // Before version 6.12 it loses hard links.
        actions = actions.replace("      ln /srv/a /srv/deep/b\n", "");
        actions.push_str("  - action: run\n    chroot: true\n    command: for n in $(seq 300); do echo $n > /srv/$((n * 7 % 31))-$n; done\n");
    }
    let mut first: Option<(&str, Vec<u8>)> = None;
    for place in places() {
        let user = match place.user {
            Ok(user) => user,
            Err(reason) => skip!("{}: {reason}", place.name),
        };
        let Some(project) = Project::of(user).file("cap.tar", with_capability()).tiny(&actions) else {
            skip!("needs a static busybox");
        };
        let words = ["build", "recipe.yaml", "--artifactdir", "out"];
        project.run_inside(&place.before, words).success().says_nothing_of("not reproducible");
        let bytes = fs::read(project.path("out/disk.img")).unwrap();
        match &first {
            None => first = Some((place.name, bytes)),
            Some((name, other)) => assert!(*other == bytes, "{name} and {} differ", place.name),
        }
    }
}

#[test]
fn contents_that_do_not_fit_are_a_fault_at_the_partitions_line() {
    let project = project!();
    let large = "  - action: run\n    chroot: true\n    command: head -c 60000000 /dev/urandom > /srv/large\n";
    project.set_actions(&format!("{}{large}", actions()));
    let finished = project.build([]).code(1);
    assert!(!project.path("out").join("disk.img").exists(), "{finished}");
    insta::assert_snapshot!(error_of(&finished), @"
    error: making the file system `root`: the contents need [SIZE], the partition has [SIZE]
      ┌ recipe.yaml:12:9
      = hint: make `root` larger, or as large as its contents: `imagesize: auto` of an image with partitions, `size: auto` of one without
      = hint: look around in the root before it: debforge shell recipe.yaml --artifactdir out --after 6
    ");
}

#[test]
fn a_mkfs_that_fails_is_a_fault_at_the_partitions_line() {
    let project = project!();
    project.set_actions(&actions().replace(
        "      - {name: boot, fs: ext2, size: 16 MiB}\n",
        "      - name: boot\n        fs: ext2\n        size: 16 MiB\n        mkfs-options: [-i, lots]\n",
    ));
    insta::assert_snapshot!(error_of(&project.build([]).code(1)), @"
    error: making the file system `boot`: `mke2fs` exited with code 1
      ┌ recipe.yaml:11:9
      │ mke2fs: invalid inode ratio lots (min 1024/max 67108864)
      = hint: look around in the root before it: debforge shell recipe.yaml --artifactdir out --after 5
    ");
}

/// What is said from the error on, but for the name of the log.
fn error_of(finished: &Finished) -> String {
    let text = finished.stderr_filtered();
    let error = text.lines().skip_while(|line| !line.starts_with("error:"));
    error.filter(|line| !line.contains("the whole log is")).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_image_is_as_large_as_its_contents_want() {
    let project = project!();
    let sized = |margin: &str| {
        project.set_actions(&actions().replace("imagesize: 64 MiB", &format!("imagesize: auto\n    margin: {margin}")));
        project.build([]).success();
        reads("e2fsck", &["-fn"], &partition(&project, 2));
        assert!(debugfs(&partition(&project, 2), "cat /etc/hostname").contains("tiny"));
        fs::metadata(project.path("out/disk.img")).unwrap().len()
    };
    let (tight, roomy) = (sized("0"), sized("20 MiB"));
    assert!(tight < 24 << 20, "{tight} bytes for 16 MiB of /boot and less than 3 MB of files");
    assert!((19 << 20..24 << 20).contains(&(roomy - tight)), "{tight}, {roomy}");
}

#[test]
fn a_failed_image_leaves_the_one_of_before() {
    let project = project!();
    project.build([]).success();
    let good = fs::read(project.path("out/disk.img")).unwrap();
    let large = "  - action: run\n    chroot: true\n    command: head -c 60000000 /dev/urandom > /srv/large\n";
    project.set_actions(&format!("{}{large}", actions()));
    project.build([]).code(1);
    assert!(fs::read(project.path("out/disk.img")).unwrap() == good, "the last good image");
    let mut names: Vec<_> =
        fs::read_dir(project.path("out")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["disk.img", "parts"]);
}

#[test]
fn a_machine_that_lets_nobody_watch_makes_a_btrfs_and_says_that_it_is_its_own() {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    needs_root!();
    let project = project!();
    let actions = actions().replace("fs: ext4", "fs: btrfs").replace("64 MiB", "400 MiB");
    project.set_actions(&actions.replace("      ln /srv/a /srv/deep/b\n", ""));
    let finished = project.run_inside(&confinement::watched(), ["build", "recipe.yaml", "--artifactdir", "out"]);
    let text = finished.success().stderr_filtered();
    reads("btrfs", &["check"], &partition(&project, 2));
    let notes: Vec<&str> = text.lines().filter(|line| line.contains("reproducible")).collect();
    insta::assert_snapshot!(notes.join("\n"), @"warning: making the file system `root`: this image is not reproducible: `mkfs.btrfs` takes the order of files from this machine, where it cannot be watched (seccomp(2): Device or resource busy)");
}

#[test]
fn missing_programs_are_found_before_anything_runs() {
    needs_root!();
    let project = project!();
    let hide = "mount --bind /dev/null $(readlink -f $(PATH=$PATH:/sbin:/usr/sbin command -v mke2fs)) && exec \"$@\"";
    let before = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", hide, "sh"];
    let finished = project.run_behind(before, ["build", "recipe.yaml", "--artifactdir", "out"]).code(3);
    finished.says("`mke2fs` (for `image-partition`)").says("apt install e2fsprogs").says_nothing_of("unpack");
}
