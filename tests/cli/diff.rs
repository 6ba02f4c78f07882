//! `debforge diff`, on artifacts that the usual programs have made.

use super::image::{self, tool};
use crate::harness::Project;
use crate::harness::project::Finished;

macro_rules! needs_image_programs {
    () => {
        for (program, package) in [("sfdisk", "fdisk"), ("mformat", "mtools"), ("mke2fs", "e2fsprogs")] {
            needs_program!(program, package);
        }
    };
}

/// What was printed, without the width of columns.
fn squeezed(finished: &Finished) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    finished.stdout_filtered().lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A root `old`, and another one `new` that differs from it.
fn two_roots() -> Project {
    let project = Project::new();
    image::system_root(&project, "old");
    image::system_root(&project, "new");
    let status = project.read("old/var/lib/dpkg/status");
    let status = status.replace("1.22.21", "1.23.0").replace("Package: base-files", "Package: base-filez");
    project.write("new/var/lib/dpkg/status", status);
    project.write("new/etc/hostname", "anvil\n");
    project.write("new/etc/motd", "welcome\n");
    std::fs::remove_file(project.path("new/boot/vmlinuz-6.12.1-amd64")).unwrap();
    std::fs::remove_file(project.path("new/boot/initrd.img-6.12.1-amd64")).unwrap();
    project.write("new/boot/vmlinuz-6.12.2-amd64", "kernel\n");
    project.chmod("new/usr/share/doc/dpkg/copyright", 0o600);
    project
}

fn pack(project: &Project, root: &str) -> String {
    let name = format!("{root}.tar");
    tool("tar", &["cf", &name, "--sort=name", "--mtime=@0", "-C", root, "."], "", &project.path("."));
    name
}

#[test]
fn archives_packages_first() {
    let project = two_roots();
    let (old, new) = (pack(&project, "old"), pack(&project, "new"));
    insta::assert_snapshot!(squeezed(&project.run(["diff", &old, &new, "--text"]).code(1)));
    let json = project.run(["diff", &old, &new, "--json"]).code(1);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["identical"], false);
    assert_eq!(json["packages"][0]["before"], "13.8", "{json:#}");
}

#[test]
fn disks_and_what_is_on_them() {
    needs_image_programs!();
    let project = two_roots();
    image::system_disk(&project, "old.img", "old");
    image::system_disk(&project, "new.img", "new");
    let at = project.path(".");
    tool("sfdisk", &["-q", "--part-label", "new.img", "2", "system"], "", &at);
    tool("sfdisk", &["-q", "--disk-id", "new.img", "99999999-2222-3333-4444-555555555555"], "", &at);
    project.write("extra", "more\n");
    tool("mcopy", &["-i", "new.img@@1M", "extra", "::EFI/BOOT/grub.cfg"], "", &at);
    insta::assert_snapshot!(squeezed(&project.run(["diff", "old.img", "new.img"]).code(1)));
}

#[test]
fn the_same_is_identical_also_when_compressed() {
    let project = Project::new();
    image::system_root(&project, "old");
    let old = pack(&project, "old");
    let bytes = std::fs::read(project.path(&old)).unwrap();
    project.write("old.tar.zst", zstd::encode_all(&*bytes, 1).unwrap());
    let finished = project.run(["diff", &old, "old.tar.zst"]).code(0);
    assert_eq!(finished.stdout, "identical\n");
}

#[test]
fn other_bytes_with_the_same_files_are_not_identical() {
    needs_image_programs!();
    let project = Project::new();
    image::system_disk(&project, "a.img", "root");
    let mut bytes = std::fs::read(project.path("a.img")).unwrap();
    let at = (5 << 20) + 200;
    bytes[at] ^= 1;
    project.write("b.img", bytes);
    let said = format!("the same files, but other bytes from byte {at}, in partition 2 on\n");
    project.run(["diff", "a.img", "b.img"]).code(1).prints(&said);
}

#[test]
fn a_disk_can_be_compared_with_the_archive_of_its_root() {
    needs_image_programs!();
    let project = Project::new();
    image::system_disk(&project, "disk.img", "root");
    let archive = pack(&project, "root");
    let finished = project.run(["diff", "disk.img", &archive]).code(1);
    let text = squeezed(&finished);
    assert!(text.contains("~ form disk → tar archive"), "{text}");
    // The archive has no EFI system partition, but what that one hides.
    assert!(text.contains("files: 1 new, 3 gone\n+ /boot/efi/.keep\n- /boot/efi/EFI\n"), "{text}");
}

#[test]
fn many_files_are_shown_by_directory() {
    let project = Project::new();
    image::system_root(&project, "old");
    let old = pack(&project, "old");
    for number in 0..30 {
        project.write(&format!("old/usr/share/doc/dpkg/part-{number}"), "text");
        project.write(&format!("old/usr/lib/part-{number}"), "text");
    }
    project.write("old/usr/share/doc/dpkg/copyright", "freer\n");
    std::fs::rename(project.path("old.tar"), project.path("before.tar")).unwrap();
    let new = pack(&project, "old");
    assert_eq!(old, new);
    insta::assert_snapshot!(squeezed(&project.run(["diff", "before.tar", &new]).code(1)));
    project.run(["diff", "before.tar", &new, "--files"]).code(1).prints("  + /usr/lib/part-7  +4 B\n");
}

#[test]
fn trouble_is_neither_the_same_nor_different() {
    let project = Project::new().file("text", "hello\n");
    project.run(["diff", "text", "text"]).code(2).says("text is nothing that debforge knows");
    project.run(["diff", "nothing", "text"]).code(2).says("nothing cannot be opened");
    let mut broken = zstd::encode_all(&*vec![1; 100_000], 1).unwrap();
    broken.truncate(12);
    project.write("broken.zst", broken);
    project.run(["diff", "broken.zst", "broken.zst"]).code(2).says("error: ");
}
