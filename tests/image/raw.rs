//! Files written over an image.

use std::fs;

use debforge::image::table;

use crate::harness::Project;

const IMAGE: &str = "  - action: image-partition
    imagename: disk.img
    imagesize: 8 MiB
    partitiontype: gpt
    partitions:
      - {name: loader, fs: none, size: 1 MiB}
      - {name: data, fs: none, size: rest}
";

macro_rules! project {
    ($actions:expr) => {
        match Project::new().file("first.bin", [1; 1000]).file("second.bin", [2; 700]).tiny($actions) {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    };
}

#[test]
fn bytes_are_where_they_should_be_and_the_table_stays() {
    let project = project!(&format!(
        "{IMAGE}  - {{ action: raw, source: first.bin, offset: 64s }}
  - {{ action: raw, source: second.bin, partition: loader, offset: 0x200 }}
  - action: run
    command: printf made > \"$ARTIFACTDIR/made.bin\"
  - {{ action: raw, origin: artifacts, source: made.bin, offset: 128 KiB }}
"
    ));
    project.build([]).success();
    let image = fs::read(project.path("out/disk.img")).unwrap();
    assert_eq!(image.len(), 8 << 20);
    assert_eq!(image[64 * 512..][..1000], [1; 1000]);
    assert_eq!(image[(1 << 20) + 512..][..700], [2; 700]);
    assert_eq!(&image[128 << 10..][..4], b"made");
    assert_eq!(image.iter().filter(|byte| **byte == 1).count() - 1000, {
        // The table has ones of its own, but only there.
        image[..34 * 512].iter().chain(&image[image.len() - 33 * 512..]).filter(|byte| **byte == 1).count()
    });
    let table = table::read(&fs::File::open(project.path("out/disk.img")).unwrap(), None).unwrap().unwrap();
    let labels: Vec<&str> = table.entries.iter().map(|entry| entry.label.as_str()).collect();
    assert_eq!(labels, ["loader", "data"]);
}

#[test]
fn a_file_that_turns_out_too_large_leaves_no_image() {
    let project = project!(&format!(
        "{IMAGE}  - action: run
    command: head -c 2000000 /dev/zero > \"$ARTIFACTDIR/made.bin\"
  - {{ action: raw, origin: artifacts, source: made.bin, partition: loader }}
"
    ));
    project.build([]).code(1).says("partition `loader` has room for");
    assert!(!project.path("out/disk.img").exists());
}

#[test]
fn a_promise_that_is_not_kept_is_a_fault() {
    let project = project!(&format!(
        "{IMAGE}  - action: run
    command: head -c 2000 /dev/zero > \"$ARTIFACTDIR/made.bin\"
  - {{ action: raw, origin: artifacts, source: made.bin, offset: 64s, max-size: 1 KiB }}
"
    ));
    project.build([]).code(1).says("more than its `max-size`");
    assert!(!project.path("out/disk.img").exists());
}
