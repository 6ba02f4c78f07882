//! `apt` and `install-deb` against small repositories, in a root that has dpkg and little else.

use std::fs;
use std::io::Read;

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
fn a_mirror_without_its_lists_by_digest_gives_them_by_name() {
    let case = case!();
    let dist = case.project.path("repository/dists/stable");
    let release = fs::read_to_string(dist.join("Release")).unwrap();
    // It says that they are there, and they are not.
    case.repository.sign_release(&release.replace("Components:", "Acquire-By-Hash: yes\nComponents:"));
    case.recipe("[two]", SIGNED, "");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    assert!(case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by digest first");
    case.server.forget();
    fs::remove_dir_all(case.project.store()).expect("removing the store");
    case.recipe("[two]", &format!("{SIGNED}\nby-hash: false"), "");
    case.build().success();
    assert!(!case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by name");
    assert!(case.text("etc/apt/sources.list.d/tests.sources").expect("the repository").contains("By-Hash: no\n"));
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
fn a_directory_with_a_list_alone_is_a_repository_where_it_is_trusted() {
    let case = case!();
    let flat = case.project.path("repository/flat");
    let list = fs::read_to_string(case.project.path("repository/dists/stable/main/binary-amd64/Packages")).unwrap();
    fs::create_dir(&flat).unwrap();
    fs::rename(case.project.path("repository/pool"), flat.join("pool")).unwrap();
    fs::write(flat.join("Packages.zst"), zstd::encode_all(list.as_bytes(), 1).unwrap()).unwrap();
    let recipe = |packages: &str, more: &str| {
        case.project.set_actions(&format!(
            "  - action: apt\n    packages: {packages}\n    repositories:\n      - {{name: flat, uris: ['{}'], suites: [./]{more}}}\n  - action: pack\n    file: out.tar\n    compression: none\n",
            case.server.url("flat")
        ));
    };
    recipe("[one]", "");
    case.build().code(1).says("has no Release file").says("`trusted: true`");
    recipe("[one=1.0]", ", trusted: true");
    case.build().success();
    assert_eq!(case.text("usr/share/one").as_deref(), Some("1.0\n"));
    // What it has is its state: unchanged nothing runs, changed the step runs.
    case.build().success();
    assert_eq!(case.server.sent("flat/pool/one_1.0_all.deb"), 1);
    let without: String =
        list.split_inclusive("\n\n").filter(|entry| !entry.starts_with("Package: one\nVersion: 1.0\n")).collect();
    fs::write(flat.join("Packages.zst"), zstd::encode_all(without.as_bytes(), 1).unwrap()).unwrap();
    case.build().code(1).says("Version '1.0' for 'one' was not found");
    fs::remove_file(flat.join("Packages.zst")).unwrap();
    case.build().code(1).says("could not get the Release file of");
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
fn a_repository_for_another_architecture_of_the_root_is_one_of_its_own() {
    let mut case = case!();
    let (native, foreign) = match debforge::debian::Architecture::host() {
        debforge::debian::Architecture::Amd64 => ("amd64", "i386"),
        other => (other.name(), "amd64"),
    };
    let text = format!("for {foreign}\n");
    case.repository.add(Deb::new("three", "1.0").architecture(foreign).file("usr/share/three", 0o644, &text));
    case.repository.publish(DATE);
    case.recipe(&format!("['three:{foreign}']"), &format!("{SIGNED}\narchitectures: [{foreign}]"), "");
    let recipe = case.project.read("recipe.yaml");
    let add =
        format!("  - action: run\n    chroot: true\n    command: dpkg --add-architecture {foreign}\n  - action: apt\n");
    case.project.write("recipe.yaml", recipe.replacen("  - action: apt\n", &add, 1));
    case.build().success();
    assert_eq!(case.text("usr/share/three"), Some(text), "{native}");
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
fn an_expired_release_file_is_refused_unless_asked_for() {
    let case = case!();
    case.repository.publish(&format!("{DATE}\nValid-Until: Tue, 03 Nov 2020 10:00:00 UTC"));
    case.recipe("[two]", SIGNED, "");
    case.build().code(1).says("has expired on 2020-11-03").says("check-valid-until");
    case.recipe("[two]", "signed-by: key.asc\ncheck-valid-until: false", "");
    case.build().success();
}

/// A recipe whose root has these files when `two` is installed from the repository, which the root knows by
/// /etc/apt/sources.list.
fn with_files(case: &Case, uri: &str, files: &[(&str, &str)]) {
    let mut text = String::new();
    let list = format!("deb [signed-by=/etc/apt/key.asc] {uri} stable main\n");
    case.project.write("root/etc/apt/sources.list", list);
    case.project.write("root/etc/apt/key.asc", case.repository.public_key());
    for (path, contents) in files {
        case.project.write(&format!("root/{path}"), contents);
    }
    text.push_str("  - {action: overlay, source: root}\n  - action: apt\n    packages: [two]\n");
    case.project.set_actions(&format!("{text}  - action: pack\n    file: out.tar\n    compression: none\n"));
}

#[test]
fn what_the_roots_apt_is_told_of_fetching_holds() {
    let case = case!();
    let conf = "etc/apt/apt.conf.d/90own";
    let uri = case.server.url("");
    case.repository.publish(&format!("{DATE}\nValid-Until: Tue, 03 Nov 2020 10:00:00 UTC\nAcquire-By-Hash: yes"));
    with_files(&case, &uri, &[]);
    case.build().code(1).says("has expired on 2020-11-03").says("of the root");
    with_files(&case, &uri, &[(conf, "Acquire::Check-Valid-Until \"false\";\n")]);
    case.build().success();
    assert!(case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by digest");
    case.server.forget();
    let text = "Acquire { Check-Valid-Until no; By-Hash no; http::Dl-Limit 70; };\n";
    with_files(&case, &uri, &[(conf, text)]);
    // What the store has it does not ask for.
    fs::remove_dir_all(case.project.store()).expect("removing the store");
    case.build().success().says("`acquire::http::dl-limit`, which has no effect");
    assert!(!case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by name");
    with_files(&case, &uri, &[(conf, "Acquire::Max-Valid-Time \"1\";\n")]);
    case.build().code(2).says("sets `acquire::max-valid-time`").says("cannot be met");
    // A file that apt does not read.
    with_files(&case, &uri, &[(conf, text), ("etc/apt/apt.conf.d/91own.bak", "Acquire::Max-Valid-Time \"1\";\n")]);
    case.build().success();
}

#[test]
fn what_a_recipes_apt_opts_say_of_fetching_holds() {
    let case = case!();
    case.repository.publish(&format!("{DATE}\nValid-Until: Tue, 03 Nov 2020 10:00:00 UTC\nAcquire-By-Hash: yes"));
    let recipe = |uri: &str, more: &str| {
        let text = format!(
            "architecture: {}\nactions:\n  - action: mmdebstrap\n    suite: stable\n    variant: extract\n    mirrors: ['{uri}']\n    keyring-files: [key.asc]\n    include: [two]\n    {more}\n  - action: pack\n    file: out.tar\n    compression: none\n",
            debforge::debian::Architecture::host()
        );
        case.project.write("recipe.yaml", text);
    };
    let uri = case.server.url("");
    recipe(&uri, "");
    case.build().code(1).says("has expired on 2020-11-03").says("`check-valid-until: false`, for the bootstrap");
    recipe(&uri, "check-valid-until: false");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    let list = case.text("etc/apt/sources.list").expect("the list of repositories");
    assert!(list.starts_with("deb [check-valid-until=no] "), "{list}");
    assert!(case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by digest");
    case.server.forget();
    fs::remove_dir_all(case.project.store()).expect("removing the store");
    let proxy = format!(
        "apt-opts: ['Acquire::Check-Valid-Until \"false\"', 'Acquire::By-Hash \"no\"', 'Acquire::http::Proxy \"{uri}\"']"
    );
    // Nobody knows this host; the proxy is not asked for its address.
    recipe("http://mirror.invalid/", &proxy);
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    assert!(case.server.sent("dists/stable/main/binary-amd64/Packages") == 1, "asked by name");
    let list = case.text("etc/apt/sources.list").expect("the list of repositories");
    assert_eq!(list, "deb http://mirror.invalid/ stable main\n");
}

#[test]
fn the_proxy_of_the_roots_apt_goes_before_this_machines() {
    let case = case!();
    let conf = "etc/apt/apt.conf.d/90proxy";
    let proxy = format!("Acquire::http::Proxy \"{}\";\n", case.server.url(""));
    // Nobody knows this host; the proxy is not asked for its address.
    with_files(&case, "http://mirror.invalid/", &[(conf, &proxy)]);
    let build = |variable: &str| {
        let mut command = case.project.command(["build", "recipe.yaml", "--artifactdir", "out"]);
        for name in ["http_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        let output = command.env("http_proxy", variable).output().expect("starting debforge");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = build("http://proxy.invalid:1");
    assert!(done, "{said}");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    // One that is exempt is asked itself, whatever stands elsewhere.
    let exempt = "Acquire::http::Proxy \"http://proxy.invalid:1\";\nAcquire::http::Proxy::127.0.0.1 \"DIRECT\";\n";
    with_files(&case, &case.server.url(""), &[(conf, exempt)]);
    let (done, said) = build("http://proxy.invalid:1");
    assert!(done, "{said}");
    with_files(&case, &case.server.url(""), &[(conf, "Acquire::http::ProxyAutoDetect \"/usr/bin/find-it\";\n")]);
    let (done, said) = build("");
    assert!(!done && said.contains("`acquire::http::proxyautodetect`"), "{said}");
}

#[test]
fn the_logins_of_the_roots_apt_are_used() {
    let case = case!();
    case.server.require_login("me", "secret-of-mine");
    let uri = case.server.url("");
    with_files(&case, &uri, &[]);
    case.build().code(1).says("401");
    let login = format!("machine {}\nlogin me\npassword secret-of-mine\n", uri.trim_end_matches('/'));
    with_files(&case, &uri, &[("etc/apt/auth.conf.d/own.conf", &login)]);
    case.build().success().says_nothing_of("secret-of-mine");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    let planned = case.project.run(["plan", "recipe.yaml", "--json"]);
    assert!(!planned.transcript().contains("secret-of-mine"), "{planned}");
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
fn the_proxy_of_the_hosts_apt_is_used() {
    let case = case!();
    let server = case.server.url("");
    let proxy = |lines: &str| case.project.write("apt.conf", lines);
    let recipe = |uri: &str| {
        case.project.set_actions(&format!(
            "  - action: apt\n    packages: [two]\n    repositories:\n      - {{name: tests, uris: ['{uri}'], suites: [stable], signed-by: key.asc}}\n  - action: pack\n    file: out.tar\n    compression: none\n"
        ));
    };
    let build = || {
        let mut command = case.project.command(["build", "recipe.yaml", "--artifactdir", "out"]);
        for name in ["http_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        let output = command.env("APT_CONFIG", case.project.path("apt.conf")).output().expect("starting debforge");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Nobody knows this host; the proxy is not asked for its address.
    recipe("http://mirror.invalid/debian");
    fs::rename(case.project.path("repository"), case.project.path("moved")).expect("moving the repository");
    fs::create_dir(case.project.path("repository")).expect("moving the repository");
    fs::rename(case.project.path("moved"), case.project.path("repository/debian")).expect("moving the repository");
    proxy(&format!("Acquire::http::Proxy \"{server}\";\n"));
    let (done, said) = build();
    assert!(done, "{said}");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    assert_eq!(case.server.sent("debian/pool/two_1.0_all.deb"), 1);
    // A server that is exempt is asked itself.
    recipe(&case.server.url("debian"));
    proxy("Acquire::http::Proxy \"http://proxy.invalid:1\";\nAcquire::http::Proxy::127.0.0.1 \"DIRECT\";\n");
    let (done, said) = build();
    assert!(done, "{said}");
    proxy("Acquire::http::Proxy-Auto-Detect \"/bin/false\";\n");
    let (done, said) = build();
    assert!(!done && said.contains("`/bin/false`, which is to find apt's proxy, failed"), "{said}");
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
fn a_pattern_that_fits_nothing_is_a_fault() {
    let case = case!();
    case.project.set_actions("  - action: install-deb\n    packages: ['debs/*.deb']\n");
    case.build().code(2).says("`debs/*.deb` fits no file beside the recipe");
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
