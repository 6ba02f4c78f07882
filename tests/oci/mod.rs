//! OCI and bootc images: made of small roots with a dpkg database, read back by the programs that others use.

mod bootc;
mod compare;
mod debian;
mod image;
mod index;
mod push;
mod read_back;
mod sbom;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::Project;

/// A file of a root.
pub enum Node {
    Directory,
    Link(&'static str),
    File(String),
}

/// An archive of files; the directories above them are made.
pub fn archive(nodes: &[(String, Node)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, node) in nodes {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(if matches!(node, Node::Directory) { 0o755 } else { 0o644 });
        match node {
            Node::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, format!("{path}/"), std::io::empty()).unwrap();
            }
            Node::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, path, target).unwrap();
            }
            Node::File(text) => {
                header.set_size(text.len() as u64);
                tar.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

pub fn file(path: &str, text: impl Into<String>) -> (String, Node) {
    (path.to_owned(), Node::File(text.into()))
}

/// A text that hardly shrinks, so many bytes long.
fn noise(seed: &str, bytes: usize) -> String {
    let mut raw = vec![0; bytes / 2];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut raw);
    hex::encode(raw)
}

/// A root with so many packages, each larger than the one before; those named are of a later version.
pub fn packages(count: usize, later: &[usize]) -> Vec<(String, Node)> {
    let mut nodes = vec![
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/os-release", "ID=debian\nPRETTY_NAME=\"Test\"\nVERSION_CODENAME=trixie\n"),
        ("usr/bin".to_owned(), Node::Directory),
        ("bin".to_owned(), Node::Link("usr/bin")),
        ("srv/empty".to_owned(), Node::Directory),
    ];
    let mut status = String::new();
    for number in 0..count {
        let version = if later.contains(&number) { "2" } else { "1" };
        let name = format!("p{number:03}");
        status.push_str(&format!(
            "Package: {name}\nStatus: install ok installed\nMaintainer: Jane <jane@example.org>\nArchitecture: all\nSource: s{number:03}\nVersion: {version}\n\n"
        ));
        nodes.push(file(&format!("usr/bin/{name}"), noise(&format!("{name}{version}"), (number + 1) * 6000)));
        nodes.push(file(&format!("usr/share/doc/{name}/copyright"), "free\n"));
        let list = format!("/.\n/bin\n/bin/{name}\n/usr/share/doc/{name}\n/usr/share/doc/{name}/copyright\n");
        nodes.push(file(&format!("var/lib/dpkg/info/{name}.list"), list));
    }
    nodes.push(file("var/lib/dpkg/status", status));
    nodes
}

/// A project whose root is made of these files.
pub fn project(nodes: &[(String, Node)], actions: &str) -> Project {
    let project = Project::new().file("root.tar", archive(nodes));
    project.set_actions(actions);
    project
}

/// A member of an archive.
pub fn member(archive: &Path, name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() == Path::new(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{name} is not in the archive");
}

pub fn json(archive: &Path, name: &str) -> Value {
    serde_json::from_slice(&member(archive, name)).unwrap()
}

/// Where a descriptor's blob is.
pub fn blob(descriptor: &Value) -> String {
    format!("blobs/sha256/{}", descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap())
}

/// The first manifest of an archive, and its digest.
pub fn manifest(archive: &Path) -> (Value, String) {
    let index = json(archive, "index.json");
    let descriptor = &index["manifests"][0];
    (json(archive, &blob(descriptor)), descriptor["digest"].as_str().unwrap().to_owned())
}

/// Runs a program to its good end; what it printed.
#[track_caller]
pub fn run(directory: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(directory).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {stderr}{stdout}");
    stdout.into_owned()
}
