//! Neither the place nor the machine of a build is in what it makes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::harness::{Project, User, find_program};

/// Everything that comes into a root and makes files there, and everything that is made of one.
const RECIPE: &str = "
  - action: run
    chroot: true
    command: |
      umask
      mkdir -p /srv/deep/er
      echo made > /srv/deep/er/made
      mkdir -m 2770 /srv/shared
      chown 0:33 /srv/shared
      echo inside > /srv/shared/inside
  - action: overlay
    source: files
    destination: /srv/www
  - action: run
    command: mkdir \"$ROOTDIR/srv/host\" && date > /dev/null && echo x > \"$ROOTDIR/srv/host/x\"
  - action: run
    chroot: true
    command: echo later > /srv/later
  - action: pack
    file: out.tar
    compression: none
  - action: image-partition
    imagename: disk.img
    imagesize: 32M
    partitiontype: gpt
    partitions:
      - name: root
        fs: ext4
        start: 0%
        end: 100%
    mountpoints:
      - mountpoint: /
        partition: root
  - action: filesystem-deploy
";

/// An ACL as the kernel takes it (linux/posix_acl_xattr.h): user::rwx, user:1234:rwx, group::r-x, mask::rwx, other::r-x.
fn default_acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 1234), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)];
    let entry = |(tag, permissions, id): &(u16, u16, u32)| {
        [tag.to_le_bytes().as_slice(), &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
}

/// Has a directory hand down whatever it can to what is made in it.
fn make_hostile(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o2755)).unwrap();
    let set = xattr::set(directory, "system.posix_acl_default", &default_acl());
    set.and_then(|()| xattr::set(directory, "user.debforge", b"x")).expect("a file system with ACLs and attributes");
    // No dumps, no times of access: what every file system with such flags has.
    let status = Command::new("chattr").args(["+dA"]).arg(directory).status().expect("starting chattr");
    assert!(status.success(), "chattr +dA {}", directory.display());
}

/// Where and how a recipe is built, by what stands before debforge.
struct Way {
    hostile: bool,
    umask: &'static str,
    odd_mount: bool,
}

impl Way {
    fn build(&self, user: &User) -> Option<[Vec<u8>; 2]> {
        let project = Project::of(user.clone());
        if self.hostile {
            for name in [".", "home", "store"] {
                make_hostile(&project.path(name));
            }
        }
        let project = project.file("files/etc/settings", "settings\n").file("files/run", "#!/bin/sh\n").tiny(RECIPE)?;
        project.chmod("files/run", 0o755);
        if self.hostile {
            let inherited = fs::metadata(project.path("files/etc")).unwrap();
            assert_ne!(inherited.mode() & 0o2000, 0, "the test's place hands nothing down");
        }
        let mut script = format!("umask {}; ", self.umask);
        if self.odd_mount {
            script += "mount --make-rprivate / && mount --bind . . && \
                       mount -o remount,bind,nosuid,nodev,noexec,noatime . && cd \"$PWD\" && ";
        }
        script += "exec \"$@\"";
        let mut before = vec!["sh".to_owned(), "-c".into(), script, "sh".into()];
        if self.odd_mount {
            before.splice(0..0, ["unshare".to_owned(), "--mount".into(), "--".into()]);
        }
        let mut project = project;
        if self.hostile {
            let temporary = project.path("home");
            project = project
                .env("TZ", "Pacific/Chatham")
                .env("LANG", "tr_TR.UTF-8")
                .env("LC_ALL", "tr_TR.UTF-8")
                .env("TMPDIR", temporary)
                .env("XDG_CACHE_HOME", "cache");
        }
        let finished = project.run_inside(&before, ["build", "recipe.yaml", "--artifactdir", "out"]).success();
        let archive = project.path("out/out.tar");
        assert_eq!(fs::metadata(&archive).unwrap().mode() & 0o7777, 0o644, "{finished}");
        Some(["out.tar", "disk.img"].map(|name| fs::read(project.path("out").join(name)).unwrap()))
    }
}

fn same_bytes_as(user: &User) {
    let way = |hostile, umask, odd_mount| Way { hostile, umask, odd_mount };
    let Some(clean) = way(false, "022", false).build(user) else {
        skip!("needs a static busybox (package busybox-static)")
    };
    for way in [way(true, "077", false), way(true, "000", user.is_root())] {
        let built = way.build(user).unwrap();
        let described = format!("umask {}, odd mount: {}", way.umask, way.odd_mount);
        let archive = tempfile::NamedTempFile::new().unwrap();
        fs::write(archive.path(), &built[0]).unwrap();
        let difference = super::places::difference(archive.path(), &clean[0]);
        assert!(built[0] == clean[0], "out.tar: {described}: {difference}");
        assert!(built[1] == clean[1], "disk.img: {described}");
    }
}

#[test]
fn a_hostile_place_gives_root_the_same_bytes() {
    needs_program!("chattr", "e2fsprogs");
    match User::root() {
        Some(root) => same_bytes_as(&root),
        None => skip!("needs root"),
    }
}

#[test]
fn a_hostile_place_gives_a_user_the_same_bytes() {
    needs_program!("chattr", "e2fsprogs");
    match User::ordinary() {
        Ok(user) => same_bytes_as(&user),
        Err(reason) => skip!("{reason}"),
    }
}

/// Prints what programs look at to know the machine that they run on.
const LOOK: &str = r"
      cd /proc
      for file in cmdline cpuinfo devices filesystems loadavg meminfo modules mounts partitions stat swaps uptime version; do
        if test -e $file; then echo == $file; cat $file; fi
      done
      for file in acpi buddyinfo bus config.gz consoles crypto diskstats driver fs interrupts iomem ioports irq kallsyms \
        key-users keys kmsg locks mdstat misc mtrr pagetypeinfo scsi slabinfo softirqs sysvipc/shm timer_list tty vmallocinfo \
        vmstat zoneinfo; do
        if test -d $file; then find $file -mindepth 1; elif test -s $file; then echo not empty: $file; head -n 3 $file; fi
      done
      echo == /proc/sys; find sys -type f ! -name uuid | sort | while read -r file; do echo $file: $(cat $file); done
      test $(cat sys/kernel/random/uuid) != $(cat sys/kernel/random/uuid) && echo each uuid is another
      (echo 1 > sys/vm/swappiness) 2>/dev/null || echo /proc/sys is read-only
      echo == /sys; find /sys | sort; cat /sys/devices/system/cpu/online
      echo == own; cat self/cgroup | sed 's/.*://' | sort -u; ulimit -n; ulimit -c; id; umask
      echo == calls; uname -a; nproc; free | head -n 2; hostname
";

/// What the host knows of itself, which a step must not.
fn facts() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut facts = vec![
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/kernel/random/boot_id"),
        read("/proc/sys/kernel/hostname"),
        read("/proc/version"),
    ];
    facts.extend(read("/proc/cmdline").split_whitespace().filter(|word| word.len() > 8).map(str::to_owned));
    let after = |file: &str, key: &str| {
        let text = read(file);
        text.lines().find(|line| line.starts_with(key)).map(|line| line.split_once(':').unwrap().1.to_owned())
    };
    facts.extend(after("/proc/cpuinfo", "model name"));
    facts.extend(after("/proc/meminfo", "MemTotal"));
    let disks = read("/proc/partitions");
    facts.extend(disks.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned));
    facts.into_iter().map(|fact| fact.trim().to_owned()).filter(|fact| fact.len() > 2 && fact != "debforge").collect()
}

#[test]
fn steps_are_told_of_the_same_machine_everywhere() {
    let users = [User::root().ok_or_else(|| "needs root".to_owned()), User::ordinary()];
    let actions = format!("  - action: run\n    chroot: true\n    command: |{LOOK}");
    let mut seen = Vec::new();
    for user in users.into_iter().flatten() {
        let Some(project) = Project::of(user).tiny(&actions) else {
            skip!("needs a static busybox (package busybox-static)")
        };
        let finished = project.build(["-v"]).success();
        let lines: Vec<&str> =
            finished.stderr.lines().filter_map(|line| line.split_once("│ ").map(|(_, text)| text.trim_end())).collect();
        seen.push(lines.join("\n"));
    }
    if seen.is_empty() {
        skip!("needs root, or a user with subordinate ids");
    }
    assert!(seen.iter().all(|other| *other == seen[0]), "{}\n\n{}", seen[0], seen[1]);
    for fact in facts() {
        assert!(!seen[0].contains(&fact), "the host's `{fact}` in\n{}", seen[0]);
    }
    if cfg!(target_arch = "x86_64") {
        insta::assert_snapshot!(seen[0]);
    }
}

#[test]
fn programs_of_the_host_are_told_of_the_same_machine() {
    let tools = ["systemd-detect-virt", "nproc", "uname", "lspci"].map(find_program);
    let [Some(detect), Some(nproc), Some(uname), _] = tools else { skip!("needs systemd-detect-virt") };
    let actions = format!(
        "  - action: run\n    command: |\n      {} --vm; {} ; {} -r; ls /sys/class/dmi /sys/bus 2>&1 | grep -c cannot",
        detect.display(),
        nproc.display(),
        uname.display()
    );
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox (package busybox-static)") };
    let finished = project.build(["-v"]).success();
    let lines: Vec<&str> =
        finished.stderr.lines().filter_map(|line| line.split_once("│ ")).map(|line| line.1).collect();
    let virtual_machine = if cfg!(target_arch = "x86_64") { "uml" } else { "none" };
    assert_eq!(lines, [virtual_machine, "4", "6.12.0-debforge", "2"], "{finished}");
}
