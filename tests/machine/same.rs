//! The same recipe gives the same, wherever it is built, and once.

use std::fs;

use crate::harness::{Project, confinement};

/// Files with owners, modes, capabilities and links, as an archive and as an ext4 image.
const RECIPE: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /srv/data
      echo text > /srv/data/file
      chown 33:33 /srv/data/file
      chmod 4755 /srv/data/file
      ln /srv/data/file /srv/data/same
      ln -s file /srv/data/link
      echo forge > /etc/hostname
  - action: image-partition
    imagename: disk.img
    imagesize: 32MB
    partitiontype: gpt
    partitions:
      - { name: efi, fs: vfat, size: 8MiB, flags: [esp] }
      - { name: root, fs: ext4, size: rest }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /boot/efi, partition: efi }
  - action: filesystem-deploy
  - action: pack
    file: root.tar.gz
";

/// What a recipe gives in a place: archive and image.
fn built(place: &str, arguments: &[&str]) -> Option<[Vec<u8>; 2]> {
    let project = if place == "local" { Project::new() } else { Project::new().kernel_of(place) };
    let project = project.tiny(RECIPE)?;
    project.build(["-b", place].into_iter().chain(arguments.iter().copied())).success();
    Some(["root.tar.gz", "disk.img"].map(|name| fs::read(project.path("out").join(name)).expect("an artifact")))
}

fn same(place: &str, arguments: &[&str]) {
    let (Some(here), Some(there)) = (built("local", &[]), built(place, arguments)) else {
        skip!("needs a static busybox");
    };
    for (here, there, what) in [(&here[0], &there[0], "archive"), (&here[1], &there[1], "image")] {
        assert!(here == there, "the {what} differs between this machine and {place}");
    }
}

#[test]
fn uml_gives_the_same_bytes_as_this_machine() {
    needs_root!();
    needs_uml!();
    same("uml", &[]);
}

#[test]
fn qemu_gives_the_same_bytes_as_this_machine() {
    needs_root!();
    needs_qemu!();
    same("qemu", &["-m", "1G"]);
}

#[test]
fn qemu_shares_by_9p_where_nothing_can_be_confined() {
    needs_root!();
    needs_qemu!();
    let project = Project::new().kernel_of("qemu");
    let Some(project) = project.tiny("  - action: pack\n    file: root.tar\n    compression: none\n") else {
        skip!("needs a static busybox");
    };
    let build = ["build", "recipe.yaml", "--artifactdir", "out", "-m", "1G", "-b"];
    project.run_inside(&confinement::without_mounts(), build.into_iter().chain(["qemu", "--no-cache"])).success();
    let there = fs::read(project.path("out/root.tar")).expect("an archive");
    project.run(build.into_iter().chain(["local", "--no-cache"])).success();
    assert!(there == fs::read(project.path("out/root.tar")).expect("an archive"), "the archives differ");
}

#[test]
fn a_step_is_never_run_twice_in_machines_either() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny(RECIPE) else { skip!("needs a static busybox") };
    let first = project.build(["-b", "uml", "--json"]).success();
    // Only what says how the image is to be has nothing to do.
    let ran = first.outcomes().iter().filter(|outcome| *outcome == "ran").count();
    assert!(ran >= 4, "{first}");
    // The plan knows it before the machine starts.
    project.run(["plan", "recipe.yaml", "--artifactdir", "out", "-b", "uml"]).success().prints("cached");
    let second = project.build(["-b", "uml", "--json"]).success();
    assert!(second.outcomes().iter().all(|outcome| outcome == "cached"), "{second}");
    // What changes costs itself and what follows.
    project.set_actions(&RECIPE.replace("echo forge", "echo anvil"));
    fs::remove_file(project.path("out/disk.img")).expect("an artifact");
    let third = project.build(["-b", "uml", "--json"]).success();
    assert_eq!(third.outcomes()[0], "cached", "{third}");
    assert_eq!(third.outcomes()[1], "ran", "{third}");
    assert!(project.path("out/disk.img").exists());
}

#[test]
fn what_a_step_did_before_another_failed_is_kept() {
    needs_uml!();
    let failing = "  - action: run\n    chroot: true\n    command: echo one > /etc/one\n  - action: run\n    chroot: true\n    command: exit 3\n";
    let Some(project) = Project::new().kernel_of("uml").tiny(failing) else { skip!("needs a static busybox") };
    project.build(["-b", "uml"]).code(1).says("exit 3");
    project.set_actions(&failing.replace("exit 3", "true"));
    let again = project.build(["-b", "uml", "--json"]).success();
    assert_eq!(again.outcomes(), ["cached", "cached", "ran"], "{again}");
}

#[test]
fn a_debian_that_is_bootstrapped_in_uml_is_that_of_this_machine() {
    needs_root!();
    needs_uml!();
    let recipe = "architecture: amd64
actions:
  - { action: mmdebstrap, suite: trixie, variant: minbase }
  - { action: apt, packages: [iproute2] }
  - { action: pack, file: root.tar.zst, compression: zstd }
";
    // One store, so that what is fetched once serves both.
    let project = Project::new().shared_store().recipe(recipe);
    project.build(["-b", "local"]).success();
    let here = fs::read(project.path("out/root.tar.zst")).expect("an archive");
    fs::remove_file(project.path("out/root.tar.zst")).expect("an archive");
    project.build(["-b", "uml"]).success();
    assert!(here == fs::read(project.path("out/root.tar.zst")).expect("an archive"), "the archives differ");
}

#[test]
fn the_host_does_not_leak_into_an_initramfs_of_dracut() {
    slow!();
    needs_root!();
    needs_uml!();
    // In a virtual machine of QEMU dracut adds what mounts its host's directories.
    let recipe = "architecture: amd64
actions:
  - { action: mmdebstrap, suite: trixie, variant: minbase }
  - { action: apt, packages: [dracut, systemd, linux-image-cloud-amd64] }
  - action: run
    chroot: true
    network: false
    command: |
      kernel=$(basename /lib/modules/*)
      dracut --no-hostonly --reproducible --force /boot/ours.img \"$kernel\"
      lsinitrd --mod /boot/ours.img > /boot/ours.modules
  - action: run
    command: cp \"$ROOTDIR/boot/ours.img\" \"$ROOTDIR/boot/ours.modules\" \"$ARTIFACTDIR\"
";
    let project = Project::new().shared_store().recipe(recipe);
    let made = ["local", "uml"].map(|backend| {
        project.build(["-b", backend]).success();
        let modules = project.read("out/ours.modules");
        assert!(modules.contains("systemd\n") && !modules.contains("virtfs"), "{backend}: {modules}");
        let image = fs::read(project.path("out/ours.img")).expect("an initramfs");
        fs::remove_file(project.path("out/ours.img")).expect("an initramfs");
        image
    });
    assert!(made[0] == made[1], "the initramfs differ");
}

#[test]
fn a_root_of_the_machines_own_does_the_same_work() {
    slow!();
    needs_root!();
    needs_uml!();
    let Some([archive, _]) = built("local", &[]) else { skip!("needs a static busybox") };
    let project = Project::new().shared_store().tiny(RECIPE).expect("a static busybox");
    project.build(["-b", "uml", "--machine-root"]).success().says("a root of its own");
    assert!(fs::read(project.path("out/root.tar.gz")).expect("an archive") == archive, "the archives differ");
    // Its own tools count in the ids, before and after.
    let plan = project.run(["plan", "recipe.yaml", "--artifactdir", "out", "-b", "uml", "--machine-root"]).success();
    assert!(!plan.stdout.contains("to run"), "{plan}");
}

#[test]
fn the_store_shows_the_disk_of_machines_and_clears_it() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny("") else { skip!("needs a static busybox") };
    project.build(["-b", "uml"]).success();
    project.run(["store", "list", "--kind", "machines"]).success().prints("store.ext4");
    project.run(["store", "clear", "--yes"]).success();
    assert!(!project.store().join("v1/machines/store.ext4").exists());
    // What was on it is not thought to be there any more.
    let again = project.build(["-b", "uml", "--json"]).success();
    assert_eq!(again.outcomes(), ["ran"], "{again}");
}
