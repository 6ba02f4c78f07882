//! Images of a real Debian.

use super::{manifest, run};
use crate::harness::Project;

const RECIPE: &str = "
architecture: amd64
actions:
  - action: mmdebstrap
    suite: trixie
    variant: minbase
  - action: run
    chroot: true
    command: |
      set -e
      dpkg -L {{ package | default('') }} | while read file; do
        if [ -f \"$file\" ] && [ ! -L \"$file\" ]; then echo changed >> \"$file\"; fi
      done
  - action: oci-image
    file: image.oci.tar
    cmd: [/bin/bash]
";

fn recipe(package: &str) -> String {
    let recipe = RECIPE.replace("{{ package | default('') }}", package);
    if package.is_empty() { recipe.replace("dpkg -L", ":") } else { recipe }
}

#[test]
fn root_and_a_user_make_the_same_image_of_a_debian() {
    slow!();
    let mut first: Option<String> = None;
    for user in crate::golden::users() {
        let project = Project::of(user).recipe(&recipe(""));
        project.build([]).success();
        let (_, digest) = manifest(&project.path("out/image.oci.tar"));
        assert_eq!(first.get_or_insert_with(|| digest.clone()), &digest, "the images differ");
    }
}

#[test]
fn a_new_version_of_a_package_moves_little_more_than_its_deb() {
    slow!();
    let project = Project::new().shared_store().recipe(&recipe(""));
    project.build([]).success();
    std::fs::rename(project.path("out/image.oci.tar"), project.path("before.tar")).unwrap();
    for package in ["bash", "sed", "coreutils"] {
        project.write("recipe.yaml", recipe(package));
        project.build([]).success();
        let diff = project.run(["diff", "before.tar", "out/image.oci.tar", "--json"]).code(1);
        let diff: serde_json::Value = serde_json::from_str(&diff.stdout).unwrap();
        let fetched = diff["fetch"]["bytes"].as_f64().unwrap();
        let deb = deb_size(&project, package);
        assert!(fetched <= 1.5 * deb, "{package}: {fetched} bytes are fetched for a package of {deb}");
    }
}

/// Bytes of the package that the store has.
fn deb_size(project: &Project, package: &str) -> f64 {
    let packages = walkdir::WalkDir::new(project.store()).into_iter().flatten();
    let mut debs = packages.filter(|entry| {
        let name = entry.file_name().to_string_lossy();
        entry.file_type().is_file() && name.len() == 64
    });
    let about = |path: &std::path::Path| {
        std::process::Command::new("dpkg-deb").args(["--field"]).arg(path).arg("Package").output().unwrap()
    };
    let found = debs.find(|entry| String::from_utf8_lossy(&about(entry.path()).stdout).trim() == package);
    found.unwrap_or_else(|| panic!("the store has no {package}")).metadata().unwrap().len() as f64
}

#[test]
fn containers_of_it_run() {
    slow!();
    needs_program!("umoci", "umoci");
    needs_root!();
    let project = Project::new().shared_store();
    project.write(
        "recipe.yaml",
        format!("{}    format: oci-dir\n    compression: gzip\n", recipe("").replace("image.oci.tar", "image")),
    );
    project.build([]).success();
    run(&project.path("out"), "umoci", &["unpack", "--image", "image:latest", "bundle"]);
    let root = project.path("out/bundle/rootfs");
    let said = run(&project.path("."), "chroot", &[root.to_str().unwrap(), "dpkg", "--verify"]);
    assert_eq!(said, "");
}
