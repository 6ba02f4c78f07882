//! `apt` and `install-deb` against small repositories, in a root that has dpkg and little else.

use std::fs;
use std::io::Read;

use sha2::Digest;

use crate::harness::Project;
use crate::harness::fixture::dpkg_root;
use crate::harness::http::{Manner, Server};
use crate::harness::project::Finished;
use crate::harness::repository::{Deb, Repository};

pub(super) const DATE: &str = "Mon, 02 Nov 2020 10:00:00 UTC";

/// A project, a repository and a server for it; the tests' packages are `one` 1.0 and 2.0 (which
/// depends on `two`), `two`, and `broken`, whose script fails.
pub(super) struct Case {
    pub(super) project: Project,
    pub(super) repository: Repository,
    pub(super) server: Server,
}

impl Case {
    pub(super) fn new() -> Option<Self> {
        let project = Project::new().file("root.tar", dpkg_root()?);
        let dir = project.path("repository");
        let repository = Repository::new(&dir, "stable")
            .with(Deb::new("one", "1.0").file("usr/share/one", 0o644, "1.0\n"))
            .with(Deb::new("one", "2.0").file("usr/share/one", 0o644, "2.0\n").field("Depends", "two"))
            .with(Deb::new("two", "1.0").file("usr/share/two", 0o644, "two\n"))
            .with(Deb::new("broken", "1.0").script("postinst", "#!/bin/sh\necho alas\nexit 3\n"));
        repository.publish(DATE);
        project.write("key.asc", repository.public_key());
        let server = Server::new(&dir);
        Some(Self { project, repository, server })
    }

    /// The recipe's step, with lines of the repository and of the action.
    pub(super) fn recipe(&self, packages: &str, repository: &str, action: &str) {
        let mut text = format!(
            "  - action: apt\n    packages: {packages}\n    repositories:\n      - name: tests\n        uris: [{}]\n        suites: [stable]\n",
            self.server.url("")
        );
        repository.lines().for_each(|line| text.push_str(&format!("        {line}\n")));
        action.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
        self.project.set_actions(&format!("{text}  - action: pack\n    file: out.tar\n    compression: none\n"));
    }

    pub(super) fn build(&self) -> Finished {
        self.project.build([])
    }

    /// Regular files of the packed root.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        files_of(&self.project)
    }

    pub(super) fn text(&self, path: &str) -> Option<String> {
        file_of(&self.project, path)
    }
}

/// Regular files of the root that a project has packed.
fn files_of(project: &Project) -> Vec<(String, Vec<u8>)> {
    let file = fs::File::open(project.path("out/out.tar")).expect("the packed root");
    let mut all = Vec::new();
    for entry in tar::Archive::new(file).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        if entry.header().entry_type().is_file() {
            let path = entry.path().expect("a path").display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("an entry");
            all.push((path.trim_start_matches("./").to_owned(), bytes));
        }
    }
    all
}

/// The text of one of them.
fn file_of(project: &Project, path: &str) -> Option<String> {
    let (_, bytes) = files_of(project).into_iter().find(|(name, _)| name == path)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) const SIGNED: &str = "signed-by: key.asc";

#[test]
fn packages_of_a_signed_repository_are_installed_with_what_they_depend_on() {
    let case = case!();
    case.recipe("[one]", SIGNED, "");
    case.build().success();
    assert_eq!(case.text("usr/share/one").as_deref(), Some("2.0\n"));
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    let sources = case.text("etc/apt/sources.list.d/tests.sources").expect("the repository stays");
    assert!(sources.contains("Signed-By: /etc/apt/keyrings/tests.asc"), "{sources}");
    assert_eq!(case.text("etc/apt/keyrings/tests.asc").map(String::into_bytes), Some(case.repository.public_key()));
    let left: Vec<_> = case
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| {
            path.starts_with("var/lib/apt/lists/") || path.starts_with("var/cache/apt/") || path.ends_with(".deb")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_is_downloaded_twice_and_a_changed_repository_reruns_the_step() {
    let mut case = case!();
    case.recipe("[two]", SIGNED, "");
    case.build().success();
    case.project.build(["--no-cache"]).success();
    assert_eq!(case.server.sent("pool/two_1.0_all.deb"), 1);
    case.repository.add(Deb::new("two", "3.0").file("usr/share/two", 0o644, "three\n"));
    case.repository.publish("Tue, 03 Nov 2020 10:00:00 UTC");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("three\n"));
}

#[test]
fn a_build_is_planned_anew_when_the_lists_change_meanwhile() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    let Case { project, mut repository, server } = case;
    server.then("dists/stable/InRelease", move || {
        repository.add(Deb::new("two", "3.0").file("usr/share/two", 0o644, "three\n"));
        repository.publish("Tue, 03 Nov 2020 10:00:00 UTC");
    });
    project.build([]).success().says("changed while the build was going on: it is planned anew");
    assert_eq!(file_of(&project, "usr/share/two").as_deref(), Some("three\n"));
    assert_eq!(server.count("dists/stable/InRelease"), 2);
}

#[test]
fn a_build_is_planned_anew_when_packages_go_meanwhile() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    let Case { project, mut repository, server } = case;
    let pool = project.path("repository/pool/two_1.0_all.deb");
    server.then("dists/stable/main/binary-amd64/Packages", move || {
        repository.remove("two");
        fs::remove_file(pool).expect("a package");
        repository.add(Deb::new("two", "3.0").file("usr/share/two", 0o644, "three\n"));
        repository.publish("Tue, 03 Nov 2020 10:00:00 UTC");
    });
    let finished = project.build(["--json"]).success();
    assert_eq!(file_of(&project, "usr/share/two").as_deref(), Some("three\n"));
    // For a program that reads along there is one end, and a good one.
    let ends: Vec<_> = finished.events().into_iter().filter(|event| event["event"] == "finished").collect();
    assert_eq!(ends.len(), 1, "{finished}");
    assert!(ends[0]["fault"].is_null(), "{finished}");
}

#[test]
fn a_suite_with_two_keys_is_found_before_the_machines_apt_says_so() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    let recipe = case.project.read("recipe.yaml");
    let line = format!("deb [trusted=yes] {} stable main", case.server.url(""));
    let before = format!(
        "  - action: run\n    chroot: true\n    command: mkdir -p /etc/apt; echo '{line}' > /etc/apt/sources.list\n  - action: apt\n"
    );
    case.project.write("recipe.yaml", recipe.replacen("  - action: apt\n", &before, 1));
    case.build().code(2).says("stable twice, with different keys").says("`keep: false`");
    let text =
        case.project.read("recipe.yaml").replace("signed-by: key.asc", "signed-by: key.asc\n        keep: false");
    case.project.write("recipe.yaml", text);
    case.build().success();
}

#[test]
fn a_component_that_a_repository_lacks_is_named() {
    let case = case!();
    case.recipe("[two]", &format!("{SIGNED}\ncomponents: [main, contirb]"), "");
    case.build().success().says("has no component `contirb`; it has main");
    case.recipe("[two, one]", &format!("{SIGNED}\ncomponents: [main]"), "");
    case.build().success().says_nothing_of("has no component");
}

#[test]
fn what_packages_leave_in_run_and_tmp_goes_and_the_rest_stays() {
    let case = case!();
    let script = "#!/bin/sh\nmkdir -p /run/deep/er /tmp; echo > /run/deep/er/pid; echo > /tmp/left\n";
    let mut case = case;
    case.repository.add(Deb::new("leaves", "1.0").script("postinst", script));
    case.repository.publish(DATE);
    case.recipe("[leaves]", SIGNED, "");
    let recipe = case.project.read("recipe.yaml");
    let before = "  - action: run\n    chroot: true\n    command: mkdir -p /run; echo > /run/mine\n  - action: apt\n";
    case.project.write("recipe.yaml", recipe.replacen("  - action: apt\n", before, 1));
    case.build().success();
    let names: Vec<String> = case.files().into_iter().map(|(name, _)| name).collect();
    let left: Vec<&String> = names.iter().filter(|name| name.starts_with("run/") || name.starts_with("tmp/")).collect();
    assert_eq!(left, ["run/mine"]);
}

#[test]
fn what_stands_in_while_packages_come_gives_way_to_their_alternative() {
    let mut case = case!();
    // What update-alternatives leaves that finds a file where its link is to be.
    let script = "#!/bin/sh
mkdir -p /var/lib/dpkg/alternatives /etc/alternatives
test -f /usr/sbin/policy-rc.d
ln -s /usr/sbin/policy-of-mine /etc/alternatives/policy-rc.d
printf 'auto\\n/usr/sbin/policy-rc.d\\n\\n/usr/sbin/policy-of-mine\\n50\\n\\n' > /var/lib/dpkg/alternatives/policy-rc.d
";
    let package = Deb::new("policy", "1.0").script("postinst", script);
    case.repository.add(package.file("usr/sbin/policy-of-mine", 0o755, "#!/bin/sh\nexit 0\n"));
    case.repository.publish(DATE);
    case.recipe("[policy]", SIGNED, "");
    case.build().success();
    let file = fs::File::open(case.project.path("out/out.tar")).unwrap();
    let links: Vec<String> = tar::Archive::new(file)
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().unwrap().ends_with("usr/sbin/policy-rc.d"))
        .map(|entry| entry.link_name().unwrap().unwrap().display().to_string())
        .collect();
    assert_eq!(links, ["/etc/alternatives/policy-rc.d"]);
    case.recipe("[two]", SIGNED, "");
    case.build().success();
    assert!(!case.files().iter().any(|(name, _)| name == "usr/sbin/policy-rc.d"));
}

#[test]
fn a_mirror_without_what_it_lists_is_no_reason_to_plan_anew() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    fs::remove_file(case.project.path("repository/pool/two_1.0_all.deb")).expect("a package");
    case.build().code(1).says("could not get the package two 1.0").says("404").says_nothing_of("planned anew");
    assert_eq!(case.server.count("pool/two_1.0_all.deb"), 1);
}

#[test]
fn a_repository_that_does_not_come_to_rest_is_given_up() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    let lists = "dists/stable/main/binary-amd64/Packages";
    case.server.set(lists, Manner::Status { code: 404, times: 9 });
    let Case { project, repository, server } = case;
    server.then("dists/stable/InRelease", move || repository.publish("Tue, 03 Nov 2020 10:00:00 UTC"));
    project.build([]).code(1).says("planned anew").says("could not get the package lists of").says("name another");
    assert_eq!(server.count(lists), 2);
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let case = case!();
    let other = Repository::new(&case.project.path("other"), "stable");
    case.project.write("key.asc", other.public_key());
    case.recipe("[one]", SIGNED, "");
    case.build().code(1).says("could not be verified").says("is not in the keyring").says("signed-by");
}

#[test]
fn a_root_may_name_a_key_by_its_fingerprint() {
    let case = case!();
    let other = Repository::new(&case.project.path("other"), "stable");
    case.project.write("etc/apt/trusted.gpg.d/both.gpg", [other.keyring(), case.repository.keyring()].concat());
    let build = |fingerprint: &str| {
        case.project.write(
            "etc/apt/sources.list.d/tests.sources",
            format!(
                "Types: deb\nURIs: {}\nSuites: stable\nComponents: main\nSigned-By: {fingerprint}\n",
                case.server.url("")
            ),
        );
        case.project.set_actions(
            "  - action: overlay\n    source: etc\n    destination: /etc\n  - action: apt\n    packages: [two]\n  - action: pack\n    file: out.tar\n    compression: none\n",
        );
        case.build()
    };
    build(&other.fingerprint()).code(1).says("could not be verified").says("is not in the keyring");
    build("0123456789012345678901234567890123456789").code(2).says("which the root does not have");
    build("3456789").code(1).says("neither the path of a keyring nor a whole fingerprint");
    build(&case.repository.fingerprint()).success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
}

#[test]
fn lists_of_mirrors_are_named_as_what_they_are() {
    let case = case!();
    case.project.write("etc/apt/sources.list", "deb mirror+http://mirror.example/list stable main\n");
    case.project.set_actions(
        "  - action: overlay\n    source: etc\n    destination: /etc\n  - action: apt\n    packages: [two]\n",
    );
    case.build().code(2).says("it is a list of mirrors, of which one has to be named").says("recipe.yaml");
}

#[test]
fn a_changed_release_file_is_refused() {
    let case = case!();
    let path = case.project.path("repository/dists/stable/InRelease");
    let text = fs::read_to_string(&path).expect("the release file").replace("Label: Tests", "Label: Evil");
    fs::write(&path, text).expect("the release file");
    case.recipe("[one]", SIGNED, "");
    case.build().code(1).says("does not match the file");
}

#[test]
fn a_changed_package_is_refused() {
    let case = case!();
    Deb::new("two", "1.0").file("usr/share/two", 0o644, "evil\n").write(&case.project.path("repository/pool"));
    case.recipe("[two]", SIGNED, "");
    case.build().code(1).says("could not get the package two");
}

#[test]
fn unauthenticated_takes_what_no_known_key_has_signed() {
    let case = case!();
    case.recipe("[two]", "", "unauthenticated: true");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
}

#[test]
fn a_password_gets_to_the_server_and_nowhere_else() {
    let case = case!();
    let secret = "correct-horse-battery";
    case.server.require_login("me", secret);
    case.recipe("[one]", "signed-by: key.asc\ncredentials: {login: me, password-env: TESTS_PASSWORD}", "");
    case.build().code(2).says("TESTS_PASSWORD");
    let Case { project, repository, server } = case;
    let case = Case { project: project.env("TESTS_PASSWORD", secret), repository, server };
    let finished = case.project.build(["-v"]).success();
    assert!(!finished.stderr.contains(secret) && !finished.stdout.contains(secret), "{finished}");
    let plan = case.project.run(["plan", "--json", "recipe.yaml"]);
    assert!(!plan.stdout.contains(secret), "{plan}");
    let found = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    for (path, bytes) in case.files() {
        assert!(!found(&bytes), "{path} in the root");
    }
    for dir in [case.project.store().to_owned(), case.project.path("home")] {
        for entry in walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
            assert!(!found(&fs::read(entry.path()).unwrap_or_default()), "{}", entry.path().display());
        }
    }
}

#[test]
fn a_repository_that_is_not_kept_leaves_nothing() {
    let case = case!();
    case.recipe("[two]", "signed-by: key.asc\nkeep: false", "");
    case.build().success();
    let left: Vec<_> = case.files().into_iter().filter(|(path, _)| path.starts_with("etc/apt/")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn pins_choose_the_version_and_stay() {
    let case = case!();
    case.recipe("[one]", SIGNED, "preferences: [{package: one, pin: version 1.*, priority: 1001}]");
    case.build().success();
    assert_eq!(case.text("usr/share/one").as_deref(), Some("1.0\n"));
    assert_eq!(
        case.text("etc/apt/preferences.d/debforge").as_deref(),
        Some("Package: one\nPin: version 1.*\nPin-Priority: 1001\n")
    );
}

#[test]
fn an_unknown_package_is_named_with_what_was_meant() {
    let case = case!();
    case.recipe("[brokn]", SIGNED, "");
    case.build().code(1).says("E: Unable to locate package brokn").says("did you mean `broken`?");
}

#[test]
fn what_does_not_fit_together_is_shown_down_to_its_cause() {
    let mut case = case!();
    case.repository.add(Deb::new("top", "1").field("Depends", "middle"));
    case.repository.add(Deb::new("middle", "1").field("Depends", "lower"));
    case.repository.add(Deb::new("lower", "1").field("Depends", "two (>= 9)"));
    case.repository.publish(DATE);
    case.recipe("[top]", SIGNED, "");
    let said = case.build().code(1);
    said.says("lower : Depends: two (>= 9) but 1.0 is to be installed").says("top → middle → lower");
}

#[test]
fn a_failing_script_is_shown_with_its_package() {
    let case = case!();
    case.recipe("[broken]", SIGNED, "");
    case.build().code(1).says("could not install the packages").says("alas").says("the package `broken` that failed");
}

#[test]
fn an_unreachable_repository_is_said() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    let Case { project, server, .. } = case;
    drop(server);
    project.build([]).code(1).says("could not get the Release file of").says("can this machine reach it?");
}

#[test]
fn deb_files_bring_what_they_depend_on() {
    let case = case!();
    Deb::new("own", "1.0")
        .file("usr/share/own", 0o644, "own\n")
        .field("Depends", "two")
        .write(&case.project.path("debs"));
    case.project.set_actions(&format!(
        "  - action: apt\n    repositories:\n      - {{name: tests, uris: ['{}'], suites: [stable], signed-by: key.asc}}\n  - action: install-deb\n    packages: [debs/*.deb]\n  - action: pack\n    file: out.tar\n    compression: none\n",
        case.server.url("")
    ));
    case.build().success();
    assert_eq!(case.text("usr/share/own").as_deref(), Some("own\n"));
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
}

#[test]
fn another_build_of_the_installed_version_takes_its_place() {
    let case = case!();
    // With a dependency, which apt tells versions apart by, and with none but the contents.
    for depends in [None, Some("two")] {
        for (package, version) in [("two", "1.0"), ("one", "1.0")] {
            let mut deb = Deb::new(package, version).file(&format!("usr/share/{package}"), 0o644, "own\n");
            if let Some(depends) = depends.filter(|depends| *depends != package) {
                deb = deb.field("Depends", depends);
            }
            deb.write(&case.project.path("debs"));
        }
        case.project.set_actions(&format!(
            "  - action: apt\n    packages: [two, one=1.0]\n    repositories:\n      - {{name: tests, uris: ['{}'], suites: [stable], signed-by: key.asc}}\n  - action: install-deb\n    packages: [debs/*.deb]\n  - action: pack\n    file: out.tar\n    compression: none\n",
            case.server.url("")
        ));
        case.build().success();
        assert_eq!(case.text("usr/share/one").as_deref(), Some("own\n"), "{depends:?}");
        assert_eq!(case.text("usr/share/two").as_deref(), Some("own\n"), "{depends:?}");
    }
}

#[test]
fn a_package_of_another_component_is_found_there() {
    let case = case!();
    let dist = case.project.path("repository/dists/stable");
    let release = fs::read_to_string(dist.join("Release")).unwrap();
    let list = fs::read_to_string(dist.join("main/binary-amd64/Packages")).unwrap();
    let other = list.replace("Package: two\n", "Package: driver\n");
    fs::create_dir_all(dist.join("non-free/binary-amd64")).unwrap();
    fs::write(dist.join("non-free/binary-amd64/Packages"), &other).unwrap();
    let digest = hex::encode(sha2::Sha256::digest(other.as_bytes()));
    case.repository.sign_release(&format!("{release} {digest} {} non-free/binary-amd64/Packages\n", other.len()));
    case.recipe("[driver, nowhere]", SIGNED, "");
    let built =
        case.build().code(1).says("`driver` is in `non-free` of stable: give the repository that component, too");
    built.says("no repository of the root has `nowhere`").says_nothing_of("no repository of the root has `driver`");
}

#[test]
fn a_pattern_that_fits_nothing_is_a_fault() {
    let case = case!();
    case.project.set_actions("  - action: install-deb\n    packages: ['debs/*.deb']\n");
    case.project.run(["check", "recipe.yaml"]).code(2).says("`debs/*.deb` fits no file beside the recipe");
    case.build().code(2).says("`debs/*.deb` fits no file beside the recipe");
    case.project.write("debs/readme", "");
    for (pattern, said) in [("debs", "`debs` is no file"), ("debs/**", "fits no file"), ("*s", "fits no file")] {
        case.project.set_actions(&format!("  - action: install-deb\n    packages: ['{pattern}']\n"));
        case.project.run(["check", "recipe.yaml"]).code(2).says(said);
    }
}

#[test]
fn two_builds_at_once_share_what_they_fetch() {
    let case = case!();
    case.recipe("[one]", SIGNED, "");
    let text = case.project.read("recipe.yaml");
    case.project
        .write("second.yaml", text.replace("packages: [one]", "packages: [two]").replace("out.tar", "second.tar"));
    let first = case.project.start(["build", "recipe.yaml"]);
    let second = case.project.start(["build", "second.yaml"]);
    first.finish().success();
    second.finish().success();
    assert_eq!(case.server.sent("pool/two_1.0_all.deb"), 1);
    assert_eq!(case.server.sent("dists/stable/main/binary-amd64/Packages"), 1);
}
