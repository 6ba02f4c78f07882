//! `debforge check`, and what is found before anything runs.

use crate::harness::Project;

const TWO_FAULTS: &str = "
  - action: run
    comand: echo
  - action: pakc
    file: out.tar
";

#[test]
fn a_good_recipe_is_said_to_be_good() {
    let Some(project) = Project::new().tiny("  - action: pack\n    file: out.tar.gz\n") else {
        skip!("needs a static busybox");
    };
    project.run(["check", "recipe.yaml"]).success().says("2 steps");
}

#[test]
fn all_faults_are_shown_at_once_and_nothing_runs() {
    let Some(project) = Project::new().tiny(TWO_FAULTS) else { skip!("needs a static busybox") };
    let finished = project.build([]).code(2);
    assert!(finished.stdout.is_empty(), "{finished}");
    finished
        .says("comand")
        .says("did you mean `command`?")
        .says("pakc")
        .says("did you mean `pack`?")
        .says("recipe.yaml:7:5")
        .says("recipe.yaml:8:13");
    assert!(!project.path("out").exists(), "nothing is written for a wrong recipe");
}

#[test]
fn a_file_that_is_not_there_is_a_fault_of_the_recipe() {
    let project = Project::new().recipe("architecture: amd64\nactions:\n  - action: overlay\n    source: nowhere\n");
    project.run(["check", "recipe.yaml", "--recipe-only"]).code(2).says("nowhere").says("recipe.yaml:4:13");
}

#[test]
fn an_undefined_variable_is_a_fault_of_the_recipe() {
    let project = Project::new().recipe("architecture: {{ arch }}\nactions:\n  - action: pack\n    file: a.tar\n");
    project.run(["check", "recipe.yaml", "--recipe-only"]).code(2).says("arch").says("recipe.yaml:1");
}

#[test]
fn a_missing_tool_is_found_before_the_first_step() {
    needs_root!();
    let Some(project) = Project::new().tiny("  - action: pack\n    file: out.tar.lzo\n    compression: lzop\n") else {
        skip!("needs a static busybox");
    };
    let Some(lzop) = crate::harness::find_program("lzop") else { skip!("needs lzop") };
    // In a mount namespace of its own, a device stands where the program is.
    let hide = format!("mount --bind /dev/null {} && exec \"$@\"", lzop.display());
    project
        .run_behind(["unshare", "--mount", "sh", "-c", &hide, "sh"], ["build", "recipe.yaml"])
        .code(3)
        .says("lzop")
        .says("apt install lzop");
}

#[test]
fn two_efi_system_partitions_are_for_grub() {
    let recipe = |loader: &str| {
        format!(
            "  - action: image-partition
    imagename: two.img
    imagesize: 1 GiB
    partitiontype: gpt
    partitions:
      - {{name: efi, fs: vfat, size: 64MiB, flags: [esp]}}
      - {{name: efi2, fs: vfat, size: 64MiB, flags: [esp]}}
      - {{name: root, fs: ext4, size: rest}}
    mountpoints:
      - {{mountpoint: /, partition: root}}
      - {{mountpoint: /boot/efi, partition: efi}}
      - {{mountpoint: /boot/efi2, partition: efi2}}
  - action: filesystem-deploy
  - {{action: bootloader, type: {loader}}}
"
        )
    };
    let Some(project) = Project::new().tiny(&recipe("grub-efi")) else { skip!("needs a static busybox") };
    project.run(["check", "recipe.yaml"]).success();
    project.set_actions(&recipe("systemd-boot"));
    project.run(["check", "recipe.yaml"]).code(2).says("`efi2` would have no kernels").says("or use `grub-efi`");
    project.write(
        "recipe.yaml",
        project.read("recipe.yaml").replace("      - {mountpoint: /boot/efi2, partition: efi2}\n", ""),
    );
    project.run(["check", "recipe.yaml"]).code(2).says("`efi2` is mounted nowhere");
}
