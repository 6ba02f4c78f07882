//! What a program of the host that works on the target root sees.

use std::fs;

use debforge::sandbox::View;

use super::{assert_same, bind, command, needs_mounts, output_of, run, tiny};

#[test]
fn the_host_is_read_only_but_for_what_is_named() {
    needs_mounts!();
    let tiny = tiny!();
    let (open, closed) = (tiny.beside("open"), tiny.beside("closed"));
    fs::create_dir(&open).unwrap();
    fs::create_dir(&closed).unwrap();
    let script = format!(
        "for dir in / /etc /usr /var /run /sys {closed} {open} {root} /tmp /var/tmp; do \
         touch $dir/debforge-probe 2>/dev/null && echo $dir; done; rm -f {open}/debforge-probe {root}/debforge-probe",
        closed = closed.display(),
        open = open.display(),
        root = tiny.root().display()
    );
    let view = View::Host { root: Some(tiny.root()), writable: vec![open.clone()] };
    let expected = format!("{}\n{}\n/tmp\n/var/tmp\n", open.display(), tiny.root().display());
    assert_eq!(output_of(&command(&["sh", "-c", &script], view)), expected);
}

#[test]
fn tmp_is_private_and_what_lies_in_it_can_still_be_writable() {
    needs_mounts!();
    let dir = tempfile::Builder::new().prefix("debforge-host-").tempdir_in("/tmp").unwrap();
    let kept = dir.path().join("deep/kept");
    fs::create_dir_all(&kept).unwrap();
    fs::write(dir.path().join("hidden"), "").unwrap();
    let script =
        format!("ls {0}; ls {0}/deep; echo x > {1}/made; echo x > /tmp/gone", dir.path().display(), kept.display());
    let view = View::Host { root: None, writable: vec![kept.clone()] };
    assert_eq!(output_of(&command(&["sh", "-c", &script], view)), "deep\nkept\n");
    assert!(kept.join("made").exists());
    assert!(dir.path().join("hidden").exists());
    assert!(!std::path::Path::new("/tmp/gone").exists());
}

#[test]
fn the_root_is_ready_to_be_entered() {
    needs_mounts!();
    let tiny = tiny!();
    let before = tiny.listing();
    let script = "ls /proc/self/exe >/dev/null && echo x > /dev/null && test -z \"$(ls /tmp)\" && echo ready";
    let root = tiny.root();
    let view = View::Host { root: Some(root.clone()), writable: Vec::new() };
    let entered = ["chroot", &root.to_string_lossy(), "/bin/sh", "-c", script];
    assert_eq!(output_of(&command(&entered, view)), "ready\n");
    assert_same(&before, &tiny.listing());
}

#[test]
fn an_empty_root_stays_empty() {
    needs_mounts!();
    let dir = super::directory();
    let view = View::Host { root: Some(dir.path().into()), writable: Vec::new() };
    let path = dir.path().to_string_lossy().into_owned();
    assert_eq!(output_of(&command(&["ls", "-A", &path], view)), "");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn binds_below_the_root_are_made_and_removed() {
    needs_mounts!();
    let tiny = tiny!();
    fs::create_dir(tiny.beside("archives")).unwrap();
    let before = tiny.listing();
    let target = tiny.root().join("var/cache/apt/archives");
    let view = View::Host { root: Some(tiny.root()), writable: Vec::new() };
    let mut command = command(&["sh", "-c", "echo deb > $0/a.deb", &target.to_string_lossy()], view);
    command.binds = vec![bind(&tiny.beside("archives"), &target, false)];
    output_of(&command);
    assert!(tiny.beside("archives/a.deb").exists());
    assert_same(&before, &tiny.listing());
}

#[test]
fn a_bind_where_the_host_cannot_be_written_says_so() {
    needs_mounts!();
    let tiny = tiny!();
    let view = View::Host { root: None, writable: Vec::new() };
    let mut command = command(&["true"], view);
    command.binds = vec![bind(&tiny.root(), "/usr/debforge-no-such-directory", true)];
    let error = format!("{:#}", run(&command).unwrap_err());
    assert!(error.contains("/usr/debforge-no-such-directory") && error.contains("Read-only"), "{error}");
}

#[test]
fn a_read_only_bind_around_the_root_does_not_cover_it() {
    needs_mounts!();
    let tiny = tiny!();
    let around = tiny.beside("");
    let view = View::Host { root: Some(tiny.root()), writable: Vec::new() };
    let script = "touch $0/root/etc/made && touch $0/outside 2>/dev/null || echo only the root";
    let mut command = command(&["sh", "-c", script, &around.to_string_lossy()], view);
    command.binds = vec![bind(&around, &around, true)];
    assert_eq!(output_of(&command), "only the root\n");
    assert!(tiny.root().join("etc/made").exists());
}
