//! Roots and archives that lead out of the root: nothing outside is touched.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::Project;

/// A directory of the host with the places that a build writes to in a root, and the files of these.
fn outside(project: &Project) -> String {
    for name in ["outside/etc/resolv.conf", "outside/etc/hostname", "outside/usr/sbin/policy-rc.d", "outside/srv/kept"]
    {
        project.write(name, format!("{name} of the host\n"));
    }
    // As a build would have it: such a file may be taken for the build's own.
    if let Ok(resolver) = fs::read("/etc/resolv.conf") {
        project.write("outside/etc/resolv.conf", resolver);
    }
    project.path("outside").display().to_string()
}

/// Every file outside, with its times and contents.
fn state(project: &Project) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    walkdir::WalkDir::new(project.path("outside"))
        .sort_by_file_name()
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            let text = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            let (path, inode, mode) = (entry.path().display().to_string(), meta.ino(), meta.mode());
            format!("{path} {inode} {mode:o} {:?} {}", meta.modified().unwrap(), String::from_utf8_lossy(&text))
        })
        .collect()
}

/// Builds; whether it succeeds is not the question.
#[track_caller]
fn touches_nothing_outside(project: &Project, actions: &str) {
    let before = state(project);
    project.set_actions(actions);
    let finished = project.build([]);
    assert!(matches!(finished.code, Some(0..=2)), "{finished}");
    assert_eq!(state(project), before, "{finished}");
    assert!(project.leftovers().is_empty(), "{:?}", project.leftovers());
}

macro_rules! project {
    () => {
        match Project::new().tiny("") {
            Some(project) => project,
            None => skip!("needs a static busybox (package busybox-static)"),
        }
    };
}

/// Replaces directories of the root by links to those of the host, then runs commands in it.
fn links(outside: &str) -> Vec<String> {
    let up = "../../../../../../../../../..";
    ["usr", "usr/sbin", "etc", "etc/resolv.conf", "usr/sbin/policy-rc.d", "srv"]
        .iter()
        .flat_map(|path| {
            [format!("{outside}/{path}"), format!("{up}{outside}/{path}")].map(|target| {
                format!(
                    "  - action: run\n    chroot: true\n    command: cd /; rm -rf '{path}'; ln -s '{target}' '{path}'\n"
                )
            })
        })
        .collect()
}

#[test]
fn links_of_the_root_lead_no_command_outside() {
    let project = project!();
    let outside = outside(&project);
    for link in links(&outside) {
        touches_nothing_outside(
            &project,
            &format!(
                "{link}  - action: run\n    chroot: true\n    command: 'true'\n  - action: run\n    command: 'true'\n  - action: pack\n    file: out.tar\n    compression: none\n"
            ),
        );
    }
}

#[test]
fn links_of_the_root_lead_no_action_outside() {
    let project = project!();
    let outside = outside(&project);
    project.write("files/resolv.conf", "of the recipe\n");
    project.write("files/kept", "of the recipe\n");
    project.write("files/sub/kept", "of the recipe\n");
    project.write(
        "more.tar",
        crate::harness::fixture::archive(&[("srv/kept", 0o644, "of the archive\n"), ("etc/resolv.conf", 0o644, "x")]),
    );
    for link in links(&outside) {
        for destination in ["/srv", "/etc", "/usr/sbin"] {
            touches_nothing_outside(
                &project,
                &format!(
                    "{link}  - action: overlay\n    source: files\n    destination: {destination}\n    mode: '0600'\n"
                ),
            );
        }
        touches_nothing_outside(
            &project,
            &format!("{link}  - action: unpack\n    origin: recipe\n    file: more.tar\n"),
        );
        touches_nothing_outside(
            &project,
            &format!("{link}  - action: pack\n    file: out.tar\n    subdir: /srv\n    compression: none\n"),
        );
        if project.path("out/out.tar").exists() {
            let names = crate::golden::listing(&project.path("out/out.tar"));
            assert!(!names.contains_key("./kept"), "packed what is outside: {names:?}");
        }
    }
}

#[test]
fn dots_do_not_lead_outside() {
    let project = project!();
    let outside = outside(&project);
    project.write("files/kept", "of the recipe\n");
    let up = "../../../../../../../../../..";
    for destination in [format!("{up}{outside}/srv"), format!("/srv/{up}{outside}/srv")] {
        touches_nothing_outside(
            &project,
            &format!("  - action: overlay\n    source: files\n    destination: {destination}\n"),
        );
        touches_nothing_outside(
            &project,
            &format!(
                "  - action: pack\n    file: {}/out.tar\n    compression: none\n",
                destination.trim_start_matches('/')
            ),
        );
    }
}

/// An archive whose names and links are as they are given: name, type, link target, contents.
fn raw(entries: &[(&str, tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, target, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(text.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_link_name_literal(target).unwrap();
        header.set_cksum();
        archive.append(&header, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn a_hostile_archive_writes_nothing_outside() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let project = project!();
    let outside = outside(&project);
    assert!(outside.len() < 60, "names of a tar header are short");
    let up = "../../../../../../..";
    let kept = format!("{outside}/srv/kept");
    let (climbing, below) = (format!("{up}{kept}"), format!("srv/{up}{kept}"));
    let cases = [
        raw(&[(&kept, Regular, "", "evil")]),
        raw(&[(&climbing, Regular, "", "evil")]),
        raw(&[(&below, Regular, "", "evil")]),
        raw(&[("srv", Symlink, &format!("{outside}/srv"), ""), ("srv/kept", Regular, "", "evil")]),
        raw(&[
            ("srv", Symlink, &format!("{outside}/srv"), ""),
            ("srv/", Directory, "", ""),
            ("srv/new", Regular, "", "evil"),
        ]),
        raw(&[("link", Symlink, &kept, ""), ("link", Regular, "", "evil")]),
        raw(&[("hard", Link, &kept, ""), ("hard", Regular, "", "evil")]),
        raw(&[("hard", Link, &climbing, ""), ("hard", Regular, "", "evil")]),
        raw(&[("link", Symlink, &kept, ""), ("hard", Link, "link", ""), ("hard", Regular, "", "evil")]),
    ];
    for archive in cases {
        project.write("evil.tar", archive);
        for more in ["", "    destdir: /srv\n"] {
            touches_nothing_outside(
                &project,
                &format!("  - action: unpack\n    origin: recipe\n    file: evil.tar\n{more}"),
            );
        }
    }
}

#[test]
fn a_link_beside_the_recipe_is_copied_as_a_link() {
    let project = project!();
    let outside = outside(&project);
    fs::create_dir(project.path("files")).unwrap();
    symlink(format!("{outside}/srv"), project.path("files/srv")).unwrap();
    touches_nothing_outside(
        &project,
        "  - action: overlay\n    source: files\n    destination: /opt\n    mode: '0600'\n    owner: 33\n  - action: pack\n    file: out.tar\n    compression: none\n",
    );
    let names = crate::golden::listing(&project.path("out/out.tar"));
    assert!(names["./opt/srv"].ends_with(&format!("-> {outside}/srv")), "{names:?}");
}
