//! The recipes that come with debforge, built for real: from Debian's archive, as root and not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use crate::harness::{Project, User, source_dir};

/// Builds an example into the project's `out/`, or the test ends where the archive cannot be reached.
macro_rules! build {
    ($project:expr, $recipe:expr $(, $arg:expr)*) => {{
        let recipe = source_dir().join("recipes").join($recipe).display().to_string();
        let finished = $project.run(["build", &recipe, "--artifactdir", "out", $($arg),*]);
        if let Some(reason) = unreachable(&finished.stderr) {
            skip!("no archive: {reason}");
        }
        finished.success()
    }};
}

/// The line that says that the network, not debforge, is at fault.
fn unreachable(stderr: &str) -> Option<&str> {
    let signs =
        ["Temporary failure resolving", "Could not resolve", "failed to lookup address", "Network is unreachable"];
    stderr.lines().find(|line| signs.iter().any(|sign| line.contains(sign)))
}

/// An entry of an archive: mode, owner, group, and the text of small regular files.
struct Entry {
    mode: u32,
    uid: u64,
    gid: u64,
    text: String,
}

fn entries(archive: &Path) -> BTreeMap<String, Entry> {
    let file = fs::File::open(archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    let reader: Box<dyn Read> = match archive.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => Box::new(zstd::Decoder::new(file).expect("a zstd archive")),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        other => panic!("compression {other:?}"),
    };
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(reader).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let header = entry.header();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let mut bytes = Vec::new();
        if entry.size() < 1 << 20 {
            entry.read_to_end(&mut bytes).expect("contents");
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        found.insert(path.trim_start_matches("./").trim_end_matches('/').to_owned(), Entry { mode, uid, gid, text });
    }
    found
}

/// Names of the installed packages.
fn packages(entries: &BTreeMap<String, Entry>, info: &str) -> Vec<String> {
    let prefix = "var/lib/dpkg/info/";
    entries
        .keys()
        .filter_map(|path| path.strip_prefix(prefix)?.strip_suffix(info))
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

#[test]
fn the_reference_system_holds_what_was_asked_for() {
    needs_root!();
    let project = Project::new().shared_store();
    build!(project, "reference.yaml").says("4/4  pack");
    let all = entries(&project.path("out/reference.tar.zst"));
    assert_eq!(all["etc/hostname"].text, "forge\n");
    let recipe = source_dir().join("recipes/reference.yaml").display().to_string();
    let ids = |project: &Project| {
        let plan = project.run(["plan", &recipe, "--artifactdir", "out", "--json"]).success().stdout;
        let plan: serde_json::Value = serde_json::from_str(&plan).expect("a plan");
        let steps = plan["steps"].as_array().expect("steps").iter();
        steps.map(|step| step["id"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (first, built) = (ids(&Project::new()), ids(&project));
    assert!(built.iter().all(Option::is_some), "{built:?}");
    assert_eq!(first[0], built[0], "a plan before anything was built knows what depends on no root");
    // What a root's repositories are is asked of the root, and never guessed.
    assert!(first[1..].iter().all(Option::is_none), "{first:?}");
    let installed = packages(&all, ".list");
    for name in ["systemd-sysv", "udev", "openssh-server", "iproute2", "ca-certificates", "apt", "dpkg"] {
        assert!(installed.iter().any(|package| package == name), "{name} among {installed:?}");
    }
    assert!(!installed.iter().any(|package| package == "systemd-resolved"), "a recommended package");
    let owned = |path: &str| (all[path].mode & 0o7777, all[path].uid, all[path].gid);
    assert_eq!(owned("etc/shadow"), (0o640, 0, 42));
    assert_eq!(owned("usr/bin/su"), (0o4755, 0, 0));
    assert_eq!(owned("root"), (0o700, 0, 0));
    assert_eq!(owned("tmp"), (0o1777, 0, 0));
    for path in ["usr/sbin/policy-rc.d", "etc/ssh/ssh_host_ed25519_key.pub.dpkg-new"] {
        assert!(!all.contains_key(path), "{path} stayed");
    }
    let left = |dir: &str| all.keys().filter(|path| path.starts_with(dir)).cloned().collect::<Vec<_>>();
    assert!(left("var/cache/apt/archives/").iter().all(|path| !path.ends_with(".deb")), "packages stayed");
    assert!(left("var/lib/apt/lists/").iter().all(|path| !path.contains("_Packages")), "package lists stayed");
}

#[test]
fn an_unchanged_reference_system_takes_no_time() {
    needs_root!();
    let project = Project::new().shared_store();
    build!(project, "reference.yaml");
    let second = build!(project, "reference.yaml", "--json");
    assert!(!second.outcomes().contains(&"ran".to_owned()), "{second}");
}

#[test]
fn an_ordinary_user_builds_the_same_system_as_root() {
    needs_root!();
    let user = match User::ordinary() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let (root, rootless) = (Project::new().shared_store(), Project::of(user).shared_store());
    build!(root, "minimal.yaml");
    build!(rootless, "minimal.yaml").says("rootless");
    let name = "out/minimal-trixie-amd64.tar.zst";
    let (theirs, ours) = (entries(&root.path(name)), entries(&rootless.path(name)));
    let shown = |entry: &Entry| format!("{:o} {}:{} {} bytes", entry.mode, entry.uid, entry.gid, entry.text.len());
    for (path, entry) in &theirs {
        let other = ours.get(path).unwrap_or_else(|| panic!("{path} is not there for an ordinary user"));
        assert_eq!(shown(entry), shown(other), "{path}");
        assert!(entry.text == other.text, "{path} differs");
    }
    assert_eq!(theirs.len(), ours.len());
    assert!(fs::read(root.path(name)).unwrap() == fs::read(rootless.path(name)).unwrap(), "the archives differ");
}

#[test]
fn bookworm_comes_from_debootstrap() {
    needs_root!();
    let project = Project::new().shared_store();
    build!(project, "bookworm.yaml");
    let all = entries(&project.path("out/bookworm-amd64.tar.gz"));
    assert!(all["etc/debian_version"].text.starts_with("12."), "{}", all["etc/debian_version"].text);
    assert!(packages(&all, ".list").contains(&"ca-certificates".to_owned()));
    assert!(!all.contains_key("etc/resolv.conf"), "the host's resolver stayed");
}

#[test]
fn another_architecture_is_built_through_emulation() {
    needs_root!();
    if !Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        skip!("needs qemu-user for arm64, registered with the kernel");
    }
    let project = Project::new().shared_store();
    build!(project, "minimal.yaml", "-t", "arch:arm64").says("arm64");
    let all = entries(&project.path("out/minimal-trixie-arm64.tar.zst"));
    assert!(all.contains_key("var/lib/dpkg/info/libc6:arm64.list"), "no arm64 libc");
    assert!(all.contains_key("usr/lib/ld-linux-aarch64.so.1"), "no arm64 loader");
    assert!(!all.keys().any(|path| path.contains("qemu-")), "the emulator stayed");
}

#[test]
fn the_appliance_has_its_files_and_users() {
    needs_root!();
    let project = Project::new().shared_store();
    build!(project, "appliance/appliance.yaml", "-t", "hostname:lab");
    let all = entries(&project.path("out/appliance-amd64.tar.zst"));
    assert_eq!(all["etc/hostname"].text, "lab\n");
    assert!(all["etc/hosts"].text.contains("127.0.1.1 lab\n"));
    assert!(all["etc/passwd"].text.contains("\npilot:x:1000:1000:"));
    assert_eq!((all["home/pilot"].uid, all["home/pilot"].gid), (1000, 1000));
    assert_eq!(all["usr/local/bin/hello"].mode & 0o7777, 0o755);
    assert!(all.contains_key("etc/systemd/system/multi-user.target.wants/hello.service"));
    let etc = entries(&project.path("out/appliance-amd64-etc.tar.gz"));
    assert!(etc.keys().any(|path| path.ends_with("hostname")) && etc.len() < all.len());
    // As its first lines say: without a name, too.
    build!(project, "appliance/appliance.yaml");
    assert_eq!(entries(&project.path("out/appliance-amd64.tar.zst"))["etc/hostname"].text, "appliance\n");
}

#[test]
fn an_application_is_built_on_a_packed_base() {
    needs_root!();
    let project = Project::new().shared_store();
    build!(project, "two-stage/base.yaml");
    build!(project, "two-stage/application.yaml");
    let all = entries(&project.path("out/application-amd64.tar.zst"));
    assert!(all.contains_key("usr/sbin/nginx"));
}

#[test]
fn nested_recipes_are_built_in_place() {
    needs_root!();
    let project = Project::new().shared_store();
    build!(project, "nested.yaml").says("5/5  pack");
    let all = entries(&project.path("out/nested-amd64.tar.zst"));
    assert_eq!(all["etc/hostname"].text, "nested\n");
    assert!(all.contains_key("usr/bin/less"));
}

#[test]
fn a_container_base_has_no_documentation() {
    needs_root!();
    let project = Project::new().shared_store();
    build!(project, "container.yaml");
    let all = entries(&project.path("out/container-amd64.tar.gz"));
    assert!(all.contains_key("usr/share/doc/apt/copyright"));
    assert!(!all.keys().any(|path| path.starts_with("usr/share/man/man1/")), "manuals stayed");
    assert!(!all.contains_key("etc/machine-id"));
}
