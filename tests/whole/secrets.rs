//! Secrets do not stay: not in the image, the store, the plan or a log; and copies share no key that a build has made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::Project;
use crate::harness::http::{Manner, Server};
use crate::harness::project::Finished;
use crate::harness::repository::{Deb, Repository};
use crate::machine::{needs_machine, needs_uml};

const SECRET: &str = "correct-horse";

const PACK: &str = "  - action: pack\n    file: out.tar\n    compression: none\n";

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n";

fn found_in(dir: &Path, secret: &str) -> Vec<String> {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let has = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    files
        .filter(|entry| has(&fs::read(entry.path()).unwrap_or_default()))
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Nothing of a secret in what was said, in the plan, the store, its logs and the artifacts.
fn keeps_silent(project: &Project, finished: &Finished) {
    assert!(!finished.stderr.contains(SECRET) && !finished.stdout.contains(SECRET), "{finished}");
    let plan = project.run(["plan", "--json", "recipe.yaml"]);
    assert!(!plan.stdout.contains(SECRET) && !plan.stderr.contains(SECRET), "{plan}");
    for dir in [project.store().to_owned(), project.path("out"), project.path("home")] {
        assert_eq!(found_in(&dir, SECRET), Vec::<String>::new());
    }
}

macro_rules! tiny {
    ($actions:expr) => {
        match Project::new().tiny($actions) {
            Some(project) => project,
            None => skip!("needs a static busybox (package busybox-static)"),
        }
    };
}

#[test]
fn a_login_in_an_address_is_refused_wherever_there_is_one() {
    let address = format!("https://me:{SECRET}@mirror.example");
    let project = Project::new()
        .file("root.tar", "")
        .file("pacman.conf", "[options]\nArchitecture = auto\n[core]\nInclude = /etc/pacman.d/mirrorlist\n")
        .file("mirrorlist", format!("Server = {address}/$repo\n"));
    let root = "{action: unpack, origin: recipe, file: root.tar}";
    for (way, recipe) in [
        ("NETRC", format!("[{{action: mmdebstrap, suite: trixie, mirrors: ['{address}/debian']}}]")),
        ("NETRC", format!("[{{action: mmdebstrap, suite: trixie, mirrors: ['deb {address}/debian trixie main']}}]")),
        (
            "http_proxy",
            format!("[{{action: mmdebstrap, suite: trixie, apt-opts: ['Acquire::http::Proxy \"{address}\"']}}]"),
        ),
        ("NETRC", format!("[{{action: debootstrap, suite: trixie, mirror: '{address}/debian'}}]")),
        (
            "credentials",
            format!("[{root}, {{action: apt, repositories: [{{name: a, uris: ['{address}/d'], suites: [x]}}]}}]"),
        ),
        ("credentials", format!("[{{action: download, name: a, url: '{address}/a'}}]")),
        ("NETRC", "[{action: pacstrap, config: pacman.conf, mirror: mirrorlist}]".to_owned()),
        (
            "tls-client-cert-path",
            format!("[{{action: ostree-deploy, repository: r, branch: b, remote-repository: '{address}/r'}}]"),
        ),
    ] {
        project.write("recipe.yaml", format!("architecture: amd64\nactions: {recipe}\n"));
        let refused = project.run(["check", "recipe.yaml"]).code(2);
        refused.says("the address has a login in it").says(way).says_nothing_of(SECRET);
        let refused = project.build([]).code(2);
        refused.says("the address has a login in it").says_nothing_of(SECRET);
        assert_eq!(found_in(project.store(), SECRET), Vec::<String>::new());
    }
    // debos's own dialect is no exception.
    project.write(
        "recipe.yaml",
        format!("architecture: amd64\nactions:\n  - {{action: download, name: a, url: '{address}/a'}} # {{{{ 1 }}}}\n"),
    );
    project.run(["check", "--lenient", "recipe.yaml"]).code(2).says_nothing_of(SECRET);
}

#[test]
fn logins_of_this_machine_are_used_and_left_out() {
    needs_program!("gpg", "gnupg");
    needs_program!("apt-get", "apt");
    needs_program!("gpgv", "gpgv");
    let project = Project::new();
    let repository = Repository::new(&project.path("repository"), "stable").with(Deb::new("one", "1.0").file(
        "usr/share/one",
        0o644,
        "one",
    ));
    repository.publish("Mon, 02 Nov 2020 10:00:00 UTC");
    project.write("key.asc", repository.public_key());
    project.write("repository/file", "text");
    let server = Server::new(repository.dir());
    server.require_login("me", SECRET);
    let netrc = format!("machine {}\n  login me password {SECRET}\n", server.url(""));
    let recipe = |mirror: &str| {
        project.write(
            "recipe.yaml",
            format!(
                "architecture: {}\nactions:\n  - {{action: download, url: '{}', name: file}}\n  - action: mmdebstrap\n    suite: stable\n    variant: extract\n    include: [one]\n    mirrors: ['{mirror}']\n    keyring-files: [key.asc]\n  - {{action: overlay, origin: file, destination: /file}}\n{PACK}",
                debforge::debian::Architecture::host(),
                server.url("file"),
            ),
        );
    };
    recipe(server.url("").trim_end_matches('/'));
    project.build([]).code(1).says("401").says("NETRC");
    // Not beside the recipe, where it might be an input.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), netrc).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let project = project.env("NETRC", file.path());
    let finished = project.build(["-v"]).success();
    keeps_silent(&project, &finished);
    assert_eq!(server.sent("pool/one_1.0_all.deb"), 1);
}

#[test]
fn the_password_of_a_download_stays_where_it_is() {
    let served = tempfile::tempdir().unwrap();
    fs::write(served.path().join("file"), "text").unwrap();
    let server = Server::new(served.path());
    server.require_login("me", SECRET);
    let project = tiny!(&format!(
        "  - action: download\n    url: {}\n    name: file\n    credentials: {{login: me, password-env: TESTS_PASSWORD}}\n  - action: overlay\n    origin: file\n    destination: /file\n{PACK}",
        server.url("file")
    ));
    project.build([]).code(2).says("TESTS_PASSWORD");
    let project = project.env("TESTS_PASSWORD", SECRET);
    let finished = project.build(["-v"]).success();
    keeps_silent(&project, &finished);
}

#[test]
fn what_a_redirect_or_a_command_says_lets_nobody_in() {
    let served = tempfile::tempdir().unwrap();
    let server = Server::new(served.path());
    server.set("file", Manner::Redirect(format!("/gone?X-Amz-Expires=1&whatever={SECRET}")));
    let project = tiny!(&format!(
        "  - action: run\n    chroot: true\n    command: echo from 'https://me:{SECRET}@host/x?token={SECRET}' to there; exit 3\n"
    ));
    let failed = project.build(["-v"]).code(1);
    failed.says("https://host/x?token=…").says_nothing_of(SECRET);
    let logs = project.store().join("logs");
    let layout = if logs.exists() { logs } else { project.store().join("v1/logs") };
    assert_eq!(found_in(&layout, SECRET), Vec::<String>::new());
    project.set_actions(&format!("  - action: download\n    url: {}\n    name: file\n{PACK}", server.url("file")));
    project.build([]).code(1).says("404").says_nothing_of(SECRET);
}

#[test]
fn what_properties_and_variables_say_is_in_no_file_but_the_users_log() {
    let recipe = |word: &str| {
        format!("  - action: run\n    chroot: true\n    command: test {{{{ password }}}} = {SECRET}{word}\n{PACK}")
    };
    let project = tiny!(&recipe(""));
    let variable = format!("password:{SECRET}");
    project.build(["-t", &variable]).success();
    // A log says what was shown, and is the user's alone.
    for path in found_in(project.store(), SECRET) {
        assert!(path.contains("/logs/"), "{path}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{path}");
    }
    // It is known all the same what is another.
    project.set_actions(&recipe(" -a x = x"));
    let plan = project.run(["plan", "recipe.yaml", "-t", &variable]).success();
    plan.prints("`command` changed");
}

#[test]
fn private_keys_that_a_build_has_made_are_named() {
    let make = format!(
        "  - action: run\n    chroot: true\n    command: |\n      mkdir -p /etc/ssl/private /var/lib/app\n      printf '{}' >/etc/ssl/private/made.key\n      echo 0123456789abcdef0123456789abcdef >/var/lib/app/id\n",
        PEM.replace('\n', "\\n")
    );
    let given = "  - action: overlay\n    source: given.key\n    destination: /etc/ssl/given.key\n";
    let project = tiny!(&format!("{make}{given}{PACK}")).file("given.key", PEM);
    let said = project.build([]).success();
    said.says("the build has made /etc/ssl/private/made.key, which all copies").says("`keep`");
    // From the store, too.
    project.build([]).success().says("the build has made /etc/ssl/private/made.key, which all copies");
    // From a root that the store has, too; not where it is gone, nor where it is meant.
    project.set_actions(&format!("{make}{given}{}", PACK.replace("out.tar", "other.tar")));
    project.build([]).success().says("the build has made /etc/ssl/private/made.key, which all copies");
    let remove = "  - action: run\n    chroot: true\n    command: rm /etc/ssl/private/made.key\n";
    project.set_actions(&format!("{make}{given}{remove}{PACK}"));
    project.build([]).success().says_nothing_of("all copies");
    let keep = "  - action: first-boot\n    keep: [/etc/ssl/private/made.key]\n";
    project.set_actions(&format!("{make}{given}{keep}{PACK}"));
    project.build([]).success().says_nothing_of("all copies");
}

#[test]
fn known_secrets_are_made_anew_on_the_first_start() {
    let make = "  - action: run\n    chroot: true\n    command: |\n      mkdir -p /usr/lib/systemd /etc/ssl/private /etc/ssl/certs /var/lib/systemd /etc/bind\n      touch /usr/lib/systemd/systemd /usr/sbin/make-ssl-cert\n      echo k >/etc/ssl/private/ssl-cert-snakeoil.key\n      echo c >/etc/ssl/certs/ssl-cert-snakeoil.pem\n      echo s >/var/lib/systemd/credential.secret\n      echo r >/etc/bind/rndc.key\n";
    let project = tiny!(&format!("{make}  - action: first-boot\n{PACK}"));
    let said = project.build([]).success();
    // No rndc-confgen is there to make another.
    said.says("removed /var/lib/systemd/credential.secret, /etc/ssl/private/ssl-cert-snakeoil.key")
        .says("the build has made /etc/bind/rndc.key, which all copies");
    let archive = fs::read(project.path("out/out.tar")).unwrap();
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut names = Vec::new();
    let mut unit = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if name.ends_with("system/renew-ssl-cert-snakeoil-key.service") {
            std::io::Read::read_to_string(&mut entry, &mut unit).unwrap();
        }
        names.push(name.trim_start_matches("./").to_owned());
    }
    assert!(unit.contains("ConditionPathExists=!/etc/ssl/private/ssl-cert-snakeoil.key"), "{unit}");
    assert!(unit.contains("make-ssl-cert generate-default-snakeoil"), "{unit}");
    let has = |name: &str| names.iter().any(|other| other == name);
    assert!(has("etc/systemd/system/basic.target.wants/renew-ssl-cert-snakeoil-key.service"));
    for gone in [
        "etc/ssl/private/ssl-cert-snakeoil.key",
        "etc/ssl/certs/ssl-cert-snakeoil.pem",
        "var/lib/systemd/credential.secret",
    ] {
        assert!(!has(gone), "{gone}");
    }
    assert!(has("etc/bind/rndc.key"));
}

/// Files with a secret that all users may read, directories on the way considered.
fn readable(dir: &Path, secret: &str) -> Vec<String> {
    let open = |path: &Path, bit: u32| path.metadata().is_ok_and(|meta| meta.permissions().mode() & bit != 0);
    let reachable = |path: &str| {
        let path = Path::new(path);
        open(path, 0o4)
            && path.ancestors().skip(1).take_while(|above| above.starts_with(dir)).all(|above| open(above, 0o1))
    };
    found_in(dir, secret).into_iter().filter(|path| reachable(path)).collect()
}

fn keeps_variables_to_its_user(project: &Project, more: &[&str]) {
    let variable = format!("token:{SECRET}");
    let environment = format!("PASSWORD:{SECRET}");
    let args = ["build", "recipe.yaml", "--artifactdir", "out", "-t", &variable, "-e", &environment];
    let mut build = project.start(args.into_iter().chain(more.iter().copied()));
    let has_begun = |scratch: fs::DirEntry| {
        ["machine/orders.json", "artifacts/begun"].iter().any(|name| scratch.path().join(name).exists())
    };
    let scratch = project.store().join("v1/scratch");
    build.wait_until("the step", || fs::read_dir(&scratch).is_ok_and(|all| all.flatten().any(has_begun)));
    assert_eq!(readable(project.store(), SECRET), Vec::<String>::new());
    build.finish().success();
    assert_eq!(readable(project.store(), SECRET), Vec::<String>::new());
}

const HAS_SECRETS: &str = "  - action: run\n    environment: {TOKEN: '{{ token }}'}\n    command: touch $ARTIFACTDIR/begun; test {{ token }} = $TOKEN; sleep 1\n";

#[test]
fn what_variables_say_nobody_else_can_read() {
    keeps_variables_to_its_user(&tiny!(HAS_SECRETS), &[]);
}

#[test]
fn what_variables_say_nobody_else_can_read_with_a_machine() {
    needs_uml!();
    let Some(project) = Project::new().kernel_of("uml").tiny(HAS_SECRETS) else { skip!("needs a static busybox") };
    keeps_variables_to_its_user(&project, &["-b", "uml"]);
}
