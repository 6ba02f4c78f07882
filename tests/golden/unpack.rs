//! Golden differences of `unpack`.

use crate::harness::{Project, fixture};

#[test]
fn files_land_below_destdir() {
    for user in super::users() {
        let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
        project.write("extra.tar", fixture::archive(&[("a/tool", 0o4755, "tool"), ("a/data", 0o600, "data")]));
        insta::assert_snapshot!(
            "files_land_below_destdir",
            super::changes(
                &project,
                "",
                "
  - action: unpack
    origin: recipe
    file: extra.tar
    destdir: /opt/extra
"
            )
        );
    }
}

#[test]
fn an_archive_of_this_build_and_of_an_earlier_one() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.write("out/earlier.tar", fixture::archive(&[("earlier", 0o644, "1")]));
    project.set_actions(
        "
  - action: run
    chroot: true
    command: mkdir /srv && echo 1 > /srv/file
  - action: pack
    file: srv.tar.gz
    subdir: srv
  - action: unpack
    file: srv.tar.gz
    destdir: /copy
  - action: unpack
    file: earlier.tar
    destdir: /copy
  - action: run
    chroot: true
    command: test -f /copy/file && test -f /copy/earlier
",
    );
    project.build([]).success();
}

#[test]
fn faults_of_the_recipe_are_found_before_anything_runs() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.write("beside.tar", "");
    project.set_actions(
        "
  - action: unpack
    file: beside.tar
  - action: unpack
    origin: recipe
    file: beside.tar
    compression: bz2
  - action: unpack
    origin: recipe
",
    );
    project
        .build([])
        .code(2)
        .says("there is no `beside.tar` among the artifacts")
        .says("set `origin: recipe`")
        .says("did you mean `bzip2`?")
        .says("`file` is missing");
}
