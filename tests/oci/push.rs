//! Images in a registry.

use super::{manifest, packages, project};
use crate::harness::registry::Registry;

/// `jane:secret`, and what is not that.
const LOGIN: &str = "amFuZTpzZWNyZXQ=";
const WRONG: &str = "amFuZTp3cm9uZw==";

fn actions(registry: &Registry, authfile: &str) -> String {
    format!(
        "
  - action: oci-image
    file: image.oci.tar
    sbom: true
  - action: oci-push
    image: image.oci.tar
    to: docker://{}/shop/web:1.0
    tls-verify: false
    {authfile}
",
        registry.host()
    )
}

fn credentials(registry: &Registry, login: &str) -> String {
    format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{login}\"}}}}}}", registry.host())
}

#[test]
fn an_image_is_pushed_with_what_refers_to_it() {
    needs_program!("skopeo", "skopeo");
    let registry = Registry::new();
    registry.require_login(LOGIN);
    let project = project(&packages(5, &[]), &actions(&registry, "authfile: auth.json"));
    project.write("auth.json", credentials(&registry, LOGIN));
    let first = project.build(["--json"]).success();
    assert!(!first.stdout.contains(LOGIN) && !first.stderr.contains(LOGIN));
    let path = project.path("out/image.oci.tar");
    let (document, digest) = manifest(&path);
    let pushed = registry.manifest("shop/web", "1.0").unwrap();
    assert_eq!(registry.manifest("shop/web", &digest), Some(pushed.clone()));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&pushed).unwrap(), document);
    let referrer = super::json(&path, "index.json")["manifests"][1]["digest"].as_str().unwrap().to_owned();
    assert!(registry.manifest("shop/web", &referrer).is_some());
    // Done again in every build; nothing is sent that is there.
    let sent = registry.sent();
    let again = project.build(["--json"]).success();
    assert_eq!(again.outcomes().last().map(String::as_str), Some("ran"));
    assert_eq!(registry.sent(), sent);
    project.run(["plan", "recipe.yaml", "--artifactdir", "out"]).success().prints("done in every build");
}

#[test]
fn wrong_credentials_are_a_fault_with_a_way_out() {
    needs_program!("skopeo", "skopeo");
    let registry = Registry::new();
    registry.require_login(LOGIN);
    let project = project(&packages(1, &[]), &actions(&registry, ""));
    project.build([]).code(1).says("pushing image.oci.tar").says("`authfile` names a file with credentials");
    project.write("auth.json", credentials(&registry, WRONG));
    project.set_actions(&actions(&registry, "authfile: auth.json"));
    project.build([]).code(1).says("pushing image.oci.tar");
    // The environment names a file, too.
    project.write("auth.json", credentials(&registry, LOGIN));
    project.set_actions(&actions(&registry, ""));
    let project = project.env("REGISTRY_AUTH_FILE", "auth.json");
    let absolute = project.path("auth.json");
    let project = project.env("REGISTRY_AUTH_FILE", absolute);
    project.build([]).success();
}

#[test]
fn faults_of_the_recipe_are_found_before_anything_runs() {
    let project = project(
        &packages(1, &[]),
        "
  - action: oci-push
    image: none.tar
    to: registry.example.org/web:1.0
    authfile: none.json
",
    );
    project
        .build([])
        .code(2)
        .says("there is no `none.tar` among the artifacts")
        .says("is no place in a registry")
        .says("there is no file `none.json`");
}
