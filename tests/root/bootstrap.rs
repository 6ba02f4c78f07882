//! The action `mmdebstrap` beside the command: the same packages give the same system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::harness::Project;

/// What differs and why; a path stands for everything below it too.
const KNOWN: &[(&str, &str)] = &[
    ("dev", "device nodes: only real root could make them, so no build has them"),
    ("etc/hostname", "mmdebstrap copies the builder's name"),
    (
        "etc/machine-id",
        "`uninitialized` makes systemd run what belongs to a first boot; mmdebstrap's empty file does not",
    ),
    ("etc/resolv.conf", "mmdebstrap copies the builder's name servers"),
    ("var/cache/apt", "mmdebstrap leaves locks, and directories as apt makes them again"),
    ("var/cache/debconf/config.dat-old", "a backup of no use"),
    ("var/cache/debconf/templates.dat-old", "a backup of no use"),
    ("var/lib/apt/lists", "mmdebstrap leaves locks, and directories as apt makes them again"),
    ("var/lib/dpkg/diversions-old", "a backup of no use"),
    ("var/lib/dpkg/statoverride-old", "a backup of no use"),
    ("var/lib/dpkg/status-old", "a backup of no use"),
];

#[derive(PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    mode: u32,
    uid: u64,
    gid: u64,
    /// Link target, or digest of the contents.
    contents: String,
    capability: Option<Vec<u8>>,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, mode, uid, gid, contents, capability } = self;
        write!(f, "{kind} {mode:o} {uid}:{gid} {contents} {capability:?}")
    }
}

fn entries(archive: &Path) -> BTreeMap<String, Entry> {
    let file = File::open(archive).unwrap();
    let reader: Box<dyn Read> = match archive.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => Box::new(zstd::Decoder::new(file).unwrap()),
        _ => Box::new(file),
    };
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in tar::Archive::new(reader).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = |path: &Path| path.display().to_string().trim_start_matches("./").trim_matches('/').to_owned();
        let path = name(&entry.path().unwrap());
        let link = entry.link_name().unwrap().map(|target| target.into_owned());
        let header = entry.header().clone();
        let capability = entry.pax_extensions().unwrap().and_then(|mut extensions| {
            extensions.find_map(|extension| {
                let extension = extension.unwrap();
                (extension.key() == Ok("SCHILY.xattr.security.capability")).then(|| extension.value_bytes().to_owned())
            })
        });
        let (kind, contents) = match header.entry_type() {
            tar::EntryType::Directory => ("directory", String::new()),
            tar::EntryType::Symlink => ("link", link.unwrap().display().to_string()),
            // Which of two names is the first is the archiver's affair.
            tar::EntryType::Link => ("file", found[&name(&link.unwrap())].contents.clone()),
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                ("file", hex::encode(Sha256::digest(normalised(&path, bytes))))
            }
            _ => ("special", String::new()),
        };
        let mode = if kind == "link" { 0 } else { header.mode().unwrap() & 0o7777 };
        let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
        found.insert(path, Entry { kind, mode, uid, gid, contents, capability });
    }
    found
}

/// What two files must have in common to count as the same.
fn normalised(path: &str, bytes: Vec<u8>) -> Vec<u8> {
    let text = || String::from_utf8_lossy(&bytes).into_owned();
    let sorted = |parts: BTreeSet<&str>| parts.into_iter().collect::<Vec<_>>().join("\n").into_bytes();
    match path {
        // The day of the last change is that of the build.
        "etc/shadow" | "etc/shadow-" => {
            let undated = text()
                .lines()
                .map(|line| {
                    let mut fields: Vec<&str> = line.split(':').collect();
                    fields.remove(2);
                    fields.join(":") + "\n"
                })
                .collect::<String>();
            undated.into_bytes()
        }
        // The order is that in which packages were configured, or apt's hash table's.
        "etc/shells" | "var/lib/dpkg/triggers/File" => sorted(text().lines().collect()),
        "var/lib/apt/extended_states" => sorted(text().split("\n\n").map(str::trim).collect()),
        _ => bytes,
    }
}

/// Builds the same both ways, for one or several architectures; the differences that are not known.
fn differences(
    suite: &str,
    variant: &str,
    architecture: &str,
    include: &[&str],
    known: &[(&str, &str)],
) -> Result<Vec<String>, String> {
    let mirror = debforge::debian::host::default_mirror().map_err(|error| format!("no mirror: {error:#}"))?;
    let own = architecture.split(',').next().unwrap_or_default();
    let project = Project::new().shared_store().recipe(&format!(
        "architecture: {own}\nactions:\n  - action: mmdebstrap\n    suite: {suite}\n    variant: {variant}\n    architectures: [{architecture}]\n    include: [{}]\n    mirrors: ['{mirror}']\n  - action: pack\n    file: ours.tar.zst\n    compression: zstd\n",
        include.join(", ")
    ));
    let theirs = project.path("theirs.tar");
    let output = Command::new("mmdebstrap")
        .args([&format!("--variant={variant}"), &format!("--architectures={architecture}")])
        .args(include.iter().map(|package| format!("--include={package}")))
        .arg(suite)
        .arg(&theirs)
        .arg(&mirror)
        .output()
        .map_err(|error| format!("mmdebstrap: {error}"))?;
    if !output.status.success() {
        return Err(format!("mmdebstrap failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    project.run(["build", "recipe.yaml", "--artifactdir", "out"]).success();
    let (theirs, ours) = (entries(&theirs), entries(&project.path("out/ours.tar.zst")));
    let known = |path: &str| KNOWN.iter().chain(known).any(|(known, _)| Path::new(path).starts_with(known));
    let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).filter(|path| !known(path)).collect();
    let shown = |entry: Option<&Entry>| entry.map_or("nothing".to_owned(), ToString::to_string);
    Ok(paths
        .into_iter()
        .filter(|path| theirs.get(*path) != ours.get(*path))
        .map(|path| format!("{path}: {} instead of {}", shown(ours.get(path)), shown(theirs.get(path))))
        .collect())
}

fn check(suite: &str, variant: &str, architecture: &str, include: &[&str]) {
    check_but(suite, variant, architecture, include, &[]);
}

/// Checks where `known` differs too.
fn check_but(suite: &str, variant: &str, architecture: &str, include: &[&str], known: &[(&str, &str)]) {
    match differences(suite, variant, architecture, include, known) {
        Ok(differences) => assert!(differences.is_empty(), "{}", differences.join("\n")),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn trixie_is_as_mmdebstrap_makes_it() {
    needs_root!();
    needs_program!("mmdebstrap", "mmdebstrap");
    check("trixie", "minbase", debforge::debian::Architecture::host().name(), &[]);
}

#[test]
fn bookworm_is_as_mmdebstrap_makes_it() {
    needs_root!();
    needs_program!("mmdebstrap", "mmdebstrap");
    check("bookworm", "minbase", debforge::debian::Architecture::host().name(), &[]);
}

#[test]
fn a_whole_system_is_as_mmdebstrap_makes_it() {
    needs_root!();
    needs_program!("mmdebstrap", "mmdebstrap");
    check("trixie", "important", debforge::debian::Architecture::host().name(), &[]);
}

/// Packages whose scripts divert files of others or override their modes, or that replace files of others.
const DIVERTING: [&str; 10] = [
    "zutils",
    "molly-guard",
    "isc-dhcp-client-ddns",
    "policy-rcd-declarative",
    "man-db",
    "cron",
    "screen",
    "openssh-client",
    "dictionaries-common",
    "plocate",
];

#[test]
fn packages_that_divert_are_as_mmdebstrap_makes_them() {
    needs_root!();
    needs_program!("mmdebstrap", "mmdebstrap");
    check_but(
        "trixie",
        "minbase",
        debforge::debian::Architecture::host().name(),
        &DIVERTING,
        &[("usr/sbin/policy-rc.d", "the package's alternative; mmdebstrap's own file is in its way, then removed")],
    );
}

#[test]
fn a_system_of_two_architectures_is_as_mmdebstrap_makes_it() {
    needs_root!();
    needs_program!("mmdebstrap", "mmdebstrap");
    if debforge::debian::Architecture::host() != debforge::debian::Architecture::Amd64 {
        skip!("needs a machine that runs programs of two architectures");
    }
    check("trixie", "apt", "amd64,i386", &["libc6:i386", "zlib1g:i386", "nano"]);
}

#[test]
fn a_foreign_system_is_as_mmdebstrap_makes_it() {
    slow!();
    needs_root!();
    needs_program!("mmdebstrap", "mmdebstrap");
    if !Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        skip!("needs qemu-user for arm64, registered with the kernel");
    }
    check("trixie", "minbase", "arm64", &[]);
}

#[test]
fn excluded_paths_are_not_extracted() {
    needs_root!();
    let project = Project::new().shared_store().recipe(
        "architecture: amd64\nactions:\n  - action: mmdebstrap\n    suite: trixie\n    variant: essential\n    dpkg-opts:\n      - path-exclude=/usr/share/doc/*\n      - path-include=/usr/share/doc/*/copyright\n  - action: pack\n    file: ours.tar.zst\n    compression: zstd\n",
    );
    let finished = project.run(["build", "recipe.yaml", "--artifactdir", "out"]);
    if finished.stderr.contains("failed to lookup address") {
        skip!("no archive");
    }
    finished.success();
    let all = entries(&project.path("out/ours.tar.zst"));
    assert!(all.contains_key("usr/share/doc/bash/copyright"));
    assert!(!all.keys().any(|path| path.ends_with("changelog.Debian.gz")), "changelogs were extracted");
    assert!(all.contains_key("etc/dpkg/dpkg.cfg.d/99mmdebstrap"), "later packages would be extracted whole");
    assert!(fs::metadata(project.path("out/ours.tar.zst")).unwrap().len() > 1 << 20);
}

#[test]
fn a_split_usr_that_cannot_hold_is_refused() {
    needs_root!();
    for action in ["mmdebstrap", "debootstrap"] {
        needs_program!(action, action);
        let recipe = format!(
            "architecture: amd64\nactions:\n  - action: {action}\n    suite: trixie\n    variant: minbase\n    merged-usr: false\n"
        );
        let project = Project::new().shared_store().recipe(&recipe);
        let finished = project.build([]);
        if finished.stderr.contains("could not get the Release file") {
            skip!("no archive: {}", finished.stderr);
        }
        finished.code(2).says("`merged-usr: false` cannot hold: the packages of trixie");
    }
}
