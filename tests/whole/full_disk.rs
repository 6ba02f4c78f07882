//! Disks that are full: the store's in each kind of step, and the one that artifacts go to.

use std::fs;

use crate::harness::Project;
use crate::harness::fixture::archive;
use crate::harness::project::Finished;

/// A file system of so many bytes over a directory of the project, for one build; and what is in it
/// before. `after` is run when the build is done: its output is the end of standard output.
fn build_on_small(project: &Project, over: &str, size: &str, after: &str) -> Finished {
    let over = project.path(over).display().to_string();
    let script = format!(
        "mount -t tmpfs -o size={size},mode=755 none {over} && {{ [ ! -d {over}.before ] || cp -a {over}.before/. {over}; }} && \"$@\"; code=$?; {after}; exit $code"
    );
    project.run_behind(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"],
        ["build", "recipe.yaml", "--artifactdir", "out"],
    )
}

const PACK: &str = "  - action: pack\n    file: out.tar\n    compression: none\n";

/// Builds in a store too small for the step; the message, and that nothing is left half.
fn store_fills(actions: &str, size: &str) {
    needs_root!();
    let Some(project) = Project::new().tiny(PACK) else { skip!("needs a static busybox") };
    project.build([]).success();
    let good = fs::read(project.path("out/out.tar")).unwrap();
    project.write("large.tar", archive(&[("srv/large", 0o644, &"x".repeat(20 << 20))]));
    project.set_actions(&format!("{actions}{PACK}"));
    let store = project.store().display().to_string();
    let left = format!("find {store}/v1/scratch {store}/v1/trash -mindepth 1");
    let finished = build_on_small(&project, "store", size, &left).code(1);
    let finished = finished.says("the disk of the store [PROJECT]/store is full").says("store prune");
    assert_eq!(finished.stdout, "", "{finished}");
    let names: Vec<_> = fs::read_dir(project.path("out")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["out.tar"]);
    assert!(fs::read(project.path("out/out.tar")).unwrap() == good, "the last good artifact");
    project.build([]).success();
}

#[test]
fn the_store_fills_in_unpacking() {
    store_fills("  - action: unpack\n    origin: recipe\n    file: large.tar\n", "12M");
}

#[test]
fn the_store_fills_in_a_command() {
    store_fills("  - action: run\n    chroot: true\n    command: head -c 20000000 /dev/zero > /srv-large\n", "12M");
}

#[test]
fn the_store_fills_in_packing() {
    store_fills("  - action: unpack\n    origin: recipe\n    file: large.tar\n", "36M");
}

/// An image with 12 MB of what nothing makes smaller.
const IMAGE: &str = "  - action: image-partition
    imagename: disk.img
    imagesize: 64 MiB
    partitiontype: gpt
    partitions: [{name: root, fs: ext4, size: rest}]
    mountpoints: [{mountpoint: /, partition: root}]
  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: head -c 12000000 /dev/urandom > /srv-large
";

// The root, the archive of it and the copy of that take 45 MB.
#[test]
fn the_store_fills_in_writing_an_image() {
    store_fills(IMAGE, "51M");
}

#[test]
fn the_store_fills_in_keeping_an_image() {
    store_fills(IMAGE, "66M");
}

#[test]
fn the_artifacts_disk_fills() {
    needs_root!();
    let Some(project) = Project::new().tiny(PACK) else { skip!("needs a static busybox") };
    project.build([]).success();
    let good = fs::read(project.path("out/out.tar")).unwrap();
    fs::create_dir(project.path("out.before")).unwrap();
    fs::copy(project.path("out/out.tar"), project.path("out.before/out.tar")).unwrap();
    project.set_actions(&format!("  - action: run\n    chroot: true\n    command: echo > /srv-new\n{PACK}"));
    let out = project.path("out").display().to_string();
    let after = format!("ls {out}; cp {out}/out.tar {}", project.path("after.tar").display());
    let finished = build_on_small(&project, "out", "3M", &after).code(1).says("out/out.tar goes to is full");
    assert_eq!(finished.stdout, "out.tar\n", "{finished}");
    assert!(fs::read(project.path("after.tar")).unwrap() == good, "the last good artifact");
    let again = project.build(["--json"]).success();
    assert!(!again.outcomes().contains(&"ran".to_owned()), "{again}");
}
