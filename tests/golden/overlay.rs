//! Golden differences of `overlay`.

use std::os::unix::fs::symlink;

use crate::harness::Project;

/// Both users get the same, as the snapshot has it.
macro_rules! golden {
    ($name:literal, $prepare:expr, $before:expr, $actions:expr) => {
        for user in super::users() {
            let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
            #[allow(clippy::redundant_closure_call)]
            ($prepare)(&project);
            insta::assert_snapshot!($name, super::changes(&project, $before, $actions));
        }
    };
}

fn files(project: &Project) {
    project.write("overlays/ssh/sshd_config", "Port 22\n");
    project.write("overlays/ssh/keys/host", "secret\n");
    project.chmod("overlays/ssh/keys/host", 0o600);
    project.chmod("overlays/ssh/keys", 0o700);
    project.chmod("overlays/ssh/sshd_config", 0o644);
    symlink("sshd_config", project.path("overlays/ssh/current")).unwrap();
    std::fs::hard_link(project.path("overlays/ssh/sshd_config"), project.path("overlays/ssh/second")).unwrap();
}

#[test]
fn a_directory_brings_its_contents() {
    golden!(
        "a_directory_brings_its_contents",
        files,
        "",
        "
  - action: overlay
    source: overlays/ssh
    destination: /etc/ssh
"
    );
}

#[test]
fn owner_group_and_mode_are_set() {
    golden!(
        "owner_group_and_mode_are_set",
        files,
        "",
        "
  - action: overlay
    source: overlays/ssh
    destination: /srv
    owner: www-data
    group: '42'
    mode: u=rw,go=r
"
    );
}

#[test]
fn a_file_gets_the_name_it_is_given_or_goes_into_a_directory() {
    golden!(
        "a_file_gets_the_name_it_is_given_or_goes_into_a_directory",
        files,
        "",
        "
  - action: overlay
    source: overlays/ssh/keys/host
    destination: /etc/renamed
  - action: overlay
    source: overlays/ssh/keys/host
    destination: /new/directory/
  - action: overlay
    source: overlays/ssh/keys/host
    destination: /etc
"
    );
}

#[test]
fn links_of_the_root_are_followed_inside_it() {
    golden!("links_of_the_root_are_followed_inside_it", files, "
  - action: run
    chroot: true
    command: mkdir -p /usr/lib && ln -s /usr/lib /lib && ln -s ../../../../../../etc /usr/out && ln -s /etc/hostname /etc/name
", "
  - action: overlay
    source: overlays/ssh/keys
    destination: /lib/ssh
  - action: overlay
    source: overlays/ssh/keys/host
    destination: /usr/out/key
  - action: overlay
    source: overlays/ssh/keys/host
    destination: /etc/name
");
}

#[test]
fn templates_are_rendered() {
    fn template(project: &Project) {
        project.write("motd", "built for {{ 'it' if architecture else 'nothing' }}\n");
        project.chmod("motd", 0o644);
    }
    golden!(
        "templates_are_rendered",
        template,
        "",
        "
  - action: overlay
    source: motd
    destination: /etc/motd
    render: true
  - action: run
    chroot: true
    command: grep -q 'built for it' /etc/motd
"
    );
}

#[test]
fn the_root_is_an_origin_that_keeps_owners() {
    golden!(
        "the_root_is_an_origin_that_keeps_owners",
        |_: &Project| (),
        "
  - action: run
    chroot: true
    command: mkdir -p /srv/a && echo x > /srv/a/file && chown 33:33 /srv/a /srv/a/file && chmod 4750 /srv/a/file
",
        "
  - action: overlay
    origin: filesystem
    source: /srv
    destination: /copy
"
    );
}

#[test]
fn conflicts_are_errors_that_name_the_path() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.write("files/etc/passwd/inner", "a directory here, a file there\n");
    project.set_actions(
        "
  - action: overlay
    source: files
",
    );
    project.build([]).code(1).says("/etc/passwd is a file in the root; a directory does not replace it");
    project.write("other/etc", "a file here, a directory there\n");
    project.set_actions(
        "
  - action: overlay
    source: other
",
    );
    project.build([]).code(1).says("/etc is a directory in the root; a file does not replace it");
    project.set_actions(
        "
  - action: overlay
    source: other/etc
    destination: /x
    owner: www-dat
",
    );
    project.build([]).code(1).says("the root has no user `www-dat`").says("did you mean `www-data`?");
    project.set_actions(
        "
  - action: overlay
    origin: filesystem
    source: /etc
    destination: /etc/copy
",
    );
    project.build([]).code(1).says("/etc cannot be copied into itself");
}

#[test]
fn faults_of_the_recipe_are_found_before_anything_runs() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - action: overlay
    source: nothing
    destination: /etc/../x
    mode: rw-r--r--
  - action: overlay
    origin: receipe
",
    );
    project
        .build([])
        .code(2)
        .says("there is no `nothing` beside the recipe")
        .says("`/etc/../x` climbs with `..`")
        .says("`rw-r--r--` is not a mode")
        .says("there is no origin `receipe`")
        .says("did you mean `recipe`?");
}

#[test]
fn what_is_rendered_is_checked_before_anything_runs() {
    let actions = "
  - action: overlay
    source: files
    destination: /etc
    render: true
";
    let Some(project) = Project::new().tiny(actions) else { skip!("needs a static busybox") };
    project.write("files/deep/motd", "one\n{{ greting }}, {{ own }}\n");
    project.write("files/other", "{% if %}\n");
    let recipe = format!("{{% set own = 'mine' %}}{{% set greeting = 'hello' %}}{}", project.read("recipe.yaml"));
    project.write("recipe.yaml", &recipe);
    let checked = project.run(["check", "recipe.yaml"]).code(2);
    checked
        .says("undefined variable `greting`")
        .says("files/deep/motd:2:4")
        .says("did you mean `greeting`?")
        .says("give it with `-t greting:VALUE`")
        .says("recipe.yaml")
        .says("files/other:1");
    project.write("files/deep/motd", "{{ greeting }}, {{ own }}\n");
    project.write("files/other", "");
    project.run(["check", "recipe.yaml"]).success();
    nix::unistd::mkfifo(&project.path("files/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    project.run(["check", "recipe.yaml"]).code(2).says("files/pipe cannot be rendered");
    std::fs::remove_file(project.path("files/pipe")).unwrap();
    project.write("recipe.yaml", format!("{recipe}  - action: pack\n    file: out.tar\n    compression: none\n"));
    project.build([]).success();
    let packed = String::from_utf8_lossy(&std::fs::read(project.path("out/out.tar")).unwrap()).into_owned();
    assert!(packed.contains("hello, mine\n"));
}
