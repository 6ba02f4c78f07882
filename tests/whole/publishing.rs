//! Artifacts get their places: all of a build or none, whatever happens on the way, and one build after the other.

use std::fs;
use std::path::Path;

use debforge::store::Store;
use nix::sys::signal::Signal;

use crate::harness::Project;
use crate::machine::{needs_machine, needs_uml};

/// Three artifacts that say which version they are of.
fn recipe(version: &str) -> String {
    let command =
        |name: &str| format!("  - action: run\n    command: yes {version} | head -c 6000000 > $ARTIFACTDIR/{name}\n");
    ["a.bin", "b.bin", "tree/c.bin"]
        .map(|name| command(name).replace("yes", "mkdir -p $ARTIFACTDIR/tree; yes"))
        .concat()
}

/// What is in a directory, hidden files included.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The version that all artifacts are of.
fn version(out: &Path) -> String {
    let first = |name: &str| fs::read_to_string(out.join(name)).unwrap().lines().next().unwrap().to_owned();
    let versions = ["a.bin", "b.bin", "tree/c.bin"].map(first);
    assert!(versions.iter().all(|version| *version == versions[0]), "a mixed set: {versions:?}");
    versions[0].clone()
}

/// Whether a build is about to publish.
fn publishes(out: &Path) -> bool {
    names(out).iter().any(|name| name.starts_with(".debforge") && !name.ends_with(".lock"))
}

/// Kills builds while they publish into `out`, of which the tests' stores are on another file system or not.
fn killed(project: &Project, out: &Path) {
    let (mut before, dir) = ("0".to_owned(), out.to_str().unwrap());
    project.set_actions(&recipe(&before));
    project.run(["build", "recipe.yaml", "--artifactdir", dir]).success();
    for round in 1..8u64 {
        let now = round.to_string();
        project.set_actions(&recipe(&now));
        let mut build = project.start(["build", "recipe.yaml", "--artifactdir", dir]);
        build.wait_until("publishing", || publishes(out) || version_is(out, &now));
        std::thread::sleep(std::time::Duration::from_millis((round - 1) * 3));
        build.signal(Signal::SIGKILL);
        build.finish();
        assert!(project.leftovers().is_empty());
        // Any command tidies.
        project.run(["store", "list"]).success();
        assert_eq!(names(out), ["a.bin", "b.bin", "tree"], "round {round}");
        assert_eq!(names(&out.join("tree")), ["c.bin"]);
        let found = version(out);
        assert!(found == before || found == now, "{found}");
        before = found;
    }
    project.run(["build", "recipe.yaml", "--artifactdir", dir]).success();
    assert_eq!((version(out), names(out).len()), ("7".to_owned(), 3));
}

fn version_is(out: &Path, version: &str) -> bool {
    fs::read_to_string(out.join("tree/c.bin")).is_ok_and(|text| text.starts_with(version))
}

#[test]
fn builds_that_are_killed_leave_the_old_set_or_the_new() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    let out = project.path("out");
    killed(&project, &out);
}

#[test]
fn builds_that_are_killed_leave_the_old_set_or_the_new_on_another_file_system() {
    use std::os::unix::fs::MetadataExt;
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    let Ok(out) = tempfile::tempdir_in("/dev/shm") else { skip!("needs /dev/shm") };
    let device = |path: &Path| path.metadata().unwrap().dev();
    if device(out.path()) == device(project.store()) {
        skip!("needs /dev/shm as a file system of its own");
    }
    killed(&project, out.path());
}

#[test]
fn a_full_disk_of_artifacts_leaves_the_old_set() {
    needs_root!();
    let Some(project) = Project::new().tiny(&recipe("new")) else { skip!("needs a static busybox") };
    fs::create_dir(project.path("out")).unwrap();
    for name in ["a.bin", "b.bin", "tree/c.bin"] {
        project.write(&format!("out.before/{name}"), "old\n");
    }
    let out = project.path("out").display().to_string();
    let script = format!(
        "mount -t tmpfs -o size=10M none {out} && cp -a {out}.before/. {out} && \"$@\"; code=$?; cat {out}/a.bin {out}/b.bin {out}/tree/c.bin; ls -A {out}; exit $code"
    );
    let finished = project.run_behind(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"],
        ["build", "recipe.yaml", "--artifactdir", "out"],
    );
    let finished = finished.code(1).says("is full").says("--artifactdir");
    assert_eq!(finished.stdout, "old\nold\nold\na.bin\nb.bin\ntree\n");
}

#[test]
fn a_build_waits_while_another_publishes_into_the_same_directory() {
    let Some(project) = Project::new().tiny(&recipe("new")) else { skip!("needs a static busybox") };
    fs::create_dir(project.path("out")).unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = Store::open(other.path()).unwrap();
    let place = other.publication(&project.path("out")).unwrap().place(&mut |_| {}).unwrap();
    let errors = project.path("errors");
    let mut build = project.start_with(["build", "recipe.yaml", "--artifactdir", "out"], |command| {
        command.stderr(fs::File::create(&errors).unwrap());
    });
    let said = || fs::read_to_string(&errors).unwrap();
    build.wait_until("the build to wait", || said().contains("waiting for another build that publishes into"));
    assert!(said().contains(&format!("(pid {}, since ", std::process::id())), "{}", said());
    assert!(!project.path("out/a.bin").exists());
    drop(place);
    build.finish().success();
    assert_eq!((version(&project.path("out")), names(&project.path("out")).len()), ("new".to_owned(), 3));
}

#[test]
fn a_build_in_a_machine_waits_for_one_outside() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny(&recipe("new")) else { skip!("needs a static busybox") };
    fs::create_dir(project.path("out")).unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = Store::open(other.path()).unwrap();
    let place = other.publication(&project.path("out")).unwrap().place(&mut |_| {}).unwrap();
    let errors = project.path("errors");
    let mut build = project.start_with(["build", "recipe.yaml", "--artifactdir", "out", "-b", "uml"], |command| {
        command.stderr(fs::File::create(&errors).unwrap());
    });
    let said = || fs::read_to_string(&errors).unwrap();
    build.wait_until("the build to wait", || said().contains("waiting for another build that publishes into"));
    assert!(!project.path("out/a.bin").exists());
    // What it has ready is not taken for that of a killed build.
    drop(other.publication(&project.path("out")).unwrap());
    assert!(publishes(&project.path("out")));
    drop(place);
    build.finish().success();
    assert_eq!((version(&project.path("out")), names(&project.path("out")).len()), ("new".to_owned(), 3));
}

#[test]
fn a_killed_machine_leaves_nothing_in_the_artifact_directory() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny(&recipe("new")) else { skip!("needs a static busybox") };
    fs::create_dir(project.path("out")).unwrap();
    let mut build = project.start(["build", "recipe.yaml", "--artifactdir", "out", "-b", "uml"]);
    build.wait_until("publishing", || publishes(&project.path("out")));
    build.signal(Signal::SIGKILL);
    build.finish();
    assert!(project.leftovers().is_empty());
    project.run(["store", "list"]).success();
    let left = names(&project.path("out"));
    assert!(left.is_empty() || (left.len() == 3 && version(&project.path("out")) == "new"), "{left:?}");
}

/// Writes what it sees of its directory.
const LOOKS: &str = "  - action: run\n    command: cd $RECIPEDIR; test recipe.yaml; for round in 1 2 3; do ls -A; sleep 0.3; done > $ARTIFACTDIR/seen\n";

#[test]
fn a_command_of_the_host_sees_nothing_of_what_another_build_has_half_ready() {
    let Some(project) = Project::new().tiny(LOOKS) else { skip!("needs a static busybox") };
    let other = tempfile::tempdir().unwrap();
    let other = Store::open(other.path()).unwrap();
    let before = other.publication(&project.path("")).unwrap();
    fs::write(before.files().join("half"), "").unwrap();
    let build = project.start(["build", "recipe.yaml", "--artifactdir", "."]);
    std::thread::sleep(std::time::Duration::from_millis(600));
    let meanwhile = other.publication(&project.path("")).unwrap();
    build.finish().success();
    let seen = project.read("seen");
    assert!(seen.contains("recipe.yaml") && !seen.contains("debforge"), "{seen}");
    drop((before, meanwhile));
    assert!(!names(&project.path("")).iter().any(|name| name.starts_with(".debforge")));
}
