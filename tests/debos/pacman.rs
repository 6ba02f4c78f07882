//! Roots by pacman, from repositories made on the spot by repo-add.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::golden::{listing, users};
use crate::harness::fixture::tiny_root;
use crate::harness::http::Server;
use crate::harness::repository::Key;
use crate::harness::{Project, User};

/// A package: name, dependencies, files (path, contents), and a scriptlet's text.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    depends: &'a [&'a str],
    files: Vec<(&'a str, Vec<u8>)>,
    install: &'a str,
    /// Members of another archive that come before the files.
    system: Option<Vec<u8>>,
}

impl<'a> Package<'a> {
    fn new(name: &'a str, files: Vec<(&'a str, Vec<u8>)>) -> Self {
        Self { name, version: "1-1", depends: &[], files, install: "", system: None }
    }

    /// Writes it as a file of the usual name (PKGINFO as makepkg(8) has it).
    fn write(&self, dir: &Path) -> std::path::PathBuf {
        let mut info = format!(
            "pkgname = {0}\npkgbase = {0}\npkgver = {1}\npkgdesc = package of a test\nurl = http://mirror.example\n\
             builddate = 1700000000\npackager = Tests <tests@mirror.example>\nsize = 1\narch = any\n",
            self.name, self.version
        );
        info.extend(self.depends.iter().map(|name| format!("depend = {name}\n")));
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            tar.append_data(&mut header, path, bytes).unwrap();
        };
        add(".PKGINFO", info.as_bytes());
        if !self.install.is_empty() {
            add(".INSTALL", self.install.as_bytes());
        }
        for (path, bytes) in &self.files {
            add(path, bytes);
        }
        if let Some(system) = &self.system {
            for member in tar::Archive::new(system.as_slice()).entries().unwrap() {
                let member = member.unwrap();
                tar.append(&member.header().clone(), member).unwrap();
            }
        }
        let path = dir.join(format!("{}-{}-any.pkg.tar", self.name, self.version));
        fs::create_dir_all(dir).unwrap();
        fs::write(&path, tar.into_inner().unwrap()).unwrap();
        path
    }
}

/// Puts packages into the repository `own` of a directory.
fn repository(dir: &Path, packages: &[Package<'_>]) {
    let files: Vec<_> = packages.iter().map(|package| package.write(dir)).collect();
    add(dir, &files);
}

fn add(dir: &Path, files: &[std::path::PathBuf]) {
    let output = Command::new("repo-add").arg("-q").arg(dir.join("own.db.tar.gz")).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Where the server knows no links.
    fs::remove_file(dir.join("own.db")).unwrap();
    fs::copy(dir.join("own.db.tar.gz"), dir.join("own.db")).unwrap();
}

const PACMAN_CONF: &str = "[options]\nHoldPkg = pacman\nArchitecture = auto\nCheckSpace\nSigLevel = Never\nNoExtract = usr/share/doc/*\n\n[own]\nInclude = /etc/pacman.d/mirrorlist\n";

/// A system: busybox, and pacman's configuration for later.
fn base() -> Option<Package<'static>> {
    let files = vec![("etc/pacman.conf", PACMAN_CONF.into()), ("usr/share/doc/base/readme", "not extracted".into())];
    let install = "post_install() {\n  echo \"installed $1\" > /etc/scriptlet\n}\n";
    Some(Package { install, system: Some(tiny_root()?), ..Package::new("base", files) })
}

macro_rules! needs_pacman {
    () => {
        needs_program!("pacman", "pacman-package-manager");
        needs_program!("repo-add", "pacman-package-manager");
        needs_program!("bsdtar", "libarchive-tools");
    };
}

/// A project with a repository that is served, and the recipe's files.
fn project(user: User, server: &Server, actions: &str) -> Project {
    let architecture = debforge::debian::Architecture::host();
    Project::of(user)
        .file("pacman.conf", PACMAN_CONF)
        .file("mirrorlist", format!("Server = {}/$repo\n", server.url("")))
        .recipe(&format!(
            "architecture: {architecture}\nactions:\n  - action: pacstrap\n    config: pacman.conf\n    mirror: mirrorlist\n{actions}"
        ))
}

const MORE: &str = "  - action: pacman
    packages: [tool]
  - action: run
    chroot: true
    command: test \"$(cat /usr/share/tool)\" = tool && test ! -e /usr/share/doc/base/readme
  - action: pack
    file: root.tar
    compression: none
";

#[test]
fn a_root_is_the_same_for_everybody_and_knows_nothing_of_the_machine() {
    needs_pacman!();
    let Some(base) = base() else { skip!("needs a static busybox") };
    let served = tempfile::tempdir().unwrap();
    let tool = Package { depends: &["base"], ..Package::new("tool", vec![("usr/share/tool", "tool".into())]) };
    repository(&served.path().join("own"), &[base, tool]);
    let server = Server::new(served.path());
    let mut packed = Vec::new();
    for user in users() {
        let project = project(user, &server, MORE);
        project.build([]).success();
        let root = listing(&project.path("out/root.tar"));
        for path in ["./etc/scriptlet", "./usr/share/tool", "./etc/pacman.d/mirrorlist", "./var/lib/pacman/sync/own.db"]
        {
            assert!(root.contains_key(path), "{path} in {root:#?}");
        }
        for path in ["./var/log/pacman.log", "./etc/pacman.d/gnupg/", "./var/lib/pacman/db.lck"] {
            assert!(!root.contains_key(path), "{path} in {root:#?}");
        }
        assert!(root.keys().all(|path| !path.ends_with(".pkg.tar")), "{root:#?}");
        let again = project.build(["--json"]).success().outcomes();
        assert_eq!(again, ["cached", "cached", "cached", "cached"]);
        packed.push(fs::read(project.path("out/root.tar")).unwrap());
    }
    assert!(packed.windows(2).all(|pair| pair[0] == pair[1]), "the bytes are the same for all users");
}

#[test]
fn a_changed_repository_makes_the_root_anew() {
    needs_pacman!();
    let Some(base) = base() else { skip!("needs a static busybox") };
    let served = tempfile::tempdir().unwrap();
    let own = served.path().join("own");
    repository(&own, &[base, Package::new("tool", vec![("usr/share/tool", "tool".into())])]);
    let server = Server::new(served.path());
    let project = project(User::current(), &server, MORE);
    project.build([]).success();
    let newer = Package { version: "2-1", ..Package::new("tool", vec![("usr/share/tool", "newer".into())]) };
    repository(&own, &[newer]);
    project.build([]).code(1).says("test \"$(cat /usr/share/tool)\"");
}

#[test]
fn a_root_without_databases_gets_those_of_its_repositories_as_inputs() {
    needs_pacman!();
    let Some(base) = base() else { skip!("needs a static busybox") };
    let served = tempfile::tempdir().unwrap();
    let own = served.path().join("own");
    repository(&own, &[base, Package::new("tool", vec![("usr/share/tool", "tool".into())])]);
    let server = Server::new(served.path());
    let configuration =
        PACMAN_CONF.replace("Include = /etc/pacman.d/mirrorlist", &format!("Server = {}/$repo", server.url("")));
    let Some(project) = Project::new().file("files/etc/pacman.conf", configuration).tiny(
        "  - { action: overlay, source: files }\n  - { action: pacman, packages: [tool] }\n  - { action: pack, file: root.tar, compression: none }\n",
    ) else {
        skip!("needs a static busybox")
    };
    project.build([]).success();
    assert_eq!(project.build(["--json"]).success().outcomes(), ["cached"; 4]);
    let newer = Package { version: "2-1", ..Package::new("tool", vec![("usr/share/tool", "newer".into())]) };
    repository(&own, &[newer]);
    assert_eq!(project.build(["--json"]).success().outcomes(), ["cached", "cached", "ran", "ran"]);
    assert!(String::from_utf8_lossy(&fs::read(project.path("out/root.tar")).unwrap()).contains("newer"));
}

#[test]
fn signatures_are_verified_with_the_keys_of_the_root() {
    needs_pacman!();
    needs_program!("gpg", "gnupg");
    let Some(mut base) = base() else { skip!("needs a static busybox") };
    let served = tempfile::tempdir().unwrap();
    let own = served.path().join("own");
    let key = Key::new();
    let listed = String::from_utf8(key.gpg(&["--with-colons", "--fingerprint"])).unwrap();
    let print = listed.lines().find_map(|line| line.strip_prefix("fpr:")).unwrap().trim_matches(':').to_owned();
    base.files.push(("usr/share/pacman/keyrings/own.gpg", key.gpg(&["--export"])));
    base.files.push(("usr/share/pacman/keyrings/own-trusted", format!("{print}:4:\n").into()));
    base.files[0].1 = PACMAN_CONF.replace("SigLevel = Never", "SigLevel = Required DatabaseOptional").into();
    let signed = Package::new("signed", vec![("usr/share/signed", "x".into())]);
    repository(&own, &[base, Package::new("unsigned", vec![("usr/share/unsigned", "x".into())])]);
    let file = signed.write(&own);
    key.gpg(&["--detach-sign", "--output", &format!("{}.sig", file.display()), &file.display().to_string()]);
    add(&own, &[file]);
    let server = Server::new(served.path());
    let good = "  - action: pacman\n    packages: [signed]\n  - action: run\n    chroot: true\n    command: test -e /usr/share/signed\n";
    project(User::current(), &server, good).build([]).success();
    let bad = "  - action: pacman\n    packages: [unsigned]\n";
    project(User::current(), &server, bad).build([]).code(1).says("unsigned");
}

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let recipe = |actions: &str| {
        Project::new()
            .file("mirrorlist", "Server = http://mirror.example/$repo\n")
            .file("good.conf", PACMAN_CONF)
            .file("arm.conf", PACMAN_CONF.replace("auto", "armv7h"))
            .file("none.conf", "[options]\n[own]\n")
            .file("other.conf", "[own]\nInclude = /etc/pacman.d/other\n")
            .recipe(&format!("architecture: amd64\nactions:\n{actions}"))
            .run(["check", "recipe.yaml"])
            .code(2)
    };
    let pacstrap = |config: &str| format!("  - {{action: pacstrap, config: {config}, mirror: mirrorlist}}\n");
    recipe(&pacstrap("nothing.conf")).says("there is no file `nothing.conf`");
    recipe(&pacstrap("arm.conf")).says("the recipe is for amd64, `arm.conf` for armv7h");
    recipe(&pacstrap("none.conf")).says("the repository `own` has no server");
    recipe(&pacstrap("other.conf")).says("only /etc/pacman.d/mirrorlist can be included");
    recipe("  - {action: pacstrap, config: good.conf}\n").says("needs the property `mirror`");
    recipe("  - {action: pacman, packages: [a]}\n").says("there is no root to install packages into");
    let twice = pacstrap("good.conf") + "  - {action: pacman, packages: [--config]}\n";
    recipe(&twice).says("`--config` is no package");
}

#[test]
fn a_missing_pacman_is_named_by_its_package() {
    needs_root!();
    let project = Project::new()
        .env("PATH", "/nowhere")
        .file("mirrorlist", "Server = http://mirror.example/$repo\n")
        .file("pacman.conf", PACMAN_CONF)
        .recipe("architecture: amd64\nactions:\n  - {action: pacstrap, config: pacman.conf, mirror: mirrorlist}\n");
    project.build(["-b", "local"]).code(3).says("`pacman` (for `pacstrap`)").says("pacman-package-manager");
}
