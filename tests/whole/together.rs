//! Builds at the same time on one store.

use std::fs;

use crate::harness::Project;

/// A step that takes its time and comes out differently each time.
const FIRST: &str = "  - action: run\n    chroot: true\n    command: echo > /begun; sleep 1; cat /proc/sys/kernel/random/uuid > /etc/one\n";

fn recipe(last: &str) -> String {
    format!(
        "{FIRST}  - action: run\n    chroot: true\n    command: {last}\n  - action: pack\n    file: out.tar\n    compression: none\n"
    )
}

#[test]
fn different_recipes_make_the_step_that_they_share_once() {
    let Some(project) = Project::new().tiny(&recipe("echo a > /etc/two")) else { skip!("needs a static busybox") };
    let other = project.read("recipe.yaml").replace("echo a", "echo b");
    project.write("other.yaml", other);
    let mut first = project.start(["build", "recipe.yaml", "--artifactdir", "a", "--json"]);
    let begun =
        || walkdir::WalkDir::new(project.store()).into_iter().flatten().any(|entry| entry.file_name() == "begun");
    first.wait_until("the shared step", begun);
    let second = project.start(["build", "other.yaml", "--artifactdir", "b", "--json"]);
    let (first, second) = (first.finish().success(), second.finish().success());
    assert_eq!(first.outcomes(), ["ran"; 4], "{first}");
    assert!(second.stdout.contains("waiting for another build that makes the same"), "{second}");
    assert!(second.stdout.contains("made by another build"), "{second}");
    let text = |dir: &str, path: &str| {
        let file = fs::File::open(project.path(dir).join("out.tar")).unwrap();
        let mut archive = tar::Archive::new(file);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut entry = entries.find(|entry| entry.path().unwrap().ends_with(path)).expect("the file");
        std::io::read_to_string(&mut entry).unwrap()
    };
    assert_eq!(text("a", "etc/one"), text("b", "etc/one"), "both ran it");
    assert_eq!((text("a", "etc/two"), text("b", "etc/two")), ("a\n".into(), "b\n".into()));
}

#[test]
fn the_one_that_waits_takes_over_when_the_other_is_killed() {
    let Some(project) = Project::new().tiny(&recipe("echo a > /etc/two")) else { skip!("needs a static busybox") };
    let mut first = project.start(["build", "recipe.yaml", "--artifactdir", "a"]);
    let begun =
        || walkdir::WalkDir::new(project.store()).into_iter().flatten().any(|entry| entry.file_name() == "begun");
    first.wait_until("the shared step", begun);
    let mut second = project.start_with(["build", "recipe.yaml", "--artifactdir", "b", "--json"], |command| {
        command.stdout(fs::File::create(project.path("events")).unwrap());
    });
    second.wait_until("the second to wait", || project.read("events").contains("waiting for another build"));
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.finish();
    second.finish().success();
    assert!(project.path("b/out.tar").exists() && !project.path("a").join("out.tar").exists());
}
