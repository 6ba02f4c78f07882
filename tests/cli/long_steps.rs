//! What a build without a terminal says while a step takes long.

use crate::harness::Project;

#[test]
fn a_long_step_is_shown_before_it_is_over() {
    let recipe = "  - action: run\n    label: quick\n    command: 'true'\n  - action: run\n    label: slow\n    command: echo half; sleep 4\n";
    let Some(project) = Project::new().tiny(recipe) else { skip!("needs a static busybox") };
    let said = project.build([]).success().stderr;
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("slow")).collect();
    let [begun, over] = lines.as_slice() else { panic!("{said}") };
    assert!(begun.contains(" s … ") && begun.ends_with("half") && !over.contains("…"), "{said}");
    // For programs nothing is mixed in.
    let json = project.build(["--json", "--no-cache"]).success();
    assert_eq!(json.stderr, "");
}
