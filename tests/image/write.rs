//! Images written from a root without a device.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::Project;
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

#[test]
fn every_place_gives_the_same_bytes() {
    needs_root!();
    let mut first: Option<(&str, Vec<u8>)> = None;
    for place in places() {
        let user = match place.user {
            Ok(user) => user,
            Err(reason) => skip!("{}: {reason}", place.name),
        };
        let Some(project) = Project::of(user).file("cap.tar", with_capability()).tiny(&actions()) else {
            skip!("needs a static busybox");
        };
        let words = ["build", "recipe.yaml", "--artifactdir", "out"];
        project.run_inside(&place.before, words).success();
        let bytes = fs::read(project.path("out/disk.img")).unwrap();
        match &first {
            None => first = Some((place.name, bytes)),
            Some((name, other)) => assert!(*other == bytes, "{name} and {} differ", place.name),
        }
    }
}

#[test]
fn contents_that_do_not_fit_are_a_fault_at_the_recipes_line() {
    let project = project!();
    let large = "  - action: run\n    chroot: true\n    command: head -c 60000000 /dev/urandom > /srv/large\n";
    project.set_actions(&format!("{}{large}", actions()));
    let finished = project.build([]).code(1).says("recipe.yaml:6").says("`root`").says("imagesize: auto");
    assert!(!project.path("out").join("disk.img").exists(), "{finished}");
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
fn missing_programs_are_found_before_anything_runs() {
    needs_root!();
    let project = project!();
    let hide = "mount --bind /dev/null $(readlink -f $(PATH=$PATH:/sbin:/usr/sbin command -v mke2fs)) && exec \"$@\"";
    let before = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", hide, "sh"];
    let finished = project.run_behind(before, ["build", "recipe.yaml", "--artifactdir", "out"]).code(3);
    finished.says("`mke2fs` (for `image-partition`)").says("apt install e2fsprogs").says_nothing_of("unpack");
}
