//! Images of the tests in this directory, and how they are read back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Project;

/// A few files that file systems like to lose: hard links, owners, setuid, holes, links, a pipe.
pub const FILES: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /srv/deep/er /boot/efi/EFI
      echo hello > /srv/a
      ln /srv/a /srv/deep/b
      chown 33:34 /srv/a
      echo setuid > /srv/setuid
      chmod 4711 /srv/setuid
      chown 0:33 /srv/deep
      chmod 2775 /srv/deep
      busybox truncate -s 3M /srv/sparse
      echo end >> /srv/sparse
      ln -s ../etc/hostname /srv/link
      ln -s /srv/of/a/target/that/is/long/enough/to/need/a/block/of/its/own/in/every/file/system /srv/long
      busybox mkfifo /srv/pipe
      echo efi > /boot/efi/EFI/loader.txt
";

/// A capability, which only an archive can bring.
pub fn with_capability() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    // struct vfs_cap_data of linux/capability.h: revision 2, effective, cap_net_raw permitted.
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", value.as_slice())]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(5);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, "srv/capable", b"ping\n".as_slice()).unwrap();
    tar.into_inner().unwrap()
}

/// The step that unpacks it.
pub const CAPABILITY: &str = "  - action: unpack\n    origin: recipe\n    file: cap.tar\n";

/// Start and length of each partition in bytes.
pub fn partitions(image: &Path) -> Vec<(u64, u64)> {
    let output = Command::new("sfdisk").arg("--json").arg(image).output().expect("starting sfdisk");
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).expect("what sfdisk says");
    let table = &table["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let bytes = |partition: &serde_json::Value, key: &str| partition[key].as_u64().unwrap() * sector;
    let all = table["partitions"].as_array().expect("partitions");
    all.iter().map(|partition| (bytes(partition, "start"), bytes(partition, "size"))).collect()
}

/// A partition of `out/disk.img` as a file of its own, holes kept.
pub fn partition(project: &Project, number: usize) -> PathBuf {
    let image = project.path("out/disk.img");
    let (start, length) = partitions(&image)[number - 1];
    let to = project.path(format!("partition-{number}"));
    let status = Command::new("dd")
        .arg(format!("if={}", image.display()))
        .arg(format!("of={}", to.display()))
        .args(["bs=64K", "conv=sparse", "status=none", "iflag=skip_bytes,count_bytes"])
        .args([format!("skip={start}"), format!("count={length}")])
        .status();
    assert!(status.expect("starting dd").success());
    File::options().write(true).open(&to).unwrap().set_len(length).unwrap();
    to
}

/// What debugfs says of a file system in a file.
pub fn debugfs(file: &Path, request: &str) -> String {
    let output = Command::new("debugfs").args(["-R", request]).arg(file).output().expect("starting debugfs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Output of a program that reads an image back; panics where it finds fault.
pub fn reads(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(file).output().expect("starting it");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {text}");
    text
}

/// Each file of a tar archive by its path: kind, mode, owners, size, link, attributes, contents.
fn listing(tar: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut archive = tar::Archive::new(File::open(tar).expect("an archive"));
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.unwrap();
        let mut attributes: Vec<String> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .flatten()
            .filter(|extension| extension.key().is_ok_and(|key| key.starts_with("SCHILY.xattr.")))
            .map(|extension| format!("{}={}", extension.key().unwrap(), hex(extension.value_bytes())))
            .collect();
        attributes.sort();
        let path = entry.path().unwrap().display().to_string();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        let header = entry.header();
        let said = format!(
            "{:?} {:o} {}:{} {:?} {attributes:?}",
            if header.entry_type().is_hard_link() { "link" } else { "file" },
            header.mode().unwrap() & 0o7777,
            header.uid().unwrap(),
            header.gid().unwrap(),
            entry.link_name().unwrap().map(|name| name.display().to_string().replace("./", "")),
        );
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        all.insert(path, format!("{said} {} {}", contents.len(), blake3::hash(&contents).to_hex()));
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same of file systems: mounts of (file, type and options, directory), the first on `/`. `None`
/// where they cannot be mounted here.
pub fn mounted_listing(project: &Project, mounts: &[(&Path, &str, &str)]) -> Option<BTreeMap<String, String>> {
    let (top, tar) = (project.path("mounted"), project.path("mounted.tar"));
    std::fs::create_dir_all(&top).unwrap();
    let mut script = String::new();
    for (file, options, at) in mounts {
        script += &format!("mount {options},loop,ro {} {}{at} || exit 77\n", file.display(), top.display());
    }
    script += &packed(&top, &tar);
    let status = Command::new("unshare").args(["--mount", "sh", "-euc", &script]).status().expect("starting unshare");
    match status.code() {
        Some(0) => Some(listing(&tar)),
        Some(77) => None,
        other => panic!("reading the mounted image: {other:?}"),
    }
}

/// The same of an archive: unpacked by GNU tar, which knows holes, and packed without them.
pub fn archive_listing(project: &Project, archive: &Path) -> BTreeMap<String, String> {
    let (top, tar) = (project.path("unpacked"), project.path("unpacked.tar"));
    std::fs::create_dir_all(&top).unwrap();
    let unpack = format!(
        "tar --xattrs --xattrs-include='*' --numeric-owner --same-owner -xpf {} -C {}\n",
        archive.display(),
        top.display()
    );
    let status = Command::new("sh").args(["-euc", &(unpack + &packed(&top, &tar))]).status().expect("starting tar");
    assert!(status.success());
    listing(&tar)
}

/// A command that packs a directory, names in the alphabet's order, so that the same name of a hard link
/// comes first.
fn packed(top: &Path, tar: &Path) -> String {
    format!(
        "tar --xattrs --xattrs-include='security.*' --numeric-owner --sort=name -C {} -cf {} .",
        top.display(),
        tar.display()
    )
}

/// Panics where two listings are unlike, with what is.
pub fn assert_same(ours: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let mut unlike = Vec::new();
    for path in ours.keys().chain(expected.keys()) {
        let (our, their) = (ours.get(path), expected.get(path));
        if our != their {
            unlike.push(format!("{path}:\n  image: {our:?}\n  tree:  {their:?}"));
        }
    }
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}
