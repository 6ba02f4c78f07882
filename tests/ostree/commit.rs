//! Commits of a small root.

use std::fs;
use std::process::Command;

use rstest::rstest;

use super::{head, ostree, text};
use crate::harness::{Project, User};
use crate::image::disk::with_capability;

/// Owners, modes, capabilities, links, what belongs to no commit, and the commit.
const COMMIT: &str = "
  - {action: unpack, origin: recipe, file: cap.tar}
  - action: run
    chroot: true
    command: |
      mkdir -p /usr/share/data && echo one > /usr/share/data/one && chown 33:33 /usr/share/data/one
      chmod 4750 /usr/share/data/one && ln -s one /usr/share/data/link
      mkdir -p /dev && mknod /dev/left-over p || :
  - action: ostree-commit
    repository: repo
    branch: os/test
    subject: a test
    metadata: {version: '7'}
";

fn project(user: User) -> Option<Project> {
    Project::of(user).file("cap.tar", with_capability()).tiny(COMMIT)
}

macro_rules! built {
    ($user:expr) => {{
        needs_program!("ostree", "ostree");
        let Some(project) = project($user) else { skip!("needs a static busybox") };
        project.build([]).success();
        project
    }};
}

#[test]
fn a_commit_has_the_root_as_it_is() {
    needs_root!();
    let project = built!(User::current());
    let listed = ostree(&project, &["--repo=out/repo", "ls", "-R", "os/test"]);
    let line = |path: &str| listed.lines().find(|line| line.contains(path)).unwrap_or_default().to_owned();
    assert!(line("/usr/share/data/one").starts_with("-04750 33 33"), "{listed}");
    assert!(line("/usr/share/data/link").ends_with("-> one"), "{listed}");
    assert!(!listed.contains("left-over"), "{listed}");
    let capable = ostree(&project, &["--repo=out/repo", "ls", "-X", "os/test", "/srv/capable"]);
    assert!(capable.contains("security.capability"), "{capable}");
    let shown = ostree(&project, &["--repo=out/repo", "show", "os/test"]);
    assert!(shown.contains("a test") && shown.contains("Version: 7"), "{shown}");
    ostree(&project, &["--repo=out/repo", "fsck"]);
    assert!(ostree(&project, &["--repo=out/repo", "summary", "-v"]).contains("os/test"));
    // It is dated as all else, not by the clock.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    project.run(["build", "recipe.yaml", "--artifactdir", "again", "--no-cache"]).success();
    assert!(
        std::fs::read(project.path("again/repo/summary")).unwrap()
            == std::fs::read(project.path("out/repo/summary")).unwrap()
    );
    let bound = ostree(&project, &["--repo=out/repo", "show", "--print-metadata-key=ostree.ref-binding", "os/test"]);
    assert_eq!(bound.trim(), "['os/test']");
    let packages = ostree(&project, &["--repo=out/repo", "cat", "os/test", "/usr/share/sbom/system.spdx.json"]);
    assert!(packages.contains("SPDX-2.3"), "{packages}");
}

#[test]
fn root_and_users_make_the_same_commit() {
    needs_root!();
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let (root, rootless) = (built!(User::current()), built!(user));
    assert_eq!(head(&root, "os/test"), head(&rootless, "os/test"));
    // Built from its artifacts alone, without anything being run.
    fs::remove_dir_all(rootless.path("out")).unwrap();
    let again = rootless.build(["--json"]).success();
    assert_eq!(again.outcomes(), ["cached"; 4]);
    assert_eq!(head(&root, "os/test"), head(&rootless, "os/test"));
    oci_user(&rootless, &["--repo=out/repo", "fsck"]);
}

/// As the project's user: a repository that is a user's is not root's.
fn oci_user(project: &Project, args: &[&str]) {
    let output = project.user().command("/usr/bin/ostree").args(args).current_dir(project.path(".")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_repository_keeps_what_was_committed_before() {
    needs_root!();
    let project = built!(User::current());
    let first = head(&project, "os/test");
    fs::write(project.path("out/repo/config"), text(&project.path("out/repo/config")) + "\n[archive]\nzlib-level=9\n")
        .unwrap();
    project.set_actions(
        &COMMIT
            .replace("echo one", "echo two")
            .replace("subject: a test", "subject: more\n    parent: branch\n    deltas: [previous, empty]"),
    );
    project.build([]).success();
    let second = head(&project, "os/test");
    assert_ne!(first, second);
    let log = ostree(&project, &["--repo=out/repo", "log", "os/test"]);
    assert!(log.contains(&first) && log.contains(&second), "{log}");
    assert!(text(&project.path("out/repo/config")).contains("zlib-level=9"));
    let deltas = ostree(&project, &["--repo=out/repo", "static-delta", "list"]);
    assert!(deltas.contains(&format!("{first}-{second}")) && deltas.lines().any(|line| line == second), "{deltas}");
    ostree(&project, &["--repo=out/repo", "fsck"]);
    // The same steps once more: nothing is added.
    let again = project.build(["--json"]).success();
    assert_eq!(again.outcomes(), ["cached"; 4]);
    assert_eq!(head(&project, "os/test"), second);
    // Fewer commits, when that is asked for.
    project.set_actions(&COMMIT.replace("echo one", "echo three").replace("subject: a test", "prune: 0"));
    project.build([]).success();
    let commits = |project: &Project| {
        let objects = walkdir::WalkDir::new(project.path("out/repo/objects")).into_iter().flatten();
        objects.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "commit")).count()
    };
    assert_eq!(commits(&project), 1);
    ostree(&project, &["--repo=out/repo", "fsck"]);
}

#[test]
fn a_bundle_updates_without_a_network() {
    needs_root!();
    let project = built!(User::current());
    let first = head(&project, "os/test");
    ostree(&project, &["init", "--repo=machine", "--mode=bare-user"]);
    ostree(&project, &["pull-local", "--repo=machine", "out/repo", "os/test"]);
    let bundle = format!(
        "  - action: ostree-bundle\n    repository: repo\n    branch: os/test\n    from: {first}\n    file: update.bundle\n"
    );
    project.set_actions(&(COMMIT.replace("echo one", "echo two") + &bundle));
    project.build([]).success();
    let second = head(&project, "os/test");
    ostree(&project, &["static-delta", "apply-offline", "--repo=machine", "out/update.bundle"]);
    assert_eq!(ostree(&project, &["--repo=machine", "cat", &second, "/usr/share/data/one"]), "two\n");
    let (bundle, whole) = (fs::metadata(project.path("out/update.bundle")).unwrap().len(), 100_000);
    assert!(bundle < whole, "{bundle} bytes for one line");
}

#[test]
fn signatures_are_those_of_the_key() {
    needs_root!();
    needs_program!("gpg", "gnupg");
    let project = built!(User::current());
    let home = project.path("gpg");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gpg = |args: &[&str]| {
        let output = Command::new("gpg").arg("--homedir").arg(&home).args(["--batch", "--armor"]).args(args).output();
        output.expect("gpg").stdout
    };
    gpg(&["--passphrase", "", "--quick-gen-key", "Tests <tests@example.org>", "ed25519", "sign", "never"]);
    project.write("secret.asc", gpg(&["--export-secret-keys"]));
    project.write("public.asc", gpg(&["--export"]));
    let _ = Command::new("gpgconf").arg("--homedir").arg(&home).args(["--kill", "all"]).status();
    let signed = COMMIT.replace("    subject: a test\n", "    sign: {key: secret.asc}\n");
    project.set_actions(&signed);
    project.build([]).success();
    assert!(project.path("out/repo/summary.sig").is_file());
    ostree(&project, &["init", "--repo=machine", "--mode=bare-user"]);
    ostree(
        &project,
        &["remote", "add", "--repo=machine", "--gpg-import=public.asc", "origin", "http://localhost/none"],
    );
    ostree(&project, &["pull-local", "--repo=machine", "--remote=origin", "--gpg-verify", "out/repo", "os/test"]);
    // Another repository, and nothing from the store: the same signatures.
    let commit = head(&project, "os/test");
    let meta = |project: &Project| {
        let commit = head(project, "os/test");
        fs::read(project.path(format!("out/repo/objects/{}/{}.commitmeta", &commit[..2], &commit[2..]))).unwrap()
    };
    let before = meta(&project);
    fs::remove_dir_all(project.path("out")).unwrap();
    project.build(["--no-cache"]).success();
    assert_eq!(commit, head(&project, "os/test"));
    assert_eq!(before, meta(&project));
    // And without one it is refused.
    project.set_actions(&COMMIT.replace("os/test", "os/unsigned"));
    project.build([]).success();
    let args = ["pull-local", "--repo=machine", "--remote=origin", "--gpg-verify", "out/repo", "os/unsigned"];
    let refused = Command::new("ostree").args(args).current_dir(project.path(".")).output().unwrap();
    assert!(!refused.status.success());
}

#[test]
fn differences_of_commits_are_packages_configuration_and_objects() {
    needs_root!();
    let project = built!(User::current());
    let other = COMMIT.replace("os/test", "os/other").replace("echo one", "echo two; echo x > /etc/new; echo two");
    project.set_actions(&other);
    project.build([]).success();
    let shown = project.run(["diff", "out/repo:os/test", "out/repo:os/other"]).code(1);
    shown.prints("objects").prints("+ /etc/new").prints("~ /usr/share/data/one");
    project.run(["diff", "out/repo:os/test", "out/repo:os/test"]).success().prints("identical");
    project.run(["inspect", "out/repo:os/other"]).success().prints("OSTree commit").prints(&head(&project, "os/other"));
    project.run(["inspect", "out/repo"]).code(2).says("has 2 branches").says("out/repo:os/other");
    project.run(["inspect", "out/repo:os/none"]).code(1).says("has no branch or commit `os/none`");
}

#[rstest]
#[case("branch: a//b", "`a//b` is not the name of a branch")]
#[case("parent: yesterday", "`yesterday` is no commit")]
#[case("repository: ../repo", "leads out of the artifact directory")]
#[case("collection-id: here", "`here` is no id of a collection")]
#[case("mode: bare\n    deltas: [empty]", "only clients of an `archive` repository use deltas")]
#[case("sign: {gnupghome: .}", "`key-id` is missing")]
#[case("subjekt: x", "did you mean `subject`?")]
fn wrong_properties_are_said_before_anything_runs(#[case] property: &str, #[case] said: &str) {
    let name = property.split(':').next().unwrap_or_default();
    let all = ["repository: repo", "branch: b"].into_iter().filter(|line| !line.starts_with(name));
    let lines: String = all.chain([property]).map(|line| format!("    {line}\n")).collect();
    let Some(project) = Project::new().tiny(&format!("  - action: ostree-commit\n{lines}")) else {
        skip!("needs a static busybox")
    };
    project.run(["check", "recipe.yaml"]).code(2).says(said);
}

#[test]
fn builds_at_once_into_one_repository_lose_no_object() {
    needs_program!("ostree", "ostree");
    let projects: Vec<Project> = ["a", "b", "c"]
        .iter()
        .filter_map(|name| {
            let actions = COMMIT.replace("echo one", &format!("echo {name}")).replace("os/test", &format!("os/{name}"));
            Project::new().file("cap.tar", with_capability()).tiny(&actions.replace("subject: a test", "prune: 0"))
        })
        .collect();
    let [first, ..] = projects.as_slice() else { skip!("needs a static busybox") };
    let out = first.path("out");
    let out = out.to_str().unwrap();
    for _ in 0..2 {
        let args = ["build", "recipe.yaml", "--artifactdir", out];
        let running: Vec<_> = projects.iter().map(|project| project.start(args)).collect();
        running.into_iter().for_each(|build| drop(build.finish().success()));
        ostree(first, &["--repo=out/repo", "fsck"]);
        assert_eq!(ostree(first, &["--repo=out/repo", "refs", "--list"]).lines().count(), 3);
        for entry in first.path("out").read_dir().unwrap() {
            assert_eq!(entry.unwrap().file_name(), "repo");
        }
        // Each again, from the store, into a repository that has nothing any more.
        fs::remove_dir_all(out).unwrap();
    }
}
