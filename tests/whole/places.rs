//! The same recipe as root, as a user, in containers: the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::harness::project::Finished;
use crate::harness::{Project, User, confinement};

/// What is hard to keep without being root: owners, special modes, capabilities, links, times.
const RECIPE: &str = "
  - action: unpack
    origin: recipe
    file: more.tar
  - action: run
    chroot: true
    command: |
      echo made > /srv/made
      ln /srv/made /srv/second
      chown 33:33 /srv/made
      chmod 4755 /srv/made
      mkdir -m 2775 /srv/shared
      chown 0:33 /srv/shared
      mkdir /var/spool && chown 65534:65534 /var/spool
      echo nothing > /dev/null
  - action: overlay
    source: files
    destination: /srv/www
    owner: www-data
    group: 33
  - action: run
    command: cp \"$ROOTDIR/etc/passwd\" \"$ROOTDIR/srv/copy\"
  - action: pack
    file: out.tar
    compression: none
";

/// CAP_NET_RAW, permitted and effective, as setcap(8) writes it: a `vfs_cap_data` of revision 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An archive with a file that has a capability.
fn capable() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", CAPABILITY.as_slice())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_mtime(1_600_000_000);
    header.set_size(4);
    tar.append_data(&mut header, "srv/ping", b"ping".as_slice()).unwrap();
    tar.into_inner().unwrap()
}

fn project(user: User) -> Option<Project> {
    Project::of(user)
        .file("more.tar", capable())
        .file("files/index", "index\n")
        .file("files/deep/er", "deeper\n")
        .tiny(RECIPE)
}

/// Who builds where.
pub struct Place {
    pub name: &'static str,
    pub user: Result<User, String>,
    pub before: Vec<String>,
    /// Whether nothing can be mounted.
    plain: bool,
}

pub fn places() -> Vec<Place> {
    let root = || User::root().ok_or_else(|| "needs root".to_owned());
    let place = |name, user, before, plain| Place { name, user, before, plain };
    vec![
        place("root", root(), Vec::new(), false),
        place("a user with subordinate ids", User::ordinary(), Vec::new(), false),
        place("root of a user's namespace", User::ordinary(), confinement::nested(), false),
        place("a container without mounts", root(), confinement::without_mounts(), true),
        place("a container without mounts and devices", root(), confinement::without_devices(), true),
        place("a container with a filter", root(), confinement::filtered(), true),
    ]
}

fn build<'a>(project: &Project, place: &Place, more: impl IntoIterator<Item = &'a str>) -> Finished {
    project
        .run_inside(&place.before, ["build", "recipe.yaml", "--artifactdir", "out"].into_iter().chain(more))
        .success()
}

/// A member: mode, owner, group, and capability or link target.
fn members(archive: &Path) -> BTreeMap<String, (u32, u64, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut more = Vec::new();
        for extension in entry.pax_extensions().unwrap().into_iter().flatten().flatten() {
            if extension.key() == Ok("SCHILY.xattr.security.capability") {
                more = extension.value_bytes().to_owned();
            }
        }
        if let Some(target) = entry.link_name_bytes() {
            more = target.into_owned();
        }
        let header = entry.header();
        let known = (header.mode().unwrap() & 0o7777, header.uid().unwrap(), header.gid().unwrap(), more);
        std::io::copy(&mut entry, &mut std::io::sink()).unwrap();
        found.insert(path.trim_start_matches("./").trim_end_matches('/').to_owned(), known);
    }
    found
}

/// What differs between an archive and another's bytes.
pub fn difference(archive: &Path, expected: &[u8]) -> String {
    let mut other = tempfile::NamedTempFile::new().unwrap();
    other.write_all(expected).unwrap();
    let (ours, theirs) = (crate::golden::listing(archive), crate::golden::listing(other.path()));
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differing = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    differing.map(|name| format!("{name}: {:?} instead of {:?}\n", ours.get(name), theirs.get(name))).collect()
}

#[test]
fn every_place_gives_the_same_bytes() {
    needs_program!("setpriv", "util-linux");
    let mut first: Option<(&str, Vec<u8>)> = None;
    let places = places();
    for place in &places {
        let user = match &place.user {
            Ok(user) => user.clone(),
            Err(reason) => {
                crate::harness::skip::note(&format!("{}: {reason}", place.name));
                continue;
            }
        };
        let Some(project) = project(user) else { skip!("needs a static busybox (package busybox-static)") };
        let finished = build(&project, place, []);
        let notes = finished.stderr.lines().filter(|line| line.contains("no checkpoints")).count();
        assert_eq!(notes, usize::from(place.plain), "{}: {finished}", place.name);
        let archive = project.path("out/out.tar");
        let all = members(&archive);
        let of = |path: &str| all.get(path).unwrap_or_else(|| panic!("{}: no {path} in {all:?}", place.name)).clone();
        assert_eq!(of("srv/made"), (0o4755, 33, 33, Vec::new()), "{}", place.name);
        assert!(of("srv/second").3.ends_with(b"srv/made"), "{}: a hard link", place.name);
        assert_eq!(of("srv/shared"), (0o2775, 0, 33, Vec::new()), "{}", place.name);
        assert_eq!(of("srv/www/deep/er"), (0o644, 33, 33, Vec::new()), "{}", place.name);
        assert_eq!(of("srv/ping"), (0o755, 0, 0, CAPABILITY.to_vec()), "{}", place.name);
        assert_eq!(of("var/spool").1, 65534, "{}", place.name);
        let bytes = fs::read(&archive).unwrap();
        match &first {
            None => first = Some((place.name, bytes)),
            Some((name, expected)) => {
                assert!(*expected == bytes, "{} and {name} differ: {}", place.name, difference(&archive, expected));
            }
        }
        let again = build(&project, place, ["--json"]);
        assert!(!again.outcomes().contains(&"ran".to_owned()), "{}: {again}", place.name);
        fs::remove_file(&archive).unwrap();
        build(&project, place, []);
        assert!(fs::read(&archive).unwrap() == first.as_ref().unwrap().1, "{}: from the store", place.name);
    }
}

#[test]
fn a_container_takes_no_layers_from_a_store_that_root_has_filled() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let actions = "  - action: run\n    chroot: true\n    command: echo one > /etc/one\n  - action: pack\n    file: out.tar\n    compression: none\n";
    let Some(project) = Project::new().tiny(actions) else { skip!("needs a static busybox") };
    project.build([]).success();
    project.set_actions(&actions.replace("out.tar", "out.tar\n    subdir: etc"));
    let args = ["build", "recipe.yaml", "--artifactdir", "out"];
    project.run_inside(&confinement::without_mounts(), args).success();
    let inside = fs::read(project.path("out/out.tar")).unwrap();
    project.build(["--no-cache"]).success();
    let expected = fs::read(project.path("out/out.tar")).unwrap();
    fs::write(project.path("out/out.tar"), inside).unwrap();
    let archive = project.path("out/out.tar");
    assert!(fs::read(&archive).unwrap() == expected, "{}", difference(&archive, &expected));
}

#[test]
fn a_container_bootstraps_the_same_debian_as_root() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let Ok(mirror) = debforge::debian::host::default_mirror() else { skip!("no mirror") };
    let architecture = debforge::debian::Architecture::host();
    let project = Project::new().shared_store().recipe(&format!(
        "architecture: {architecture}\nactions:\n  - action: mmdebstrap\n    suite: trixie\n    variant: minbase\n    mirrors: ['{mirror}']\n  - action: pack\n    file: out.tar\n    compression: none\n"
    ));
    let finished = project.build([]);
    if finished.stderr.contains("failed to lookup address") {
        skip!("no archive");
    }
    finished.success();
    let archive = project.path("out/out.tar");
    let expected = fs::read(&archive).unwrap();
    fs::remove_file(&archive).unwrap();
    // From its own run, not from what root's left in the store.
    let args = ["build", "recipe.yaml", "--artifactdir", "out", "--no-cache"];
    project.run_inside(&confinement::filtered(), args).success().says("no checkpoints");
    assert!(fs::read(&archive).unwrap() == expected, "{}", difference(&archive, &expected));
}
