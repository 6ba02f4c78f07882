//! These tests again as somebody else: in a user namespace of an ordinary user, as the engine is
//! there. The test binary runs itself.

use std::path::Path;
use std::process::Command;

use crate::harness::user::{User, work_dir};
use crate::harness::{has_program, is_root};

#[test]
fn an_ordinary_user_has_the_same_sandbox() {
    if std::env::var_os("DEBFORGE_TEST_DIR").is_some() {
        return; // This is that run.
    }
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    if !has_program("unshare") || !has_program("newuidmap") {
        skip!("needs unshare (package util-linux) and newuidmap (package uidmap)");
    }
    let dir = tempfile::Builder::new().prefix("inner-").tempdir_in(work_dir()).unwrap();
    if is_root() {
        std::os::unix::fs::chown(dir.path(), Some(user.uid), Some(user.gid)).unwrap();
    }
    let program = user.reachable(Path::new(env!("CARGO_BIN_EXE_debforge")));
    let tests = user.reachable(&std::env::current_exe().unwrap());
    let mut command = user.command("unshare");
    command.args(["--map-root-user", "--map-auto", "--mount"]).arg(tests).args([
        "sandbox::chroot",
        "sandbox::foreign",
        "sandbox::host",
        "sandbox::output",
        "sandbox::uniform",
    ]);
    command.env("DEBFORGE_TEST_PROGRAM", program).env("DEBFORGE_TEST_DIR", dir.path()).current_dir("/");
    let output = command.output().unwrap();
    // What the user namespace's root made is not always ours to delete.
    let mut clean = Command::new("true");
    if !is_root() {
        clean = Command::new("unshare");
        clean.args(["--map-root-user", "--map-auto", "rm", "-rf"]).arg(dir.path());
    }
    clean.status().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(" 0 passed"), "{text}");
}
