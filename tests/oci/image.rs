//! What `oci-image` leaves.

use serde_json::json;

use super::{Node, archive, blob, file, json, manifest, packages, project};
use crate::harness::Project;

const IMAGE: &str = "
  - action: oci-image
    file: image.oci.tar
";

const ODD_FILES: &str = "
  - action: run
    chroot: true
    command: |
      mkdir -p /srv/deep
      echo 1 > /srv/deep/file; ln /srv/deep/file /srv/second; ln -s deep/file /srv/link
      chown 33:42 /srv/deep; chmod 2775 /srv/deep; chmod 4711 /srv/second
      mknod /srv/pipe p
";

#[test]
fn root_and_a_user_make_the_same_image() {
    let mut first: Option<Vec<u8>> = None;
    for user in crate::golden::users() {
        let Some(project) = Project::of(user).tiny(&format!("{ODD_FILES}{}", IMAGE.trim_start_matches('\n'))) else {
            skip!("needs a static busybox")
        };
        project.build([]).success();
        let image = std::fs::read(project.path("out/image.oci.tar")).unwrap();
        match &first {
            None => first = Some(image),
            Some(first) => assert!(*first == image, "the images differ"),
        }
    }
}

#[test]
fn one_processor_makes_the_same_image_as_many() {
    needs_program!("taskset", "util-linux");
    for compression in ["zstd", "gzip", "none"] {
        let project = project(&packages(30, &[]), &format!("{IMAGE}    compression: {compression}\n"));
        project.build([]).success();
        let digest = manifest(&project.path("out/image.oci.tar")).1;
        let args = ["build", "recipe.yaml", "--artifactdir", "alone", "--no-cache"];
        project.run_behind(["taskset", "-c", "0"], args).success();
        assert_eq!(manifest(&project.path("alone/image.oci.tar")).1, digest, "{compression}");
    }
}

#[test]
fn the_configuration_is_as_asked() {
    let project = project(
        &packages(3, &[]),
        &format!(
            "{IMAGE}    tag: \"1.0\"
    entrypoint: [/bin/p001]
    cmd: [--help]
    env: {{LANG: C.UTF-8}}
    user: \"33:33\"
    workdir: /srv
    exposed-ports: [80/tcp]
    volumes: [/data]
    stop-signal: SIGINT
    labels: {{one: \"1\"}}
    annotations: {{two: \"2\"}}
"
        ),
    );
    project.build([]).success().says("image.oci.tar:1.0");
    let path = project.path("out/image.oci.tar");
    let index = json(&path, "index.json");
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1.0");
    let (manifest, _) = manifest(&path);
    assert_eq!(manifest["annotations"]["two"], "2");
    let config = json(&path, &blob(&manifest["config"]));
    let expected = json!({
        "Cmd": ["--help"],
        "Entrypoint": ["/bin/p001"],
        "Env": ["LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"one": "1"},
        "StopSignal": "SIGINT",
        "User": "33:33",
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
    });
    assert_eq!(config["config"], expected);
    assert_eq!(config["os"], "linux");
    let layers = manifest["layers"].as_array().unwrap().len();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers);
    assert_eq!(config["history"].as_array().unwrap().len(), layers);
}

#[test]
fn every_file_is_in_one_layer_with_the_directories_above_it() {
    let project = project(&packages(20, &[]), &format!("{IMAGE}    compression: none\n    max-layers: 10\n"));
    project.build([]).success();
    let path = project.path("out/image.oci.tar");
    let (manifest, _) = manifest(&path);
    let layers = manifest["layers"].as_array().unwrap();
    assert!(layers.len() <= 10, "{} layers", layers.len());
    let mut files = Vec::new();
    for layer in layers {
        let bytes = super::member(&path, &blob(layer));
        let mut known = vec![std::path::PathBuf::new()];
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            assert!(known.contains(&path.parent().unwrap().to_owned()), "{} has no directory", path.display());
            if entry.header().entry_type().is_dir() {
                known.push(path);
            } else {
                files.push(path);
            }
        }
    }
    let all = files.len();
    files.sort();
    files.dedup();
    assert_eq!(files.len(), all, "a file is in two layers");
    assert_eq!(all, 20 * 3 + 4);
}

/// A package that is changed, and the least and the most that a client fetches for it, as parts of what it is.
fn fetched(project: &Project, before: &str, after: &str) -> (f64, usize) {
    let diff = project.run(["diff", before, after, "--json"]).code(1);
    let diff: serde_json::Value = serde_json::from_str(&diff.stdout).unwrap();
    (diff["fetch"]["bytes"].as_f64().unwrap(), usize::try_from(diff["fetch"]["layers"].as_u64().unwrap()).unwrap())
}

#[test]
fn one_changed_package_is_fetched_and_little_more() {
    let project = project(&packages(100, &[]), IMAGE);
    project.build([]).success();
    std::fs::rename(project.path("out/image.oci.tar"), project.path("before.tar")).unwrap();
    for changed in [70, 99] {
        project.write("root.tar", archive(&packages(100, &[changed])));
        project.build([]).success();
        let (bytes, layers) = fetched(&project, "before.tar", "out/image.oci.tar");
        // Hexadecimal digits have half their size of contents.
        let package = (changed as f64 + 1.0) * 3000.0;
        assert!(bytes <= 1.5 * package, "{bytes} bytes are fetched for a package of {package}");
        // Its own, and dpkg's database.
        assert_eq!(layers, 2);
    }
}

#[test]
fn the_layers_of_an_earlier_image_are_kept() {
    let project = project(&packages(100, &[]), IMAGE);
    project.build([]).success();
    std::fs::rename(project.path("out/image.oci.tar"), project.path("before.tar")).unwrap();
    // The largest of all is new, so that one of those before has to share a layer.
    project.write("root.tar", archive(&packages(101, &[])));
    project.build([]).success();
    let (_, afresh) = fetched(&project, "before.tar", "out/image.oci.tar");
    project.set_actions(&format!("{IMAGE}    previous: before.tar\n"));
    project.build([]).success();
    let (_, along) = fetched(&project, "before.tar", "out/image.oci.tar");
    assert!(along < afresh, "{along} layers are fetched, not fewer than {afresh}");
    assert_eq!(along, 2);
}

#[test]
fn a_layout_directory_holds_the_same_image() {
    let project = project(&packages(5, &[]), &format!("{IMAGE}  - action: oci-image\n    file: layout\n"));
    project.build([]).success();
    let index = json(&project.path("out/image.oci.tar"), "index.json");
    let other: serde_json::Value = serde_json::from_str(&project.read("out/layout/index.json")).unwrap();
    assert_eq!(index, other);
    assert!(project.path("out/layout").join(blob(&index["manifests"][0])).is_file());
    project.run(["diff", "out/image.oci.tar", "out/layout"]).success().prints("identical");
    // From the store, in whole.
    std::fs::remove_dir_all(project.path("out")).unwrap();
    project.build([]).success();
    project.run(["diff", "out/image.oci.tar", "out/layout"]).success();
}

#[test]
fn what_containers_have_of_their_own_is_left_out() {
    let nodes = [file("dev/x", ""), file("proc/y", ""), file("etc/z", ""), ("sys".to_owned(), Node::Directory)];
    let project = project(&nodes, &format!("{IMAGE}    compression: none\n"));
    project.build([]).success();
    let path = project.path("out/image.oci.tar");
    let layer = super::member(&path, &blob(&manifest(&path).0["layers"][0]));
    let mut names: Vec<String> = tar::Archive::new(layer.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["dev/", "etc/", "etc/z", "proc/", "sys/"]);
}

#[test]
fn a_user_that_the_root_does_not_know_is_a_fault() {
    let project = project(&packages(1, &[]), &format!("{IMAGE}    user: web\n"));
    project.build([]).code(1).says("the root has no user `web`");
    project.set_actions(&format!("{IMAGE}    user: root:www\n"));
    project.build([]).code(1).says("the root has no group `www`");
    project.set_actions(&format!("{IMAGE}    user: \"0:7\"\n"));
    project.build([]).success();
}

#[test]
fn names_that_mean_something_in_images_are_a_fault() {
    let project = project(&[file("etc/.wh.passwd", "")], IMAGE);
    project.build([]).code(1).says("an image cannot hold /etc/.wh.passwd");
}

#[test]
fn faults_of_the_recipe_are_found_before_anything_runs() {
    let project = project(
        &packages(1, &[]),
        "
  - action: oci-image
    file: ../image.tar
    compression: zst
    max-layers: 3
    exposed-ports: [http]
    workdir: srv
    stop-signal: TERM
    previous: none.tar
  - action: oci-image
    file: image
    tag: a/b
",
    );
    project
        .build([])
        .code(2)
        .says("`../image.tar` leads out of the artifact directory")
        .says("layers cannot be compressed with `zst`")
        .says("did you mean `zstd`?")
        .says("an image has 6 layers or more")
        .says("`http` is no port")
        .says("`srv` is not absolute")
        .says("`TERM` is no signal")
        .says("there is no `none.tar`")
        .says("`a/b` is no tag");
}
