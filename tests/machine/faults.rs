//! What can happen to a machine: each has its own words, leaves nothing behind, and costs no artifact.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use rstest::rstest;

use crate::harness::project::Running;
use crate::harness::{Project, User};

const PACK: &str = "  - action: pack\n    file: out.tar.gz\n";

/// A project with an artifact of a good build, and a recipe whose last step but one is `command`, run
/// beside the root.
fn project(machine: &str, command: &str) -> Option<(Project, Vec<u8>)> {
    let project = Project::new().kernel_of(machine).tiny(PACK)?;
    project.build(["-b", if quick(machine) { machine } else { "local" }]).success();
    let artifact = fs::read(project.path("out/out.tar.gz")).expect("an artifact");
    project.set_actions(&format!("  - action: run\n    command: |\n{}{PACK}", indented(command)));
    Some((project, artifact))
}

/// Whether a machine starts soon enough to be started more than once in a test.
fn quick(machine: &str) -> bool {
    machine == "uml"
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}

/// Nothing is left, and the artifact is still the last good one.
fn unharmed(project: &Project, artifact: &[u8]) {
    assert!(project.leftovers().is_empty(), "left behind: {:#?}", project.leftovers());
    assert!(fs::read(project.path("out/out.tar.gz")).expect("an artifact") == artifact, "the last good artifact");
    assert_eq!(fs::read_dir(project.path("out")).expect("artifacts").count(), 1, "half an artifact is left");
}

/// The next build works in the machine that had the trouble.
fn works_again(project: &Project, machine: &str) {
    if quick(machine) {
        project.set_actions(PACK);
        project.build(["-b", machine]).success();
    }
}

#[rstest]
#[case::uml("uml")]
#[case::qemu("qemu")]
fn a_panic_of_the_kernel_is_named(#[case] machine: &str) {
    needs_machine!(machine);
    let crash = "mkdir /tmp/proc; mount -t proc proc /tmp/proc; echo c > /tmp/proc/sysrq-trigger; sleep 60";
    let Some((project, artifact)) = project(machine, "true") else { skip!("needs a static busybox") };
    // A step that works on the image's device may do so to the machine's kernel, others may not.
    project.set_actions(&format!(
        "  - action: image-partition
    imagename: disk.img
    imagesize: 20 MiB
    partitiontype: gpt
    strategy: mounted
    partitions: [{{name: root, fs: ext4, size: rest}}]
    mountpoints: [{{mountpoint: /, partition: root}}]
  - action: filesystem-deploy
    first-boot: false
  - action: run
    command: {crash}\n"
    ));
    project.build(["-b", machine]).code(1).says("the machine's kernel panicked: sysrq triggered crash");
    unharmed(&project, &artifact);
    works_again(&project, machine);
}

#[test]
fn a_machine_without_memory_left_says_who_was_ended_and_what_helps() {
    needs_uml!();
    let Some((project, artifact)) = project("uml", "tail /dev/zero") else { skip!("needs a static busybox") };
    let ended = project.build(["-b", "uml", "-m", "300M"]).code(1);
    // Whichever is reached first: the machine's memory, or what this machine lets one process of it have.
    let inside = ended.stderr.contains("its kernel ended tail") && ended.stderr.contains("`-m 4G`");
    assert!(inside || ended.stderr.contains("vm.max_map_count"), "{ended}");
    unharmed(&project, &artifact);
}

#[test]
fn a_program_with_all_the_pieces_of_memory_that_this_machine_allows_is_ended() {
    needs_uml!();
    needs_program!("python3", "python3");
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").expect("a limit");
    if limit.trim().parse::<u64>().expect("a number") > 70_000 {
        skip!("vm.max_map_count is {limit}");
    }
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(why) => skip!("{why}"),
    };
    // No page that is touched has a neighbour.
    let touch = "
  - action: run
    command: |
      python3 -c '
      import mmap
      memory = mmap.mmap(-1, 600 << 20, mmap.MAP_PRIVATE)
      for at in range(0, len(memory), 8192): memory[at] = 1
      '
";
    let Some(project) = Project::of(user).kernel_of("uml").tiny(touch) else { skip!("needs a static busybox") };
    project.build(["-b", "uml"]).code(1).says("sudo sysctl vm.max_map_count=1048576");
}

#[test]
fn a_full_disk_of_the_machine_names_the_option() {
    needs_uml!();
    let fill = "dd if=/dev/zero of=\"$ROOTDIR/big\" bs=1M count=3000";
    let Some((project, artifact)) = project("uml", fill) else { skip!("needs a static busybox") };
    project.build(["-b", "uml", "--scratchsize", "1GiB"]).code(1).says("`--scratchsize SIZE` gives it a larger one");
    unharmed(&project, &artifact);
}

/// The process ids of machines that were started for a project.
fn machines(project: &Project, machine: &str) -> Vec<String> {
    let store = project.store().display().to_string();
    let program = if machine == "uml" { "linux.uml" } else { "qemu-system-" };
    let output =
        Command::new("pgrep").args(["-f", &format!("{program}.* .*{store}")]).output().expect("starting pgrep");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Starts the build of a step that does not end, its messages going to the file `said`, and waits for that step.
fn begun<'a>(project: &'a Project, machine: &str, patience: &str) -> Running<'a> {
    let args = ["build", "recipe.yaml", "--artifactdir", "out", "-b", machine, "-v"];
    let log = fs::File::create(project.path("said")).expect("a log");
    let mut build = project.start_with(args, |command| {
        command.env("DEBFORGE_MACHINE_PATIENCE", patience).stderr(log);
    });
    // The command's own text has no such line.
    let begun = || project.read("said").lines().any(|line| line.trim_end().ends_with("│ begun"));
    build.wait_until("the step", begun);
    build
}

/// A step that does not end.
const ENDLESS: &str = "echo begun; sleep 600";

#[rstest]
#[case::uml("uml", "uml was killed by signal 9")]
#[case::qemu("qemu", "qemu was killed by signal 9")]
fn a_killed_machine_is_named(#[case] machine: &str, #[case] expected: &str) {
    signalled(machine, "-KILL", "60", expected);
}

// QEMU takes some seconds to its first sign of life, which count.
#[rstest]
#[case::uml("uml", "8", "the machine has not answered for 8 s")]
#[case::qemu("qemu", "15", "the machine has not answered for 15 s")]
fn a_machine_that_hangs_is_ended(#[case] machine: &str, #[case] patience: &str, #[case] expected: &str) {
    signalled(machine, "-STOP", patience, expected);
}

fn signalled(machine: &str, signal: &str, patience: &str, expected: &str) {
    needs_machine!(machine);
    needs_program!("pgrep", "procps");
    let Some((project, artifact)) = project(machine, ENDLESS) else { skip!("needs a static busybox") };
    let build = begun(&project, machine, patience);
    let running = machines(&project, machine);
    assert!(!running.is_empty(), "no machine is running");
    for process in running {
        let _ = Command::new("kill").args([signal, &process]).status();
    }
    build.finish().code(1);
    let said = project.read("said");
    assert!(said.contains(expected), "{said}");
    fs::remove_file(project.path("said")).expect("a log");
    unharmed(&project, &artifact);
    works_again(&project, machine);
}

#[test]
fn ctrl_c_ends_the_machine_in_good_order() {
    needs_uml!();
    let Some((project, artifact)) = project("uml", ENDLESS) else { skip!("needs a static busybox") };
    let build = begun(&project, "uml", "60");
    build.signal(Signal::SIGINT);
    build.finish().code(130);
    assert!(project.read("said").contains("interrupted"), "{}", project.read("said"));
    fs::remove_file(project.path("said")).expect("a log");
    unharmed(&project, &artifact);
    works_again(&project, "uml");
}

#[test]
fn a_killed_debforge_takes_its_machine_along() {
    needs_uml!();
    let Some((project, artifact)) = project("uml", ENDLESS) else { skip!("needs a static busybox") };
    let build = begun(&project, "uml", "60");
    build.signal(Signal::SIGKILL);
    build.finish();
    fs::remove_file(project.path("said")).expect("a log");
    unharmed(&project, &artifact);
    works_again(&project, "uml");
}

#[test]
fn a_kernel_that_is_none_is_said_at_once() {
    needs_uml!();
    let Some(project) = Project::new().tiny(PACK) else { skip!("needs a static busybox") };
    project.write("kernel", "#!/bin/sh\necho no kernel at all\nexit 7\n");
    project.chmod("kernel", 0o755);
    project
        .build(["-b", "uml", "--kernel", "kernel"])
        .code(1)
        .says("uml ended with exit code 7 before its work was done")
        .says("no kernel at all");
}

#[test]
fn a_machine_that_is_too_small_is_refused_before_it_starts() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny(PACK) else { skip!("needs a static busybox") };
    let refused = project.build(["-b", "uml", "-m", "16M"]).code(2);
    assert!(refused.stderr.contains("a machine with 16 MiB of memory cannot build anything"), "{refused}");
    project.build(["-b", "uml", "--scratchsize", "1MB"]).code(2).says("too small to build anything");
    project.build(["-b", "uml", "-c", "0"]).code(2).says("a machine without processors does nothing");
}
