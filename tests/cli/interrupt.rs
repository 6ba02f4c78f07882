//! Builds that are stopped. In which kind of step they may be is the affair of `whole/stopped`.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::Project;

/// A project whose `out/out.tar.gz` is there already, and whose recipe now has a step that takes long:
/// it says when it is in it by a line of its output.
fn long_build(step: &str) -> Option<Project> {
    let project = Project::new().tiny("  - action: pack\n    file: out.tar.gz\n")?;
    project.build([]).success();
    project.set_actions(&format!("{step}  - action: pack\n    file: out.tar.gz\n"));
    Some(project)
}

const IN_ROOT: &str = "  - action: run\n    chroot: true\n    command: echo so far > /etc/half; sleep 600\n";

/// Stops a build in the middle of a step; nothing may be left of it, and the next build works.
fn stopped(step: &str, signal: Signal, code: Option<i32>) {
    let Some(project) = long_build(step) else { skip!("needs a static busybox") };
    let before = fs::read(project.path("out/out.tar.gz")).unwrap();
    let mut build = project.start(["build", "recipe.yaml", "--artifactdir", "out"]);
    build.wait_until("the long step", || begun(&project));
    build.signal(signal);
    let finished = build.finish();
    assert_eq!(finished.code, code, "{finished}");
    assert!(project.leftovers().is_empty(), "left behind: {:#?}", project.leftovers());
    assert!(fs::read(project.path("out/out.tar.gz")).unwrap() == before, "the last good artifact stays");
    let short = step.replace("sleep 600", "true");
    project.set_actions(&format!("{short}  - action: pack\n    file: out.tar.gz\n"));
    project.build([]).success();
}

/// Whether the long step has begun: what it wrote stands in its layer, somewhere in the store.
fn begun(project: &Project) -> bool {
    walkdir::WalkDir::new(project.store()).into_iter().flatten().any(|entry| entry.file_name() == "half")
}

#[test]
fn a_termination_signal_leaves_nothing() {
    stopped(IN_ROOT, Signal::SIGTERM, Some(130));
}

#[test]
fn a_killed_step_does_not_count_as_done() {
    let Some(project) = long_build(IN_ROOT) else { skip!("needs a static busybox") };
    let mut build = project.start(["build", "recipe.yaml", "--artifactdir", "out"]);
    build.wait_until("the long step", || begun(&project));
    build.signal(Signal::SIGKILL);
    build.finish();
    let plan = project.run(["plan", "recipe.yaml", "--artifactdir", "out", "--json"]).success();
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!(plan["steps"][1]["hit"], false, "{plan:#}");
}
