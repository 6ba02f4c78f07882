//! debos's arguments: what debforge takes of them, and the program under debos's name.

use crate::harness::Project;
use crate::harness::project::Finished;

/// debforge by the name of debos.
fn debos<'a>(project: &Project, args: impl IntoIterator<Item = &'a str>) -> Finished {
    project.run_behind(["bash", "-c", "exec -a /usr/bin/debos \"$0\" \"$@\""], args)
}

macro_rules! tiny {
    ($actions:expr) => {{
        needs_program!("bash", "bash");
        match Project::new().tiny($actions) {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    }};
}

#[test]
fn debforge_takes_debos_options_in_all_their_forms() {
    let project = tiny!("  - action: run\n    chroot: true\n    command: test \"$A$B\" = 14\n");
    project
        .run([
            "--artifactdir=first",
            "--artifactdir",
            "out",
            "-tname:x",
            "--template-var=other:y:z",
            "recipe.yaml",
            "-e",
            "A:1",
            "--environ-var=B:2",
            "-eB:3",
            "-e=B:4",
            "--disable-fakemachine",
            "-v",
            "--verbose",
            "-s",
            "/bin/sh",
            "--debug-shell",
        ])
        .success();
    project.run(["recipe.yaml", "--fakemachine-backend=auto", "--dry-run"]).success();
    project.run(["recipe.yaml", "--disable-fakemachine", "-b", "kvm"]).code(2);
}

#[test]
fn a_link_of_its_name_is_debos() {
    let project = tiny!("  - action: pack\n    file: root.tar.gz\n");
    debos(&project, ["recipe.yaml", "--artifactdir", "out", "--disable-fakemachine", "-c", "2", "-m", "2Gb"]).success();
    assert!(project.path("out/root.tar.gz").exists());
    debos(&project, ["--dry-run", "--scratchsize=8GB", "recipe.yaml", "--print-recipe"]).success().prints("unpack");
}

#[test]
fn there_are_no_commands_and_no_other_options() {
    let project = tiny!("  - action: pack\n    file: root.tar.gz\n");
    debos(&project, ["build"]).code(1).says("build");
    std::fs::rename(project.path("recipe.yaml"), project.path("build")).unwrap();
    debos(&project, ["build", "--dry-run"]).success();
    debos(&project, ["build", "--no-cache"]).code(1).says("--no-cache");
    debos(&project, ["build", "-b", "local"]).code(1).says("local");
}

#[test]
fn what_goes_wrong_ends_with_one() {
    let project = tiny!("  - action: run\n    chroot: true\n    command: exit 7\n");
    debos(&project, []).code(1).says("No recipe given!");
    debos(&project, ["a.yaml", "b.yaml"]).code(1).says("No recipe given!");
    debos(&project, ["nothing.yaml"]).code(1).says("nothing.yaml");
    debos(&project, ["recipe.yaml", "--disable-fakemachine", "-b", "kvm"]).code(1).says("mutually exclusive");
    debos(&project, ["recipe.yaml", "--disable-fakemachine"]).code(1).says("exited with code 7");
    project.write("recipe.yaml", "architecture: {{ .none }}\nactions:\n  - action: unheard-of\n");
    debos(&project, ["recipe.yaml"]).code(1).says("unknown action");
}

#[test]
fn help_and_version_speak_of_debos() {
    let project = Project::new();
    needs_program!("bash", "bash");
    let help = debos(&project, ["--help"]).success();
    for option in [
        "-b, --fakemachine-backend",
        "--artifactdir",
        "-t, --template-var",
        "--debug-shell",
        "-s, --shell",
        "--scratchsize",
        "-c, --cpus",
        "-m, --memory",
        "--show-boot",
        "-e, --environ-var",
        "-v, --verbose",
        "--print-recipe",
        "--dry-run",
        "--disable-fakemachine",
        "--version",
    ] {
        assert!(help.stdout.contains(option), "{option} in {help}");
    }
    help.prints("Usage: debos");
    debos(&project, ["--version"]).success().prints("debos 1.");
}

#[test]
fn recipes_are_go_templates_and_read_as_debos_reads_them() {
    let project = tiny!("");
    let actions = "  - action: run
    chroot: true
    unheard-of: 1
    command: echo {{ $suite }} {{ .name }}
";
    let recipe = project.read("recipe.yaml") + actions;
    project.write("recipe.yaml", format!("{{{{- $suite := or .suite \"trixie\" -}}}}\n{recipe}"));
    debos(&project, ["recipe.yaml", "-t", "name:forge", "-v", "--disable-fakemachine"])
        .success()
        .says("trixie forge")
        .says("unheard-of");
}

#[test]
fn proxies_reach_the_steps_in_both_cases_unless_they_are_unset() {
    let Some(project) = Project::new()
        .env("http_proxy", "http://proxy.example:3128")
        .env("NO_PROXY", "mirror.example")
        .env("ftp_proxy", "http://ftp.example")
        .env("RSYNC_PROXY", "rsync.example")
        .env("all_proxy", "http://all.example")
        .tiny("  - action: run\n    chroot: true\n    command: env | grep -i proxy || true\n")
    else {
        skip!("needs a static busybox")
    };
    project
        .build(["-v", "-e", "ftp_proxy:"])
        .success()
        .says("http_proxy=http://proxy.example:3128")
        .says("NO_PROXY=mirror.example")
        .says("RSYNC_PROXY=rsync.example")
        .says("all_proxy=http://all.example")
        .says_nothing_of("ftp_proxy=");
}

/// What a recipe needs that hands the image's device to a step.
const DEVICE: &str = "  - action: image-partition
    imagename: disk.img
    imagesize: 64MB
    partitiontype: msdos
    partitions: [{name: root, fs: ext4, start: 1MiB, end: 100%}]
    mountpoints: [{mountpoint: /, partition: root}]
  - action: filesystem-deploy
    first-boot: false
  - action: run
    chroot: true
    command: test -b \"$IMAGE\" && test -b $IMAGE-part1 && echo $IMAGE > /etc/image
";

#[test]
fn an_image_is_mounted_where_a_step_of_debos_uses_its_device() {
    let project = tiny!(DEVICE);
    // Who wrote the recipe for debforge is asked to say so.
    project.run(["check", "recipe.yaml", "--recipe-only"]).code(2).says("strategy: mounted");
    let plan = debos(&project, ["recipe.yaml", "--dry-run", "--disable-fakemachine"]);
    if !crate::image::mounted::can_mount() {
        plan.code(1).says("only root of the machine can do");
        return;
    }
    plan.success();
    debos(&project, ["recipe.yaml", "--artifactdir", "out", "--disable-fakemachine"]).success();
    let root = crate::image::disk::partition(&project, 1);
    assert!(crate::image::disk::debugfs(&root, "cat /etc/image").starts_with("/dev/disk/"));
}
