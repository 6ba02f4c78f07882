//! What `download` hands to later actions.

use sha2::Digest;

use crate::harness::http::Server;
use crate::harness::{Project, fixture};

#[test]
fn a_file_and_an_archive_become_origins() {
    let directory = tempfile::tempdir().unwrap();
    let archive = fixture::archive(&[("firmware-1/blob.bin", 0o644, "blob")]);
    std::fs::write(directory.path().join("firmware-1.tar"), &archive).unwrap();
    std::fs::write(directory.path().join("boot.img"), "boot").unwrap();
    let server = Server::new(directory.path());
    let digest = hex::encode_upper(sha2::Sha256::digest(&archive));
    for user in super::users() {
        let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
        let url = server.url("");
        let downloads = format!(
            "
  - action: download
    url: {url}firmware-1.tar
    name: firmware
    unpack: true
    sha256sum: {digest}
  - action: download
    url: {url}boot.img
    name: boot
"
        );
        insta::assert_snapshot!(
            "a_file_and_an_archive_become_origins",
            super::changes(
                &project,
                &downloads,
                "
  - action: overlay
    origin: firmware
    source: firmware-1
    destination: /usr/lib/firmware
  - action: overlay
    origin: boot
    destination: /boot/
"
            )
        );
    }
}

#[test]
fn what_the_server_changes_reruns_what_uses_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "1").unwrap();
    let server = Server::new(directory.path());
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(&format!(
        "
  - action: download
    url: {}file
    name: it
  - action: overlay
    origin: it
    destination: /etc/it
  - action: pack
    file: all.tar
    compression: none
",
        server.url("")
    ));
    let outcomes = || project.build(["--json"]).success().outcomes();
    assert_eq!(outcomes(), ["ran", "ran", "ran", "ran"]);
    assert_eq!(outcomes()[1..], ["cached", "cached", "cached"]);
    std::fs::write(directory.path().join("file"), "two").unwrap();
    assert_eq!(outcomes()[1..], ["ran", "ran", "ran"]);
}

#[test]
fn a_link_in_a_download_does_not_lead_to_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    builder.append_link(&mut header, "out", "/etc").unwrap();
    std::fs::write(directory.path().join("hostile.tar"), builder.into_inner().unwrap()).unwrap();
    let server = Server::new(directory.path());
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(&format!(
        "
  - action: download
    url: {}hostile.tar
    name: hostile
    unpack: true
  - action: overlay
    origin: hostile
    source: out/passwd
    destination: /etc/stolen
",
        server.url("")
    ));
    project.build([]).code(1).says("looking in the download `hostile`");
}

#[test]
fn faults_of_the_recipe_are_found_before_anything_runs() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - action: download
    url: ftp://mirror.example/x
    name: recipe
    sha256sum: abc
  - action: download
    url: https://mirror.example/
    name: x
",
    );
    project
        .build([])
        .code(2)
        .says("`ftp:` cannot be downloaded from")
        .says("`recipe` cannot be the name of a download")
        .says("is not a digest of 64 hex digits")
        .says("does not end in the name of a file")
        .says("`sha256sum` is missing");
}
