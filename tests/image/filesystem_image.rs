//! `filesystem-image`: the root in a file system alone, read back by the programs of its kind.

use std::fs;
use std::process::Command;

use super::artifacts::output;
use crate::harness::{Project, find_program};

fn program(name: &str) -> Command {
    Command::new(find_program(name).unwrap_or_else(|| panic!("there is no {name}")))
}

const FILES: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /srv/deep
      echo 1 > /srv/deep/file; ln -s deep/file /srv/link; chown 33:42 /srv/deep; chmod 2775 /srv/deep
";

#[test]
fn an_ext4_is_as_large_as_its_contents_want_and_the_same_for_everybody() {
    needs_program!("mke2fs", "e2fsprogs");
    let mut first: Option<Vec<u8>> = None;
    for user in crate::golden::users() {
        let Some(project) = Project::of(user).tiny("") else { skip!("needs a static busybox") };
        project.set_actions(&format!(
            "{FILES}
  - {{ action: filesystem-image, file: root.ext4, margin: 4MiB, label: forge, uuid: 0f0e0d0c-0b0a-4908-8706-050403020100 }}
  - {{ action: filesystem-image, file: srv.img, filesystem: ext2, subdir: srv, size: 3MiB }}
"
        ));
        project.build([]).success();
        let (root, srv) = (project.path("out/root.ext4"), project.path("out/srv.img"));
        for image in [&root, &srv] {
            output(program("e2fsck").args(["-f", "-n"]).arg(image));
        }
        let text = output(program("dumpe2fs").arg("-h").arg(&root));
        assert!(
            text.contains("volume name:   forge") && text.contains("0f0e0d0c-0b0a-4908-8706-050403020100"),
            "{text}"
        );
        let free = |text: &str| -> u64 {
            let field = |name: &str| -> u64 {
                let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().parse().unwrap()
            };
            field("Free blocks:") * field("Block size:")
        };
        assert!((3 << 20..9 << 20).contains(&free(&text)), "{} bytes are free", free(&text));
        assert_eq!(fs::metadata(&srv).unwrap().len(), 3 << 20);
        let stat = output(program("debugfs").args(["-R", "stat /deep"]).arg(&srv));
        assert!(stat.contains("Mode:  02775") && stat.contains("User:    33   Group:    42"), "{stat}");
        let bytes = fs::read(&root).unwrap();
        assert!(*first.get_or_insert(bytes.clone()) == bytes, "root.ext4 differs");
    }
}

#[test]
fn a_squashfs_and_an_erofs_hold_the_tree_and_nothing_behind_it() {
    for (name, package) in [
        ("mksquashfs", "squashfs-tools"),
        ("unsquashfs", "squashfs-tools"),
        ("mkfs.erofs", "erofs-utils"),
        ("fsck.erofs", "erofs-utils"),
    ] {
        needs_program!(name, package);
    }
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(&format!(
        "{FILES}
  - {{ action: filesystem-image, file: root.squashfs, compression: 'xz' }}
  - {{ action: filesystem-image, file: root.erofs, compression: lz4hc }}
  - {{ action: pack, file: root.tar, compression: none }}
"
    ));
    project.build([]).success();
    let listed = output(program("unsquashfs").args(["-lln", "-d", ""]).arg(project.path("out/root.squashfs")));
    let deep = listed.lines().find(|line| line.ends_with(" /srv/deep")).unwrap();
    assert!(deep.starts_with("drwxrwsr-x 33/42 "), "{deep}");
    assert!(listed.contains("/srv/link -> deep/file"), "{listed}");
    output(program("fsck.erofs").arg(project.path("out/root.erofs")));
    let size = |name: &str| fs::metadata(project.path(format!("out/{name}"))).unwrap().len();
    for name in ["root.squashfs", "root.erofs"] {
        assert!(size(name) < size("root.tar"), "{name} has {} bytes", size(name));
        assert_eq!(size(name) % 4096, 0);
    }
}

#[test]
fn what_does_not_fit_is_said() {
    needs_program!("mke2fs", "e2fsprogs");
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions("  - { action: filesystem-image, file: root.ext4, size: 1MiB }\n");
    project.build([]).code(1).says("root.ext4");
    assert!(!project.path("out/root.ext4").exists());
    project.set_actions("  - { action: filesystem-image, file: root.ext4, subdir: nowhere }\n");
    project.build([]).code(1).says("the root has no directory nowhere");
}
