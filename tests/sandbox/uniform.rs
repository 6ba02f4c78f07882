//! Trees that a command sees the same on every host.

use std::fs;
use std::path::Path;

use debforge::sandbox::{Command, Exit, Isolation, Uniform, View};

use super::{bind, command, needs_mounts, run_in, tiny};

/// Says of a tree what programs that make file systems take from one.
const LOOK: &str = "cd /srv && find . && stat -c '%n %i %h %s %b %d %Z' . * sub/*";

fn sow(top: &Path, backwards: bool) {
    let mut names: Vec<String> = (0..50).map(|n| format!("{}{n}", n % 7)).collect();
    if backwards {
        names.reverse();
    }
    fs::create_dir_all(top.join("sub")).unwrap();
    for name in &names {
        fs::write(top.join(name), name).unwrap();
    }
    let links = [("000", "sub/first"), ("sub/first", "sub/second")];
    fs::write(top.join("000"), "").unwrap();
    for (from, to) in links {
        fs::hard_link(top.join(from), top.join(to)).unwrap();
    }
    let date = filetime::FileTime::from_unix_time(1_600_000_000, 0);
    for entry in walkdir::WalkDir::new(top).contents_first(true) {
        filetime::set_file_mtime(entry.unwrap().path(), date).unwrap();
    }
}

fn looked(isolation: Isolation, command: &Command) -> String {
    let (exit, output) = run_in(isolation, command).unwrap();
    assert_eq!(exit, Exit::Code(0), "{output}");
    output
}

#[test]
fn order_and_numbers_follow_from_the_names() {
    needs_mounts!();
    let mut said = Vec::new();
    for (isolation, backwards) in [(Isolation::Namespaces, true), (Isolation::Chroot, false)] {
        let tiny = tiny!();
        let top = tiny.root().join("srv");
        sow(&top, backwards);
        let script = LOOK.replace("/srv", &top.display().to_string());
        let script = script.replace("find", "busybox find").replace("stat", "busybox stat");
        let mut command = command(&["sh", "-c", &script], View::Host { root: None, writable: Vec::new() });
        command.binds = vec![bind(&top, &top, true)];
        command.uniform = Some(Uniform { top, attributes_only: false, labelled: false });
        said.push(looked(isolation, &command));
    }
    let tiny = tiny!();
    sow(&tiny.root().join("srv"), false);
    let mut command = tiny.script(LOOK);
    command.uniform = Some(Uniform { top: "/srv".into(), attributes_only: false, labelled: false });
    said.push(looked(Isolation::Namespaces, &command));
    assert!(said[0] == said[1] && said[0] == said[2], "{}\n{}\n{}", said[0], said[1], said[2]);
    let lines: Vec<&str> = said[0].lines().collect();
    assert_eq!(lines[..4], [".", "./00", "./000", "./014"], "{}", said[0]);
    let numbers: Vec<&str> = lines.iter().filter(|line| line.ends_with(" 1600000000")).copied().collect();
    let about = |name: &str| numbers.iter().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
    assert!(about(".").starts_with("256 1 4096 8 "), "{}", about("."));
    assert_eq!(about("000"), about("sub/first"));
    assert_eq!(about("000"), about("sub/second"));
    assert!(about("000").contains(" 3 0 0 "), "{}", about("000"));
    let mut unlike: Vec<&str> = numbers.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    unlike.sort_unstable();
    unlike.dedup();
    assert_eq!(unlike.len(), 53, "a number for each file: {}", said[0]);
}

#[test]
fn what_is_not_of_the_tree_is_as_it_is() {
    needs_mounts!();
    let tiny = tiny!();
    sow(&tiny.root().join("srv"), false);
    let mut command =
        tiny.script("stat -c '%n %i %d' /etc /etc/* /bin/busybox; find /bin /etc; cat /srv/00 /etc/passwd");
    let plain = looked(Isolation::Namespaces, &command);
    command.uniform = Some(Uniform { top: "/srv".into(), attributes_only: false, labelled: false });
    assert_eq!(looked(Isolation::Namespaces, &command), plain);
}
