use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use rstest::rstest;

use super::*;
use crate::inspect::tree::Directory;

/// A tree that passes all checks.
fn good() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for directory in ["boot", "dev", "proc", "sys", "run", "tmp", "var/lib", "sysroot", "etc"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    symlink("sysroot/ostree", at("ostree")).unwrap();
    symlink("/run", at("var/run")).unwrap();
    write(root.path(), "etc/hostname", "debian\n");
    write(root.path(), "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
    write(root.path(), "etc/group", "root:x:0:\nadm:x:4:\n");
    write(root.path(), "usr/lib/sysusers.d/base.conf", "# made\nu root 0 - /root\ng adm 4 -\n");
    write(root.path(), "usr/lib/tmpfiles.d/var.conf", "d /var/lib 0755 - - -\nL /var/run - - - - /run\n");
    write(root.path(), "usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n");
    write(root.path(), "usr/lib/bootc/kargs.d/1.toml", "kargs = [\"quiet\"]\nmatch-architectures = [\"x86_64\"]\n");
    write(root.path(), "usr/lib/modules/6.1/vmlinuz", "kernel");
    write(root.path(), "usr/lib/modules/6.0/modules.dep", "");
    root
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn failed(root: &Path) -> Vec<&'static str> {
    let findings = lint(&Directory::new(root.to_owned(), true)).unwrap();
    assert_eq!(findings.len(), 14);
    findings.into_iter().filter(|finding| finding.fault.is_some()).map(|finding| finding.name).collect()
}

#[test]
fn a_good_tree_passes() {
    assert_eq!(failed(good().path()), [""; 0]);
}

#[test]
fn names_are_in_order() {
    assert!(LINTS.is_sorted_by_key(|lint| lint.name));
    assert_eq!(LINTS.iter().filter(|lint| lint.level == Level::Fatal).count(), 7);
}

#[rstest]
#[case::missing("api-base-directories", |root: &Path| fs::remove_dir(root.join("tmp")).unwrap())]
#[case::file("api-base-directories", |root: &Path| {
    fs::remove_dir(root.join("sys")).unwrap();
    write(root, "sys", "");
})]
#[case::off("baseimage-composefs", |root: &Path| write(root, "usr/lib/ostree/prepare-root.conf", "[sysroot]\nreadonly=true\n"))]
#[case::etc_counts_first("baseimage-composefs", |root: &Path| write(root, "etc/ostree/prepare-root.conf", "[composefs]\nenabled=no\n"))]
#[case::none("baseimage-composefs", |root: &Path| fs::remove_file(root.join("usr/lib/ostree/prepare-root.conf")).unwrap())]
#[case::no_sysroot("baseimage-root", |root: &Path| fs::remove_dir(root.join("sysroot")).unwrap())]
#[case::other_link("baseimage-root", |root: &Path| {
    fs::remove_file(root.join("ostree")).unwrap();
    symlink("/sysroot/ostree", root.join("ostree")).unwrap();
})]
#[case::no_list("bootc-kargs", |root: &Path| write(root, "usr/lib/bootc/kargs.d/2.toml", "kargs = \"quiet\"\n"))]
#[case::unknown_key("bootc-kargs", |root: &Path| write(root, "usr/lib/bootc/kargs.d/2.toml", "kargs = []\narch = 1\n"))]
#[case::empty("buildah-injected", |root: &Path| write(root, "etc/resolv.conf", ""))]
#[case::both("etc-usretc", |root: &Path| write(root, "usr/etc/x", ""))]
#[case::two("kernel", |root: &Path| write(root, "usr/lib/modules/6.0/vmlinuz", "kernel"))]
#[case::kernel_there("nonempty-boot", |root: &Path| write(root, "boot/vmlinuz", "kernel"))]
#[case::no_boot("nonempty-boot", |root: &Path| fs::remove_dir(root.join("boot")).unwrap())]
#[case::in_tmp("nonempty-run-tmp", |root: &Path| write(root, "tmp/x", ""))]
#[case::in_run("nonempty-run-tmp", |root: &Path| fs::create_dir(root.join("run/lock")).unwrap())]
#[case::user("sysusers", |root: &Path| write(root, "etc/passwd", "root:x:0:0::/:/bin/sh\njane:x:1000:1000::/:/bin/sh\n"))]
#[case::group("sysusers", |root: &Path| write(root, "etc/group", "video:x:44:\n"))]
#[case::name("utf8", |root: &Path| fs::write(root.join(OsStr::from_bytes(b"etc/\xff")), "").unwrap())]
#[case::target("utf8", |root: &Path| symlink(OsStr::from_bytes(b"\xff"), root.join("etc/link")).unwrap())]
#[case::directory("var-run", |root: &Path| {
    fs::remove_file(root.join("var/run")).unwrap();
    fs::create_dir(root.join("var/run")).unwrap();
})]
#[case::unknown("var-tmpfiles", |root: &Path| fs::create_dir(root.join("var/lib/x")).unwrap())]
#[case::regular("var-tmpfiles", |root: &Path| write(root, "var/lib/x", ""))]
fn one_fault_fails_one_check(#[case] name: &str, #[case] spoil: fn(&Path)) {
    let root = good();
    spoil(root.path());
    assert_eq!(failed(root.path()), [name]);
}

#[test]
fn logs_are_faults_of_two_kinds() {
    let root = good();
    write(root.path(), "var/log/dpkg.log", "installed\n");
    assert_eq!(failed(root.path()), ["var-log", "var-tmpfiles"]);
}

#[test]
fn what_bootc_overlooks_is_overlooked() {
    let root = good();
    write(root.path(), "boot/EFI/Linux/x.efi", "");
    write(root.path(), "run/systemd/resolve/stub-resolv.conf", "");
    assert_eq!(failed(root.path()), [""; 0]);
    write(root.path(), "run/systemd/x", "");
    assert_eq!(failed(root.path()), ["nonempty-run-tmp"]);
}

#[test]
fn a_declaration_through_a_link_counts() {
    let root = good();
    fs::create_dir(root.path().join("var/roothome")).unwrap();
    fs::create_dir(root.path().join("var/roothome/.ssh")).unwrap();
    symlink("var/roothome", root.path().join("root")).unwrap();
    write(root.path(), "etc/tmpfiles.d/root.conf", "d /var/roothome 0700 - - -\nd /root/.ssh 0700 - - -\n");
    assert_eq!(failed(root.path()), [""; 0]);
}

#[test]
fn the_example_in_the_root_is_checked_too() {
    let root = good();
    write(root.path(), "usr/share/doc/bootc/baseimage/base/x", "");
    assert_eq!(failed(root.path()), ["baseimage-composefs", "baseimage-root"]);
}
