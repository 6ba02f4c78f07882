//! `inspect` and `diff` of images.

use super::{archive, packages, project};

const IMAGE: &str = "
  - action: oci-image
    file: image.oci.tar
    cmd: [/bin/sh]
";

#[test]
fn what_changed_between_two_images() {
    let project = project(&packages(10, &[]), IMAGE);
    project.build([]).success();
    std::fs::rename(project.path("out/image.oci.tar"), project.path("before.tar")).unwrap();
    project.write("root.tar", archive(&packages(10, &[9])));
    project.set_actions(&IMAGE.replace("/bin/sh", "/bin/p009"));
    project.build([]).success();
    project
        .run(["diff", "before.tar", "out/image.oci.tar"])
        .code(1)
        .prints("packages: 1 changed\n  ~  p009  1 → 2\n")
        .prints("image\n  ~  cmd  /bin/sh → /bin/p009\n")
        .prints("to fetch\n  2 of 12 layers, ")
        .prints("  s009\n")
        .prints("~ /usr/bin/p009");
    project
        .run(["inspect", "out/image.oci.tar"])
        .success()
        .prints("image.oci.tar · OCI image · ")
        .prints("linux/")
        .prints("packages  10,");
    // Compressed as a whole, it is the same image.
    needs_program!("zstd", "zstd");
    super::run(&project.path("out"), "zstd", &["-q", "image.oci.tar"]);
    project.run(["diff", "out/image.oci.tar", "out/image.oci.tar.zst"]).success().prints("identical");
}
