//! Images of several architectures.

use super::{archive, blob, json, packages, run};
use crate::harness::Project;

/// A recipe for one architecture.
const ONE: &str = "architecture: {{ arch }}
actions:
  - {action: unpack, origin: recipe, file: root.tar}
  - {action: oci-image, file: 'web-{{ arch }}.oci.tar', sbom: true}
";

const BOTH: &str = "architecture: amd64
actions:
  - action: oci-index
    images: [web-arm64.oci.tar, web-amd64.oci.tar]
    file: web.oci.tar
    tag: \"2\"
";

#[test]
fn architectures_are_joined_under_one_name() {
    let project = Project::new().file("root.tar", archive(&packages(3, &[]))).recipe(ONE).file("both.yaml", BOTH);
    for architecture in ["arch:amd64", "arch:arm64"] {
        project.build(["-t", architecture]).success();
    }
    project.run(["build", "both.yaml", "--artifactdir", "out"]).success().says("linux/amd64, linux/arm64/v8");
    let path = project.path("out/web.oci.tar");
    let top = json(&path, "index.json");
    assert_eq!(top["manifests"][0]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(top["manifests"].as_array().unwrap().len(), 3, "the index, and two bills of materials");
    let index = json(&path, &blob(&top["manifests"][0]));
    let platforms: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| manifest["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for descriptor in index["manifests"].as_array().unwrap() {
        let manifest = json(&path, &blob(descriptor));
        json(&path, &blob(&manifest["config"]));
    }
    project.run(["inspect", "out/web.oci.tar"]).success().prints("linux/amd64").prints("linux/arm64/v8");
    needs_program!("skopeo", "skopeo");
    for architecture in ["amd64", "arm64"] {
        let image = format!("oci-archive:{}:2", path.display());
        let config =
            run(&project.path("."), "skopeo", &["--override-arch", architecture, "inspect", "--config", &image]);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
}

#[test]
fn an_architecture_twice_is_a_fault() {
    let project = Project::new().file("root.tar", archive(&packages(1, &[]))).recipe(
        "architecture: amd64
actions:
  - {action: unpack, origin: recipe, file: root.tar}
  - {action: oci-image, file: a.oci.tar}
  - {action: oci-image, file: b, cmd: [/bin/sh]}
  - {action: oci-index, images: [a.oci.tar, b], file: both}
",
    );
    project.build([]).code(1).says("`a.oci.tar` and `b` both have an image for linux/amd64");
}

#[test]
fn what_is_no_image_is_a_fault() {
    let project = Project::new().file("out/a.tar", archive(&packages(1, &[]))).recipe(
        "architecture: amd64
actions:
  - {action: oci-index, images: [a.tar], file: both}
",
    );
    project.build([]).code(1).says("`a.tar` is no OCI image");
}
