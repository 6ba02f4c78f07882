//! `debforge plan`: what it foretells is what the build does.

use serde_json::Value;

use crate::harness::Project;

const RECIPE: &str = "
  - action: run
    chroot: true
    command: echo one > /etc/one
  - action: overlay
    source: files
  - action: pack
    file: out.tar.gz
";

/// The steps of `debforge plan --json`.
fn steps(project: &Project) -> Vec<Value> {
    let finished = project.run(["plan", "recipe.yaml", "--artifactdir", "out", "--json"]).success();
    let plan: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"));
    plan["steps"].as_array().expect("steps").clone()
}

fn hits(project: &Project) -> Vec<bool> {
    steps(project).iter().map(|step| step["hit"] == true).collect()
}

macro_rules! project {
    () => {
        match Project::new().file("files/srv/text", "text\n").tiny(RECIPE) {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    };
}

#[test]
fn the_plan_agrees_with_the_build_on_hits() {
    let project = project!();
    let ran = |project: &Project| {
        project.build(["--json"]).success().outcomes().iter().map(|outcome| outcome == "ran").collect::<Vec<_>>()
    };
    assert_eq!(hits(&project), [false; 4]);
    assert_eq!(ran(&project), [true; 4]);
    assert_eq!(hits(&project), [true; 4]);
    assert_eq!(ran(&project), [false; 4]);
    project.write("files/srv/text", "other\n");
    assert_eq!(hits(&project), [true, true, false, false]);
    assert_eq!(ran(&project), [false, false, true, true]);
}

#[test]
fn the_plan_names_what_changed() {
    let project = project!();
    project.build([]).success();
    project.write("files/srv/text", "other\n");
    project.run(["plan", "recipe.yaml", "--artifactdir", "out"]).success().prints("cached").prints("srv/text");
}

#[test]
fn planning_twice_gives_the_same_ids_and_makes_nothing() {
    let project = project!();
    let ids = |project: &Project| steps(project).iter().map(|step| step["id"].clone()).collect::<Vec<_>>();
    let first = ids(&project);
    assert!(first.iter().all(Value::is_string), "{first:?}");
    assert_eq!(ids(&project), first);
    assert!(!project.path("out").exists());
}

#[test]
fn ids_do_not_depend_on_where_the_recipe_stands() {
    let (first, second) = (project!(), project!());
    let ids = |project: &Project| steps(project).iter().map(|step| step["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&second));
}
