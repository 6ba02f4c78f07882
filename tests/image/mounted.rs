//! Images of the strategy `mounted`: steps with a device.

use std::path::Path;
use std::process::Command;

use crate::harness::{Project, User};
use crate::image::disk::{CAPABILITY, FILES, debugfs, mounted_listing, partition, with_capability};

fn image(kind: &str, more: &str, mount: &str) -> String {
    format!(
        "
  - action: image-partition
    imagename: disk.img
    imagesize: 400 MiB
    partitiontype: gpt
    strategy: mounted
    partitions:
      - {{name: boot, fs: ext2, size: 8 MiB, artifact: boot.ext2}}
      - {{name: root, fs: {kind}, size: rest{more}}}
    mountpoints:
      - {{mountpoint: /, partition: root{mount}}}
      - {{mountpoint: /boot, partition: boot, build-options: [noatime]}}
"
    )
}

/// Whether loop devices can be made and mounted here.
pub fn can_mount() -> bool {
    Path::new("/dev/loop-control").exists() && crate::harness::is_root() && {
        let script = "f=$(mktemp); truncate -s 4M $f; mke2fs -q $f; mount -o loop $f /mnt; code=$?; rm $f; exit $code";
        Command::new("unshare").args(["-m", "sh", "-c", script]).output().is_ok_and(|output| output.status.success())
    }
}

macro_rules! needs_loops {
    () => {
        if !can_mount() {
            skip!("needs root and loop devices");
        }
    };
}

macro_rules! project {
    ($actions:expr) => {
        match Project::new().file("cap.tar", with_capability()).tiny(&$actions) {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    };
}

/// /dev of a container that may do everything: a file system of its own, with what was there when it started.
const CONTAINER: &str = "
mkdir -p /tmp/dev && mount -t tmpfs tmpfs /tmp/dev && cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom \
    /dev/tty /dev/loop-control /dev/loop[0-7] /tmp/dev/ && mkdir /tmp/dev/shm && mount --move /tmp/dev /dev && exec \"$@\"";

#[test]
fn partitions_have_their_names_where_dev_does_not_know_them() {
    needs_loops!();
    let project = project!(format!(
        "{}  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: |
      test -b \"$IMAGE-part2\" && test \"$(readlink -f \"$IMAGE\")\" != \"$(readlink -f $IMAGE-part2)\"
      device=$(readlink -f $IMAGE-part2)
      grep \" / .* $device \" /proc/self/mountinfo
      test $(cat /sys/class/block/${{device##*/}}/partition) = 2
      test $(readlink -f /dev/disk/by-partlabel/root) = $device
",
        image("ext4", "", "")
    ));
    project.build(["--no-cache"]).success();
    let before = ["unshare", "-m", "sh", "-c", CONTAINER, "sh"].map(str::to_owned);
    project.run_inside(&before, ["build", "recipe.yaml", "--artifactdir", "out", "--no-cache"]).success();
    assert_eq!(project.leftovers(), [""; 0]);
}

#[test]
fn steps_work_on_the_device_and_in_its_file_systems() {
    needs_loops!();
    let project = project!(format!(
        "{}  - action: filesystem-deploy
    first-boot: false
  - action: run
    command: |
      test -b \"$IMAGE\"
      test \"$ROOTDIR\" = \"$IMAGEMNTDIR\"
      printf MARK | dd of=\"$IMAGE\" bs=1 seek=20000 conv=notrunc
      echo host > \"$IMAGEMNTDIR/boot/host\"
  - action: run
    chroot: true
    command: |
      echo $IMAGE > /etc/image
      grep ' / ' /proc/mounts > /etc/mounts
      dd if=$IMAGE of=/etc/mark bs=1 skip=20000 count=4
",
        image("ext4", "", "")
    ));
    project.build([]).success();
    let again = project.build(["--json"]).success();
    assert!(again.outcomes().iter().all(|outcome| outcome != "ran"), "{again}");
    let (boot, root) = (partition(&project, 1), partition(&project, 2));
    assert_eq!(debugfs(&boot, "cat /host"), "host\n");
    assert_eq!(debugfs(&project.path("out/boot.ext2"), "cat /host"), "host\n");
    assert_eq!(debugfs(&root, "cat /etc/mark"), "MARK");
    assert!(debugfs(&root, "cat /etc/image").starts_with("/dev/disk/"));
    assert!(debugfs(&root, "cat /etc/mounts").contains(" ext4 rw"));
    for file in [&boot, &root] {
        crate::image::disk::reads("e2fsck", &["-fn"], file);
    }
}

#[test]
fn a_shell_after_a_step_in_the_image_is_in_the_image() {
    needs_loops!();
    let project = project!(format!(
        "{}  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: echo one > /etc/one
  - action: run
    chroot: true
    command: echo two > /etc/two
",
        image("ext4", "", "")
    ));
    let shell = |after: &str, script: &str| {
        let words = ["shell", "recipe.yaml", "--shell", "/bin/sh", "--after", after];
        project.run_with_input(words, &format!("{script}; exit 0\n")).success().stdout
    };
    let look = "grep ' / ' /proc/mounts; ls /etc /boot; echo spoilt > /etc/one";
    // unpack, image-partition, filesystem-deploy, image, run, run.
    let written = shell("4", look);
    assert!(written.contains(" ext4 rw") && written.contains("lost+found"), "{written}");
    assert!(!written.contains("one\n"), "{written}");
    let one = shell("5", look);
    assert!(one.contains(" ext4 rw") && one.contains("one\n") && !one.contains("two\n"), "{one}");
    assert!(!shell("3", look).contains(" ext4 rw"), "the tree before the image");
    project.build([]).success();
    assert_eq!(debugfs(&partition(&project, 2), "cat /etc/one"), "one\n");
    assert_eq!(debugfs(&partition(&project, 2), "cat /etc/two"), "two\n");
}

#[test]
fn the_kernel_fills_xfs_with_all_that_the_root_has() {
    needs_loops!();
    needs_program!("mkfs.xfs", "xfsprogs");
    whole("xfs", "", "", "-t xfs -o nouuid");
}

#[test]
fn the_kernel_fills_subvolumes_of_btrfs() {
    needs_loops!();
    needs_program!("mkfs.btrfs", "btrfs-progs");
    whole("btrfs", ", subvolumes: ['@', '@spare']", ", subvolume: '@'", "-t btrfs -o subvol=@");
}

/// Compares a mounted image with what the offline strategy makes of ext4.
fn whole(kind: &str, more: &str, mount: &str, how: &str) {
    let rest = format!(
        "{CAPABILITY}{}  - action: filesystem-deploy\n    first-boot: false\n    setup-fstab: false\n    setup-kernel-cmdline: false\n",
        FILES.trim_start_matches('\n')
    );
    let with = |image: String| {
        let (image, rest) = (image.trim_start_matches('\n').to_owned(), rest.clone());
        let deploy = rest.rfind("  - action: filesystem-deploy").unwrap();
        format!("{}{image}{}", &rest[..deploy], &rest[deploy..])
    };
    let ours = project!(with(image(kind, more, mount)));
    let theirs = project!(with(image("ext4", "", "").replace("    strategy: mounted\n", "")));
    let built = ours.run(["build", "recipe.yaml", "--artifactdir", "out"]);
    if built.code == Some(3) {
        skip!("{}", built.stderr);
    }
    built.success();
    theirs.build([]).success();
    let Some(found) =
        mounted_listing(&ours, &[(&partition(&ours, 2), how.rsplit_once(" -o ").map(|_| how).unwrap(), "")])
    else {
        skip!("cannot mount {kind} here");
    };
    let mut expected = mounted_listing(
        &theirs,
        &[(&partition(&theirs, 2), "-t ext4 -o", "")].map(|(file, how, at)| (file.as_path(), how, at)),
    )
    .unwrap();
    expected.remove("lost+found");
    crate::image::disk::assert_same(&found, &expected);
}

#[test]
fn nothing_is_left_of_a_build_that_is_killed() {
    needs_loops!();
    let project = project!(format!(
        "{}  - action: filesystem-deploy\n    first-boot: false\n  - action: run\n    command: touch \"$ARTIFACTDIR/started\"; sleep 600\n",
        image("ext4", "", "")
    ));
    let mut running = project.start(["build", "recipe.yaml", "--artifactdir", "out"]);
    let scratch = project.store().join("v1/scratch");
    let started = || {
        let entries = walkdir::WalkDir::new(&scratch).into_iter().flatten();
        entries.into_iter().any(|entry| entry.file_name() == "started")
    };
    running.wait_until("the step with the device", started);
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.finish();
    assert_eq!(project.leftovers(), [""; 0]);
}

#[test]
fn a_step_that_fails_leaves_nothing_mounted() {
    needs_loops!();
    let project = project!(format!(
        "{}  - action: filesystem-deploy\n    first-boot: false\n  - action: run\n    command: exit 3\n",
        image("ext4", "", "")
    ));
    project.build([]).code(1).says("exited with code 3");
    assert_eq!(project.leftovers(), [""; 0]);
    assert!(!project.path("out/disk.img").exists());
}

#[test]
fn only_root_can_mount() {
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let actions = format!("{}  - action: filesystem-deploy\n    first-boot: false\n", image("ext4", "", ""));
    let Some(project) = Project::of(user).tiny(&actions) else { skip!("needs a static busybox") };
    project
        .build(["-b", "local"])
        .code(3)
        .says("only root of the machine can do")
        .says("leave `strategy` out")
        .says_nothing_of("unpack");
}

#[test]
fn what_the_kernel_cannot_mount_is_said_before_anything_runs() {
    needs_loops!();
    let system = nix::sys::utsname::uname().unwrap();
    let modules = Path::new("/lib/modules").join(system.release());
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    if known.contains("f2fs") || modules.is_dir() {
        skip!("needs a kernel without f2fs");
    }
    let actions = format!("{}  - action: filesystem-deploy\n", image("f2fs", "", ""));
    let project = project!(actions);
    let finished =
        project.build(["-b", "local"]).code(3).says("this kernel cannot mount f2fs").says("leave `strategy` out");
    finished.says_nothing_of("unpack");
}

#[test]
fn a_device_is_not_promised_where_there_is_none() {
    let step = "  - action: filesystem-deploy\n    first-boot: false\n  - action: run\n    command: dd if=/dev/zero of=$IMAGE count=1\n";
    let actions = format!("{}{step}", image("ext4", "", "").replace("    strategy: mounted\n", ""));
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox") };
    project.run(["check", "recipe.yaml"]).code(2).says("there is no `$IMAGE`").says("strategy: mounted");
}

#[test]
fn a_swap_file_stays_one_that_the_kernel_takes() {
    needs_loops!();
    needs_program!("mkswap", "util-linux");
    for kind in ["btrfs", "xfs"] {
        needs_program!(if kind == "xfs" { "mkfs.xfs" } else { "mkfs.btrfs" }, "btrfs-progs and xfsprogs");
        let actions = format!(
            "  - action: overlay\n    source: swap\n{}  - action: filesystem-deploy\n",
            image(kind, "", "").trim_start_matches('\n')
        );
        let Some(project) = Project::new().file("swap/swapfile", "").tiny(&actions) else {
            skip!("needs a static busybox")
        };
        let file = project.path("swap/swapfile");
        std::fs::File::options().write(true).open(&file).unwrap().set_len(8 << 20).unwrap();
        assert!(Command::new("mkswap").arg("-q").arg(&file).status().unwrap().success());
        project.build([]).success();
        let script = "mount -o loop,ro $1 /mnt && stat -c %b /mnt/swapfile && lsattr /mnt/swapfile && \
            cmp /mnt/swapfile $2; code=$?; umount /mnt; exit $code";
        let words = ["-m", "sh", "-c", script, "sh"];
        let output = Command::new("unshare").args(words).args([partition(&project, 2), file]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        let blocks: u64 = told.lines().next().unwrap().parse().unwrap();
        assert!(blocks * 512 >= 8 << 20, "{kind}: {told}");
        let flags = told.lines().nth(1).unwrap().split(' ').next().unwrap();
        assert_eq!(flags.contains('C'), kind == "btrfs", "{told}");
    }
}

#[test]
fn what_chattr_protects_stays_so_in_a_mounted_image() {
    needs_loops!();
    needs_program!("chattr", "e2fsprogs");
    let protect = "  - action: run\n    command: touch $ROOTDIR/kept; chattr +i $ROOTDIR/kept\n";
    let deploy = "  - action: filesystem-deploy\n";
    let actions = format!("{}{deploy}{protect}", image("ext4", "", "").trim_start_matches('\n'));
    let project = project!(&actions);
    project.build([]).success();
    let said = debugfs(&partition(&project, 2), "stat /kept");
    assert!(said.contains("Flags: 0x80010") || said.contains("Flags: 0x10"), "{said}");
    for (kind, more) in [("xfs", ""), ("btrfs", ", subvolumes: [etc]")] {
        needs_program!(if kind == "xfs" { "mkfs.xfs" } else { "mkfs.btrfs" }, "btrfs-progs and xfsprogs");
        let before = "  - action: run\n    command: touch $ROOTDIR/etc/kept; chattr +i $ROOTDIR/etc/kept\n";
        let project = project!(format!("{before}{}{deploy}", image(kind, more, "").trim_start_matches('\n')));
        project.build([]).success();
        let script = "mount -o loop,ro $1 /mnt && lsattr /mnt/etc/kept; code=$?; umount /mnt; exit $code";
        let words = ["-m", "sh", "-c", script, "sh"].map(str::to_owned);
        let output = Command::new("unshare").args(words).arg(partition(&project, 2)).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.starts_with("----i"), "{kind}: {told}");
    }
}
