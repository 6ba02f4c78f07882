//! What chattr(1) protects stays protected: in the next steps, and in what is built, or there is a word.

use crate::harness::Project;
use crate::image::disk::debugfs;

const PROTECT: &str = "  - action: run
    command: |
      mkdir -p $ROOTDIR/srv/shut $ROOTDIR/srv/growing
      touch $ROOTDIR/etc/kept $ROOTDIR/etc/free $ROOTDIR/srv/shut/file
      echo one > $ROOTDIR/etc/log
      chattr +i $ROOTDIR/etc/kept $ROOTDIR/etc/free $ROOTDIR/srv/shut
      chattr +a $ROOTDIR/etc/log $ROOTDIR/srv/growing
";
/// Sees what was protected, and takes it from one file.
const LATER: &str = "  - action: run
    chroot: true
    command: |
      if echo two > /etc/kept || rm /etc/kept || mv /etc/kept /etc/moved || touch /srv/shut/more; then exit 7; fi
      if echo two > /etc/log || rm -f /etc/log; then exit 8; fi
      echo two >> /etc/log
      touch /srv/growing/more
  - action: run
    command: |
      lsattr -d $ROOTDIR/etc/kept $ROOTDIR/srv/shut | grep -c -e '^----i' | grep 2
      chattr -i $ROOTDIR/etc/free
      rm $ROOTDIR/etc/free
";
const IMAGE: &str = "  - action: filesystem-image
    file: root.ext4
    filesystem: ext4
";

/// A project with these actions on the tiny root.
macro_rules! project {
    ($actions:expr) => {{
        needs_root!();
        needs_program!("chattr", "e2fsprogs");
        match Project::new().tiny(&$actions) {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    }};
}

fn is_protected(project: &Project) {
    let image = project.path("out/root.ext4");
    for (path, flag) in [("/etc/kept", 0x10), ("/srv/shut", 0x10), ("/etc/log", 0x20), ("/srv/growing", 0x20)] {
        let said = debugfs(&image, &format!("stat {path}"));
        let flags = said.split_once("Flags: 0x").and_then(|(_, rest)| rest.split_whitespace().next()).unwrap();
        assert_eq!(u32::from_str_radix(flags, 16).unwrap() & 0x30, flag, "{path}: {said}");
    }
    assert_eq!(debugfs(&image, "cat /etc/log"), "one\ntwo\n");
    assert!(!debugfs(&image, "ls /etc").contains("free"));
    crate::image::disk::reads("e2fsck", &["-fn"], &image);
}

#[test]
fn protected_files_stay_so_in_the_next_steps_and_in_ext4() {
    let project = project!(format!("{PROTECT}{LATER}{IMAGE}"));
    project.build([]).success();
    is_protected(&project);
    let first = std::fs::read(project.path("out/root.ext4")).unwrap();
    std::fs::remove_file(project.path("out/root.ext4")).unwrap();
    project.build([]).success();
    assert!(std::fs::read(project.path("out/root.ext4")).unwrap() == first, "restored");
    // From layers that were kept, and from nothing.
    project.set_actions(&format!("{PROTECT}{LATER}{IMAGE}    label: other\n"));
    project.build([]).success();
    is_protected(&project);
    project.set_actions(&format!("{PROTECT}{LATER}{IMAGE}"));
    project.build(["--no-cache"]).success();
    assert!(std::fs::read(project.path("out/root.ext4")).unwrap() == first, "built anew");
    project.run(["store", "verify"]).success();
    project.run(["store", "clear"]).success();
    let store = walkdir::WalkDir::new(project.path("store")).into_iter().filter_map(Result::ok);
    assert!(!store.into_iter().any(|entry| entry.file_name() == "kept"), "what is protected can be removed");
    assert_eq!(project.leftovers(), [""; 0]);
}

#[test]
fn protected_files_of_a_root_without_layers_stay_so() {
    let project = project!(format!("{PROTECT}{LATER}{IMAGE}"));
    project
        .run_inside(&crate::harness::confinement::with_protection(), ["build", "recipe.yaml", "--artifactdir", "out"])
        .success();
    is_protected(&project);
    assert_eq!(project.leftovers(), [""; 0]);
}

#[test]
fn protected_files_are_refused_or_named_where_a_product_cannot_say_it() {
    let refused = "  - action: filesystem-image\n    file: root.squashfs\n";
    let project = project!(format!("{PROTECT}{refused}"));
    project.build([]).code(1).says("is protected (`chattr +").says("only ext2, ext3 and ext4");
    project.set_actions(&format!("{PROTECT}  - action: pack\n    file: root.tar\n    compression: none\n"));
    let built = project.build([]).success();
    built.says("a tar archive does not keep that /etc/kept is protected (`chattr +i`)").says("`h /etc/log - - - - +a`");
    // A part without any of them is as ever.
    project.set_actions(&format!("{PROTECT}{refused}    subdir: /usr\n"));
    project.build([]).success();
}

#[test]
fn an_action_that_would_replace_a_protected_file_says_so() {
    let actions = "  - action: run\n    command: touch $ROOTDIR/etc/kept; chattr +i $ROOTDIR/etc/kept
  - action: overlay\n    source: files\n    destination: /etc\n";
    let project = project!(actions).file("files/kept", "other");
    project.build([]).code(1).says("/etc/kept cannot be replaced").says("`chattr -i`");
}

#[test]
fn a_protected_file_with_two_names_is_refused() {
    let project =
        project!("  - action: run\n    command: cd $ROOTDIR/etc && touch one && ln one two && chattr +i one\n");
    project.build([]).code(1).says("is protected (`chattr +i`) and has other names");
}

#[test]
fn a_protected_resolver_configuration_gives_way_to_the_build_s_and_comes_back() {
    let protect = "  - action: run\n    command: |
      echo nameserver 192.0.2.1 > $ROOTDIR/etc/resolv.conf
      chattr +i $ROOTDIR/etc/resolv.conf\n";
    let look = "  - action: run\n    chroot: true\n    command: |
      ! grep -q 192.0.2.1 /etc/resolv.conf\n";
    let lift = "  - action: run\n    chroot: true\n    command: \"! rm /etc/resolv.conf\"\n";
    let project = project!(format!("{protect}{look}{lift}{IMAGE}"));
    if std::fs::read("/etc/resolv.conf").is_err() {
        skip!("needs a resolver configuration");
    }
    project.build([]).success();
    let image = project.path("out/root.ext4");
    assert_eq!(debugfs(&image, "cat /etc/resolv.conf"), "nameserver 192.0.2.1\n");
    let said = debugfs(&image, "stat /etc/resolv.conf");
    assert!(said.contains("Flags: 0x80010"), "{said}");
    // What a command does to the build's own file is meant for the root's.
    let lift = "  - action: run\n    command: chattr -i $ROOTDIR/etc/resolv.conf\n";
    project.set_actions(&format!("{protect}{lift}{IMAGE}"));
    project.build([]).success();
    assert_eq!(debugfs(&image, "cat /etc/resolv.conf"), "nameserver 192.0.2.1\n");
    let said = debugfs(&image, "stat /etc/resolv.conf");
    assert!(said.contains("Flags: 0x80000"), "{said}");
    project.set_actions("  - action: run\n    command: chattr +i $ROOTDIR/etc/resolv.conf\n");
    project.build([]).code(1).says("/etc/resolv.conf was protected").says("write the file first");
}
