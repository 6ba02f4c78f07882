//! Root filesystems for tests.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::find_program;

/// A root filesystem small enough to unpack in no time: busybox as every program, the usual
/// directories, users root and daemon. Gives the bytes of a tar archive; `None` without a static busybox.
pub fn tiny_root() -> Option<Vec<u8>> {
    let busybox = find_program("busybox").filter(|path| is_static(path))?;
    let mut tar = tar::Builder::new(Vec::new());
    for (dir, mode) in [
        ("bin", 0o755),
        ("sbin", 0o755),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("dev", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
        ("run", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
    ] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        tar.append_data(&mut header, format!("{dir}/"), std::io::empty()).ok()?;
    }
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www:/var/www:/bin/false\n"),
        ("etc/group", "root:x:0:\nwww-data:x:33:\n"),
        ("etc/hostname", "tiny\n"),
    ] {
        let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).ok()?;
    }
    let mut file = File::open(&busybox).ok()?;
    let size = file.metadata().ok()?.len();
    tar.append_data(&mut header(tar::EntryType::Regular, 0o755, size), "bin/busybox", &mut file).ok()?;
    for name in [
        "sh", "cat", "chmod", "chown", "cp", "date", "echo", "env", "false", "head", "hostname", "id", "kill", "ln",
        "ls", "mkdir", "mknod", "mount", "mv", "ps", "rm", "sleep", "stat", "sync", "tail", "test", "touch", "true",
        "umount", "wget", "id", "grep", "sed", "readlink",
    ] {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").ok()?;
    }
    tar.into_inner().ok()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

/// A busybox that needs the host's libraries is of no use in a root without them.
fn is_static(path: &Path) -> bool {
    std::fs::read(path)
        .is_ok_and(|bytes| !bytes.windows(11).any(|window| window == b"/ld-linux-x" || window == b"/ld-linux-a"))
}

/// An archive of files: path, mode, contents.
pub fn archive(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, text) in files {
        let mut header = header(tar::EntryType::Regular, *mode, text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).expect("writing an archive");
    }
    let mut bytes = tar.into_inner().expect("writing an archive");
    bytes.flush().expect("writing an archive");
    bytes
}

/// Programs that dpkg and maintainer scripts call.
const PROGRAMS: &[&str] = &["sh", "rm", "tar", "diff", "cat", "mkdir", "dpkg", "dpkg-deb", "dpkg-split", "sleep"];

/// The libraries that a program loads, and its loader.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("starting ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// What a root with the host's dpkg and little else is made of: directories (with a slash at the
/// end) and files, with mode and contents. `None` where a program is missing.
pub fn dpkg_files() -> Option<Vec<(String, u32, Vec<u8>)>> {
    dpkg_files_with(&[])
}

fn dpkg_files_with(more: &[&str]) -> Option<Vec<(String, u32, Vec<u8>)>> {
    let mut all = Vec::new();
    let mut add = |path: &str, mode, bytes: &[u8]| {
        all.push((path.trim_start_matches('/').to_owned(), mode, bytes.to_owned()));
    };
    for dir in [
        "bin/",
        "sbin/",
        "usr/bin/",
        "usr/sbin/",
        "dev/",
        "proc/",
        "sys/",
        "run/",
        "tmp/",
        "root/",
        "etc/apt/",
        "var/lib/dpkg/info/",
        "var/lib/dpkg/updates/",
        "var/lib/dpkg/triggers/",
        "var/lib/apt/",
        "var/log/",
        "usr/share/",
    ] {
        add(dir, 0o755, &[]);
    }
    let mut files = BTreeSet::new();
    for name in PROGRAMS.iter().chain(more) {
        let program = find_program(name)?;
        files.extend(libraries(&program));
        add(&format!("bin/{name}"), 0o755, &fs::read(&program).ok()?);
        if name.starts_with("dpkg") || more.contains(name) {
            add(&format!("usr/bin/{name}"), 0o755, &fs::read(&program).ok()?);
        }
    }
    for library in files {
        add(&library.display().to_string(), 0o755, &fs::read(&library).ok()?);
    }
    for name in ["ldconfig", "start-stop-daemon"] {
        add(&format!("sbin/{name}"), 0o755, b"#!/bin/sh\n");
    }
    for (path, text) in [
        ("var/lib/dpkg/status", ""),
        ("var/lib/dpkg/available", ""),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
    ] {
        add(path, 0o644, text.as_bytes());
    }
    Some(all)
}

/// The same as a tar archive.
pub fn dpkg_root() -> Option<Vec<u8>> {
    dpkg_root_with(&[])
}

/// The same with more of the host's programs.
pub fn dpkg_root_with(more: &[&str]) -> Option<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in dpkg_files_with(more)? {
        let kind = if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        tar.append_data(&mut header(kind, mode, bytes.len() as u64), path, bytes.as_slice()).ok()?;
    }
    tar.into_inner().ok()
}
