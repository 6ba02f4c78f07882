//! Builds that end in the middle of each kind of step: by Ctrl-C, by `kill -9` of debforge, and by
//! `kill -9` of its engine. Whatever the step, nothing is left, the last good artifact stands, and
//! the next build goes on where this one was.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::harness::Project;
use crate::harness::fixture::{archive, dpkg_files, dpkg_root};
use crate::harness::http::{Manner, Server};
use crate::harness::project::Running;
use crate::harness::repository::{Deb, Repository};

const DATE: &str = "Mon, 02 Nov 2020 10:00:00 UTC";
const PACK: &str = "  - action: pack\n    file: out.tar.gz\n";
/// Writes a file that [`Ready::Half`] waits for, and stays.
const HALF: &str = "echo so far > /half; sleep 600";
const POSTINST: &str = "#!/bin/sh\necho so far > /half\nsleep 600\n";

/// A build that takes long in one step.
struct Case {
    project: Project,
    /// By what it is known that the step is at work.
    ready: Ready,
    /// Number of the long step.
    step: usize,
    relent: Relent,
    server: Option<Server>,
}

/// Makes a step short that took long.
type Relent = Box<dyn Fn(&Project, Option<&Server>)>;

enum Ready {
    /// The server has been asked for a path.
    Asked(&'static str),
    /// A file of this name stands somewhere in the store.
    Half(&'static str),
    /// This many files stand in what the build is making.
    Files(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    CtrlC,
    KillFront,
    KillEngine,
}

impl Case {
    /// A case in a root of busybox; the last good artifact is made.
    fn tiny(step: &str) -> Option<Self> {
        let project = Project::new().tiny(PACK)?;
        project.build([]).success();
        Some(Self::of(project, step))
    }

    /// A case in a root with dpkg.
    fn dpkg(step: &str) -> Option<Self> {
        let project = Project::new().file("root.tar", dpkg_root()?);
        project.set_actions(PACK);
        project.build([]).success();
        Some(Self::of(project, step))
    }

    fn of(project: Project, step: &str) -> Self {
        project.set_actions(&format!("{step}{PACK}"));
        Self { project, ready: Ready::Half("half"), step: 2, relent: Box::new(|_, _| {}), server: None }
    }

    fn is_ready(&self) -> bool {
        let files = || walkdir::WalkDir::new(self.project.store()).into_iter().flatten();
        match self.ready {
            Ready::Asked(path) => self.server.as_ref().is_some_and(|server| server.count(path) > 0),
            Ready::Half(name) => files().any(|entry| entry.file_name() == name),
            Ready::Files(count) => {
                files().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"many-")).count() >= count
            }
        }
    }

    fn start(&self) -> Running<'_> {
        self.project.start_with(["build", "recipe.yaml", "--artifactdir", "out"], |command| {
            command.process_group(0);
        })
    }

    /// Stops a build in the middle of the step.
    fn stop(&self, how: Stop) {
        let before = fs::read(self.project.path("out/out.tar.gz")).unwrap();
        // Whoever opens the store next clears away what a killed build left in it.
        self.project.run(["store", "list"]).success();
        assert!(!self.is_ready(), "{how:?}: something of the build before");
        let mut build = self.start();
        build.wait_until("the long step", || self.is_ready());
        match how {
            Stop::CtrlC => killpg(build.pid(), Signal::SIGINT).unwrap(),
            Stop::KillFront => build.signal(Signal::SIGKILL),
            Stop::KillEngine => {
                let engine = engine_of(build.pid()).expect("the engine among its front's children");
                kill(engine, Signal::SIGKILL).unwrap();
            }
        }
        let asked = std::time::Instant::now();
        let finished = build.finish();
        assert!(asked.elapsed().as_secs() < 10, "{how:?} took {:?}", asked.elapsed());
        match how {
            Stop::CtrlC => {
                let finished = finished.code(130).says("interrupted");
                assert!(finished.stderr.lines().count() < 20, "{finished}");
            }
            Stop::KillFront => assert_eq!(finished.code, None, "{finished}"),
            Stop::KillEngine => drop(finished.code(1).says("the engine ended before its work did")),
        }
        let left = self.project.leftovers();
        assert!(left.is_empty(), "{how:?} left behind: {left:#?}");
        let artifacts: Vec<_> =
            fs::read_dir(self.project.path("out")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(artifacts, ["out.tar.gz"], "{how:?}");
        assert!(fs::read(self.project.path("out/out.tar.gz")).unwrap() == before, "{how:?}: the last good artifact");
        if let Some(server) = &self.server {
            server.forget();
        }
    }

    /// Stops it in every manner; then it is built to its end.
    fn check(&self) {
        for how in [Stop::CtrlC, Stop::KillFront, Stop::KillEngine] {
            self.stop(how);
        }
        (self.relent)(&self.project, self.server.as_ref());
        let finished = self.project.build(["--json"]).success();
        let outcomes = finished.outcomes();
        assert!(outcomes[..self.step - 1].iter().all(|outcome| outcome == "cached"), "{outcomes:?}");
        assert!(outcomes[self.step - 1..].iter().all(|outcome| outcome == "ran"), "{outcomes:?}");
        for left in ["scratch", "trash"] {
            let left: Vec<_> = fs::read_dir(self.project.store().join("v1").join(left)).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// The engine of a front.
pub(super) fn engine_of(front: Pid) -> Option<Pid> {
    let tasks = fs::read_dir(format!("/proc/{front}/task")).into_iter().flatten().flatten();
    let children: String =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect();
    let is_engine = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split('\0').nth(1) == Some("__engine"))
    };
    let engine = children.split_whitespace().find(is_engine)?;
    Some(Pid::from_raw(engine.parse().unwrap()))
}

/// Ends a test where there is no such root.
macro_rules! case {
    ($case:expr) => {
        match $case {
            Some(case) => case,
            None => skip!("needs a static busybox (package busybox-static), or dpkg"),
        }
    };
}

fn relent(project: &Project, _: Option<&Server>) {
    let text = project.read("recipe.yaml").replace("sleep 600", "true");
    project.write("recipe.yaml", text);
}

/// Has the server send all of a path.
fn answer(path: &'static str) -> Relent {
    Box::new(move |_, server| server.unwrap().set(path, Manner::Status { code: 200, times: 0 }))
}

#[test]
fn in_a_command_in_the_root() {
    let mut case = case!(Case::tiny(&format!("  - action: run\n    chroot: true\n    command: {HALF}\n")));
    case.relent = Box::new(relent);
    case.check();
}

#[test]
fn in_a_command_on_the_host() {
    let half = HALF.replace("/half", "\"$ROOTDIR/half\"");
    let mut case = case!(Case::tiny(&format!("  - action: run\n    command: {half}\n")));
    case.relent = Box::new(relent);
    case.check();
}

#[test]
fn in_a_download() {
    let mut case = case!(Case::tiny(""));
    case.project.write("served/file", vec![7; 400_000]);
    let server = Server::new(&case.project.path("served"));
    server.set("file", Manner::Stall { after: 100_000 });
    case.project.set_actions(&format!(
        "  - action: download\n    url: {}\n    sha256sum: {}\n    name: file\n  - action: overlay\n    origin: file\n    destination: /srv/file\n{PACK}",
        server.url("file"),
        hex::encode(Sha256::digest(vec![7; 400_000]))
    ));
    case.ready = Ready::Asked("file");
    case.server = Some(server);
    case.relent = answer("file");
    case.check();
}

/// An archive of so many files.
fn many(count: usize, size: usize) -> Vec<u8> {
    let text = "x".repeat(size);
    let names: Vec<String> = (0..count).map(|number| format!("srv/{}/many-{number}", number % 50)).collect();
    let files: Vec<(&str, u32, &str)> = names.iter().map(|name| (name.as_str(), 0o644, text.as_str())).collect();
    archive(&files)
}

#[test]
fn in_unpacking() {
    let mut case = case!(Case::tiny("  - action: unpack\n    origin: recipe\n    file: many.tar\n"));
    case.project.write("many.tar", many(12_000, 10));
    case.ready = Ready::Files(200);
    case.check();
}

#[test]
fn in_an_overlay() {
    let mut case = case!(Case::tiny("  - action: overlay\n    source: files\n    destination: /srv\n"));
    let dir = case.project.path("files");
    fs::create_dir(&dir).unwrap();
    tar::Archive::new(many(8_000, 10).as_slice()).unpack(dir).unwrap();
    case.ready = Ready::Files(200);
    case.check();
}

#[test]
fn in_packing() {
    let mut case = case!(Case::tiny(""));
    case.project.write("many.tar", many(400, 200_000));
    let actions =
        "  - action: unpack\n    origin: recipe\n    file: many.tar\n  - action: pack\n    file: out.tar.gz\n";
    case.project.set_actions(&actions.replace("out.tar.gz", "other.tar"));
    case.project.build([]).success();
    fs::remove_file(case.project.path("out/other.tar")).unwrap();
    case.project.set_actions(actions);
    case.ready = Ready::Half("artifacts");
    case.step = 3;
    case.check();
}

/// A package whose script takes its time.
fn slow() -> Deb {
    Deb::new("slow", "1.0").script("postinst", POSTINST)
}

fn quick() -> Deb {
    Deb::new("slow", "2.0")
}

fn repository(project: &Project, packages: Vec<Deb>) -> Repository {
    let mut repository = Repository::new(&project.path("repository"), "stable");
    packages.into_iter().for_each(|package| repository.add(package));
    repository.publish(DATE);
    project.write("key.asc", repository.public_key());
    repository
}

#[test]
fn in_installing_with_apt() {
    needs_program!("gpg", "gnupg");
    needs_program!("apt-get", "apt");
    let mut case = case!(Case::dpkg(""));
    let mut repository = repository(&case.project, vec![slow()]);
    let server = Server::new(&case.project.path("repository"));
    case.project.set_actions(&format!(
        "  - action: apt\n    packages: [slow]\n    repositories:\n      - {{name: tests, uris: ['{}'], suites: [stable], signed-by: key.asc}}\n{PACK}",
        server.url("")
    ));
    case.server = Some(server);
    repository.add(quick());
    case.relent = Box::new(move |_, _| repository.publish("Tue, 03 Nov 2020 10:00:00 UTC"));
    case.check();
}

#[test]
fn in_installing_a_package_file() {
    needs_program!("apt-get", "apt");
    needs_program!("gpg", "gnupg");
    let mut case = case!(Case::dpkg(""));
    // It takes what the packages depend on from somewhere.
    let repository = repository(&case.project, Vec::new());
    let server = Server::new(repository.dir());
    case.project.set_actions(&format!(
        "  - action: apt\n    repositories:\n      - {{name: tests, uris: ['{}'], suites: [stable], signed-by: key.asc}}\n  - action: install-deb\n    packages: ['debs/*.deb']\n{PACK}",
        server.url("")
    ));
    case.server = Some(server);
    case.step = 3;
    slow().write(&case.project.path("debs"));
    case.relent = Box::new(|project, _| {
        fs::remove_file(project.path("debs/slow_1.0_all.deb")).unwrap();
        quick().write(&project.path("debs"));
    });
    case.check();
}

/// A distribution of one package, which brings a root with dpkg.
fn base(version: &str, script: &str) -> Option<Deb> {
    let architecture = debforge::debian::Architecture::host();
    let mut base = Deb::new("base", version)
        .architecture(architecture.name())
        .field("Essential", "yes")
        .field("Priority", "required");
    for (path, mode, contents) in dpkg_files()? {
        if !path.ends_with('/') && !path.starts_with("var/lib/dpkg") {
            base = base.file(&path, mode, contents);
        }
    }
    Some(base.script("postinst", script))
}

/// A bootstrap of it from a server.
fn bootstrap(script: &str) -> Option<(Case, Repository)> {
    let mut case = Case::tiny("")?;
    let repository = repository(&case.project, vec![base("1.0", script)?, Deb::new("usr-is-merged", "1.0")]);
    let server = Server::new(&case.project.path("repository"));
    let architecture = debforge::debian::Architecture::host();
    case.project.write(
        "recipe.yaml",
        format!(
            "architecture: {architecture}\nactions:\n  - action: mmdebstrap\n    suite: stable\n    variant: essential\n    merged-usr: false\n    mirrors: ['{}']\n    keyring-files: [key.asc]\n{PACK}",
            server.url("")
        ),
    );
    case.step = 1;
    case.server = Some(server);
    Some((case, repository))
}

#[test]
fn in_fetching_for_a_bootstrap() {
    needs_program!("gpg", "gnupg");
    needs_program!("apt-get", "apt");
    let (mut case, _repository) = case!(bootstrap("#!/bin/sh\n"));
    let name = format!("pool/base_1.0_{}.deb", debforge::debian::Architecture::host());
    let name: &'static str = name.leak();
    case.server.as_ref().unwrap().set(name, Manner::Stall { after: 100_000 });
    case.ready = Ready::Asked(name);
    case.relent = answer(name);
    case.check();
}

#[test]
fn in_configuring_a_bootstrap() {
    needs_program!("gpg", "gnupg");
    needs_program!("apt-get", "apt");
    let (mut case, mut repository) = case!(bootstrap(POSTINST));
    repository.add(base("2.0", "#!/bin/sh\n").unwrap());
    case.relent = Box::new(move |_, _| repository.publish("Tue, 03 Nov 2020 10:00:00 UTC"));
    case.check();
}

/// Processes of a build, by the subcommand that they are and what they are children of.
fn processes_below(parent: Pid, subcommand: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    let children = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent_of: i32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (parent_of == parent.as_raw()).then(|| Pid::from_raw(pid))
    });
    for child in children.collect::<Vec<_>>() {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        if line.split('\0').nth(1) == Some(subcommand) {
            found.push(child);
        }
        found.extend(processes_below(child, subcommand));
    }
    found
}

/// Leaves processes that nobody waits for, one in a session of its own, and stays.
const SCATTERS: &str = "  - action: run\n    chroot: true\n    command: (sleep 600 &); busybox setsid sleep 600 & echo so far > /half; sleep 600\n";

#[test]
fn whoever_is_killed_no_process_stays_where_there_are_no_namespaces() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let Some(project) = Project::new().tiny(SCATTERS) else { skip!("needs a static busybox") };
    let half = || walkdir::WalkDir::new(project.store()).into_iter().flatten().any(|entry| entry.file_name() == "half");
    for who in ["front", "engine", "first", "second", "all"] {
        project.run(["store", "list"]).success();
        let inside = crate::harness::confinement::without_mounts();
        let mut build = project.start_inside(&inside, ["build", "recipe.yaml", "--artifactdir", "out"]);
        build.wait_until("the long step", half);
        let engine = processes_below(build.pid(), "__engine");
        let sandboxes = processes_below(build.pid(), "__sandbox");
        assert!(engine.len() == 1 && sandboxes.len() >= 2, "{engine:?} {sandboxes:?}");
        let front = build.pid();
        let victims = match who {
            "front" => vec![front],
            "engine" => engine.clone(),
            "first" => sandboxes[..1].to_vec(),
            "second" => sandboxes[1..2].to_vec(),
            _ => [&[front][..], &engine, &sandboxes].concat(),
        };
        // At once, as nothing that is stopped can do anything about the others' end.
        victims.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        victims.iter().for_each(|pid| kill(*pid, Signal::SIGKILL).unwrap());
        assert_ne!(build.finish().code, Some(0));
        if who == "all" {
            // Nobody was left to do it; the next command is.
            project.run(["store", "list"]).success();
        }
        let left = project.leftovers();
        assert!(left.is_empty(), "{who}: {left:#?}");
    }
}
