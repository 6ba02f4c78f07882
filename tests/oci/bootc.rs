//! bootc images.

use super::{Node, blob, file, json, manifest, packages, project, run};
use crate::harness::{Project, has_program};

const ACTION: &str = "
  - action: bootc-image
    file: system.oci.tar
    tag: \"13\"
    kargs: [console=ttyS0, \"quiet\"]
";

/// A root that passes all checks.
fn prepared() -> Vec<(String, Node)> {
    let mut nodes = packages(5, &[]);
    nodes.retain(|(path, _)| !path.starts_with("var/lib"));
    for name in ["boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var"] {
        nodes.push((name.to_owned(), Node::Directory));
    }
    nodes.push(("ostree".to_owned(), Node::Link("sysroot/ostree")));
    nodes.extend([
        file("usr/lib/modules/6.12/vmlinuz", "kernel"),
        file("usr/lib/modules/6.12/initramfs.img", "initramfs"),
        file("usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n"),
        file("usr/lib/sysusers.d/base.conf", "u root 0 - /root\n"),
        file(
            "usr/share/dpkg/database/status",
            "Package: p001\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
        ),
        file("usr/share/dpkg/database/info/p001.list", "/.\n/usr/bin/p001\n"),
    ]);
    nodes
}

#[test]
fn a_prepared_root_becomes_an_image_that_passes() {
    let project = project(&prepared(), &format!("{ACTION}    fatal-warnings: true\n"));
    project.build([]).success();
    let path = project.path("out/system.oci.tar");
    project.run(["lint-bootc", "out/system.oci.tar", "--fatal-warnings"]).success().prints("14 passed");
    let (manifest, _) = manifest(&path);
    let config = json(&path, &blob(&manifest["config"]));
    assert_eq!(config["config"]["Labels"]["containers.bootc"], "1");
    assert_eq!(config["config"]["Labels"]["ostree.bootable"], "1");
    assert_eq!(config["config"]["Cmd"][0], "/sbin/init");
    // dpkg's database counts where it was moved to.
    let layers = manifest["layers"].as_array().unwrap();
    assert!(layers.iter().any(|layer| layer["annotations"]["org.debforge.sources"] == "p001"));
    assert!(layers.iter().any(|layer| layer["annotations"]["org.debforge.layer"] == "boot"));
    // The arguments are in a layer of their own, and not in the root.
    let last = layers.last().unwrap();
    assert_eq!(last["annotations"]["org.debforge.layer"], "image");
    let layer = zstd::decode_all(super::member(&path, &blob(last)).as_slice()).unwrap();
    project.write("layer.tar", &layer);
    let text = String::from_utf8(super::member(&project.path("layer.tar"), "usr/lib/bootc/kargs.d/10-debforge.toml"));
    assert_eq!(text.unwrap(), "kargs = [\"console=ttyS0\", \"quiet\"]\n");
}

#[test]
fn bootc_itself_finds_nothing_to_complain_of() {
    if !has_program("bootc") {
        skip!("needs bootc, which Debian does not have");
    }
    needs_program!("umoci", "umoci");
    needs_root!();
    let project = project(&prepared(), &format!("{ACTION}    format: oci-dir\n    compression: gzip\n"));
    project.build([]).success();
    run(&project.path("out"), "umoci", &["unpack", "--image", "system.oci.tar:13", "bundle"]);
    run(&project.path("out"), "bootc", &["container", "lint", "--rootfs", "bundle/rootfs"]);
}

#[test]
fn a_fatal_check_ends_the_build_before_anything_is_written() {
    let mut nodes = prepared();
    nodes.retain(|(path, _)| path != "ostree");
    nodes.push(file("usr/etc/x", ""));
    let project = project(&nodes, ACTION);
    project
        .build([])
        .code(1)
        .says("the root makes no bootc image: 2 checks failed")
        .says("baseimage-root: /ostree is missing")
        .says("etc-usretc: there is a /usr/etc beside /etc");
    assert!(!project.path("out/system.oci.tar").exists());
}

#[test]
fn a_warning_ends_it_only_where_that_is_asked_for() {
    let mut nodes = prepared();
    nodes.push(file("boot/vmlinuz", "kernel"));
    let project = project(&nodes, ACTION);
    project.build([]).success().says("nonempty-boot: /boot is not empty: /boot/vmlinuz");
    project.set_actions(&format!("{ACTION}    fatal-warnings: true\n"));
    project.build([]).code(1).says("the root makes no bootc image: nonempty-boot");
}

#[test]
fn an_image_that_cannot_boot_is_not_made() {
    for (missing, says) in [("vmlinuz", "the root has no kernel"), ("initramfs.img", "the kernel has no initramfs")] {
        let mut nodes = prepared();
        nodes.retain(|(path, _)| !path.ends_with(missing));
        project(&nodes, ACTION).build([]).code(1).says(says);
    }
}

#[test]
fn directories_and_archives_are_checked_alike() {
    let project = Project::new().file("root.tar", super::archive(&prepared()));
    project.run(["lint-bootc", "root.tar"]).success().prints("14 passed");
    std::fs::create_dir(project.path("root")).unwrap();
    super::run(&project.path("root"), "tar", &["xf", "../root.tar"]);
    std::fs::remove_dir(project.path("root/sysroot")).unwrap();
    project.run(["lint-bootc", "root"]).code(1).prints("fatal  baseimage-root  /sysroot is missing");
    let json = project.run(["lint-bootc", "root", "--json"]).code(1);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json[0]["checks"].as_array().unwrap().len(), 14);
    project.write("root/tmp/x", "");
    std::fs::create_dir(project.path("root/sysroot")).unwrap();
    project.run(["lint-bootc", "root"]).success().prints("nonempty-run-tmp");
    project.run(["lint-bootc", "root", "--fatal-warnings"]).code(1);
    project.run(["lint-bootc", "--list"]).success().prints("var-tmpfiles");
    project.run(["lint-bootc", "nowhere"]).code(2);
}
