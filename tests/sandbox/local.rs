//! What builds find out about a machine, for each kind of user.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::confinement::{Fault, faulty};
use crate::harness::{Project, User};

fn doctor(project: &Project) -> serde_json::Value {
    let finished = project.run(["doctor", "--json"]).success();
    serde_json::from_str(&finished.stdout).unwrap()
}

fn row<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    report["rows"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()
}

#[test]
fn root_builds_in_namespaces_on_overlays() {
    needs_root!();
    let report = doctor(&Project::new());
    let backend = row(&report, "local backend");
    if backend["state"] != "ok" {
        skip!("this root may not mount: {backend}");
    }
    assert_eq!(backend["text"], "root: namespaces, overlayfs");
}

#[test]
fn a_user_with_subordinate_ids_builds_the_same_way() {
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let project = Project::of(user.clone());
    let report = doctor(&project);
    let text = row(&report, "local backend")["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with(&format!("rootless (uid {} → ", user.uid)), "{text}");
    assert!(text.ends_with("namespaces, overlayfs"), "{text}");
    assert!(
        std::fs::read_dir(project.store())
            .unwrap()
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with(".probe"))
    );
}

#[test]
fn a_user_without_subordinate_ids_gets_the_command_that_grants_them() {
    let user = match User::without_ranges() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let project = Project::of(user);
    let finished = project.run(["doctor"]);
    // A machine of its own needs no such ids.
    let machine = finished.stdout.lines().any(|line| line.contains("first process after"));
    let finished = finished.code(if machine { 0 } else { 3 });
    let hint = finished.stdout.lines().find(|line| line.contains("usermod")).expect("a hint").trim();
    assert!(hint.starts_with("sudo usermod --add-subuids ") && hint.ends_with("debforge-test-bare"), "{hint}");
    let range = hint.split_whitespace().nth(3).unwrap();
    let (first, last) = range.split_once('-').unwrap();
    assert_eq!(last.parse::<u32>().unwrap() - first.parse::<u32>().unwrap(), 65535, "{hint}");
}

/// A container that forbids mounting and namespaces, as far as capabilities do.
fn without_sys_admin(store: &Path) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    command.arg(env!("CARGO_BIN_EXE_debforge")).args(["doctor", "--json"]).env("DEBFORGE_STORE", store);
    command.output().unwrap()
}

#[test]
fn a_container_without_namespaces_still_builds_and_says_what_is_weaker() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let dir = super::directory();
    let output = without_sys_admin(dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let backend = row(&report, "local backend");
    let text = backend["text"].as_str().unwrap();
    assert!(text.contains("without namespaces: chroot alone"), "{text}");
    assert_eq!(backend["state"], "weak");
    let expected = 2 + usize::from(debforge::sandbox::unfenced().is_some());
    assert_eq!(backend["hints"].as_array().unwrap().len(), expected, "{backend}");
}

/// Nothing is known of a machine whose probe fails, so it does not build with less.
fn builds_nothing(fault: Fault, said: &str) {
    let Some(project) = Project::new().tiny("  - action: pack\n    file: out.tar\n") else {
        skip!("needs a static busybox");
    };
    let args = ["build", "recipe.yaml", "--artifactdir", "out", "-b", "local"];
    project.run_inside(&faulty(fault), args).code(3).says(said).says("could not be found out").says("--backend uml");
    assert!(!project.path("out/out.tar").exists());
}

#[test]
fn a_probe_that_fails_for_another_reason_than_being_forbidden_weakens_no_build() {
    needs_root!();
    builds_nothing(Fault::Fails, "setting the host name");
}

#[test]
fn a_probe_that_is_killed_weakens_no_build() {
    needs_root!();
    builds_nothing(Fault::Kills, "Signal(9)");
}

#[test]
fn a_step_that_is_to_have_no_network_is_refused_where_it_has_one() {
    needs_root!();
    if debforge::sys::network::ways_out().unwrap().is_empty() {
        skip!("needs a network");
    }
    builds_nothing(Fault::Lies, "it is to have no network, and has the interface");
}
