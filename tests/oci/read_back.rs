//! Images as other programs see them.

use std::os::unix::fs::MetadataExt;

use super::{Node, file, manifest, packages, project, run};

const BOTH: &str = "
  - action: oci-image
    file: zstd.oci.tar
  - action: oci-image
    file: gzip
    compression: gzip
";

#[test]
fn skopeo_takes_it() {
    needs_program!("skopeo", "skopeo");
    let project = project(&packages(30, &[]), BOTH);
    project.build([]).success();
    let (_, digest) = manifest(&project.path("out/zstd.oci.tar"));
    let text = run(&project.path("out"), "skopeo", &["inspect", "oci-archive:zstd.oci.tar"]);
    let text: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text["Digest"], digest.as_str());
    // It compares every blob with its digest.
    run(&project.path("out"), "skopeo", &["--insecure-policy", "copy", "oci:gzip:latest", "dir:copy"]);
}

#[test]
fn umoci_unpacks_what_the_root_was() {
    needs_program!("umoci", "umoci");
    needs_root!();
    let mut nodes = packages(30, &[]);
    nodes.push(file("srv/odd", "1\n"));
    nodes.push(("srv/link".to_owned(), Node::Link("odd")));
    let project = project(&nodes, BOTH);
    project.build([]).success();
    run(&project.path("out"), "umoci", &["unpack", "--image", "gzip:latest", "bundle"]);
    let at = |path: &str| project.path("out/bundle/rootfs").join(path);
    assert_eq!(std::fs::read_to_string(at("srv/odd")).unwrap(), "1\n");
    assert_eq!(std::fs::read_link(at("srv/link")).unwrap().to_str(), Some("odd"));
    assert_eq!(std::fs::read_link(at("bin")).unwrap().to_str(), Some("usr/bin"));
    assert!(at("srv/empty").is_dir());
    assert_eq!(std::fs::metadata(at("usr/bin/p029")).unwrap().len(), 180_000);
    // No file is of a later date than the image, which without any repository is of 1980.
    assert_eq!(std::fs::metadata(at("usr/bin/p029")).unwrap().mtime(), 315_532_800);
    assert_eq!(std::fs::read_dir(at("usr/bin")).unwrap().count(), 30);
}

#[test]
fn podman_takes_it() {
    needs_program!("podman", "podman");
    needs_root!();
    let project = project(&packages(10, &[]), BOTH);
    project.build([]).success();
    // podman wants a short path.
    let own = tempfile::tempdir().unwrap();
    let (store, state) = (own.path().join("store"), own.path().join("state"));
    let (store, state) = (store.to_str().unwrap(), state.to_str().unwrap());
    let podman = |args: &[&str]| {
        let own = ["--root", store, "--runroot", state, "--storage-driver", "vfs"];
        run(&project.path("out"), "podman", &[&own, args].concat())
    };
    let id = podman(&["pull", "--quiet", "oci-archive:zstd.oci.tar"]);
    let layers = podman(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", id.trim()]);
    let expected = manifest(&project.path("out/zstd.oci.tar")).0["layers"].as_array().unwrap().len();
    assert_eq!(layers.trim(), expected.to_string());
}
