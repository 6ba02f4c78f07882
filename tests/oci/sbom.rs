//! Bills of materials of images.

use std::collections::BTreeSet;

use super::{blob, json, manifest, packages, project};

#[test]
fn an_spdx_document_refers_to_the_image() {
    let action = "
  - action: oci-image
    file: image.oci.tar
    sbom: true
";
    let project = project(&packages(4, &[]), action);
    project.build([]).success();
    let path = project.path("out/image.oci.tar");
    let index = json(&path, "index.json");
    let (_, digest) = manifest(&path);
    let descriptor = &index["manifests"][1];
    assert_eq!(descriptor["artifactType"], "application/spdx+json");
    let referrer = json(&path, &blob(descriptor));
    assert_eq!(referrer["artifactType"], "application/spdx+json");
    assert_eq!(referrer["subject"]["digest"], digest.as_str());
    assert_eq!(referrer["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    let document = json(&path, &blob(&referrer["layers"][0]));
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert_eq!(document["name"], "image");
    let names: BTreeSet<&str> =
        document["packages"].as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
    let expected = ["debian", "p000", "p001", "p002", "p003", "s000", "s001", "s002", "s003"];
    assert_eq!(names, BTreeSet::from(expected));
    project.run(["inspect", "out/image.oci.tar"]).success().prints("application/spdx+json");
}
