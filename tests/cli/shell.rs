//! `debforge shell`.

use crate::harness::Project;

const RECIPE: &str = "
  - action: run
    chroot: true
    command: echo one > /etc/one
  - action: run
    chroot: true
    command: echo two > /etc/two
";

#[test]
fn a_shell_sees_the_root_after_a_step_and_changes_nothing() {
    let Some(project) = Project::new().tiny(RECIPE) else { skip!("needs a static busybox") };
    project.build([]).success();
    project
        .run_with_input(
            ["shell", "recipe.yaml", "--after", "2", "--shell", "/bin/sh"],
            "cat /etc/one; ls /etc/two; touch /etc/three\n",
        )
        .prints("one\n");
    project
        .run_with_input(["shell", "recipe.yaml", "--shell", "/bin/sh"], "ls /etc; exit 0\n")
        .success()
        .prints("two\n");
    let last = project.run_with_input(["shell", "recipe.yaml", "--shell", "/bin/sh"], "ls /etc; exit 0\n").success();
    assert!(!last.stdout.contains("three"), "{last}");
}

#[test]
fn a_shell_after_a_step_that_is_not_there_is_refused() {
    let Some(project) = Project::new().tiny(RECIPE) else { skip!("needs a static busybox") };
    project.run(["shell", "recipe.yaml", "--after", "9"]).code(2).says("there is no step 9: the recipe has 3");
}
