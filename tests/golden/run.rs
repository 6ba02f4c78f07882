//! Golden differences of `run`, and what its processes see.

use crate::harness::Project;

fn project() -> Option<Project> {
    Project::new().tiny("")
}

#[test]
fn a_command_in_the_root_changes_the_root() {
    for user in super::users() {
        let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
        insta::assert_snapshot!(
            "a_command_in_the_root_changes_the_root",
            super::changes(
                &project,
                "",
                "
  - action: run
    chroot: true
    environment:
      GREETING: hello world
    command: echo \"$GREETING\" > /etc/greeting; chown 33:33 /etc/greeting; chmod 640 /etc/greeting; rm /etc/hostname
"
            )
        );
    }
}

#[test]
fn a_script_sees_its_directory_and_its_arguments() {
    let Some(project) = project() else { skip!("needs a static busybox") };
    project.write("scripts/setup.sh", "#!/bin/sh\n. /tmp/script/common.sh\necho \"$1|$2|$PREFIX\" > /etc/result\n");
    project.chmod("scripts/setup.sh", 0o755);
    project.write("scripts/common.sh", "PREFIX=common\n");
    project.set_actions(
        "
  - action: run
    chroot: true
    script: scripts/setup.sh one 'two words'
  - action: run
    chroot: true
    command: test \"$(cat /etc/result)\" = 'one|two words|common'
",
    );
    project.build([]).success();
}

#[test]
fn a_command_of_the_host_sees_root_artifacts_and_recipe() {
    for user in super::users() {
        let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
        project.write("beside", "the recipe\n");
        project.set_actions(
            "
  - action: run
    command: cp \"$RECIPEDIR/beside\" \"$ROOTDIR/etc/beside\" && cat beside > \"$ARTIFACTDIR/artifact\"
  - action: run
    chroot: true
    command: test \"$(cat /etc/beside)\" = 'the recipe'
  - action: run
    postprocess: true
    command: test -z \"${ROOTDIR:-}\" && cat \"$ARTIFACTDIR/artifact\" \"$ARTIFACTDIR/late\" > \"$ARTIFACTDIR/twice\"
  - action: run
    command: echo late > \"$ARTIFACTDIR/late\"
",
        );
        project.build([]).success();
        assert_eq!(project.read("out/artifact"), "the recipe\n");
        assert_eq!(project.read("out/twice"), "the recipe\nlate\n");
    }
}

/// Root's could, in whatever mount namespace: a remount is of the file system itself.
#[test]
fn no_command_changes_how_others_file_systems_are_mounted() {
    for user in super::users() {
        let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
        project.set_actions(
            "
  - action: run
    command: |
      for place in / /dev \"$ROOTDIR\" \"$ARTIFACTDIR\"; do
        ! mount -v -o remount,ro $place && ! busybox mount -o remount,ro $place
      done
      : > $ROOTDIR/etc/still
  - {action: run, chroot: true, command: '! busybox mount -o remount,ro / && : > /etc/written'}
",
        );
        project.build([]).success();
    }
}

#[test]
fn a_command_of_the_host_may_not_write_to_the_host() {
    let Some(project) = project() else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - action: run
    command: '! touch /etc/debforge-was-here && ! touch \"$RECIPEDIR/x\" && touch /tmp/fine'
",
    );
    project.build([]).success();
    assert!(!std::path::Path::new("/etc/debforge-was-here").exists());
    assert!(!project.path("x").exists());
}

#[test]
fn a_label_stands_before_the_output() {
    let Some(project) = project() else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - action: run
    chroot: true
    label: greet
    command: echo hello
",
    );
    project.build(["-v"]).success().says("greet | hello");
}

#[test]
fn it_ends_at_the_first_failure_and_at_unset_variables() {
    let Some(project) = project() else { skip!("needs a static busybox") };
    for command in ["false; true", "echo \"$NOT_SET\"; true"] {
        project.set_actions(&format!(
            "
  - action: run
    chroot: true
    command: '{command}'
"
        ));
        project.build([]).code(1);
    }
}

#[test]
fn only_what_it_sees_reruns_it() {
    let Some(project) = project() else { skip!("needs a static busybox") };
    project.write("scripts/a.sh", "#!/bin/sh\ntrue\n");
    project.chmod("scripts/a.sh", 0o755);
    project.write("other/file", "1");
    project.set_actions(
        "
  - action: run
    chroot: true
    script: scripts/a.sh
  - action: run
    command: cat other/file > \"$ARTIFACTDIR/copy\"
",
    );
    let outcomes = || project.build(["--json"]).success().outcomes();
    assert_eq!(outcomes(), ["ran", "ran", "ran"]);
    assert_eq!(outcomes(), ["cached", "cached", "cached"]);
    project.write("other/file", "2");
    assert_eq!(outcomes(), ["cached", "cached", "ran"]);
    assert_eq!(project.read("out/copy"), "2");
    project.write("scripts/b.sh", "beside it");
    assert_eq!(outcomes(), ["cached", "ran", "ran"]);
}

#[test]
fn faults_of_the_recipe_are_found_before_anything_runs() {
    let Some(project) = project() else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - action: run
    command: 'true'
    script: x
  - action: run
    chroot: true
    postprocess: true
    command: 'true'
    label: 01234567890123456789012345678901234567890123456789
  - action: run
    script: nothing.sh 1
",
    );
    project
        .build([])
        .code(2)
        .says("`command` and `script` cannot both be given")
        .says("`chroot` and `postprocess` cannot both be set")
        .says("the label has 50 characters")
        .says("there is no `nothing.sh` beside the recipe");
}
