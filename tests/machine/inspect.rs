//! Files of file systems that only a kernel reads.

use crate::harness::{Project, User};

/// Makes a root with a name in each kind of file system, and looks into it.
fn looked_into(project: Project, kinds: &[&str]) {
    let mut actions = "  - action: run\n    chroot: true\n    command: |\n      mkdir -p /usr/lib /var/lib/dpkg\n      \
         echo 'PRETTY_NAME=\"The Forge 1\"' > /usr/lib/os-release; ln -s ../usr/lib/os-release /etc/os-release\n      \
         printf 'Package: anvil\\nStatus: install ok installed\\nVersion: 1\\nArchitecture: all\\n\\n' > /var/lib/dpkg/status\n"
        .to_owned();
    for kind in kinds {
        actions.push_str(&format!(
            "  - {{ action: filesystem-image, file: root.{kind}, filesystem: {kind}, size: 400MiB }}\n"
        ));
    }
    let project = project.kernel_of("uml").tiny(&actions).expect("a static busybox");
    project.build([]).success();
    for kind in kinds {
        let file = format!("out/root.{kind}");
        let seen = project.run(["inspect", &file]).success();
        assert!(seen.stdout.contains("The Forge 1") && !seen.stdout.contains("note:"), "{seen}");
        assert!(seen.stdout.contains("packages  1"), "{seen}");
    }
}

#[test]
fn xfs_and_f2fs_are_read_where_this_kernel_or_a_machine_can() {
    needs_root!();
    needs_uml!();
    needs_program!("mkfs.f2fs", "f2fs-tools");
    needs_program!("mkfs.xfs", "xfsprogs");
    needs_program!("busybox", "busybox-static");
    looked_into(Project::new(), &["xfs", "f2fs"]);
    match User::ordinary() {
        Ok(user) => looked_into(Project::of(user), &["xfs", "f2fs"]),
        Err(why) => skip!("{why}"),
    }
}
