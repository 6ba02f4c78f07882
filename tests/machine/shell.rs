//! Shells in machines.

use crate::harness::Project;

const RECIPE: &str = "
  - action: run
    chroot: true
    command: echo one > /etc/one
";

#[test]
fn a_shell_in_a_machine_sees_the_root() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny(RECIPE) else { skip!("needs a static busybox") };
    let shell = ["shell", "recipe.yaml", "-b", "uml", "--shell", "/bin/sh"];
    let said = project.run_with_input(shell, "cat /etc/one; echo $((6 * 7)); exit 0\n").success();
    assert!(said.stdout.contains("one") && said.stdout.contains("42"), "{said}");
}

#[test]
fn a_failed_step_can_be_looked_at_in_the_machine() {
    needs_uml!();
    let failing = "  - action: run\n    chroot: true\n    command: echo half > /etc/half; exit 1\n";
    let Some(project) = Project::new().kernel_of("uml").tiny(failing) else { skip!("needs a static busybox") };
    let build = ["build", "recipe.yaml", "-b", "uml", "--debug-shell", "--shell", "/bin/sh"];
    let said = project.run_with_input(build, "cat /etc/half\nexit\n").code(1);
    assert!(said.stdout.contains("half"), "{said}");
}
