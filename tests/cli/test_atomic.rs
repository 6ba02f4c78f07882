//! What `debforge test-atomic` says before it starts a machine; tests/boot/atomic.rs has the rest.

use crate::harness::Project;

#[test]
fn what_is_wrong_is_said_before_anything_is_built() {
    let Some(project) = Project::new().tiny("  - action: pack\n    file: out.tar.gz\n") else {
        skip!("needs a static busybox");
    };
    let run = |arguments: &[&str]| project.run(["test-atomic"].into_iter().chain(arguments.iter().copied()));
    run(&["recipe.yaml", "recipe.yaml"]).code(2).says("recipe.yaml deploys no OSTree commit").says_nothing_of("1/2");
    run(&["recipe.yaml"]).code(2).says("<RECIPE_B>");
    run(&["recipe.yaml", "none.yaml"]).code(2);
    run(&["--image", "disk.img"]).code(2).says("--repository <DIR>").says("--update <NAME>");
    run(&["recipe.yaml", "recipe.yaml", "--stage", "dance"]).code(2).says("power-cut");
    assert!(!project.path("out.tar.gz").exists());
}

#[test]
fn an_image_without_deployments_is_refused() {
    needs_program!("ostree", "ostree");
    let project = Project::new().file("disk.img", vec![0; 1 << 20]);
    let repository = project.path("repo");
    let repo = format!("--repo={}", repository.display());
    let tree = project.path("tree");
    std::fs::create_dir(&tree).unwrap();
    for words in [vec!["init", "--mode=archive"], vec!["commit", "--branch=b", "tree"]] {
        let mut ostree = std::process::Command::new("ostree");
        let output = ostree.current_dir(project.path("")).arg(words[0]).arg(&repo).args(&words[1..]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let run = |image: &str, update: &str| {
        project.run(["test-atomic", "--image", image, "--repository", "repo", "--update", update])
    };
    run("disk.img", "b").code(2).says("disk.img has no ext4 file system with OSTree's deployments");
    run("disk.img", "c").code(1).says("has no branch or commit `c`").says("it has b");
    run("none.img", "b").code(2).says("none.img cannot be opened");
}
