//! Archives move, and nothing in between may hide it: what a repository's state is, its bytes say. And what it is
//! verified with comes from the root or the recipe.

use std::fs::{self, FileTimes};
use std::time::{Duration, SystemTime};

use crate::harness::Project;
use crate::harness::fixture::dpkg_root;
use crate::harness::http::{Manner, Server};
use crate::harness::repository::{Deb, Repository};

const DATE: &str = "Mon, 02 Nov 2020 10:00:00 UTC";

const PACK: &str = "  - action: pack\n    file: out.tar\n    compression: none\n";

/// A project with a repository that has the package `one` 1.0.
struct Case {
    project: Project,
    repository: Repository,
}

impl Case {
    fn new() -> Option<Self> {
        let project = Project::new().file("root.tar", dpkg_root()?);
        let repository = Repository::new(&project.path("repository"), "stable");
        project.write("key.asc", repository.public_key());
        let mut case = Self { project, repository };
        case.publish("1.0");
        Some(case)
    }

    /// Another version in the place of the last, every file of the repository with one and the same date.
    fn publish(&mut self, version: &str) {
        self.repository.remove("one");
        self.repository.add(Deb::new("one", version).file("usr/share/one", 0o644, version));
        self.repository.publish(DATE);
        let date = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
        for entry in walkdir::WalkDir::new(self.repository.dir()).into_iter().flatten() {
            if entry.file_type().is_file() {
                fs::File::options().write(true).open(entry.path()).unwrap().set_times(date).unwrap();
            }
        }
    }

    /// A recipe that installs `one` from an address.
    fn recipe(&self, uri: &str) {
        self.project.set_actions(&format!(
            "  - action: apt\n    packages: [one]\n    repositories:\n      - {{name: tests, uris: ['{uri}'], suites: [stable], signed-by: key.asc}}\n{PACK}"
        ));
    }

    /// The version of the package that a build has installed.
    fn built(&self, more: &[&str]) -> String {
        self.project.build(more.iter().copied()).success();
        packed(&self.project, "usr/share/one")
    }

    /// Builds before and after the repository moves, and again past the store.
    fn moves(&mut self) {
        assert_eq!(self.built(&[]), "1.0");
        self.publish("2.0");
        assert_eq!(self.built(&[]), "2.0");
        self.publish("3.0");
        assert_eq!(self.built(&["--no-cache"]), "3.0");
        self.publish("1.0");
        assert_eq!(self.built(&[]), "1.0", "a state of before");
    }
}

/// The text of a file of the packed root.
fn packed(project: &Project, path: &str) -> String {
    let mut archive = tar::Archive::new(fs::File::open(project.path("out/out.tar")).expect("the packed root"));
    let mut entries = archive.entries().expect("an archive").map(|entry| entry.expect("an entry"));
    let found = entries.find(|entry| entry.path().is_ok_and(|name| name.ends_with(path)));
    std::io::read_to_string(found.unwrap_or_else(|| panic!("no {path}"))).expect("an entry")
}

/// A [`Case`], or the test ends.
macro_rules! case {
    () => {{
        needs_program!("gpg", "gnupg");
        needs_program!("apt-get", "apt");
        needs_program!("gpgv", "gpgv");
        match Case::new() {
            Some(case) => case,
            None => skip!("needs dpkg and what it calls"),
        }
    }};
}

#[test]
fn a_mirror_whose_clock_stands_still_is_seen_to_move() {
    let mut case = case!();
    let server = Server::new(case.repository.dir());
    server.stand_still();
    case.recipe(&server.url(""));
    case.moves();
    assert!(server.seen().iter().all(|seen| seen.status != 304));
}

#[test]
fn a_repository_of_files_with_equal_dates_is_seen_to_move() {
    let mut case = case!();
    case.recipe(&format!("file:{}", case.repository.dir().display()));
    case.moves();
}

#[test]
fn what_a_cache_on_the_way_holds_is_not_taken_for_the_mirror() {
    let mut case = case!();
    let server = Server::new(case.repository.dir());
    server.keep_what_was_sent();
    case.recipe(&server.url(""));
    case.moves();
    // The indexes are under one name in all states, and the cache gave old ones.
    let indexes = server.seen().into_iter().filter(|seen| seen.path.ends_with("Packages"));
    assert!(indexes.clone().any(|seen| seen.fresh) && indexes.clone().any(|seen| !seen.fresh));
}

#[test]
fn the_older_form_of_a_release_file_moves_with_its_signature() {
    let mut case = case!();
    let server = Server::new(case.repository.dir());
    server.stand_still();
    server.set("dists/stable/InRelease", Manner::Status { code: 404, times: 99 });
    case.recipe(&server.url(""));
    case.moves();
    // A signature of another state is no signature.
    let signature = case.repository.dir().join("dists/stable/Release.gpg");
    let old = fs::read(&signature).unwrap();
    case.publish("4.0");
    fs::write(&signature, old).unwrap();
    case.project.build([]).code(1).says("does not match the file");
}

#[test]
fn a_download_without_a_digest_is_what_the_server_has_now() {
    let served = tempfile::tempdir().unwrap();
    let server = Server::new(served.path());
    server.stand_still();
    let actions = format!(
        "  - action: download\n    url: {}\n    name: file\n  - action: overlay\n    origin: file\n    destination: /file\n{PACK}",
        server.url("file")
    );
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox (package busybox-static)") };
    for (text, more) in [("before", None), ("behind", None), ("at end", Some("--no-cache"))] {
        fs::write(served.path().join("file"), text).unwrap();
        project.build(more).success();
        assert_eq!(packed(&project, "file"), text);
    }
}

#[test]
fn parts_of_two_versions_never_become_one_file() {
    let served = tempfile::tempdir().unwrap();
    let server = Server::new(served.path());
    server.stand_still();
    let (file, other) = (served.path().join("file"), "b".repeat(100_000));
    fs::write(&file, "a".repeat(100_000)).unwrap();
    let actions = format!(
        "  - action: download\n    url: {}\n    name: file\n  - action: overlay\n    origin: file\n    destination: /file\n{PACK}",
        server.url("file")
    );
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox (package busybox-static)") };
    server.set("file", Manner::Cut { after: 50_000, times: 1 });
    let moved = other.clone();
    server.then("file", move || fs::write(file, moved).unwrap());
    project.build([]).success();
    assert_eq!(packed(&project, "file"), other);
}

#[test]
fn a_key_that_the_host_alone_has_verifies_nothing() {
    let case = case!();
    let key = case.project.path("key.asc");
    let source = |more: &str| {
        format!("Types: deb\nURIs: file:{}\nSuites: stable\nComponents: main\n{more}", case.repository.dir().display())
    };
    let overlay = "  - action: overlay\n    source: etc\n    destination: /etc\n";
    let apt = "  - action: apt\n    packages: [one]\n";
    case.project.write("etc/apt/sources.list.d/tests.sources", source(&format!("Signed-By: {}\n", key.display())));
    case.project.set_actions(&format!("{overlay}{apt}{PACK}"));
    let refused = case.project.build([]).code(2);
    refused.says("key.asc, which the root does not have").says("overlay");
    // The same file, in the root.
    let inside = key.display().to_string();
    let more = format!("  - action: overlay\n    source: key.asc\n    destination: {inside}\n");
    case.project.set_actions(&format!("{overlay}{more}{apt}{PACK}"));
    assert_eq!(case.built(&[]), "1.0");
    // One that the root trusts for all repositories, and a repository of the recipe that names none.
    case.project.write("etc/apt/trusted.gpg.d/tests.asc", case.repository.public_key());
    fs::remove_file(case.project.path("etc/apt/sources.list.d/tests.sources")).unwrap();
    let own = format!(
        "{apt}    repositories: [{{name: tests, uris: ['file:{}'], suites: [stable]}}]\n",
        case.repository.dir().display()
    );
    case.project.set_actions(&format!("{overlay}{own}{PACK}"));
    assert_eq!(case.built(&[]), "1.0");
    // A root without any.
    case.project.set_actions(&format!("{own}{PACK}"));
    case.project.build([]).code(2).says("the root has no key").says("signed-by");
}

#[test]
fn a_bootstrap_takes_keys_of_the_recipe_and_no_others() {
    let case = case!();
    let architecture = debforge::debian::Architecture::host();
    let recipe = |key: &str, more: &str| {
        case.project.write(
            "recipe.yaml",
            format!(
                "architecture: {architecture}\nactions:\n  - action: mmdebstrap\n    suite: stable\n    variant: extract\n    include: [one]\n    mirrors: ['deb [signed-by={key}] file:{} stable main']\n{more}{PACK}",
                case.repository.dir().display()
            ),
        );
    };
    let key = case.project.path("key.asc").display().to_string();
    recipe(&key, "");
    case.project
        .run(["plan", "recipe.yaml"])
        .code(2)
        .says("key.asc, which is a file of the finished system")
        .says("keyring-files");
    recipe("/usr/share/keyrings/key.asc", "    keyring-files: [key.asc]\n");
    let plan = case.project.run(["plan", "--json", "recipe.yaml"]).success();
    assert!(plan.stdout.contains("file key.asc"), "{plan}");
    recipe("/usr/share/keyrings/debian-archive-keyring.gpg", "");
    case.project.run(["plan", "recipe.yaml"]).code(1).says("is not in the keyring");
}

#[test]
fn the_hosts_configuration_of_apt_changes_nothing() {
    let case = case!();
    case.recipe(&format!("file:{}", case.repository.dir().display()));
    case.project.write(
        "apt.conf",
        "APT::Default-Release \"sid\";\nAPT::Install-Recommends \"true\";\nAPT::Architectures { \"mipsel\"; };\nAcquire::Check-Valid-Until \"false\";\nAPT::Get::AllowUnauthenticated \"true\";\nDpkg::Pre-Invoke { \"exit 7\"; };\nDir::Etc::parts \"/nonexistent\";\n",
    );
    let reference = case.built(&["--no-cache"]);
    let output = case
        .project
        .command(["build", "--no-cache", "recipe.yaml", "--artifactdir", "other"])
        .env("APT_CONFIG", case.project.path("apt.conf"))
        .output()
        .expect("starting debforge");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(reference, "1.0");
    let bytes = |name: &str| fs::read(case.project.path(name)).expect("an artifact");
    assert!(bytes("out/out.tar") == bytes("other/out.tar"));
}
