//! Which machine a build is given when nobody names one.

use crate::harness::{Project, User};

const PACK: &str = "  - action: pack\n    file: out.tar.gz\n";

fn requiring(project: &Project, header: &str) {
    let recipe = project.read("recipe.yaml");
    project.write("recipe.yaml", format!("{header}\n{recipe}"));
}

#[test]
fn a_recipe_can_require_a_machine() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny(PACK) else { skip!("needs a static busybox") };
    requiring(&project, "machine: required\nmemory: 700MiB");
    let built = project.build([]).success();
    assert!(built.stderr.contains("700 MiB"), "{built}");
    project.build(["-b", "local"]).code(2).says("the recipe has `machine: required`");
}

#[test]
fn who_cannot_build_here_is_given_a_machine_and_told_why() {
    needs_root!();
    needs_uml!();
    let user = match User::without_ranges() {
        Ok(user) => user,
        Err(why) => skip!("{why}"),
    };
    let Some(project) = Project::of(user).kernel_of("uml").tiny(PACK) else { skip!("needs a static busybox") };
    project.build([]).success().says("in a machine, since").says("too few subordinate ids");
    assert!(project.path("out/out.tar.gz").exists());
}

#[test]
fn what_only_a_machine_heeds_is_said_to_do_nothing_without_one() {
    let Some(project) = Project::new().tiny(PACK) else { skip!("needs a static busybox") };
    project.build(["-b", "local", "-m", "4G"]).success().says("--memory does nothing here");
}

#[test]
fn a_header_that_is_wrong_is_shown_at_its_line() {
    let Some(project) = Project::new().tiny(PACK) else { skip!("needs a static busybox") };
    requiring(&project, "machine: wanted\nmemory: much");
    project
        .run(["check", "--recipe-only", "recipe.yaml"])
        .code(2)
        .says("`machine` cannot be wanted")
        .says("`memory` is not a size");
}
