//! What a recipe in a machine can reach, and who can run one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Project, User, confinement};

#[test]
fn a_recipe_finds_nothing_of_this_machine_beside_its_own_directories() {
    needs_root!();
    needs_uml!();
    let secret = tempfile::Builder::new().prefix("secret-").tempdir_in("/var/tmp").expect("a directory");
    fs::write(secret.path().join("file"), "the secret").expect("a file");
    let path = secret.path().display();
    // By its path, by a mount of UML's own, by one that climbs out of what is shared, and by writing to it.
    let command = format!(
        "
  - action: run
    command: |
      mkdir /tmp/m
      for from in / {path} /usr/../{path} ../../../..{path} /usr; do
          if mount -t hostfs -o \"$from\" none /tmp/m; then
              cat /tmp/m/file && echo 'reached the secret'
              cat /tmp/m{path}/file && echo 'reached the secret'
              (echo spoilt > /tmp/m{path}/file) || true; (echo spoilt > /tmp/m/file) || true
              rm -rf /tmp/m{path} || true; touch /tmp/m/debforge-was-here || true
              umount /tmp/m
          fi
      done
      cat {path}/file && echo 'reached the secret'
      test -r /etc/shadow && echo 'reached the secret'
      true
"
    );
    let Some(project) = Project::new().kernel_of("uml").tiny(&command) else { skip!("needs a static busybox") };
    project.build(["-b", "uml", "-v"]).success().says_nothing_of("reached the secret");
    assert_eq!(fs::read_to_string(secret.path().join("file")).expect("the file"), "the secret");
    assert!(!std::path::Path::new("/usr/debforge-was-here").exists());
}

#[test]
fn the_recipe_directory_is_only_read_and_artifacts_are_written() {
    needs_uml!();
    let command = "
  - action: run
    command: |
      echo spoilt > \"$RECIPEDIR/root.tar\" || echo cannot spoil it
      echo made > \"$ARTIFACTDIR/made\"
";
    let Some(project) = Project::new().kernel_of("uml").tiny(command) else { skip!("needs a static busybox") };
    project.build(["-b", "uml", "-v"]).success().says("cannot spoil it");
    assert_eq!(project.read("out/made"), "made\n");
}

const PACK: &str = "
  - action: run
    chroot: true
    command: echo forge > /etc/hostname; chown 1234:4321 /etc/hostname
  - action: pack
    file: out.tar.gz
";

/// Builds in UML, with words before the command that keep it from confining anything, and gives the archive.
fn built(project: Project, before: &[String]) -> Option<Vec<u8>> {
    let project = project.kernel_of("uml").tiny(PACK)?;
    let args = ["build", "recipe.yaml", "--artifactdir", "out", "-b", "uml"];
    project.run_inside(before, args).success();
    // Where nothing is around UML, its programs must not reach its memory.
    let log = fs::read_dir(project.store().join("logs")).expect("logs").next().expect("a log").expect("a log");
    let log = fs::read_to_string(log.path()).expect("a log");
    let has_seccomp = log.contains("Checking that seccomp filters can be installed");
    assert_eq!(has_seccomp, before.is_empty(), "{log}");
    let meta = fs::metadata(project.path("out/out.tar.gz")).expect("an artifact");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), project.user().uid, "whose artifact it is");
    assert_eq!(meta.permissions().mode() & 0o777, 0o644);
    Some(fs::read(project.path("out/out.tar.gz")).expect("an artifact"))
}

#[test]
fn users_without_subordinate_ids_and_containers_without_namespaces_build_the_same() {
    needs_root!();
    needs_uml!();
    let Some(expected) = built(Project::new(), &[]) else { skip!("needs a static busybox") };
    match User::without_ranges() {
        Ok(user) => assert!(built(Project::of(user), &[]).unwrap() == expected, "without ranges"),
        Err(why) => skip!("{why}"),
    }
    assert!(built(Project::new(), &confinement::without_mounts()).unwrap() == expected, "without mounts");
}
