//! A tree with one of everything, and what there is to say about one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use filetime::FileTime;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::EPOCH;
use crate::harness::is_root;

/// An ACL that gives user 1000 reading and writing (linux/posix_acl_xattr.h).
const ACL: &str = "0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff";
/// cap_net_raw=ep (linux/capability.h).
pub const CAPABILITY: &str = "0100000200200000000000000000000000000000";

/// Makes the same tree one way or the other: names, links and attributes come in another order.
pub fn grow(top: &Path, backwards: bool) {
    fs::create_dir_all(top).unwrap();
    let at = |path: &str| top.join(path);
    for directory in ["etc", "usr/bin", "var/empty dir", "dev", "many", "many/deep/er"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("etc/hostname".into(), b"forge\n".to_vec()),
        ("etc/empty".into(), Vec::new()),
        ("etc/name with spaces, ümläuts 'and' \"quotes\"".into(), b"x".repeat(5000)),
        ("usr/bin/ping".into(), b"#!/bin/sh\n".repeat(700)),
        ("usr/bin/su".into(), b"\x7fELF".repeat(20_000)),
        ("var/large".into(), (0..5_000_000_u64).map(|n| ((n * n) >> 7) as u8).collect()),
    ];
    files.extend((0..300).map(|n| (format!("many/{n}-{}", "long name ".repeat(n % 9)), format!("{n}\n").into_bytes())));
    if backwards {
        files.reverse();
    }
    for (name, bytes) in &files {
        fs::write(at(name), bytes).unwrap();
    }
    sparse(&at("var/sparse"), backwards);
    fs::set_permissions(at("etc/hostname"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../usr/bin/ping", at("etc/short")).unwrap();
    symlink("x/".repeat(600), at("etc/long")).unwrap();
    let (first, second) = if backwards { ("many/zz-hard", "etc/hard") } else { ("etc/hard", "many/zz-hard") };
    fs::write(at(first), "linked").unwrap();
    fs::hard_link(at(first), at(second)).unwrap();
    // Both short enough to be kept in the inode and not.
    for (link, other) in [("etc/short", "many/zz \"short\""), ("etc/long", "many/zz-long")] {
        let (first, second) = if backwards { (other, link) } else { (link, other) };
        if first != link {
            fs::rename(at(link), at(first)).unwrap();
        }
        fs::hard_link(at(first), at(second)).unwrap();
    }
    let mut notes = vec![("user.b", "two"), ("user.a", "one"), ("user.longer", "three")];
    if backwards {
        notes.reverse();
    }
    for (name, value) in notes {
        xattr::set(at("etc/hard"), name, value.as_bytes()).unwrap();
    }
    if is_root() {
        let null = SFlag::S_IFCHR;
        mknod(&at("dev/null"), null, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
        mknod(&at("dev/sda"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(259, 700)).unwrap();
        lchown(at("usr/bin/su"), Some(0), Some(42)).unwrap();
        lchown(at("etc/hostname"), Some(100_000), Some(4_000_000_000)).unwrap();
        lchown(at("etc/long"), Some(7), Some(8)).unwrap();
        lchown(top, Some(3), Some(4)).unwrap();
        xattr::set(at("usr/bin/ping"), "security.capability", &hex::decode(CAPABILITY).unwrap()).unwrap();
        xattr::set(at("etc/empty"), "system.posix_acl_access", &hex::decode(ACL).unwrap()).unwrap();
        xattr::set(at("many/deep"), "system.posix_acl_default", &hex::decode(ACL).unwrap()).unwrap();
    }
    nix::unistd::mkfifo(&at("var/pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::set_permissions(at("var/pipe"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(at("usr/bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(at("var/empty dir"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(top, fs::Permissions::from_mode(0o750)).unwrap();
    // Dates: old ones, odd ones, and one that is younger than the epoch.
    for (index, entry) in walkdir::WalkDir::new(top).sort_by_file_name().contents_first(true).into_iter().enumerate() {
        let entry = entry.unwrap();
        let seconds = match entry.file_name().as_bytes() {
            b"large" => EPOCH + 5000,
            b"hard" | b"zz-hard" => 1_600_000_001,
            b"short" | b"zz \"short\"" | b"long" | b"zz-long" => 1_600_000_002,
            _ => 1_400_000_000 + index as i64 * 86_401,
        };
        let time = FileTime::from_unix_time(seconds, 0);
        filetime::set_symlink_file_times(entry.path(), time, time).unwrap();
    }
}

/// Data at the start, in the middle and nothing at the end; zeros are holes or not.
fn sparse(path: &Path, filled: bool) {
    let file = File::create(path).unwrap();
    file.set_len(3 << 20).unwrap();
    if filled {
        file.write_all_at(&vec![0; 2 << 20], 1 << 20).unwrap();
    }
    file.write_all_at(&[7; 10_000], 0).unwrap();
    file.write_all_at(&[8; 70_000], (1 << 20) + 4096).unwrap();
}

/// Everything there is to say about the files of a tree, a line each, as it is to be on a file system
/// that holds all of it.
pub fn listing(tree: &Path) -> String {
    let mut lines = String::new();
    let mut names: HashMap<u64, String> = HashMap::new();
    for entry in walkdir::WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        let name = entry.path().strip_prefix(tree).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        if name == "lost+found" {
            continue;
        }
        let kind = meta.file_type();
        let date = meta.mtime().min(EPOCH);
        let _ = write!(lines, "{name:?} {:o} {}:{} {date}", meta.mode(), meta.uid(), meta.gid());
        if kind.is_symlink() {
            let _ = write!(lines, " -> {:?}", fs::read_link(entry.path()).unwrap());
        } else if kind.is_char_device() || kind.is_block_device() {
            let _ = write!(lines, " device {:x}", meta.rdev());
        } else if kind.is_file() {
            let _ = write!(lines, " {} {}", meta.len(), blake3::hash(&fs::read(entry.path()).unwrap()).to_hex());
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            let _ = write!(lines, " same as {}", names.entry(meta.ino()).or_insert(name));
        }
        let mut attributes: Vec<_> = xattr::list(entry.path()).unwrap().collect();
        attributes.sort();
        for name in attributes {
            let value = xattr::get(entry.path(), &name).unwrap().unwrap();
            let _ = write!(lines, " {}={}", name.to_string_lossy(), hex::encode(value));
        }
        lines.push('\n');
    }
    lines
}
