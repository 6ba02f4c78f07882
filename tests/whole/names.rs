//! Every step names what it reads: repositories that earlier steps set up, and what links lead to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use debforge::actions;
use serde_json::{Value, json};

use crate::harness::fixture::{archive, dpkg_files, dpkg_root};
use crate::harness::http::Server;
use crate::harness::project::Finished;
use crate::harness::repository::{Deb, Repository};
use crate::harness::user::work_dir;
use crate::harness::{Project, User, confinement};

fn dated(day: u32) -> String {
    let weekday = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][(day as usize + 6) % 7];
    format!("{weekday}, {day:02} Nov 2020 10:00:00 UTC")
}

/// A repository that moves, and a recipe that installs `two` of it. The repository comes into the root by an earlier step.
struct Case {
    project: Project,
    repository: Repository,
    server: Server,
    day: u32,
}

impl Case {
    fn new() -> Option<Self> {
        let project = Project::new().file("root.tar", dpkg_root()?);
        let dir = project.path("repository");
        let mut base = Deb::new("base", "1").field("Essential", "yes");
        for (path, mode, bytes) in dpkg_files()? {
            if !path.ends_with('/') && !path.starts_with("var/lib/dpkg/") {
                base = base.file(&path, mode, bytes);
            }
        }
        let repository = Repository::new(&dir, "stable").with(base);
        project.write("key.asc", repository.public_key());
        let server = Server::new(&dir);
        let mut case = Self { project, repository, server, day: 1 };
        case.moves();
        Some(case)
    }

    /// Where its packages come from, as apt writes it.
    fn line(&self, options: &str) -> String {
        format!("deb {options}{} stable main", self.server.url("").trim_end_matches('/'))
    }

    /// The archive moves on: `two` has the version of the day.
    fn moves(&mut self) {
        self.day += 1;
        self.repository.remove("two");
        let version = self.day.to_string();
        self.repository.add(Deb::new("two", &version).file("usr/share/two", 0o644, &version));
        self.repository.publish(&dated(self.day));
    }

    /// What is known of roots is lost, as when more was built since than is remembered.
    fn forgets(&self) {
        for entry in fs::read_dir(self.project.store()).expect("the store").flatten() {
            let facts = entry.path().join("facts");
            if facts.is_dir() {
                fs::remove_dir_all(&facts).expect("forgetting");
                fs::create_dir(&facts).expect("forgetting");
            }
        }
    }

    fn build(&self) -> Finished {
        self.project.build([]).success()
    }

    fn installed(&self) -> String {
        let file = fs::File::open(self.project.path("out/out.tar")).expect("the packed root");
        for entry in tar::Archive::new(file).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            if entry.path().expect("a path").ends_with("usr/share/two") {
                return std::io::read_to_string(&mut entry).expect("an entry");
            }
        }
        panic!("`two` is not installed");
    }

    /// The step of the plan that reads the root's repositories: open, or with their states.
    fn is_named_in_the_plan(&self, action: &str) {
        let plan = self.project.run(["plan", "recipe.yaml", "--artifactdir", "out", "--json"]).success();
        let plan: Value = serde_json::from_str(&plan.stdout).expect("a plan");
        let steps = plan["steps"].as_array().expect("steps");
        let step = steps.iter().rfind(|step| step["action"] == action).expect("the step");
        let inputs = step["inputs"].as_array().expect("inputs");
        let named =
            inputs.iter().any(|input| input["what"].as_str().is_some_and(|what| what.starts_with("repository ")));
        assert!(step["id"].is_null() || named, "{step:#}");
    }

    /// The whole story, for a step that reads what those of the recipe set up before it.
    fn follows_the_archive(&mut self, action: &str) {
        self.is_named_in_the_plan(action);
        self.build();
        assert_eq!(self.installed(), self.day.to_string());
        self.is_named_in_the_plan(action);
        self.build().says("cached");
        // What the store has was made before the root was asked, in a debforge that did not.
        self.forgets();
        self.is_named_in_the_plan(action);
        self.build();
        self.moves();
        self.forgets();
        self.build();
        assert_eq!(self.installed(), self.day.to_string(), "the archive moved");
        self.moves();
        self.is_named_in_the_plan(action);
        self.build();
        assert_eq!(self.installed(), self.day.to_string(), "the archive moved again");
    }
}

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

const INSTALL: &str = "  - {action: apt, packages: [two]}\n  - {action: pack, file: out.tar, compression: none}\n";

#[test]
fn apt_after_mmdebstrap_with_a_keyring_of_its_own_follows_the_archive() {
    let mut case = case!();
    let architecture = debforge::debian::Architecture::host();
    case.project.write(
        "recipe.yaml",
        format!(
            "architecture: {architecture}\nactions:\n  - action: mmdebstrap\n    suite: stable\n    variant: essential\n    mirrors: ['{}']\n    keyring-files: [key.asc]\n  - action: run\n    chroot: true\n    command: mkdir -p /etc/apt/trusted.gpg.d\n  - {{action: overlay, source: key.asc, destination: /etc/apt/trusted.gpg.d/key.asc}}\n{INSTALL}",
            case.line("")
        ),
    );
    case.follows_the_archive("apt");
}

#[test]
fn apt_follows_the_archive_that_an_unpacked_root_is_set_up_for() {
    slow!();
    let mut case = case!();
    let list = format!("{}\n", case.line("[trusted=yes] "));
    case.project.write("sources.tar", archive(&[("etc/apt/sources.list", 0o644, &list)]));
    case.project.set_actions(&format!("  - {{action: unpack, file: sources.tar, origin: recipe}}\n{INSTALL}"));
    case.follows_the_archive("apt");
}

#[test]
fn apt_follows_the_archive_that_an_overlay_sets_up() {
    let mut case = case!();
    case.project.write("etc/sources.list.d/x.list", case.line("[signed-by=/etc/keys/x.asc] ") + "\n");
    case.project.set_actions(&format!(
        "  - {{action: overlay, source: etc, destination: /etc/apt}}\n  - {{action: overlay, source: key.asc, destination: /etc/keys/x.asc}}\n{INSTALL}"
    ));
    case.follows_the_archive("apt");
}

#[test]
fn apt_follows_the_archive_that_a_command_sets_up() {
    slow!();
    let line = |case: &Case| case.line("[trusted=yes] ");
    for (options, root) in [("chroot: true", ""), ("chroot: false", "$ROOTDIR")] {
        let mut case = case!();
        case.project.set_actions(&format!(
            "  - action: run\n    {options}\n    command: echo '{}' > {root}/etc/apt/sources.list\n{INSTALL}",
            line(&case)
        ));
        case.follows_the_archive("apt");
    }
}

#[test]
fn install_deb_and_apt_follow_the_archive_that_a_package_sets_up() {
    slow!();
    let mut case = case!();
    Deb::new("sources", "1")
        .file("etc/apt/sources.list.d/x.list", 0o644, case.line("[trusted=yes] ") + "\n")
        .write(&case.project.path("debs"));
    Deb::new("three", "1").field("Depends", "two").write(&case.project.path("debs"));
    // One that stands still, without which nothing could be installed.
    let other = Repository::new(&case.project.path("other"), "stable").with(Deb::new("four", "1"));
    other.publish(&dated(1));
    let list = format!("deb [trusted=yes] file:{} stable main\n", other.dir().display());
    case.project.write("other.list", list);
    let sources = "  - {action: overlay, source: other.list, destination: /etc/apt/sources.list}\n  - {action: install-deb, origin: recipe, packages: [debs/sources_1_all.deb]}\n";
    case.project.set_actions(&format!("{sources}{INSTALL}"));
    case.follows_the_archive("apt");
    case.project.set_actions(&format!(
        "{sources}  - {{action: install-deb, origin: recipe, packages: [debs/three_1_all.deb]}}\n  - {{action: pack, file: out.tar, compression: none}}\n"
    ));
    case.follows_the_archive("install-deb");
}

fn outcomes(project: &Project) -> Vec<String> {
    project.build(["--json"]).success().outcomes()
}

#[test]
fn a_command_of_the_host_runs_again_when_what_its_links_lead_to_changes() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    let outside = tempfile::tempdir_in(work_dir()).unwrap();
    let at = |path: &str| outside.path().join(path);
    for directory in ["direct/deep", "further", "files"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    for file in ["direct/deep/a", "further/b", "files/c"] {
        fs::write(at(file), "1").unwrap();
    }
    // To a directory, from there on to another, to a file, in a circle, and to what is not there.
    symlink(at("direct"), project.path("link")).unwrap();
    symlink("../further", at("direct/on")).unwrap();
    symlink(at("direct"), at("further/back")).unwrap();
    fs::create_dir(project.path("sub")).unwrap();
    symlink(at("files/c"), project.path("sub/c")).unwrap();
    symlink(at("later"), project.path("dangling")).unwrap();
    project.set_actions(
        "  - action: run\n    command: cat link/deep/a \"$RECIPEDIR/link/on/b\" \"$RECIPEDIR/link/on/back/deep/a\" sub/c $(test -e dangling && echo dangling) > $ARTIFACTDIR/read\n",
    );
    assert_eq!(outcomes(&project), ["ran", "ran"]);
    assert_eq!(project.read("out/read"), "1111");
    assert_eq!(outcomes(&project), ["cached", "cached"]);
    for (file, text, read) in
        [("direct/deep/a", "2", "2121"), ("further/b", "3", "2321"), ("files/c", "4", "2324"), ("later", "5", "23245")]
    {
        fs::write(at(file), text).unwrap();
        assert_eq!(outcomes(&project), ["cached", "ran"], "{file}");
        assert_eq!(project.read("out/read"), read);
        assert_eq!(outcomes(&project), ["cached", "cached"], "{file}");
    }
    // Its mode, and a directory without files.
    fs::set_permissions(at("files/c"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(outcomes(&project), ["cached", "ran"]);
    fs::create_dir(at("further/empty")).unwrap();
    assert_eq!(outcomes(&project), ["cached", "ran"]);
}

#[test]
fn a_script_runs_again_when_what_lies_beside_it_changes() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.write("common/script.sh", "#!/bin/sh\ncat \"${0%/*}/beside\" > \"$ARTIFACTDIR/read\"\n");
    project.chmod("common/script.sh", 0o755);
    project.write("common/beside", "1");
    fs::create_dir(project.path("recipes")).unwrap();
    project.set_actions("  - {action: run, script: ../common/script.sh}\n");
    fs::rename(project.path("recipe.yaml"), project.path("recipes/recipe.yaml")).unwrap();
    fs::rename(project.path("root.tar"), project.path("recipes/root.tar")).unwrap();
    let build = || {
        let finished = project.run(["build", "recipes/recipe.yaml", "--artifactdir", "out", "--json"]).success();
        finished.outcomes()
    };
    assert_eq!(build(), ["ran", "ran"]);
    assert_eq!(build(), ["cached", "cached"]);
    project.write("common/beside", "2");
    assert_eq!(build(), ["cached", "ran"]);
    assert_eq!(project.read("out/read"), "2");
}

#[test]
fn a_command_of_the_host_does_not_see_what_it_does_not_depend_on() {
    needs_root!();
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    let outside = tempfile::tempdir_in(work_dir()).unwrap();
    fs::write(outside.path().join("file"), "").unwrap();
    project.write(".git/HEAD", "ref: refs/heads/main\n");
    project.write("out/of-before", "");
    // Neither files of the host, nor secrets, nor other steps' layers, nor the recipe, which is not named.
    project.set_actions(&format!(
        "  - action: run\n    command: |\n      ! test -e {0}/file\n      for hidden in /etc/shadow /etc/machine-id /etc/hostname-of-the-host {1}/logs {2}/recipe.yml {2}/.git {2}/out/of-before; do\n        if test -e $hidden; then echo $hidden is seen; exit 1; fi\n      done\n      test -z \"$(ls -A /root /home /srv /opt 2>/dev/null | grep -v :)\"\n      ! touch /srv/x 2>/dev/null\n      test -f {2}/root.tar && test -f root.tar\n",
        outside.path().display(),
        project.store().display(),
        project.path("").display().to_string().trim_end_matches('/'),
    ));
    fs::rename(project.path("recipe.yaml"), project.path("recipe.yml")).unwrap();
    let text = project.read("recipe.yml").replace("recipe.yml ", "");
    project.write("recipe.yml", text);
    for inside in [Vec::new(), confinement::without_mounts()] {
        project.run_inside(&inside, ["build", "recipe.yml", "--artifactdir", "out", "--no-cache"]).success();
    }
    assert!(!Path::new("/srv/x").exists());
}

#[test]
fn what_no_package_has_is_an_input() {
    needs_root!();
    needs_program!("unshare", "util-linux");
    let Some(project) = Project::new().tiny("  - {action: run, command: 'true'}\n") else {
        skip!("needs a static busybox");
    };
    // The host's own directory is covered for the builds.
    let place = Path::new("/usr/share/info");
    if !place.is_dir() || !Path::new("/var/lib/dpkg/info").is_dir() {
        skip!("needs a Debian with /usr/share/info");
    }
    let ours = tempfile::tempdir_in(work_dir()).unwrap();
    let script = format!("mount --bind {} {} && exec \"$@\"", ours.path().display(), place.display());
    let inside = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned);
    let build = || {
        let finished = project.run_inside(&inside, ["build", "recipe.yaml", "--artifactdir", "out", "--json"]);
        finished.success().outcomes()
    };
    assert_eq!(build(), ["ran", "ran"]);
    assert_eq!(build(), ["cached", "cached"]);
    fs::write(ours.path().join("tool"), "1").unwrap();
    assert_eq!(build(), ["cached", "ran"]);
    assert_eq!(build(), ["cached", "cached"]);
}

#[test]
fn what_a_build_left_beside_its_recipe_is_no_input() {
    let recipe = "  - {action: run, command: 'test ! -e $RECIPEDIR/out.tar; ls -A $RECIPEDIR > $ARTIFACTDIR/listing; date +%N >> $ARTIFACTDIR/listing'}\n  - {action: pack, file: out.tar}\n";
    let Some(project) = Project::new().tiny(recipe) else { skip!("needs a static busybox") };
    let build = || project.run(["build", "recipe.yaml", "--json"]).success().outcomes();
    assert_eq!(build(), ["ran", "ran", "ran"]);
    assert_eq!(build(), ["cached", "cached", "cached"]);
    // What somebody puts in its place is theirs.
    project.write("listing", "mine");
    assert_eq!(build()[1], "ran");
}

#[test]
fn a_link_to_what_the_user_may_not_read_leads_nowhere() {
    let Ok(user) = User::ordinary() else { skip!("needs a user with subordinate ids") };
    let secret = tempfile::tempdir_in(work_dir()).unwrap();
    fs::create_dir(secret.path().join("inner")).unwrap();
    fs::set_permissions(secret.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let Some(project) = Project::of(user).tiny("  - {action: run, command: '! ls linked/'}\n") else {
        skip!("needs a static busybox");
    };
    symlink(secret.path(), project.path("linked")).unwrap();
    project.build([]).success();
}

#[test]
fn a_command_that_names_the_recipe_or_calls_git_depends_on_them() {
    let Some(project) = Project::new().tiny("") else { skip!("needs a static busybox") };
    project.write(".git/HEAD", "1");
    let recipe = |word: &str, other: &str| {
        project.set_actions(&format!(
            "  - action: run\n    command: 'cat {word} > $ARTIFACTDIR/read'\n  - {{action: run, chroot: true, command: 'true {other}'}}\n"
        ));
    };
    recipe("$RECIPEDIR/recipe.yaml", "1");
    assert_eq!(outcomes(&project), ["ran", "ran", "ran"]);
    recipe("$RECIPEDIR/recipe.yaml", "2");
    assert_eq!(outcomes(&project), ["cached", "ran", "ran"]);
    assert_eq!(project.read("out/read"), project.read("recipe.yaml"));
    recipe("$RECIPEDIR/root.tar", "1");
    outcomes(&project);
    recipe("$RECIPEDIR/root.tar", "2");
    assert_eq!(outcomes(&project), ["cached", "cached", "ran"]);
    project.write(".git/HEAD", "2");
    assert_eq!(outcomes(&project), ["cached", "cached", "cached"]);
    recipe("$RECIPEDIR/.git/HEAD", "2");
    outcomes(&project);
    assert_eq!(project.read("out/read"), "2");
    project.write(".git/HEAD", "3");
    assert_eq!(outcomes(&project), ["cached", "ran", "ran"]);
    assert_eq!(project.read("out/read"), "3");
}

/// The least that an action takes.
fn properties(action: &str) -> Value {
    match action {
        "bmap" | "compress" | "convert" => json!({"file": "a.img", "format": "qcow2", "compression": "xz"}),
        "bootloader" => json!({"type": "grub"}),
        "debootstrap" | "mmdebstrap" => json!({"suite": "trixie"}),
        "download" => json!({"url": "https://host.example/a", "name": "a"}),
        "filesystem-image" => json!({"file": "a.ext4"}),
        "image-partition" => {
            json!({"imagename": "a.img", "imagesize": "1GB", "partitiontype": "gpt", "partitions": []})
        }
        "install-deb" => json!({"origin": "recipe", "packages": ["a.deb"]}),
        "iso" | "pack" | "oci-image" | "bootc-image" => json!({"file": "a"}),
        "oci-index" => json!({"file": "a", "images": ["b"]}),
        "oci-push" => json!({"image": "a", "to": "docker://registry.example/a"}),
        "ostree-bundle" => json!({"repository": "r", "branch": "b", "file": "a"}),
        "ostree-commit" | "ostree-deploy" => json!({"repository": "r", "branch": "b", "os": "os"}),
        "overlay" => json!({"source": "a"}),
        "pacstrap" => json!({"config": "pacman.conf", "mirror": "mirrors"}),
        "raw" => json!({"source": "a", "origin": "recipe", "offset": "0"}),
        "recipe" => json!({"recipe": "a.yaml"}),
        "run" => json!({"command": "true"}),
        "sign" => json!({"files": ["a"], "key": "k"}),
        "unpack" => json!({"file": "a.tar"}),
        _ => json!({}),
    }
}

#[test]
fn every_action_states_its_nature() {
    let mut table = BTreeMap::new();
    for kind in actions::KINDS {
        let mut all = properties(kind.name);
        // Each takes what is its own of those that some share.
        let action = loop {
            match (kind.decode)(all.clone()) {
                Ok(action) => break action,
                Err(error) => {
                    let unknown = error.message.split('`').nth(1).unwrap_or_default().to_owned();
                    let removed = all.as_object_mut().and_then(|all| all.remove(&unknown));
                    assert!(removed.is_some(), "{}: {}", kind.name, error.message);
                }
            }
        };
        let nature = action.nature();
        let yes = |pairs: &[(&'static str, bool)]| {
            let words: Vec<&str> = pairs.iter().filter(|(_, yes)| *yes).map(|(word, _)| *word).collect();
            if words.is_empty() { "-".to_owned() } else { words.join("+") }
        };
        let (changes, reads, needs) = (nature.changes, nature.reads, nature.needs);
        let changes = yes(&[
            ("root", changes.root),
            ("artifacts", changes.artifacts),
            ("origin", changes.origin),
            ("write", changes.write),
            ("outside", changes.outside),
        ]);
        let reads = yes(&[
            ("artifacts", reads.artifacts),
            ("repositories", reads.repositories),
            ("image", reads.image),
            ("host", reads.host),
        ]);
        let tools: Vec<&str> = needs.tools.iter().map(|(tool, _)| *tool).collect();
        let needs = yes(&[("network", needs.network), ("emulation", needs.emulation), ("tools", !tools.is_empty())]);
        let rest = yes(&[("disk", nature.works_on_disk), ("last", nature.postprocess)]);
        table.insert(
            kind.name,
            format!(
                "{:<18} v{} changes {changes}, root {:?}, reads {reads}, needs {needs} {tools:?}, leaves {:?}, {rest}",
                kind.name, nature.version, nature.root, nature.artifacts
            ),
        );
    }
    insta::assert_snapshot!(table.into_values().collect::<Vec<_>>().join("\n"));
}
