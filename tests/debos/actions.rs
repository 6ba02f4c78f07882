//! Actions and their properties, in the forms that debos takes.

use std::fs;

use crate::golden::listing;
use crate::harness::http::Server;
use crate::harness::{Project, fixture};

macro_rules! tiny {
    ($project:expr) => {
        match $project.tiny("") {
            Some(project) => project,
            None => skip!("needs a static busybox"),
        }
    };
}

/// What `check` says of actions behind a root; its exit code is asserted.
fn checked(actions: &str, code: i32) -> crate::harness::project::Finished {
    Project::new()
        .file("root.tar", "")
        .file("file", "text")
        .file("blob.bin", [7; 100])
        .recipe(&format!(
            "architecture: amd64\nactions:\n  - {{action: unpack, origin: recipe, file: root.tar}}\n{actions}"
        ))
        .run(["check", "recipe.yaml", "--recipe-only"])
        .code(code)
}

#[test]
fn every_action_and_property_of_debos_is_known() {
    let image = "  - action: image-partition
    imagename: disk.img
    imagesize: 2GB
    partitiontype: gpt
    gpt_gap: 1MB
    diskid: 0F1E2D3C-0000-4000-8000-123456789ABC
    partitions:
      - name: efi
        partlabel: EFI
        fslabel: EFI
        fs: vfat
        fsuuid: DEADBEEF
        parttype: c12a7328-f81f-11d2-ba4b-00a0c93ec93b
        partattrs: [0, '63', 0x3b]
        partuuid: 11111111-2222-4333-8444-555555555555
        start: 2MB
        end: 100MB
        flags: [boot, esp]
        fsck: false
      - name: root
        fs: ext4
        start: 100MB
        end: 100%
        features: [^64bit, metadata_csum]
        extendedoptions: [lazy_itable_init=0]
        fsuuid: 11111111-2222-4333-8444-777777777777
    mountpoints:
      - {mountpoint: /, partition: root}
      - {mountpoint: /boot/efi, partition: efi, options: [ro, noatime]}
      - {mountpoint: /mnt/build, partition: root, buildtime: true}
"
    .replace("      - {mountpoint: /mnt/build, partition: root, buildtime: true}\n", "");
    let actions = "  - {action: apt, description: text, recommends: true, unauthenticated: true, update: false, packages: [a1]}
  - {action: install-deb, origin: recipe, recommends: true, unauthenticated: true, update: false, packages: [a*.deb]}
  - {action: download, url: 'http://m.example/f.tar.gz', name: down, filename: f.tar, unpack: true, compression: gz, sha256sum: 7F83B1657FF1FC53B92DC18148A1D65DFC2D4B1FA3D677284ADDD200126D9069}
  - {action: download, url: 'https://m.example/f.bin', name: single}
  - {action: unpack, file: x.tar.xz, origin: down, destdir: /opt, compression: xz}
  - {action: overlay, source: file, origin: recipe, destination: /etc/file}
  - {action: run, chroot: true, command: 'true', label: short}
  - {action: run, postprocess: true, script: blob.bin one two}
  - {action: pack, file: out.tar.bz2, compression: bzip2, subdir: usr}
  - {action: ostree-commit, repository: repo, branch: b, subject: s, collection-id: org.example, ref-binding: [b, c], metadata: {k: v, vendor.key: 1}}
";
    let deploy = "  - {action: filesystem-deploy, setup-fstab: false, setup-kernel-cmdline: false, append-kernel-cmdline: quiet splash}
  - {action: raw, source: blob.bin, origin: recipe, offset: 0x40s, partition: ''}
".replace(", partition: ''", "");
    let finished = Project::new()
        .file("root.tar", "")
        .file("file", "text")
        .file("a1.deb", "")
        .file("blob.bin", [7; 100])
        .recipe(&format!(
            "architecture: amd64\nsectorsize: 512\n.common: &anchor {{chroot: true}}\nactions:\n  - {{action: unpack, origin: recipe, file: root.tar}}\n{actions}{image}{deploy}  - action: run\n    <<: *anchor\n    command: 'true'\n"
        ))
        .run(["check", "recipe.yaml", "--recipe-only"]);
    assert_eq!(finished.code, Some(0), "{finished}");
    for bootstrap in [
        "{action: debootstrap, suite: trixie, mirror: 'http://m.example/debian', variant: minbase, components: [main, contrib], keyring-package: debian-archive-keyring, keyring-file: file, certificate: file, private-key: file, check-gpg: false, merged-usr: false}",
        "{action: mmdebstrap, suite: trixie, mirrors: ['http://m.example/debian'], variant: minbase, components: [main], keyring-packages: [k1], keyring-files: [file], merged-usr: true, include: [a1], dpkg-opts: [path-exclude=/usr/share/man/*], apt-opts: ['APT::Install-Recommends \"false\"']}",
        "{action: pacstrap, config: pacman.conf, mirror: file, packages: [base]}",
    ] {
        let finished = Project::new()
            .file("file", "Server = http://m.example/$repo\n")
            .file("pacman.conf", "[options]\n[core]\nInclude = /etc/pacman.d/mirrorlist\n")
            .recipe(&format!("architecture: amd64\nactions:\n  - {bootstrap}\n"))
            .run(["check", "recipe.yaml", "--recipe-only"]);
        assert_eq!(finished.code, Some(0), "{finished}");
    }
    let ostree = "  - {action: image-partition, imagename: d.img, imagesize: 2GB, partitiontype: gpt, partitions: [{name: root, fs: ext4, start: 1MiB, end: 100%}], mountpoints: [{mountpoint: /, partition: root}]}
  - {action: ostree-deploy, repository: repo, remote_repository: 'https://m.example/repo', branch: b, os: debian, setup-fstab: true, setup-kernel-cmdline: true, append-kernel-cmdline: quiet, tls-client-cert-path: /c, tls-client-key-path: /k, collection-id: org.example}
";
    checked(&format!("  - {{action: ostree-commit, repository: repo, branch: b}}\n{ostree}"), 0);
}

#[test]
fn what_debos_refuses_is_refused() {
    for (action, said) in [
        ("overlay, destination: /x", "needs `source` or `origin`"),
        ("overlay, source: nothing", "there is no `nothing`"),
        ("run", "needs `command` or `script`"),
        ("run, command: a, script: file", "cannot both be given"),
        ("run, command: a, chroot: true, postprocess: true", "cannot both be set"),
        ("unpack, destdir: /x", "needs `file` or `origin`"),
        ("pack, file: a.tar, compression: rar", "there is no compression `rar`"),
        ("download, url: 'ftp://m.example/x', name: x", "`ftp:` cannot be downloaded from"),
        ("download, url: 'http://m.example/x', name: x, sha256sum: abc", "is not a digest"),
        ("recipe, recipe: ''", "the recipe"),
        ("filesystem-deploy", "image-partition"),
        ("raw, source: blob.bin", "image-partition"),
    ] {
        checked(&format!("  - {{action: {action}}}\n"), 2).says(said);
    }
}

#[test]
fn a_script_goes_through_the_shell_with_its_arguments() {
    let project = tiny!(Project::new().file("my scripts/show.sh", "echo \"$*\" > \"$1\"\n"));
    project.chmod("my scripts/show.sh", 0o755);
    project.set_actions(
        "
  - action: run
    script: my\\ scripts/show.sh \"$ROOTDIR/etc/host\" $((1 + 1)) > /dev/null
  - action: run
    chroot: true
    script: '\"my scripts/show.sh\" /etc/root ${HOME}; echo more >> /etc/root'
  - action: run
    chroot: true
    command: cat /etc/host /etc/root
",
    );
    project.build(["-v"]).success().says(" 2\n").says("/etc/root /root").says("more");
}

#[test]
fn a_script_may_be_a_program_of_the_host() {
    let project = tiny!(Project::new());
    project.set_actions("  - action: run\n    script: /bin/echo found $RECIPEDIR\n");
    project.build(["-v"]).success().says("found ");
}

#[test]
fn postprocess_starts_among_the_artifacts_when_all_else_is_done() {
    let project = tiny!(Project::new());
    project.set_actions(
        "
  - action: run
    postprocess: true
    command: test -s disk.img && gzip -nf disk.img && echo one > order
  - action: image-partition
    imagename: disk.img
    imagesize: 8MB
    partitiontype: msdos
    partitions: [{name: root, fs: ext2, start: 1MB, end: 100%}]
    mountpoints: [{mountpoint: /, partition: root}]
  - action: run
    postprocess: true
    command: test -z \"${ROOTDIR-}${IMAGE-}\" && test \"$PWD\" = \"$ARTIFACTDIR\" && test -d \"$RECIPEDIR\" && echo two >> order
  - action: filesystem-deploy
    first-boot: false
",
    );
    project.build([]).success();
    assert_eq!(project.read("out/order"), "one\ntwo\n");
    assert!(project.path("out/disk.img.gz").exists());
    assert!(!project.path("out/disk.img").exists());
    let again = project.build(["--json"]).success().outcomes();
    assert!(again.iter().all(|outcome| outcome != "ran"), "{again:?}");
}

#[test]
fn a_command_sees_the_artifacts_of_earlier_builds_that_it_names() {
    let project = tiny!(Project::new().file("out/output/old", "of an earlier build").file("out/firmware.bin", "x"));
    project.set_actions(
        "
  - {action: run, command: 'echo new > \"$ARTIFACTDIR/output/new\"'}
  - action: run
    command: |
      cp \"$ARTIFACTDIR/firmware.bin\" $ROOTDIR/firmware
      cat \"${ARTIFACTDIR}/output/new\" >> $ROOTDIR/firmware
  - {action: run, chroot: true, command: test \"$(cat firmware)\" = xnew}
",
    );
    let outcomes = || project.build(["--json"]).success().outcomes();
    assert_eq!(outcomes(), ["ran", "ran", "ran", "ran"]);
    assert_eq!(project.read("out/output/new"), "new\n");
    assert_eq!(project.read("out/output/old"), "of an earlier build");
    // What this build made is now there, too, but is not what it started from.
    assert_eq!(outcomes(), ["cached"; 4]);
    project.write("out/firmware.bin", "y");
    let changed = project.build(["--json"]).code(1);
    assert_eq!(changed.outcomes()[..3], ["cached", "cached", "ran"]);
    assert_eq!(project.read("out/firmware.bin"), "y");
    assert_eq!(project.read("out/output/new"), "new\n");
}

#[test]
fn an_artifact_that_a_command_makes_anew_is_no_reason_to_run_it_again() {
    let project = tiny!(Project::new().file("out/log", "first\n"));
    project.set_actions("  - {action: run, command: 'date +%N >> \"$ARTIFACTDIR/log\"; cat \"$ARTIFACTDIR/log\"'}\n");
    project.build(["-v"]).success().says("first");
    let log = project.read("out/log");
    assert_eq!(log.lines().count(), 2);
    assert_eq!(project.build(["--json"]).success().outcomes(), ["cached", "cached"]);
    assert_eq!(project.read("out/log"), log);
}

#[test]
fn a_command_of_the_host_starts_in_a_directory_beside_the_root() {
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "src-1/a", "source".as_bytes()).expect("an archive");
    let archive = archive.into_inner().expect("an archive");
    let project =
        Project::new().file("files/a", "of the recipe").file("srv/src.tar", archive).file("srv/blob", "bytes");
    let server = Server::new(&project.path("srv"));
    let project = tiny!(project);
    project.set_actions(&format!(
        "
  - {{action: download, url: '{}', name: src, unpack: true}}
  - {{action: download, url: '{}', name: blob, filename: blob.bin}}
  - action: run
    command: |
      mkdir build && cat files/a > build/a && cp build/a $ROOTDIR/
      cat \"${{ROOTDIR}}/../blob.bin\" \"$(ls -d $ROOTDIR/../src.tar.d/src-*)/a\" > $ROOTDIR/b
      echo changed > $ROOTDIR/../blob.bin
  - action: run
    command: test ! -e build && test \"$(cat $ROOTDIR/../blob.bin)\" = bytes && chroot $ROOTDIR /bin/sh -c 'test -d /proc/self'
  - {{action: run, chroot: true, command: 'test \"$(cat a) $(cat b)\" = \"of the recipe bytessource\"'}}
",
        server.url("src.tar"),
        server.url("blob")
    ));
    project.build([]).success();
}

#[test]
fn recipes_in_recipes_have_their_own_directory_and_the_variables_they_are_given() {
    let child = "architecture: {{ architecture }}
actions:
  - {action: overlay, source: files, destination: /etc/{{ name }}}
  - {action: run, chroot: true, script: 'say.sh {{ number }} {{ yes }}'}
  - {action: recipe, recipe: ../sibling.yaml}
  - {action: run, postprocess: true, command: 'cp \"$RECIPEDIR/late\" \"$ARTIFACTDIR/\"'}
";
    let project = tiny!(
        Project::new()
            .file("child/recipe.yaml", child)
            .file("child/files/a", "of the child")
            .file("child/say.sh", "#!/bin/sh\necho $1 $2 > /etc/said\n")
            .file("child/late", "late")
            .file("files/a", "of the sibling")
            .file(
                "sibling.yaml",
                "architecture: {{ architecture }}\nactions:\n  - {action: overlay, source: files, destination: /etc/sibling}\n  - {action: run, command: 'test -f \"$RECIPEDIR/sibling.yaml\"'}\n"
            )
    );
    project.chmod("child/say.sh", 0o755);
    project.set_actions(
        "
  - action: recipe
    recipe: child/recipe.yaml
    variables: {name: child, number: 7, yes: true}
  - action: run
    chroot: true
    command: test \"$(cat /etc/child/a /etc/sibling/a /etc/said)\" = \"of the childof the sibling7 true\"
",
    );
    project.build([]).success();
    assert_eq!(project.read("out/late"), "late");
    project.write("child/recipe.yaml", "architecture: s390x\nactions:\n  - {action: run, command: 'true'}\n");
    project.build([]).code(2).says("this recipe is for s390x, the one that calls it for");
}

#[test]
fn archives_are_known_by_their_contents_whatever_they_are_called() {
    let archive = fixture::archive(&[("file", 0o640, "text")]);
    let project = tiny!(Project::new().file("plain.tar", &archive));
    let mut actions = String::new();
    for (index, (compression, name)) in [
        ("gz", "as.tar"),
        ("xz", "as.tar.gz"),
        ("zstd", "as.tgz"),
        ("bzip2", "as.tar.xz"),
        ("lzma", "as.tlz"),
        ("none", "as.tar.zst"),
    ]
    .into_iter()
    .enumerate()
    {
        let hint = if compression == "none" { String::new() } else { format!("    compression: {compression}\n") };
        actions.push_str(&format!(
            "  - action: pack\n    file: {index}-{name}\n    compression: {compression}\n    subdir: /etc\n\
             \x20 - action: unpack\n    file: {index}-{name}\n    destdir: found/{index}\n\
             \x20 - action: unpack\n    file: {index}-{name}\n    destdir: told/{index}\n{hint}"
        ));
    }
    project.set_actions(&format!("{actions}  - {{action: pack, file: all.tar, compression: none}}\n"));
    project.build([]).success();
    let members = listing(&project.path("out/all.tar"));
    for index in 0..6 {
        for how in ["found", "told"] {
            let path = format!("./{how}/{index}/passwd");
            assert!(members.contains_key(&path), "{path} in {members:#?}");
        }
    }
}

#[test]
fn a_download_is_an_origin_for_every_action_that_has_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("blob"), [9; 700]).unwrap();
    fs::write(directory.path().join("tree.tar"), fixture::archive(&[("sub/tree.bin", 0o644, "tree")])).unwrap();
    let server = Server::new(directory.path());
    let project = tiny!(Project::new());
    project.set_actions(
        &format!(
            "
  - {{action: download, url: '{0}blob', name: single, filename: renamed.bin}}
  - {{action: download, url: '{0}tree.tar?version=1', name: tree, unpack: true, filename: tree.tar}}
  - {{action: overlay, origin: single, destination: /opt/}}
  - {{action: overlay, origin: tree, source: sub, destination: /opt/tree}}
  - {{action: unpack, origin: filesystem, file: /opt/again.tar, destdir: /x}}
  - action: image-partition
    imagename: disk.img
    imagesize: 4MB
    partitiontype: gpt
    partitions: [{{name: loader, fs: none, start: 1MiB, end: 2MiB}}]
  - {{action: raw, origin: single, partition: loader, offset: 1s}}
  - {{action: raw, origin: tree, source: sub/tree.bin, offset: 0x8000}}
  - {{action: raw, source: tree, path: sub/tree.bin, offset: '65536'}}
  - {{action: pack, file: all.tar, compression: none}}
",
            server.url("")
        )
        .replace("  - {action: unpack, origin: filesystem, file: /opt/again.tar, destdir: /x}\n", ""),
    );
    project.build([]).success().says("old form");
    let members = listing(&project.path("out/all.tar"));
    assert!(members.contains_key("./opt/renamed.bin") && members.contains_key("./opt/tree/tree.bin"), "{members:#?}");
    let image = fs::read(project.path("out/disk.img")).unwrap();
    assert_eq!(image[(1 << 20) + 512..][..700], [9; 700]);
    assert_eq!(&image[0x8000..][..4], b"tree");
    assert_eq!(&image[65536..][..4], b"tree");
}

#[test]
fn errors_of_debos_are_not_reproduced() {
    // A policy-rc.d of the root's own made every chroot action fail; absolute links led out of the root.
    let project = tiny!(Project::new().file("overlay/usr/sbin/policy-rc.d", "#!/bin/sh\n").file("files/file", "mine"));
    project.set_actions(
        "
  - {action: overlay, source: overlay}
  - {action: run, chroot: true, command: mkdir /debforge-compat && ln -s /debforge-compat /exit}
  - {action: overlay, source: files, destination: /exit/deep}
  - {action: run, chroot: true, command: test -f /debforge-compat/deep/file && test -f /usr/sbin/policy-rc.d}
",
    );
    project.build([]).success();
    assert!(!std::path::Path::new("/debforge-compat").exists());
}

/// debos hands any name to `mkfs.NAME`.
#[test]
fn file_systems_that_nothing_fills_are_made_empty() {
    let kinds = [
        ("exfat", "mkfs.exfat", "exfatprogs"),
        ("ntfs", "mkfs.ntfs", "ntfs-3g"),
        ("nilfs2", "mkfs.nilfs2", "nilfs-tools"),
    ];
    for (kind, program, package) in kinds {
        needs_program!(program, package);
        let Some(project) = Project::new().tiny(&format!(
            "  # {{{{ or .x `y` }}}}
  - action: image-partition
    imagename: disk.img
    imagesize: 200MB
    partitiontype: msdos
    partitions: [{{name: data, fs: {kind}, start: 1MiB, end: 100%, fslabel: stuff}}]
"
        )) else {
            skip!("needs a static busybox")
        };
        project.build([]).success();
        let part = crate::image::disk::partition(&project, 1);
        let found = std::process::Command::new("blkid").args(["-p", "-o", "export"]).arg(&part).output();
        let found = String::from_utf8_lossy(&found.expect("starting blkid").stdout).into_owned();
        assert!(found.contains(&format!("TYPE={kind}")) && found.contains("LABEL=stuff"), "{found}");
    }
}
