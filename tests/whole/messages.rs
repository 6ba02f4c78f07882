//! Messages name what is wrong, where, and what to do.

use crate::harness::Project;

#[test]
fn an_artifact_that_no_step_left_is_named_with_those_that_are_there() {
    let actions = "  - action: run\n    command: touch $ARTIFACTDIR/disk.img $ARTIFACTDIR/notes
  - action: compress\n    file: disc.img\n";
    let Some(project) = Project::new().tiny(actions) else { skip!("needs a static busybox") };
    let built = project.build([]).code(1).says("there is no `disc.img` among the artifacts");
    built.says("did you mean `disk.img`?").says("have left disk.img, notes").says("recipe.yaml:8:");
}

#[test]
fn a_value_that_some_rounds_of_a_loop_lack_says_so() {
    let recipe = "architecture: amd64
{% set rows = [{'name': 'one', 'size': 1}, {'name': 'two'}] %}
actions:
{%- for row in rows %}
  - {action: run, command: echo {{ row.name }} {{ row.size }}}
{%- endfor %}
";
    let project = Project::new().recipe(recipe);
    let checked = project.run(["check", "recipe.yaml"]).code(2).says("`row.size` is undefined").says("recipe.yaml:5:");
    checked.says("some values of `row` may have it and others not").says("`row.size | default(");
}

#[test]
fn a_name_that_mkfs_erofs_does_not_take_is_named() {
    needs_program!("mkfs.erofs", "erofs-utils");
    let make =
        "  - action: run\n    chroot: true\n    command: mkdir -p /srv; touch /srv/$(printf 'a%.0s' $(seq 255))\n";
    let actions = format!("{make}  - action: filesystem-image\n    file: root.erofs\n");
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox") };
    let built = project.build([]);
    // Newer releases of erofs-utils take it.
    if !built.stderr.contains("done in") {
        built.code(1).says("in /srv: `aaaaaaaaaaaaaaaaaaaa…`").says("shorter name");
    }
}

#[test]
fn a_file_system_that_is_too_small_says_what_makes_it_fit() {
    needs_program!("mke2fs", "e2fsprogs");
    let fill = "  - action: run\n    chroot: true\n    command: head -c 8000000 /dev/urandom > /srv-file\n";
    let actions = format!("{fill}  - action: filesystem-image\n    file: x.ext4\n    size: 5MB\n");
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox") };
    project.build([]).code(1).says("the partition has").says("`size: auto` of one without");
}
