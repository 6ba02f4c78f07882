//! `debforge build`: artifacts, hits, what reruns what, failures.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::{Project, User};

const RECIPE: &str = "
  - action: run
    chroot: true
    command: echo one > /etc/one
  - action: overlay
    source: files
    destination: /srv
  - action: run
    chroot: true
    command: cat /srv/greeting > /etc/two
  - action: pack
    file: out.tar.gz
";

/// A project with [`RECIPE`], or the test ends.
macro_rules! project {
    ($user:expr) => {
        match Project::of($user).file("files/greeting", "hello\n").tiny(RECIPE) {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    };
    () => {
        project!(User::current())
    };
}

/// Paths in an archive that tar can read, with contents of regular files.
fn contents(archive: &std::path::Path) -> Vec<(String, String)> {
    use std::io::Read;
    let file = fs::File::open(archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let mut found = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(file)).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut text = String::new();
        if entry.header().entry_type().is_file() && !path.ends_with("busybox") {
            entry.read_to_string(&mut text).expect("a text");
        }
        found.push((path.trim_start_matches("./").to_owned(), text));
    }
    found
}

fn text_of(archive: &std::path::Path, path: &str) -> String {
    let all = contents(archive);
    let found = all.iter().find(|(name, _)| name == path);
    found
        .unwrap_or_else(|| panic!("no {path} among {:?}", all.iter().map(|(name, _)| name).collect::<Vec<_>>()))
        .1
        .clone()
}

#[test]
fn a_recipe_comes_out_as_its_artifact() {
    let project = project!();
    project.build([]).success().says("5/5  pack").says("done in [TIME]").says("out/out.tar.gz [SIZE]");
    let archive = project.path("out/out.tar.gz");
    assert_eq!(text_of(&archive, "etc/one"), "one\n");
    assert_eq!(text_of(&archive, "etc/two"), "hello\n");
}

#[test]
fn build_may_be_left_out() {
    let project = project!();
    project.run(["recipe.yaml", "--artifactdir", "elsewhere"]).success();
    assert!(project.path("elsewhere/out.tar.gz").exists());
}

#[test]
fn an_unchanged_recipe_runs_nothing() {
    let project = project!();
    assert_eq!(project.build(["--json"]).success().outcomes(), ["ran"; 5]);
    let second = project.build(["--json"]).success();
    assert!(!second.outcomes().contains(&"ran".to_owned()), "{second}");
}

#[test]
fn an_artifact_that_was_deleted_comes_back_from_the_store() {
    let project = project!();
    project.build([]).success();
    let first = fs::read(project.path("out/out.tar.gz")).unwrap();
    fs::remove_file(project.path("out/out.tar.gz")).unwrap();
    let second = project.build(["--json"]).success();
    assert!(!second.outcomes().contains(&"ran".to_owned()), "{second}");
    assert_eq!(fs::read(project.path("out/out.tar.gz")).unwrap(), first);
}

#[test]
fn a_changed_overlay_file_reruns_its_step_and_those_after_it() {
    let project = project!();
    project.build([]).success();
    project.write("files/greeting", "good day\n");
    let second = project.build(["--json"]).success();
    assert_eq!(second.outcomes()[2..], ["ran", "ran", "ran"], "{second}");
    assert!(second.outcomes()[..2].iter().all(|outcome| outcome != "ran"), "{second}");
    assert_eq!(text_of(&project.path("out/out.tar.gz"), "etc/two"), "good day\n");
}

#[test]
fn a_file_that_is_only_touched_reruns_nothing() {
    let project = project!();
    project.build([]).success();
    filetime::set_file_mtime(project.path("files/greeting"), filetime::FileTime::from_unix_time(1, 0)).unwrap();
    let second = project.build(["--json"]).success();
    assert!(!second.outcomes().contains(&"ran".to_owned()), "{second}");
}

#[test]
fn a_changed_mode_of_an_overlay_file_counts() {
    let project = project!();
    project.build([]).success();
    project.chmod("files/greeting", 0o600);
    let second = project.build(["--json"]).success();
    assert_eq!(second.outcomes()[2], "ran", "{second}");
}

#[test]
fn a_changed_variable_reruns_what_uses_it() {
    let actions = "
  - action: run
    chroot: true
    command: echo same > /etc/same
  - action: run
    chroot: true
    command: echo {{ word | default('a') }} > /etc/word
  - action: pack
    file: out.tar.gz
";
    let Some(project) = Project::new().tiny(actions) else { skip!("needs a static busybox") };
    project.build([]).success();
    let second = project.build(["--json", "-t", "word:b"]).success();
    assert_eq!(second.outcomes()[2..], ["ran", "ran"], "{second}");
    assert!(second.outcomes()[..2].iter().all(|outcome| outcome != "ran"), "{second}");
    assert_eq!(text_of(&project.path("out/out.tar.gz"), "etc/word"), "b\n");
}

#[test]
fn a_recipe_in_another_directory_shares_its_steps() {
    let first = project!();
    first.build([]).success();
    let Some(second) =
        Project::new().env("DEBFORGE_STORE", first.store()).file("files/greeting", "hello\n").tiny(RECIPE)
    else {
        skip!("needs a static busybox")
    };
    let finished = second.build(["--json"]).success();
    assert!(!finished.outcomes().contains(&"ran".to_owned()), "{finished}");
}

#[test]
fn the_same_recipe_gives_the_same_bytes() {
    let (first, second) = (project!(), project!());
    first.build([]).success();
    // Other times on the files it reads.
    filetime::set_file_mtime(second.path("files/greeting"), filetime::FileTime::from_unix_time(1, 0)).unwrap();
    second.build([]).success();
    let bytes = |project: &Project| fs::read(project.path("out/out.tar.gz")).unwrap();
    assert!(bytes(&first) == bytes(&second), "two stores, two archives");
}

#[test]
fn an_ordinary_user_builds_the_same_bytes_as_root() {
    needs_root!();
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let (root, rootless) = (project!(), project!(user.clone()));
    root.build([]).success();
    rootless.build([]).success().says("rootless");
    let archive = rootless.path("out/out.tar.gz");
    assert_eq!(fs::metadata(&archive).unwrap().uid(), user.uid, "the artifact belongs to who built it");
    assert!(fs::read(root.path("out/out.tar.gz")).unwrap() == fs::read(archive).unwrap(), "two users, two archives");
}

#[test]
fn no_cache_runs_everything() {
    let project = project!();
    project.build([]).success();
    let second = project.build(["--json", "--no-cache"]).success();
    assert_eq!(second.outcomes(), ["ran"; 5], "{second}");
}

#[test]
fn from_runs_a_step_and_those_after_it() {
    let project = project!();
    project.build([]).success();
    let second = project.build(["--json", "--from", "4"]).success();
    assert_eq!(second.outcomes()[3..], ["ran", "ran"], "{second}");
    assert!(second.outcomes()[..3].iter().all(|outcome| outcome != "ran"), "{second}");
}

#[test]
fn what_was_run_again_replaces_what_was_there() {
    let Some(project) = Project::new().tiny(
        "  - action: run\n    chroot: true\n    command: cat /proc/sys/kernel/random/uuid > /etc/id\n  - action: pack\n    file: out.tar.gz\n",
    ) else {
        skip!("needs a static busybox");
    };
    let built = |arguments: &[&str]| {
        project.build(arguments.iter().copied()).success();
        fs::read(project.path("out/out.tar.gz")).unwrap()
    };
    let first = built(&[]);
    let again = built(&["--from", "2"]);
    assert!(first != again, "the step was not run again");
    assert!(built(&[]) == again, "the result of before came back");
    assert!(built(&["--from", "3"]) == again, "a step before the one that was asked for was run");
}

#[test]
fn from_a_step_that_is_not_there_is_refused() {
    let project = project!();
    project.build(["--from", "6"]).code(2).says("there is no step 6: the recipe has 5");
}

#[test]
fn a_failing_step_says_what_where_and_the_way_back() {
    let project = project!();
    project.build([]).success();
    let before = fs::read(project.path("out/out.tar.gz")).unwrap();
    project.set_actions(
        "  - action: run\n    chroot: true\n    command: echo about to fail; false\n  - action: pack\n    file: out.tar.gz\n",
    );
    project
        .build([])
        .code(1)
        .says("2/3  run")
        .says("failed after")
        .says("about to fail")
        .says("recipe.yaml:6:")
        .says("the whole log is")
        .says("debforge shell recipe.yaml")
        .says("--after 1")
        .says("run it there by hand: sh -e -u -c 'echo about to fail; false'")
        .says("--debug-shell");
    assert!(fs::read(project.path("out/out.tar.gz")).unwrap() == before, "the last good artifact stays");
}

#[test]
fn artifacts_of_a_failed_build_do_not_appear() {
    let Some(project) = Project::new()
        .tiny("  - action: pack\n    file: early.tar.gz\n  - action: run\n    chroot: true\n    command: exit 3\n")
    else {
        skip!("needs a static busybox");
    };
    project.build([]).code(1).says("3");
    assert!(!project.path("out/early.tar.gz").exists(), "an artifact of a build that failed");
}

#[test]
fn dry_run_shows_the_plan_and_runs_nothing() {
    let project = project!();
    project.build(["--dry-run"]).success().prints("5/5  pack").prints("to run");
    assert!(!project.path("out/out.tar.gz").exists());
    let finished = project.build(["--json"]).success();
    assert_eq!(finished.outcomes(), ["ran"; 5], "a dry run left something: {finished}");
}

#[test]
fn print_recipe_shows_what_the_template_renders_to() {
    let Some(project) = Project::new().tiny("  - action: pack\n    file: {{ name }}.tar.gz\n") else {
        skip!("needs a static busybox");
    };
    project.build(["--print-recipe", "--dry-run", "-t", "name:rendered"]).success().prints("file: rendered.tar.gz");
}

#[test]
fn json_events_are_complete() {
    let project = project!();
    let events = project.build(["--json"]).success().events();
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!(named("step-started").len(), 5);
    assert_eq!(named("step-finished").len(), 5);
    assert_eq!(named("finished").len(), 1);
    let artifacts = named("artifact");
    let path = project.path("out/out.tar.gz");
    assert_eq!(artifacts.len(), 1);
    assert_eq!(artifacts[0]["size"], fs::metadata(&path).unwrap().len());
    use sha2::{Digest, Sha256};
    assert_eq!(artifacts[0]["sha256"], hex::encode(Sha256::digest(fs::read(path).unwrap())));
}

#[test]
fn verbose_shows_the_output_of_steps() {
    let Some(project) =
        Project::new().tiny("  - action: run\n    chroot: true\n    command: echo a word from inside\n")
    else {
        skip!("needs a static busybox");
    };
    project.build([]).success().says_nothing_of("│ a word from inside");
    project.build(["-v", "--no-cache"]).success().says("│ a word from inside");
}

#[test]
fn environment_variables_reach_the_steps_and_count() {
    let actions = "  - action: run\n    chroot: true\n    command: echo \"$WORD\" > /etc/word\n  - action: pack\n    file: out.tar.gz\n";
    let Some(project) = Project::new().tiny(actions) else { skip!("needs a static busybox") };
    project.build(["-e", "WORD:first"]).success();
    let second = project.build(["--json", "-e", "WORD:second"]).success();
    assert_eq!(second.outcomes()[1], "ran", "{second}");
    assert_eq!(text_of(&project.path("out/out.tar.gz"), "etc/word"), "second\n");
}

#[test]
fn a_false_condition_leaves_an_action_out() {
    let actions = "  - action: run\n    when: debug is defined\n    chroot: true\n    command: touch /etc/debug\n  - action: pack\n    file: out.tar.gz\n";
    let Some(project) = Project::new().tiny(actions) else { skip!("needs a static busybox") };
    let has_it =
        |project: &Project| contents(&project.path("out/out.tar.gz")).iter().any(|(path, _)| path == "etc/debug");
    project.build([]).success().says("2/2  pack");
    assert!(!has_it(&project));
    project.build(["-t", "debug:1"]).success().says("3/3  pack");
    assert!(has_it(&project));
}

#[test]
fn two_builds_at_once_make_a_step_once() {
    let Some(project) = Project::new().tiny(
        "  - action: run\n    chroot: true\n    command: sleep 1; cat /proc/sys/kernel/random/uuid > /etc/one\n  - action: pack\n    file: out.tar.gz\n",
    ) else {
        skip!("needs a static busybox");
    };
    let first = project.start(["build", "recipe.yaml", "--artifactdir", "a"]);
    let second = project.start(["build", "recipe.yaml", "--artifactdir", "b"]);
    first.finish().success();
    second.finish().success();
    let archive = |dir: &str| fs::read(project.path(dir).join("out.tar.gz")).unwrap();
    assert!(archive("a") == archive("b"), "both builds ran the step");
}

#[test]
fn an_ordinary_user_without_ranges_gets_the_command_that_grants_them() {
    let user = match User::without_ranges() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let project = project!(user.clone());
    project.build(["-b", "local"]).code(3).says("usermod --add-subuids").says(&user.name);
    assert!(!project.path("out").exists());
}
