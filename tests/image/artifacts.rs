//! The actions on artifacts: `checksums`, `compress`, `convert`, `sign`.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use crate::harness::{Project, User};

/// Bytes of [`image`].
const SIZE: u64 = 24 << 20;

/// A sparse image: a text that compresses well, noise that does not, holes, and zeros that are no hole.
pub fn image(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    let text: Vec<u8> = (0_u32..40_000).flat_map(|line| format!("line {line} of a text\n").into_bytes()).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = (0..200_000)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    file.write_all_at(&text, 3 << 20).unwrap();
    file.write_all_at(&noise, (9 << 20) + 4096).unwrap();
    file.write_all_at(&vec![0; 2 << 20], 14 << 20).unwrap();
    file.write_all_at(&noise[..70_000], 20 << 20).unwrap();
    file.write_all_at(b"the end", SIZE - 7).unwrap();
}

/// A project whose artifact directory has an image from an earlier build, and a recipe of these actions.
fn project(user: User, actions: &str) -> Project {
    let project = Project::of(user).recipe(&recipe(actions));
    project.write("out/disk.img", "");
    image(&project.path("out/disk.img"));
    project
}

fn recipe(actions: &str) -> String {
    format!("architecture: amd64\nactions:\n{}", actions.trim_start_matches('\n'))
}

/// Runs a program to its end and returns what it printed.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn same_files(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn a_compressed_artifact_is_the_same_for_any_number_of_threads() {
    for (compression, ending, program) in
        [("zstd", "zst", "zstd"), ("xz", "xz", "xz"), ("gz", "gz", "gzip"), ("bzip2", "bz2", "bzip2")]
    {
        needs_program!(program, program);
        let project = project(
            User::current(),
            &format!(
                "
  - {{ action: compress, file: disk.img, compression: {compression}, threads: 1 }}
  - {{ action: compress, file: disk.img, compression: {compression}, threads: 5, output: five.{ending} }}
  - {{ action: compress, file: disk.img, compression: {compression}, level: 1, output: fast.{ending} }}
"
            ),
        );
        project.build([]).success();
        let path = |name: &str| project.path(format!("out/{name}.{ending}"));
        assert!(same_files(&path("disk.img"), &path("five")), "{compression}");
        assert!(fs::metadata(path("disk.img")).unwrap().len() < 2_500_000, "{compression}");
        assert!(!same_files(&path("disk.img"), &path("fast")), "{compression} has no levels");
        for name in ["disk.img", "fast"] {
            let plain = Command::new(program).arg("-dc").arg(path(name)).output().unwrap().stdout;
            assert!(plain == fs::read(project.path("out/disk.img")).unwrap(), "{compression}");
        }
    }
}

#[test]
fn a_source_is_removed_only_if_this_build_made_it() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.write("out/old", "of an earlier build");
    let actions = "
  - { action: pack, file: a.tar, compression: none }
  - { action: pack, file: b.tar, compression: none }
  - { action: compress, file: a.tar, remove-source: true }
  - { action: compress, file: old, remove-source: true }
";
    project.set_actions(actions);
    project.build([]).success().says("`old` was left by an earlier build, and stays");
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(project.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["a.tar.zst", "b.tar", "old", "old.zst"]);
    // A cached removal is a removal, also for a step that looks at what there is.
    project.set_actions(&format!("{actions}  - action: checksums\n"));
    project.build([]).success();
    assert_eq!(names(), ["SHA256SUMS", "a.tar.zst", "b.tar", "old", "old.zst"]);
    let list = project.read("out/SHA256SUMS");
    let listed: Vec<&str> = list.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(listed, ["a.tar.zst", "b.tar", "old.zst"]);
}

#[test]
fn what_was_removed_is_no_source_any_more() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - { action: pack, file: a.tar, compression: none }
  - { action: compress, file: a.tar, remove-source: true }
  - { action: compress, file: a.tar, compression: xz }
",
    );
    project.build([]).code(2).says("there is no `a.tar` among the artifacts");
}

#[test]
fn converted_images_hold_what_the_raw_one_does_and_are_the_same_each_time() {
    needs_program!("qemu-img", "qemu-utils");
    let cases = [
        ("qcow2", "format: qcow2"),
        ("zstd.qcow2", "compression: zstd"),
        ("zlib.qcow2", "compression: zlib"),
        ("vmdk", "format: vmdk"),
        ("stream.vmdk", "format: vmdk, subformat: streamOptimized"),
        ("vdi", "format: vdi"),
        ("fixed.vdi", "format: vdi, subformat: fixed"),
        ("vhdx", "format: vhdx"),
        ("fixed.vhdx", "format: vhdx, subformat: fixed"),
        ("vhd", "format: vhd"),
        ("fixed.vhd", "format: vhd, subformat: fixed"),
        ("raw", "format: raw"),
    ];
    let actions: String = cases
        .iter()
        .map(|(ending, rest)| format!("  - {{ action: convert, file: disk.img, output: disk.{ending}, {rest} }}\n"))
        .collect();
    let mut first: Option<Project> = None;
    for user in crate::golden::users() {
        let project = project(user, &actions);
        project.build([]).success();
        for (ending, _) in cases {
            let path = project.path(format!("out/disk.{ending}"));
            let format = match ending.rsplit('.').next().unwrap() {
                "vhd" => "vpc",
                format => format,
            };
            let mut compare = Command::new("qemu-img");
            compare.args(["compare", "-f", "raw", "-F", format]).arg(project.path("out/disk.img")).arg(&path);
            assert!(output(&mut compare).contains("Images are identical"), "{ending}");
            if matches!(format, "qcow2" | "vmdk" | "vdi" | "vhdx") {
                output(Command::new("qemu-img").args(["check", "-f", format]).arg(&path));
            }
            let info = output(Command::new("qemu-img").args(["info", "--output=json", "-f", format]).arg(&path));
            assert!(info.contains(&format!("\"virtual-size\": {SIZE}")), "{ending}: {info}");
            let meta = fs::metadata(&path).unwrap();
            assert!(meta.blocks() * 512 < 12 << 20, "{ending} has {} blocks", meta.blocks());
            if let Some(first) = &first {
                assert!(same_files(&path, &first.path(format!("out/disk.{ending}"))), "{ending} differs");
            }
        }
        let size = |ending: &str| fs::metadata(project.path(format!("out/disk.{ending}"))).unwrap().len();
        // The text is all but gone.
        assert!(size("zstd.qcow2") + 600_000 < size("qcow2"));
        assert!(size("zlib.qcow2") + 500_000 < size("qcow2"));
        first.get_or_insert(project);
    }
}

#[test]
fn a_fixed_vhd_is_whole_mebibytes() {
    needs_program!("qemu-img", "qemu-utils");
    let convert = "  - { action: convert, file: disk.img, format: vhd, subformat: fixed }\n";
    let project = project(User::current(), convert);
    let odd = File::options().write(true).open(project.path("out/disk.img")).unwrap();
    odd.set_len(SIZE + 512).unwrap();
    project.build([]).code(1).says("whole mebibytes").says("imagesize:");
    assert!(!project.path("out/disk.vhd").exists());
    let partition = "  - {action: image-partition, imagename: disk.img, imagesize: 1GB, partitiontype: gpt, partitions: [{name: a, fs: ext4, size: rest}], mountpoints: [{mountpoint: /, partition: a}]}\n";
    project.set_actions(&format!("{partition}  - {{action: filesystem-deploy}}\n{convert}"));
    project.run(["check", "recipe.yaml"]).code(2).says("whole mebibytes").says("is the next larger");
}

#[test]
fn images_of_other_contents_have_other_ids() {
    needs_program!("qemu-img", "qemu-utils");
    let actions = "
  - { action: convert, file: disk.img, format: vdi }
  - { action: convert, file: other.img, format: vdi }
";
    let project = project(User::current(), actions);
    fs::copy(project.path("out/disk.img"), project.path("out/other.img")).unwrap();
    File::options().write(true).open(project.path("out/other.img")).unwrap().write_all_at(b"else", 3 << 20).unwrap();
    project.build([]).success();
    let id = |name: &str| {
        let mut id = [0; 32];
        File::open(project.path(name)).unwrap().read_exact_at(&mut id, 0x188).unwrap();
        id
    };
    assert_ne!(id("out/disk.vdi"), id("out/other.vdi"));
}

#[test]
fn an_empty_image_and_one_of_an_odd_size_are_compressed_too() {
    needs_program!("qemu-img", "qemu-utils");
    let project = Project::new().recipe(&recipe(
        "
  - { action: convert, file: zeros.img, compression: zlib }
  - { action: convert, file: odd.img, compression: zstd }
",
    ));
    project.write("out/zeros.img", "");
    File::options().write(true).open(project.path("out/zeros.img")).unwrap().set_len(3 << 30).unwrap();
    project.write("out/odd.img", vec![7; 100_000]);
    project.build([]).success();
    for name in ["zeros", "odd"] {
        let path = project.path(format!("out/{name}.qcow2"));
        output(Command::new("qemu-img").arg("check").arg(&path));
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-f", "raw", "-F", "qcow2"]).arg(project.path(format!("out/{name}.img"))).arg(&path);
        assert!(output(&mut compare).contains("Images are identical"), "{name}");
    }
}

#[test]
fn a_list_of_checksums_is_what_coreutils_check() {
    let project = project(
        User::current(),
        "
  - { action: compress, file: disk.img, output: release/disk.img.zst }
  - { action: convert, file: disk.img, format: raw }
  - { action: checksums }
  - { action: checksums, algorithm: sha512, files: ['*.raw', '**/*.zst', disk.img] }
  - { action: checksums, algorithm: b2, files: ['**/*.zst', disk.img], file: release/B2SUMS }
",
    );
    project.build([]).success();
    for (directory, program, list, lines) in [
        ("out", "sha256sum", "SHA256SUMS", 2),
        ("out", "sha512sum", "SHA512SUMS", 3),
        ("out/release", "b2sum", "B2SUMS", 2),
    ] {
        let checked = output(Command::new(program).args(["-c", list]).current_dir(project.path(directory)));
        assert_eq!(checked.lines().filter(|line| line.ends_with(": OK")).count(), lines, "{list}: {checked}");
    }
}

#[test]
fn a_pattern_that_fits_nothing_when_it_is_reached_fails() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.set_actions(
        "
  - { action: run, command: 'touch $ARTIFACTDIR/a.txt' }
  - { action: checksums, files: ['*.img'] }
",
    );
    project.build([]).code(1).says("no artifact of this build fits `*.img`").says("a.txt");
}

/// A gpg directory with a key that was made at this second, and the fingerprint.
fn gpg_home(project: &Project, name: &str, made: i64, passphrase: &str) -> String {
    let home = project.path(name);
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gpg = || {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--homedir"]).arg(&home).arg(format!("--faked-system-time={made}!"));
        gpg
    };
    let loopback = ["--pinentry-mode", "loopback", "--passphrase", passphrase];
    output(gpg().args(loopback).args(["--quick-gen-key", "Test <test@example.org>", "ed25519", "sign", "never"]));
    let key = output(gpg().args(loopback).args(["--armor", "--export-secret-keys"]));
    project.write(&format!("{name}.asc"), key);
    let list = output(gpg().args(["--with-colons", "--list-secret-keys"]));
    output(Command::new("gpgconf").arg("--homedir").arg(&home).args(["--kill", "all"]));
    list.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap().trim_end_matches(':').to_owned()
}

fn verify(project: &Project, home: &str, signature: &str, signed: &str) -> String {
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--status-fd", "1", "--homedir"]).arg(project.path(home)).arg("--verify");
    let status = output(gpg.arg(project.path(signature)).arg(project.path(signed)));
    let _ = Command::new("gpgconf").arg("--homedir").arg(project.path(home)).args(["--kill", "all"]).status();
    status.lines().find_map(|line| line.strip_prefix("[GNUPG:] VALIDSIG ")).unwrap().to_owned()
}

#[test]
fn a_signature_is_valid_and_the_same_each_time() {
    needs_program!("gpg", "gpg");
    let projects = [Project::new(), Project::new()];
    // The key is younger than the epoch, which is 1980 where there is no repository.
    let fingerprint = gpg_home(&projects[0], "gpg", 1_600_000_000, "");
    let key = projects[0].read("gpg.asc");
    for project in &projects {
        project.write("keys/release.asc", &key);
        project.write("out/list", "what is signed\n");
        project.write(
            "recipe.yaml",
            recipe(
                "
  - { action: sign, files: [list], key: keys/release.asc }
  - { action: sign, files: [list], key: keys/release.asc, armor: false }
",
            ),
        );
        project.build(["-v"]).success();
        let secret = key.lines().nth(3).unwrap();
        let kept = Command::new("grep").args(["-rlF", "-e", secret]).arg(project.path("store")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "the key is in the store");
    }
    for name in ["out/list.asc", "out/list.sig"] {
        let valid = verify(&projects[0], "gpg", name, "out/list");
        assert!(valid.starts_with(&fingerprint) && valid.contains(" 1600000000 "), "{valid}");
        assert!(same_files(&projects[0].path(name), &projects[1].path(name)), "{name} differs");
    }
}

#[test]
fn a_key_with_a_passphrase_is_opened_by_a_file() {
    needs_program!("gpg", "gpg");
    let project = Project::new();
    let fingerprint = gpg_home(&project, "gpg", 1_600_000_000, "open sesame");
    project.write("out/list", "what is signed\n");
    project.write("passphrase", "open sesame\n");
    let with = |rest: &str| {
        recipe(&format!("  - {{ action: sign, files: [list], gnupghome: gpg, key-id: {fingerprint}{rest} }}\n"))
    };
    project.write("recipe.yaml", with(""));
    project.build([]).code(1).says("if the key has a passphrase, `passphrase-file` names the file that it is in");
    assert!(!project.path("out/list.asc").exists());
    project.write("recipe.yaml", with(", passphrase-file: passphrase"));
    project.build([]).success();
    assert!(verify(&project, "gpg", "out/list.asc", "out/list").starts_with(&fingerprint));
}
