//! Output that nobody reads any more (`debforge plan | head`).

use std::io::PipeWriter;
use std::process::{Command, Output, Stdio};

use rstest::rstest;

use crate::harness::Project;

const RECIPE: &str =
    "  - action: run\n    chroot: true\n    command: echo so far\n  - action: pack\n    file: out.tar\n";

/// A pipe that nobody reads from.
fn closed() -> PipeWriter {
    std::io::pipe().unwrap().1
}

/// Runs debforge with something closed.
fn run(project: &Project, words: &str, close: impl FnOnce(&mut Command)) -> Output {
    let mut command = project.command(words.split(' '));
    close(&mut command);
    command.stdin(Stdio::null()).output().unwrap()
}

fn assert_quiet(words: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(141), "`{words}`: {said}");
    assert!(!said.contains("panicked") && !said.contains("error:"), "`{words}`: {said}");
}

#[rstest]
#[case("plan recipe.yaml")]
#[case("plan recipe.yaml --json")]
#[case("build recipe.yaml --artifactdir out --json")]
#[case("build recipe.yaml --artifactdir out --dry-run")]
#[case("build recipe.yaml --print-recipe")]
#[case("inspect root.tar")]
#[case("inspect root.tar --json")]
#[case("diff root.tar recipe.tar")]
#[case("doctor")]
#[case("store list")]
#[case("store list --json")]
#[case("actions")]
#[case("actions run")]
#[case("schema")]
#[case("completions bash")]
#[case("--help")]
#[case("--version")]
fn a_reader_that_goes_away_ends_it_quietly(#[case] words: &str) {
    let Some(project) = Project::new().tiny(RECIPE) else { skip!("needs a static busybox") };
    std::fs::copy(project.path("root.tar"), project.path("recipe.tar")).unwrap();
    // So that the store has something to be listed.
    project.build([]).success();
    let heard = run(&project, words, |_| {});
    assert!(!heard.stdout.is_empty() && heard.status.code() != Some(141), "`{words}`: {heard:?}");
    let output = run(&project, words, |command| {
        command.stdout(closed());
    });
    assert_quiet(words, &output);
    assert!(project.leftovers().is_empty());
}

#[rstest]
#[case("check recipe.yaml")]
#[case("build recipe.yaml --artifactdir out")]
fn so_does_one_of_messages(#[case] words: &str) {
    let Some(project) = Project::new().tiny(RECIPE) else { skip!("needs a static busybox") };
    let output = run(&project, words, |command| {
        command.stderr(closed());
    });
    assert_quiet(words, &output);
    assert!(project.leftovers().is_empty() && !project.path("out/out.tar").exists());
    project.build([]).success();
}

#[test]
fn a_disk_that_is_full_is_no_closed_pipe() {
    let Some(project) = Project::new().tiny(RECIPE) else { skip!("needs a static busybox") };
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = run(&project, "plan recipe.yaml", |command| {
        command.stdout(full());
    });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("writing to standard output: No space left on device"), "{said}");
    // What is said to people is of no use to a program that reads the exit code.
    let output = run(&project, "build recipe.yaml --artifactdir out", |command| {
        command.stderr(full());
    });
    assert_eq!(output.status.code(), Some(0));
    assert!(project.path("out/out.tar").exists());
}
