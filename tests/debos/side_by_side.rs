//! The same recipes by debos itself, in a Debian of its own, and by debforge: the results are compared file by file.
//!
//! debos runs without a machine (`--disable-fakemachine`) as root of namespaces that end with it. It waits for
//! udev, which there is none of: a stub stands in its place, and the kernel makes the partitions' devices itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::repository::{Deb, Repository};
use crate::harness::{Project, fixture, http::Server};

/// Debian with debos (which has changed since Debian 13), as one archive; a mirror may lag behind with testing; and a small Debian for recipes to begin with.
const SYSTEMS: &str = "architecture: amd64
actions:
  - action: mmdebstrap
    suite: forky
    variant: minbase
    mirrors: ['deb [check-valid-until=no] MIRROR forky main']
    include: [debos, systemd-container, parted, fdisk, e2fsprogs, dosfstools, zstd, xz-utils, bzip2]
  - {action: pack, file: debos.tar, compression: none}
";
const BASE: &str = "architecture: amd64
actions:
  - {action: mmdebstrap, suite: trixie, variant: apt}
  - {action: pack, file: base.tar, compression: none}
";

/// Runs debos in its root; given the root, the project's directory and the recipe.
const RUN: &str = r#"
root=$1 work=$2 recipe=$3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/work"
mount --bind "$work" "$root/work"
exec chroot "$root" sh -c 'cd /work && exec debos --disable-fakemachine --artifactdir /work/theirs "$1"' sh "$recipe"
"#;

/// A directory with debos in it.
struct Debos {
    root: tempfile::TempDir,
}

impl Debos {
    /// The reason where there can be none here.
    fn new() -> Result<Self, String> {
        if !crate::harness::is_root() || std::env::consts::ARCH != "x86_64" {
            return Err("needs root on amd64".into());
        }
        let system = system(SYSTEMS)?;
        let root = tempfile::Builder::new().prefix("debos-").tempdir_in(crate::harness::user::work_dir()).unwrap();
        untar(&system.path("out/debos.tar"), root.path());
        let inside = |path: &str| root.path().join(path);
        let _ = fs::remove_file(inside("etc/resolv.conf"));
        fs::write(inside("etc/resolv.conf"), "").unwrap();
        // systemd-nspawn wants to know where it is.
        fs::write(inside("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(inside("usr/local/bin/udevadm"), "#!/bin/sh\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(inside("usr/local/bin/udevadm"), mode).unwrap();
        Ok(Self { root })
    }

    fn version(&self) -> String {
        let mut command = Command::new("chroot");
        let output = command.arg(self.root.path()).args(["dpkg-query", "-W", "-f", "${Version}", "debos"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Builds the project's recipe into `theirs`.
    fn build(&self, project: &Project) {
        fs::create_dir(project.path("theirs")).unwrap();
        // One at a time: they share the machine's loop devices, which are taken away by name afterwards.
        let alone = fs::File::create(crate::harness::user::work_dir().join("debos.lock")).unwrap();
        alone.lock().unwrap();
        let _devices = Devices::new();
        let output = Command::new("unshare")
            .args(["-m", "-p", "-f", "-u", "-i", "--kill-child", "--mount-proc", "sh", "-e", "-u", "-c", RUN, "sh"])
            .args([self.root.path(), &project.path(""), Path::new("recipe.yaml")])
            .output()
            .unwrap();
        for device in loops_of("/work/") {
            let _ = Command::new("losetup").arg("-d").arg(device).status();
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "debos: {said}\n{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// The host's devices: debos wants udev's directory, and takes a loop device away with its image.
struct Devices {
    disk: bool,
    loops: Vec<u32>,
}

impl Devices {
    fn new() -> Self {
        let disk = fs::create_dir("/dev/disk").is_ok();
        let loops = (0..64).filter(|number| Path::new(&format!("/dev/loop{number}")).exists()).collect();
        Self { disk, loops }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        if self.disk {
            let _ = fs::remove_dir("/dev/disk");
        }
        for number in &self.loops {
            let path = format!("/dev/loop{number}");
            if !Path::new(&path).exists() {
                let _ = Command::new("mknod").args(["-m", "600", &path, "b", "7", &number.to_string()]).status();
            }
        }
    }
}

/// Loop devices of files below a directory.
fn loops_of(directory: &str) -> Vec<String> {
    let output = Command::new("losetup").args(["-n", "-l", "-O", "NAME,BACK-FILE"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter(|(_, file)| file.trim().starts_with(directory)).map(|(name, _)| name.to_owned()).collect()
}

/// A project whose recipe was built; its steps are kept for all tests.
fn system(recipe: &str) -> Result<Project, String> {
    let mirror = debforge::debian::host::default_mirror().map_err(|error| format!("{error:#}"))?;
    let project = Project::new().shared_store().recipe(&recipe.replace("MIRROR", &mirror));
    let finished = project.build([]);
    if finished.code != Some(0) {
        return Err(format!("the Debian that it needs could not be made: {}", finished.stderr));
    }
    Ok(project)
}

fn untar(archive: &Path, into: &Path) {
    fs::create_dir_all(into).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-C"]).arg(into).arg("-f");
    let output = tar.arg(archive).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What each path of a tree is: kind and mode, owner, contents, attributes; times are the builds' own.
fn tree(top: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(top).min_depth(1) {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let kind = entry.file_type();
        let contents = match () {
            () if kind.is_file() => hex::encode(Sha256::digest(fs::read(entry.path()).unwrap())),
            () if kind.is_symlink() => fs::read_link(entry.path()).unwrap().display().to_string(),
            () => meta.rdev().to_string(),
        };
        let mut attributes: Vec<String> = xattr::list(entry.path())
            .into_iter()
            .flatten()
            .map(|name| format!("{name:?}={:?}", xattr::get(entry.path(), &name).ok().flatten()))
            .collect();
        attributes.sort();
        let path = entry.path().strip_prefix(top).unwrap().display().to_string();
        let links = if kind.is_file() { meta.nlink() } else { 1 };
        all.insert(path, format!("{:o} {}:{} {links} {contents} {attributes:?}", meta.mode(), meta.uid(), meta.gid()));
    }
    all
}

/// The paths that differ, without those that are known to; `known` are paths, and what lies below them.
fn differences(theirs: &Path, ours: &Path, known: &[&str]) -> Vec<String> {
    let (theirs, ours) = (tree(theirs), tree(ours));
    let is_known = |path: &String| known.iter().any(|known| path == known || path.starts_with(&format!("{known}/")));
    let mut paths: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
    paths.sort();
    paths.dedup();
    eprintln!("{} paths compared", paths.len());
    let differ = paths.into_iter().filter(|path| !is_known(path) && theirs.get(*path) != ours.get(*path));
    let shown = |side: Option<&String>| side.cloned().unwrap_or_else(|| "nothing".into());
    differ
        .map(|path| format!("{path}: debos {}, debforge {}", shown(theirs.get(path)), shown(ours.get(path))))
        .collect()
}

/// Builds with both.
fn build(debos: &Debos, project: &Project) {
    debos.build(project);
    let ours = ["recipe.yaml", "--artifactdir", "ours", "--disable-fakemachine"];
    project.run_behind(["bash", "-c", "exec -a debos \"$0\" \"$@\""], ours).success();
}

/// The archive of this name, unpacked on both sides.
fn unpacked(project: &Project, file: &str) -> [PathBuf; 2] {
    ["theirs", "ours"].map(|side| {
        let tree = project.path(format!("{side}-{file}.d"));
        untar(&project.path(side).join(file), &tree);
        tree
    })
}

#[track_caller]
fn same(project: &Project, file: &str, known: &[&str]) {
    let [theirs, ours] = unpacked(project, file);
    let differences = differences(&theirs, &ours, known);
    assert!(differences.is_empty(), "{file}: {} differ\n{}", differences.len(), differences.join("\n"));
}

const TINY: &str = "architecture: amd64
actions:
  - {action: unpack, origin: recipe, file: root.tar}
  - {action: overlay, source: overlay, destination: /etc/new}
  - {action: overlay, source: overlay/file, destination: /etc/other}
  - {action: run, chroot: true, command: 'echo $(id -u) > /etc/id; chown 33:33 /etc/id; ln /etc/id /etc/id2'}
  - {action: run, chroot: true, script: 'scripts/do.sh one \"two words\" $HOME'}
  - {action: run, command: 'cp \"$RECIPEDIR/recipe.yaml\" \"$ROOTDIR/etc/\"; echo x > \"$ARTIFACTDIR/made\"'}
  - {action: recipe, recipe: nested/child.yaml, variables: {a: b}}
  - {action: unpack, origin: recipe, file: extra.tar}
  - {action: overlay, origin: filesystem, destination: /copied/etc, source: SOURCE}
  - {action: pack, file: all.tar, compression: none}
  - {action: pack, file: part.tar.xz, compression: xz}
  - {action: unpack, file: part.tar.xz}
  - {action: pack, file: auto.tar.zst, compression: auto}
  - {action: run, postprocess: true, command: 'cat \"$ARTIFACTDIR/made\" \"$ARTIFACTDIR/child\" > \"$ARTIFACTDIR/late\"'}
";

#[test]
fn archives_hold_the_same() {
    slow!();
    let debos = match Debos::new() {
        Ok(debos) => debos,
        Err(reason) => skip!("{reason}"),
    };
    eprintln!("debos {}", debos.version());
    let Some(root) = fixture::tiny_root() else { skip!("needs a static busybox") };
    let recipe =
        TINY.replace("  - {action: overlay, origin: filesystem, destination: /copied/etc, source: SOURCE}\n", "");
    let project = Project::new()
        .recipe(&recipe)
        .file("root.tar", root)
        .file("extra.tar", fixture::archive(&[("a/suid", 0o4755, "suid"), ("a/private", 0o600, "x")]))
        .file("overlay/file", "file")
        .file("overlay/sub/program", "#!/bin/sh\n")
        .file("scripts/do.sh", "#!/bin/sh\n. /tmp/script/part\necho \"$#|$*|$PART\" > /etc/did\n")
        .file("scripts/part", "PART=part\n")
        .file("nested/child.yaml", "architecture: amd64\nactions:\n  - {action: overlay, source: own, destination: /nested}\n  - {action: run, command: 'test -f \"$RECIPEDIR/child.yaml\"; echo y > \"$ARTIFACTDIR/child\"'}\n")
        .file("nested/own/file", "nested");
    project.chmod("scripts/do.sh", 0o755);
    project.chmod("overlay/sub/program", 0o750);
    std::os::unix::fs::symlink("/etc/passwd", project.path("overlay/link")).unwrap();
    build(&debos, &project);
    for file in ["all.tar", "part.tar.xz", "auto.tar.zst"] {
        same(&project, file, &LEFT_IN_TINY);
    }
    assert_eq!(project.read("theirs/late"), project.read("ours/late"));
}

/// What systemd-nspawn leaves behind in a root: places to mount on.
const LEFT: [&str; 2] = ["var/log/journal", "work"];

/// The same in a root that has no logs of its own.
const LEFT_IN_TINY: [&str; 1] = ["var/log"];

/// What debforge leaves out of a root, or settles, so that the same recipe gives the same bytes.
const SETTLED: [&str; 9] = [
    "etc/machine-id",
    "var/cache/apt",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt",
    "var/lib/dpkg/status-old",
    "var/log/apt",
    "var/log/dpkg.log",
];

#[test]
fn packages_are_installed_the_same() {
    slow!();
    let debos = match Debos::new() {
        Ok(debos) => debos,
        Err(reason) => skip!("{reason}"),
    };
    let base = match system(BASE) {
        Ok(base) => base,
        Err(reason) => skip!("{reason}"),
    };
    let served = tempfile::tempdir().unwrap();
    let service = Deb::new("service", "1.0")
        .field("Depends", "library")
        .field("Recommends", "unwanted")
        .file("usr/bin/service", 0o755, "#!/bin/sh\n")
        .script("postinst", "#!/bin/sh\nset -e\necho configured > /etc/service\nif [ -x /usr/sbin/policy-rc.d ]; then /usr/sbin/policy-rc.d || echo denied > /etc/denied; fi\n");
    let repository = Repository::new(&served.path().join("debian"), "stable")
        .with(service)
        .with(Deb::new("library", "2.0").file("usr/lib/library.so", 0o644, "library"))
        .with(Deb::new("unwanted", "1.0").file("usr/share/unwanted", 0o644, "x"));
    repository.publish("Sat, 01 Jun 2024 00:00:00 +0000");
    let server = Server::new(served.path());
    let project = Project::new()
        .file(
            "sources/debian.list",
            format!(
                "deb [signed-by=/usr/share/keyrings/own.gpg] {}/debian stable main\n",
                server.url("").trim_end_matches('/')
            ),
        )
        .file("keys/own.gpg", repository.keyring())
        .recipe(
            "architecture: amd64
actions:
  - {action: unpack, origin: recipe, file: base.tar}
  - {action: run, chroot: true, command: rm -f /etc/apt/sources.list}
  - {action: overlay, source: sources, destination: /etc/apt/sources.list.d}
  - {action: overlay, source: keys, destination: /usr/share/keyrings}
  - {action: apt, packages: [service]}
  - {action: install-deb, packages: ['debs/*.deb']}
  - {action: run, chroot: true, command: dpkg-query -W > /etc/packages}
  - {action: pack, file: all.tar, compression: none}
",
        );
    Deb::new("beside", "3.0").file("usr/share/beside", 0o644, "beside").write(&project.path("debs"));
    fs::rename(base.path("out/base.tar"), project.path("base.tar")).unwrap();
    build(&debos, &project);
    same(&project, "all.tar", &[&SETTLED[..], &LEFT].concat());
}

fn sfdisk(image: &Path) -> Value {
    let output = Command::new("/usr/sbin/sfdisk").arg("--json").arg(image).output().unwrap();
    let mut table: Value = serde_json::from_slice(&output.stdout).unwrap();
    let table = table["partitiontable"].as_object_mut().unwrap();
    table.remove("device");
    for partition in table["partitions"].as_array_mut().unwrap() {
        partition.as_object_mut().unwrap().remove("node");
    }
    serde_json::to_value(table).unwrap()
}

/// The file system of a partition, packed; label and UUID as blkid reads them.
fn partition(image: &Path, index: usize, archive: &Path) -> String {
    let table = sfdisk(image);
    let part = &table["partitions"][index];
    let bytes = |name: &str| part[name].as_u64().unwrap() * table["sectorsize"].as_u64().unwrap_or(512);
    let (offset, size) = (bytes("start"), bytes("size"));
    let blkid = Command::new("/usr/sbin/blkid")
        .args(["-p", "-o", "export", "-O", &offset.to_string(), "-S", &size.to_string()])
        .arg(image)
        .output()
        .unwrap();
    let text = String::from_utf8(blkid.stdout).unwrap();
    let identity = text.lines().filter(|line| ["LABEL=", "UUID=", "TYPE="].iter().any(|key| line.starts_with(key)));
    let identity = identity.collect::<Vec<_>>().join(" ");
    if identity.contains("TYPE=ext") {
        let script = "mount -o ro,loop,offset=$2,sizelimit=$3 \"$1\" /mnt && tar -C /mnt -c --xattrs '--xattrs-include=*' -f \"$4\" .";
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(image)
            .args([offset.to_string(), size.to_string()])
            .arg(archive)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    identity
}

#[test]
fn images_have_the_same_tables_and_file_systems() {
    slow!();
    if !crate::image::mounted::can_mount() {
        skip!("needs root and loop devices");
    }
    let debos = match Debos::new() {
        Ok(debos) => debos,
        Err(reason) => skip!("{reason}"),
    };
    let Some(root) = fixture::tiny_root() else { skip!("needs a static busybox") };
    let gpt = "    partitiontype: gpt
    diskid: 0F1E2D3C-0000-4000-8000-123456789ABC
    partitions:
      - {name: loader, fs: none, start: 64s, end: 2047s, partuuid: 11111111-0000-4000-8000-000000000001, parttype: 21686148-6449-6e6f-744e-656564454649}
      - {name: EFI, fs: vfat, start: 1MiB, end: 64MiB, flags: [esp], fsuuid: DEADBEEF, partuuid: 11111111-0000-4000-8000-000000000002, partattrs: [0, 2, 63]}
      - {name: boot, fs: ext2, start: 64MiB, end: 40%, fsuuid: 11111111-2222-4333-8444-000000000003, partuuid: 11111111-0000-4000-8000-000000000003, fsck: false}
      - {name: root, fs: ext4, start: 40%, end: 100%, partlabel: system, fslabel: rootfs, fsuuid: 11111111-2222-4333-8444-000000000004, partuuid: 11111111-0000-4000-8000-000000000004, features: [^64bit]}
";
    let msdos = "    partitiontype: msdos
    diskid: deadbeef
    partitions:
      - {name: a, fs: none, start: 1MiB, end: 9MiB, parttype: da}
      - {name: boot, fs: ext2, start: 9MiB, end: 30MB, flags: [boot], fsuuid: 11111111-2222-4333-8444-000000000003}
      - {name: c, fs: none, start: 40MB, end: 50MB}
      - {name: root, fs: ext4, start: 50MB, end: 200MB, fsuuid: 11111111-2222-4333-8444-000000000004}
      - {name: e, fs: none, start: 210MB, end: 100%}
";
    for (layout, ext, raw) in [(gpt, [2, 3], "partition: loader"), (msdos, [1, 4], "offset: 0x8000")] {
        let project = Project::new().file("root.tar", &root).file("blob", [7; 1000]).recipe(&format!(
            "architecture: amd64
actions:
  - {{action: unpack, origin: recipe, file: root.tar}}
  - action: image-partition
    imagename: disk.img
    imagesize: 256MiB
{layout}    mountpoints:
      - {{mountpoint: /boot, partition: boot, options: [noatime, x-systemd.automount]}}
      - {{mountpoint: /, partition: root}}
  - {{action: filesystem-deploy, append-kernel-cmdline: quiet}}
  - {{action: run, chroot: true, command: 'test -b $IMAGE && echo $(cat /etc/kernel/cmdline) > /boot/cmdline'}}
  - {{action: run, command: 'echo host > $IMAGEMNTDIR/etc/host'}}
  - {{action: raw, source: blob, {raw}}}
"
        ));
        build(&debos, &project);
        let sides = ["theirs", "ours"].map(|side| project.path(format!("{side}/disk.img")));
        assert_eq!(sfdisk(&sides[0]), sfdisk(&sides[1]), "{layout}");
        for index in 0..sfdisk(&sides[0])["partitions"].as_array().unwrap().len() {
            let tars = ["theirs", "ours"].map(|side| project.path(format!("{side}/{index}.tar")));
            let [theirs, ours] = [0, 1].map(|side| partition(&sides[side], index, &tars[side]));
            assert_eq!(theirs, ours, "partition {index} of {layout}");
            if ext.contains(&index) {
                let [theirs, ours] = unpacked(&project, &format!("{index}.tar"));
                // debos gives these two the mode 0755, and the second a space in front.
                for file in ["etc/fstab", "etc/kernel/cmdline"] {
                    let text = |side: &Path| fs::read_to_string(side.join(file)).unwrap_or_default();
                    let lines = |side: &Path| -> Vec<String> {
                        let text = text(side);
                        let lines = text.lines().filter(|line| !line.starts_with('#'));
                        lines.map(|line| line.trim().to_owned()).collect()
                    };
                    assert_eq!(lines(&theirs), lines(&ours), "{file}");
                }
                let known = [&LEFT_IN_TINY[..], &["etc/fstab", "etc/kernel/cmdline"]].concat();
                let differences = differences(&theirs, &ours, &known);
                assert!(differences.is_empty(), "{index}: {}", differences.join("\n"));
            }
        }
        let (theirs, ours) = (fs::read(&sides[0]).unwrap(), fs::read(&sides[1]).unwrap());
        assert_eq!(theirs[0x8000..][..1000], ours[0x8000..][..1000]);
        assert!(ours[0x8000..][..1000] == [7; 1000]);
    }
}
