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

#[test]
fn links_among_the_artifacts_stay_links_wherever_they_lead() {
    let make = "  - action: run\n    command: |
      mkdir $ARTIFACTDIR/d; echo 1 > $ARTIFACTDIR/d/f
      ln -s d $ARTIFACTDIR/directory; ln -s /usr $ARTIFACTDIR/host; ln -s later $ARTIFACTDIR/latest
  - action: run\n    command: echo 2 > $ARTIFACTDIR/later\n";
    let Some(project) = Project::new().tiny(make) else { skip!("needs a static busybox") };
    for out in ["out", "again"] {
        project.run(["build", "recipe.yaml", "--artifactdir", out]).success();
        let link = |name: &str| std::fs::read_link(project.path(out).join(name)).unwrap().display().to_string();
        assert_eq!(["directory", "host", "latest"].map(link), ["d", "/usr", "later"]);
        assert_eq!(project.read(&format!("{out}/latest")), "2\n");
    }
}

#[test]
fn a_directory_for_artifacts_that_cannot_be_written_is_named_with_the_way_out() {
    needs_root!();
    let Some(project) = Project::new().tiny("  - action: pack\n    file: out.tar\n    compression: none\n") else {
        skip!("needs a static busybox")
    };
    std::fs::create_dir(project.path("out")).unwrap();
    let script = "mount --bind out out && mount -o remount,bind,ro out && exec \"$@\"";
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let built = project.run_behind(words, ["build", "recipe.yaml", "--artifactdir", "out"]).code(1);
    built.says("/out cannot be written").says("--artifactdir").says("what was built is kept");
}
