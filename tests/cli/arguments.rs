//! Arguments, before any recipe is read.

use crate::harness::Project;

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let finished = Project::new().run(["--help"]).success();
    for name in [
        "build",
        "boot",
        "check",
        "diff",
        "inspect",
        "plan",
        "shell",
        "actions",
        "schema",
        "doctor",
        "store",
        "completions",
    ] {
        assert!(finished.stdout.contains(&format!("\n  {name}")), "{name} in {finished}");
    }
    finished.prints("130 interrupted");
}

#[test]
fn version_is_printed() {
    Project::new().run(["--version"]).success().prints(&format!("debforge {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_arguments_the_usage_is_shown() {
    Project::new().run([]).code(2).says("Usage: debforge");
}

#[test]
fn a_variable_without_a_value_is_refused() {
    Project::new().recipe("architecture: amd64\n").run(["recipe.yaml", "-t", "arch"]).code(2).says("NAME:VALUE");
}

#[test]
fn an_unknown_option_is_refused() {
    Project::new().run(["build", "recipe.yaml", "--no-such-option"]).code(2).says("--no-such-option");
}

#[test]
fn options_for_a_virtual_machine_are_said_to_do_nothing_without_one() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project
        .run(["recipe.yaml", "-b", "local", "-m", "2G", "--scratchsize", "8GB", "--dry-run"])
        .success()
        .says("--memory, --scratchsize do nothing here");
}

#[test]
fn a_recipe_that_is_not_there_is_named() {
    Project::new().run(["nothing.yaml"]).code(2).says("nothing.yaml");
}
