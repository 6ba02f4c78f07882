//! Archives against GNU tar, and against those who wish us ill.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rstest::rstest;

use super::*;
use crate::build::inside::{Inside, xattrs};

fn is_root() -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return true;
    }
    eprintln!("skipped: giving files away needs root");
    false
}

fn has(program: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status().unwrap().success();
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

fn tar(arguments: &[&str]) {
    let output = Command::new("tar").args(arguments).output().unwrap();
    assert!(output.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Everything there is to say about the files of a tree, a line each.
fn listing(tree: &Path) -> String {
    let mut lines = String::new();
    let mut names: HashMap<u64, String> = HashMap::new();
    for entry in walkdir::WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let name = entry.path().strip_prefix(tree).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let kind = meta.file_type();
        let _ = write!(lines, "{name:?} {:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), meta.mtime());
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
        for (name, value) in xattrs(entry.path()).unwrap() {
            let _ = write!(lines, " {}={}", name.to_string_lossy(), hex::encode(value));
        }
        lines.push('\n');
    }
    lines
}

fn set_times(tree: &Path) {
    for (index, entry) in walkdir::WalkDir::new(tree).contents_first(true).into_iter().enumerate() {
        let time = filetime::FileTime::from_unix_time(1_500_000_000 + index as i64 * 1000, 0);
        filetime::set_symlink_file_times(entry.unwrap().path(), time, time).unwrap();
    }
}

fn own(path: &Path, uid: u32, gid: u32, mode: u32) {
    lchown(path, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A tree with one of everything that root can make.
fn tree_of_everything() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |path: &str| dir.path().join(path);
    let write = |path: &str, contents: &[u8]| {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), contents).unwrap();
    };
    write("etc/hostname", b"forge\n");
    write("empty", b"");
    write("usr/bin/ping", b"#!/bin/sh\n");
    own(&at("usr/bin/ping"), 0, 0, 0o755);
    // cap_dac_override and cap_fowner: a byte of the value is a newline.
    let capability = hex::decode("0100000200000000000000000000000000000000").unwrap();
    let mut with_newline = capability.clone();
    with_newline[4] = b'\n';
    xattr::set(at("usr/bin/ping"), "security.capability", &with_newline).unwrap();
    write("usr/bin/su", b"su");
    own(&at("usr/bin/su"), 0, 42, 0o4755);
    write("var/www/index.html", &vec![b'x'; 70_000]);
    own(&at("var/www/index.html"), 33, 33, 0o640);
    own(&at("var/www"), 33, 4_000_000, 0o2750);
    write("var/log/journal/a", b"log");
    let acl =
        "0200000001000700ffffffff0200050021000000040005 00ffffffff10000700ffffffff20000500ffffffff".replace(' ', "");
    xattr::set(at("var/log/journal/a"), "system.posix_acl_access", &hex::decode(&acl).unwrap()).unwrap();
    xattr::set(at("var/log/journal"), "system.posix_acl_default", &hex::decode(&acl).unwrap()).unwrap();
    xattr::set(at("etc/hostname"), "user.note", b"a=b\nc").unwrap();
    fs::hard_link(at("etc/hostname"), at("etc/second")).unwrap();
    symlink("../usr/bin/su", at("etc/su")).unwrap();
    lchown(at("etc/su"), Some(33), Some(0)).unwrap();
    symlink("/".to_owned() + &"long/".repeat(40), at("etc/long")).unwrap();
    let long = "a-directory-with-a-name/".repeat(12);
    write(&format!("{long}file"), b"deep");
    write("blank name\n", b"1");
    fs::write(dir.path().join(OsStr::from_bytes(b"latin\xe9")), "2").unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let device = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(
        &at("null"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        device,
    )
    .unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    sparse.seek(SeekFrom::Start(3 << 20)).unwrap();
    sparse.write_all(b"in the middle").unwrap();
    sparse.set_len(9 << 20).unwrap();
    // Larger than what is read ahead, and not to be compressed to nothing.
    let noise: Vec<u8> = (0..5u32 << 18).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    write("noise", &noise);
    set_times(dir.path());
    filetime::set_file_mtime(at("empty"), filetime::FileTime::from_unix_time(-86_400, 0)).unwrap();
    filetime::set_file_mtime(dir.path(), filetime::FileTime::from_unix_time(1_400_000_000, 0)).unwrap();
    dir
}

fn packed(tree: &Path, compression: Compression, threads: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let packed = pack(tree, file.try_clone().unwrap(), compression, threads, &mut |_, _| {}).unwrap();
    assert_eq!(packed.size, file.metadata().unwrap().len());
    file.rewind().unwrap();
    file
}

fn bytes(mut file: File) -> Vec<u8> {
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    all
}

fn unpacked(file: File, name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let archive = Archive { file, name, compression: None };
    unpack(archive, &Inside::open(dir.path()).unwrap(), Path::new("/"), &mut |_, _| {}).unwrap();
    dir
}

#[test]
fn gnu_tar_unpacks_all_that_was_packed() {
    if !is_root() {
        return;
    }
    let tree = tree_of_everything();
    let archive = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    pack(tree.path(), archive.reopen().unwrap(), Compression::None, 2, &mut |_, _| {}).unwrap();
    assert!(archive.as_file().metadata().unwrap().len() < 8 << 20, "the sparse file's holes are in the archive");
    for options in [&["--xattrs", "--xattrs-include=*"][..], &["--xattrs", "--xattrs-include=*", "--acls"]] {
        let out = tempfile::tempdir_in("/var/tmp").unwrap();
        let paths = [archive.path().to_str().unwrap(), "-C", out.path().to_str().unwrap()];
        tar(&[&["-x", "-p", "--numeric-owner"], options, &["-f"], &paths[..]].concat());
        similar_asserts(&listing(out.path()), &listing(tree.path()));
        assert!(fs::metadata(out.path().join("sparse")).unwrap().blocks() < 1000);
    }
}

#[test]
fn unpacks_all_that_it_packed() {
    if !is_root() {
        return;
    }
    let tree = tree_of_everything();
    let out = unpacked(packed(tree.path(), Compression::None, 2), "x.tar");
    similar_asserts(&listing(out.path()), &listing(tree.path()));
    assert!(fs::metadata(out.path().join("sparse")).unwrap().blocks() < 1000);
}

#[rstest]
fn unpacks_what_gnu_tar_packed(
    #[values(
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--acls"],
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=1.0"],
    )]
    options: &[&str],
) {
    if !is_root() {
        return;
    }
    let tree = tree_of_everything();
    if !options.contains(&"--xattrs") {
        for entry in walkdir::WalkDir::new(tree.path()) {
            let entry = entry.unwrap();
            for (name, _) in xattrs(entry.path()).unwrap() {
                xattr::remove(entry.path(), name).unwrap();
            }
        }
        filetime::set_file_mtime(tree.path(), filetime::FileTime::from_unix_time(1_400_000_000, 0)).unwrap();
    }
    let archive = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    let paths = [archive.path().to_str().unwrap(), "-C", tree.path().to_str().unwrap(), "."];
    tar(&[&["-c", "--numeric-owner"], options, &["-f"], &paths[..]].concat());
    let out = unpacked(archive.reopen().unwrap(), "x.tar");
    similar_asserts(&listing(out.path()), &listing(tree.path()));
}

#[track_caller]
fn similar_asserts(found: &str, expected: &str) {
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

/// A tree that anybody can make.
fn plain_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for (index, text) in ["one", "two", "three"].iter().enumerate() {
        fs::create_dir(dir.path().join(text)).unwrap();
        let noise: Vec<u8> =
            (0..600_000u32 * index as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
        fs::write(dir.path().join(text).join("file"), noise).unwrap();
    }
    set_times(dir.path());
    dir
}

#[rstest]
fn every_compression_gives_the_same_bytes_and_comes_back(
    #[values("bzip2", "gz", "lzip", "lzma", "lzop", "none", "xz", "zstd")] name: &str,
) {
    let compression = Compression::named(name).unwrap();
    if let Some((program, _)) = compression.program(false)
        && !has(program)
    {
        return;
    }
    let tree = plain_tree();
    let first = bytes(packed(tree.path(), compression, 1));
    if name == "lzop" {
        // It would keep the second in which it was run.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    for threads in [2, 3, 8] {
        assert!(first == bytes(packed(tree.path(), compression, threads)), "{name} with {threads} threads");
    }
    if compression != Compression::None {
        assert_eq!(Compression::by_content(&first), Some(compression));
    }
    let out = unpacked(packed(tree.path(), compression, 2), "archive");
    similar_asserts(&listing(out.path()), &listing(tree.path()));
    // And the tools of this name read it.
    let program = match name {
        "gz" => "gzip",
        "none" => return,
        name => name,
    };
    if has(program) {
        let archive = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        fs::write(archive.path(), &first).unwrap();
        let output = Command::new(program).arg("-dc").stdin(archive.reopen().unwrap()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == bytes(packed(tree.path(), Compression::None, 1)), "{program} reads other bytes");
    }
}

#[rstest]
fn damage_is_noticed(#[values("bzip2", "gz", "lzip", "lzma", "none", "xz", "zstd")] name: &str) {
    let compression = Compression::named(name).unwrap();
    if compression.program(false).is_some_and(|(program, _)| !has(program)) {
        return;
    }
    let tree = plain_tree();
    let mut cut = bytes(packed(tree.path(), compression, 1));
    cut.truncate(cut.len() / 2);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&cut).unwrap();
    file.rewind().unwrap();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let archive = Archive { file, name: "cut.tar", compression: None };
    let error = unpack(archive, &Inside::open(dir.path()).unwrap(), Path::new("/"), &mut |_, _| {}).unwrap_err();
    assert!(format!("{error:#}").starts_with("unpacking cut.tar"), "{error:#}");
}

/// A member as an attacker writes it.
fn member(kind: u8, name: &str, link: &str, contents: &[u8]) -> Vec<u8> {
    let mut header = ::tar::Header::new_gnu();
    let raw = header.as_old_mut();
    raw.name[..name.len()].copy_from_slice(name.as_bytes());
    raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(::tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_uid(nix::unistd::Uid::effective().as_raw().into());
    header.set_gid(nix::unistd::Gid::effective().as_raw().into());
    header.set_mtime(1_000_000_000);
    header.set_size(contents.len() as u64);
    header.set_cksum();
    let mut all = header.as_bytes().to_vec();
    all.extend_from_slice(contents);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// Unpacks members into `root` beside a `secret` that is the host's; what comes of it, and the directory.
fn attack(members: &[Vec<u8>]) -> (Result<Unpacked, String>, tempfile::TempDir) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    fs::write(dir.path().join("root/etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(dir.path().join("secret"), "of the host").unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&members.concat()).unwrap();
    file.write_all(&[0; 1024]).unwrap();
    file.rewind().unwrap();
    let inside = Inside::open(&dir.path().join("root")).unwrap();
    let archive = Archive { file, name: "hostile.tar", compression: None };
    let result = unpack(archive, &inside, Path::new("/"), &mut |_, _| {});
    (result.map_err(|error| crate::diagnostics::fault_of(&error).message), dir)
}

#[track_caller]
fn host_untouched(dir: &Path) {
    assert_eq!(fs::read_to_string(dir.join("secret")).unwrap(), "of the host");
    let meta = fs::metadata(dir.join("secret")).unwrap();
    assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644));
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["root", "secret"]);
}

#[rstest]
#[case::climbs(&[member(b'0', "../secret", "", b"owned")], "../secret")]
#[case::climbs_within(&[member(b'0', "etc/../../secret", "", b"owned")], "etc/../../secret")]
#[case::climbs_with_a_directory(&[member(b'5', "a/../../b", "", b"")], "a/../../b")]
#[case::hard_link_climbs(&[member(b'1', "x", "../secret", b"")], "../secret")]
#[case::hard_link_to_nothing(&[member(b'1', "x", "secret", b"")], "is a hard link to `secret`")]
#[case::hard_link_through_link(
    &[member(b'2', "up", "..", b""), member(b'1', "x", "up/secret", b"")],
    "is a hard link to `up/secret`"
)]
#[case::whiteout(&[member(b'3', "x", "", b"")], "device 0:0")]
#[case::unknown_type(&[member(b'Z', "x", "", b"")], "unknown type `Z`")]
#[case::file_over_full_directory(&[member(b'0', "etc", "", b"x")], "/etc is a directory with files in it")]
fn refuses_and_names_the_member(#[case] members: &[Vec<u8>], #[case] named: &str) {
    let (result, dir) = attack(members);
    let error = result.unwrap_err();
    assert!(error.contains(named), "{error}");
    assert!(error.starts_with("unpacking hostile.tar"), "{error}");
    host_untouched(dir.path());
}

#[rstest]
#[case::absolute(&[member(b'0', "/secret", "", b"owned")])]
#[case::link_up_then_through(&[member(b'2', "up", "..", b""), member(b'0', "up/secret", "", b"owned")])]
#[case::link_far_up(&[member(b'2', "up", "../../../..", b""), member(b'0', "up/secret", "", b"owned")])]
#[case::link_to_slash(&[member(b'2', "up", "/", b""), member(b'0', "up/secret", "", b"owned")])]
#[case::chain(&[
    member(b'2', "a", "b", b""),
    member(b'2', "b", "..", b""),
    member(b'0', "a/secret", "", b"owned"),
])]
#[case::directory_swapped_for_link(&[
    member(b'5', "d", "", b""),
    member(b'2', "d", "..", b""),
    member(b'0', "d/secret", "", b"owned"),
])]
#[case::directory_through_link(&[
    member(b'2', "up", "..", b""),
    member(b'5', "up/new", "", b""),
    member(b'0', "secret", "", b"owned"),
])]
fn stays_inside(#[case] members: &[Vec<u8>]) {
    let (result, dir) = attack(members);
    result.unwrap();
    host_untouched(dir.path());
    assert_eq!(fs::read_to_string(dir.path().join("root/secret")).unwrap(), "owned");
}

#[test]
fn a_file_replaces_a_link_and_does_not_follow_it() {
    let (result, dir) = attack(&[
        member(b'2', "out", "../secret", b""),
        member(b'0', "out", "", b"owned"),
        member(b'2', "etc/link", "passwd", b""),
        member(b'0', "etc/link", "", b"owned"),
    ]);
    result.unwrap();
    host_untouched(dir.path());
    assert!(fs::symlink_metadata(dir.path().join("root/out")).unwrap().is_file());
    assert!(fs::read_to_string(dir.path().join("root/etc/passwd")).unwrap().starts_with("root:"));
}

#[test]
fn a_file_replaces_a_hard_link_and_does_not_write_through_it() {
    let (result, dir) = attack(&[member(b'1', "copy", "etc/passwd", b""), member(b'0', "copy", "", b"owned")]);
    result.unwrap();
    assert!(fs::read_to_string(dir.path().join("root/etc/passwd")).unwrap().starts_with("root:"));
}

#[test]
fn device_nodes_of_dev_are_left_out() {
    let mut node = ::tar::Header::from_byte_slice(&member(b'3', "./dev/null", "", b"")[..512]).clone();
    node.set_device_major(1).unwrap();
    node.set_device_minor(3).unwrap();
    node.set_cksum();
    let (result, dir) = attack(&[member(b'5', "./dev", "", b""), node.as_bytes().to_vec()]);
    assert_eq!(result.unwrap().devices_left_out, 1);
    assert!(!dir.path().join("root/dev/null").exists());
}

#[test]
fn a_link_to_a_directory_is_kept_where_the_archive_has_a_directory() {
    let (result, dir) = attack(&[
        member(b'5', "usr/lib", "", b""),
        member(b'2', "lib", "usr/lib", b""),
        member(b'5', "lib", "", b""),
        member(b'0', "lib/file", "", b"1"),
    ]);
    result.unwrap();
    assert!(dir.path().join("root/lib").is_symlink());
    assert!(dir.path().join("root/usr/lib/file").is_file());
}

#[test]
fn a_bomb_of_a_header_is_refused() {
    let mut bomb = ::tar::Header::new_gnu();
    bomb.set_entry_type(::tar::EntryType::new(b'L'));
    bomb.set_size(1 << 40);
    bomb.set_cksum();
    let (result, _dir) = attack(&[bomb.as_bytes().to_vec()]);
    assert!(result.unwrap_err().contains("larger than any that makes sense"));
}

#[test]
fn compression_that_the_recipe_has_wrong_is_said() {
    let tree = plain_tree();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = packed(tree.path(), Compression::Zstd, 1);
    let archive = Archive { file, name: "a.tar", compression: Some(Compression::Gz) };
    let error = unpack(archive, &Inside::open(dir.path()).unwrap(), Path::new("/"), &mut |_, _| {}).unwrap_err();
    assert_eq!(format!("{error:#}"), "a.tar is compressed with zstd, not compressed with gz");
    let mut text = tempfile::tempfile().unwrap();
    text.write_all(b"<html>not found</html>").unwrap();
    let archive = Archive { file: text, name: "a.tar", compression: None };
    let error = unpack(archive, &Inside::open(dir.path()).unwrap(), Path::new("/"), &mut |_, _| {}).unwrap_err();
    assert!(format!("{error:#}").starts_with("a.tar is no archive"), "{error:#}");
}

#[test]
fn unpacks_zip_and_deb() {
    if !has("zip") || !has("ar") {
        return;
    }
    let tree = plain_tree();
    fs::set_permissions(tree.path().join("one/file"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../one/file", tree.path().join("two/link")).unwrap();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let zip = dir.path().join("a.zip");
    let status = Command::new("zip").args(["-q", "-r", "-y"]).arg(&zip).arg(".").current_dir(tree.path()).status();
    assert!(status.unwrap().success());
    let data = dir.path().join("data.tar.xz");
    fs::write(&data, bytes(packed(tree.path(), Compression::Xz, 1))).unwrap();
    fs::write(dir.path().join("debian-binary"), "2.0\n").unwrap();
    fs::write(dir.path().join("control.tar.xz"), "odd").unwrap();
    let status = Command::new("ar")
        .args(["rc", "a.deb", "debian-binary", "control.tar.xz", "data.tar.xz"])
        .current_dir(dir.path())
        .status();
    assert!(status.unwrap().success());
    if !is_root() {
        return;
    }
    for name in ["a.zip", "a.deb"] {
        let out = unpacked(File::open(dir.path().join(name)).unwrap(), name);
        for file in ["one/file", "two/file", "three/file"] {
            assert!(fs::read(out.path().join(file)).unwrap() == fs::read(tree.path().join(file)).unwrap(), "{file}");
        }
        assert_eq!(fs::metadata(out.path().join("one/file")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_link(out.path().join("two/link")).unwrap(), Path::new("../one/file"));
    }
}
