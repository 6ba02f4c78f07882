//! The sandbox where nothing may be mounted or unshared: chroot alone.

use std::fs;

use debforge::sandbox::{Exit, Isolation, View};

use super::{assert_same, bind, command, needs_mounts, run_in, tiny};

fn run(command: &debforge::sandbox::Command) -> anyhow::Result<(Exit, String)> {
    run_in(Isolation::Chroot, command)
}

#[test]
fn a_command_runs_in_the_root_with_devices_for_its_time() {
    needs_mounts!();
    let tiny = tiny!();
    let before = tiny.listing();
    let (exit, output) = run(&tiny.script("ls /; umask; echo x > /dev/null; exit 4")).unwrap();
    assert_eq!(exit, Exit::Code(4));
    assert!(output.starts_with("bin\n") && output.ends_with("0022\n"), "{output}");
    assert_same(&before, &tiny.listing());
}

#[test]
fn what_is_bound_read_only_is_a_copy_that_goes() {
    needs_mounts!();
    let tiny = tiny!();
    fs::create_dir_all(tiny.beside("lists/sub")).unwrap();
    fs::write(tiny.beside("lists/sub/one"), "one").unwrap();
    fs::write(tiny.beside("file"), "file").unwrap();
    let before = tiny.listing();
    let mut command = tiny.script("cat /opt/lists/sub/one /etc/deep/file");
    command.binds =
        vec![bind(&tiny.beside("lists"), "/opt/lists", true), bind(&tiny.beside("file"), "/etc/deep/file", true)];
    assert_eq!(run(&command).unwrap(), (Exit::Code(0), "onefile\n".into()));
    assert_same(&before, &tiny.listing());
    assert!(tiny.beside("lists/sub/one").exists());
}

#[test]
fn what_is_bound_writable_is_carried_back() {
    needs_mounts!();
    let tiny = tiny!();
    fs::create_dir(tiny.beside("cache")).unwrap();
    for name in ["kept", "changed", "removed"] {
        fs::write(tiny.beside("cache").join(name), name).unwrap();
    }
    let before = tiny.listing();
    let script =
        "cd /var/cache/apt; echo new > new; echo other > changed; rm removed; sleep 0.1; echo added > sub 2>/dev/null";
    let mut command = tiny.script(script);
    command.binds = vec![bind(&tiny.beside("cache"), "/var/cache/apt", false)];
    assert_eq!(run(&command).unwrap().0, Exit::Code(0));
    let mut names: Vec<_> = fs::read_dir(tiny.beside("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["changed", "kept", "new", "sub"]);
    assert_eq!(fs::read_to_string(tiny.beside("cache/changed")).unwrap(), "other\n");
    assert_same(&before, &tiny.listing());
}

#[test]
fn what_only_a_mount_could_cover_is_refused() {
    needs_mounts!();
    let tiny = tiny!();
    fs::write(tiny.beside("file"), "").unwrap();
    let mut command = tiny.script("true");
    command.binds = vec![bind(&tiny.beside("file"), "/etc/passwd", true)];
    let error = format!("{:#}", run(&command).unwrap_err());
    assert!(error.contains("only a mount could cover it"), "{error}");
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    needs_mounts!();
    let word = format!("1900.{}", std::process::id());
    let script = format!("sleep {word} & setsid sleep {word} & echo done");
    let command = command(&["sh", "-c", &script], View::Host { root: None, writable: Vec::new() });
    assert_eq!(run(&command).unwrap(), (Exit::Code(0), "done\n".into()));
    assert!(!super::kill::is_running(&word));
}
