//! What the store holds, for people.

use crate::harness::Project;

/// Two steps with artifacts, of which the second has 3 MB.
const ACTIONS: &str = "  - action: run\n    chroot: true\n    command: echo one > /one
  - action: pack\n    file: out.tar\n    compression: none\n";

#[test]
fn entries_name_their_recipes_and_steps_within_80_columns() {
    let Some(project) = Project::new().tiny(ACTIONS) else { skip!("needs a static busybox") };
    project.build([]).success();
    let listed = project.run(["store", "list"]).success().stdout;
    let line = |part: &str| listed.lines().find(|line| line.contains(part)).unwrap_or_default().to_owned();
    assert!(line("recipe.yaml · 2/3 run").contains("tree"), "{listed}");
    assert!(line("recipe.yaml · 3/3 pack").contains("output"), "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    let json: serde_json::Value =
        serde_json::from_str(&project.run(["store", "list", "--json"]).success().stdout).unwrap();
    assert!(
        json.as_array().unwrap().iter().any(|entry| entry["step"] == "3/3 pack" && entry["recipe"] == "recipe.yaml")
    );
}

#[test]
fn what_goes_from_the_store_is_said() {
    let Some(project) = Project::new().tiny(ACTIONS) else { skip!("needs a static busybox") };
    project.build([]).success().says_nothing_of("room in the store");
    project.run(["store", "size", "--set", "1M"]).success();
    project.write("recipe.yaml", project.read("recipe.yaml").replace("echo one", "echo two"));
    let built = project.build([]).success().says("note: room in the store: removed the ");
    built.says("used least recently");
    assert!(project.path("out/out.tar").exists());
}
