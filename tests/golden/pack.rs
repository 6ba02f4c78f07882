//! What `pack` leaves.

use crate::harness::Project;

const ODD_FILES: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /srv/deep
      echo 1 > /srv/deep/file; ln /srv/deep/file /srv/second; ln -s deep/file /srv/link
      chown 33:42 /srv/deep; chmod 2775 /srv/deep; chmod 4711 /srv/second
      mknod /srv/pipe p
";

#[test]
fn root_and_a_user_pack_the_same_bytes() {
    let mut first: Option<Vec<u8>> = None;
    for user in super::users() {
        let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
        project.set_actions(&format!("{ODD_FILES}  - action: pack\n    file: all.tar.zst\n    compression: auto\n"));
        project.build([]).success();
        let archive = std::fs::read(project.path("out/all.tar.zst")).unwrap();
        match &first {
            None => first = Some(archive),
            Some(first) => assert!(*first == archive, "the archives differ"),
        }
    }
}

#[test]
fn a_part_of_the_root() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(&format!(
        "{ODD_FILES}  - action: pack\n    file: part.tar\n    compression: none\n    subdir: srv\n"
    ));
    project.build([]).success();
    let members: Vec<String> =
        super::listing(&project.path("out/part.tar")).iter().map(|(name, rest)| format!("{name} {rest}")).collect();
    insta::assert_snapshot!("a_part_of_the_root", members.join("\n"));
}

#[test]
fn a_failed_pack_leaves_the_last_archive() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.write("out/all.tar.gz", "the last good one");
    project.set_actions(
        "
  - action: pack
    file: all.tar.gz
    subdir: nowhere
",
    );
    project.build([]).code(1).says("the root has no directory nowhere");
    assert_eq!(project.read("out/all.tar.gz"), "the last good one");
    assert_eq!(std::fs::read_dir(project.path("out")).unwrap().count(), 1);
}

#[test]
fn faults_of_the_recipe_are_found_before_anything_runs() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - action: pack
    file: ../x.tar
  - action: pack
    file: x.tar.zst
  - action: pack
    file: x.tar.zst
    compression: zst
",
    );
    project
        .build([])
        .code(2)
        .says("`../x.tar` leads out of the artifact directory")
        .says("ends as if compressed with zstd, but `compression` is gz")
        .says("did you mean `zstd`?");
}
