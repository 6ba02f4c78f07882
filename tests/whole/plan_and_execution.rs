//! What a build publishes is what its plan promised, whatever the store has, and where nothing can be kept.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use sha2::{Digest, Sha256};

use crate::harness::confinement::without_mounts;
use crate::harness::fixture::dpkg_root;
use crate::harness::http::Server;
use crate::harness::project::Finished;
use crate::harness::repository::{Deb, Repository};
use crate::harness::{Project, is_root};

/// Dates what is installed from it, so that dates of steps differ.
const DATE: &str = "Mon, 02 Nov 2020 10:00:00 UTC";

/// A repository for all cases, which is slow to sign.
struct Archive {
    server: Server,
    key: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Archive {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::new(dir.path(), "stable")
            .with(Deb::new("one", "1.0").file("usr/share/one", 0o644, "1.0\n"))
            .with(Deb::new("two", "1.0").file("usr/share/two", 0o644, "2.0\n").field("Depends", "one"));
        repository.publish(DATE);
        Self { server: Server::new(dir.path()), key: repository.public_key(), _dir: dir }
    }

    fn apt(&self, package: &str) -> String {
        format!(
            "  - action: apt\n    packages: [{package}]\n    repositories:\n      - name: tests\n        \
             uris: [{}]\n        suites: [stable]\n        signed-by: key.asc\n",
            self.server.url("")
        )
    }
}

/// An action of a recipe.
#[derive(Debug, Clone)]
enum Step {
    Chroot(u8),
    Host(u8),
    Overlay,
    Apt(&'static str),
    Pack(u8),
    Checksums,
    Remove(u8),
}

impl Step {
    fn text(&self, archive: &Archive) -> String {
        match self {
            Self::Chroot(number) => {
                format!("  - {{ action: run, chroot: true, command: 'echo {number} >> /etc/log; rm -f /etc/motd' }}\n")
            }
            Self::Host(number) => format!(
                "  - {{ action: run, command: 'echo {number} >> $ROOTDIR/etc/log; cat $ROOTDIR/etc/log > \
                 $ARTIFACTDIR/host-{number}.txt' }}\n"
            ),
            Self::Overlay => "  - { action: overlay, source: overlay }\n".to_owned(),
            Self::Apt(package) => archive.apt(package),
            Self::Pack(number) => format!("  - {{ action: pack, file: root-{number}.tar, compression: none }}\n"),
            Self::Checksums => "  - { action: checksums, file: SUMS }\n".to_owned(),
            Self::Remove(number) => {
                format!("  - {{ action: run, command: 'rm -f $ARTIFACTDIR/host-{number}.txt' }}\n")
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_u8).prop_map(Step::Chroot),
        2 => (0..3_u8).prop_map(Step::Host),
        1 => Just(Step::Overlay),
        3 => select(vec!["one", "two"]).prop_map(Step::Apt),
        2 => (0..3_u8).prop_map(Step::Pack),
        1 => (0..3_u8).prop_map(Step::Remove),
    ]
}

/// What happens to the store between two builds.
#[derive(Debug, Clone)]
enum Damage {
    /// An entry is gone, as after an eviction.
    Gone,
    /// A record is cut short.
    Record,
    /// A byte of a file is another one.
    Byte,
    /// A file is gone.
    File,
    /// What the store remembers of earlier builds is gone.
    Facts,
}

fn damage() -> impl Strategy<Value = (Damage, Index)> {
    (select(vec![Damage::Gone, Damage::Record, Damage::Byte, Damage::File, Damage::Facts]), any::<Index>())
}

/// Entries that hold what steps made.
fn entries(store: &Path) -> Vec<PathBuf> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let mut entries = below(&store.join("v1/outputs"));
    entries.extend(below(&store.join("v1/trees")).iter().flat_map(|map| below(map)));
    entries.sort();
    entries
}

/// Files that steps made, in some entry.
fn files(store: &Path) -> Vec<PathBuf> {
    let walk = |entry: PathBuf| {
        let made = ["tree", "files"].map(|name| entry.join(name));
        made.into_iter().flat_map(|top| walkdir::WalkDir::new(top).sort_by_file_name()).flatten()
    };
    let files = entries(store)
        .into_iter()
        .flat_map(walk)
        .filter(|item| item.file_type().is_file() && item.metadata().is_ok_and(|meta| meta.len() > 0));
    files.map(walkdir::DirEntry::into_path).collect()
}

impl Damage {
    fn apply(&self, store: &Path, which: &Index) {
        let (entries, files) = (entries(store), files(store));
        match self {
            Self::Facts => fs::remove_dir_all(store.join("v1/facts")).unwrap(),
            _ if entries.is_empty() || files.is_empty() => {}
            Self::Gone => fs::remove_dir_all(which.get(&entries)).unwrap(),
            Self::Record => {
                let record = which.get(&entries).join("record.json");
                let text = fs::read(&record).unwrap();
                fs::write(&record, &text[..text.len() / 2]).unwrap();
            }
            Self::Byte => {
                let file = fs::File::options().read(true).write(true).open(which.get(&files)).unwrap();
                let mut byte = [0];
                file.read_exact_at(&mut byte, 0).unwrap();
                file.write_all_at(&[byte[0] ^ 0x55], 0).unwrap();
            }
            Self::File => fs::remove_file(which.get(&files)).unwrap(),
        }
    }
}

/// Name and digest of each artifact.
fn artifacts(dir: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let digest = |path: PathBuf| hex::encode(Sha256::digest(fs::read(path).unwrap()));
    files.map(|file| (file.file_name().into_string().unwrap(), digest(file.path()))).collect()
}

/// A recipe in a place with layers or without.
struct Place {
    project: Project,
    layers: bool,
    builds: usize,
}

impl Place {
    fn new(archive: &Archive, steps: &[Step], layers: bool) -> Self {
        let project = Project::new()
            .file("root.tar", dpkg_root().unwrap())
            .file("key.asc", &archive.key)
            .file("overlay/etc/motd", "welcome\n");
        let mut text: String = steps.iter().map(|step| step.text(archive)).collect();
        text.push_str(&Step::Pack(9).text(archive));
        text.push_str(&Step::Checksums.text(archive));
        project.set_actions(&text);
        Self { project, layers, builds: 0 }
    }

    /// What a build leaves in an empty directory.
    fn build(&mut self) -> BTreeMap<String, String> {
        self.builds += 1;
        let out = format!("out-{}", self.builds);
        let finished = self.run(&out);
        finished.success();
        artifacts(&self.project.path(&out))
    }

    fn run(&self, out: &str) -> Finished {
        let args = ["build", "recipe.yaml", "--artifactdir", out];
        if self.layers { self.project.run(args) } else { self.project.run_inside(&without_mounts(), args) }
    }
}

macro_rules! needs_root {
    () => {
        if dpkg_root().is_none() || !is_root() {
            skip!("needs root, for a place without layers, and the programs of a small root");
        }
    };
}

#[test]
fn a_build_publishes_what_a_fresh_one_would() {
    if dpkg_root().is_none() || !is_root() {
        skip!("needs root, for a place without layers, and the programs of a small root");
    }
    let archive = Archive::new();
    let cases = if std::env::var_os("DEBFORGE_TEST_ALL").is_some() { 60 } else { 5 };
    let config = Config { cases, max_shrink_iters: 8, failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(step(), 1..5);
    let damages = proptest::collection::vec(damage(), 2);
    let checked = TestRunner::new(config).run(&(steps, damages), |(steps, damages)| {
        let mut fresh = None;
        for layers in [true, false] {
            let mut place = Place::new(&archive, &steps, layers);
            let cold = place.build();
            let fresh = fresh.get_or_insert_with(|| cold.clone());
            prop_assert_eq!(&cold, &*fresh, "cold, layers: {}", layers);
            prop_assert_eq!(&place.build(), &*fresh, "warm, layers: {}", layers);
            for (damage, which) in &damages {
                damage.apply(place.project.store(), which);
                prop_assert_eq!(&place.build(), &*fresh, "after {:?}, layers: {}", damage, layers);
            }
        }
        Ok(())
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

#[test]
fn what_came_as_a_dependency_is_installed_by_name() {
    needs_root!();
    let archive = Archive::new();
    Place::new(&archive, &[Step::Apt("two"), Step::Apt("one")], true).build();
}

/// The recipe whose second build once published an empty archive: it installs from a repository, whose date its
/// last step takes over.
fn dated(archive: &Archive, layers: bool) -> Place {
    Place::new(archive, &[Step::Apt("two"), Step::Chroot(1)], layers)
}

#[test]
fn an_unchanged_build_without_layers_leaves_the_good_artifact() {
    needs_root!();
    let archive = Archive::new();
    let mut place = dated(&archive, false);
    let first = place.build();
    assert_eq!(place.build(), first);
    let again = place.run("out-again");
    again.success().says("unneeded").says("cached");
}

#[test]
fn a_step_runs_again_where_its_result_cannot_be_restored() {
    needs_root!();
    let archive = Archive::new();
    for layers in [true, false] {
        for damage in [Damage::Gone, Damage::Record, Damage::Byte, Damage::File, Damage::Facts] {
            let mut place = dated(&archive, layers);
            let first = place.build();
            let store = place.project.store().to_owned();
            let count = entries(&store).len();
            for which in 0..count {
                if matches!(damage, Damage::Facts) && which > 0 {
                    break;
                }
                let Some(entry) = entries(&store).into_iter().nth(which) else { continue };
                match damage {
                    Damage::Gone => fs::remove_dir_all(&entry).unwrap(),
                    Damage::Record => fs::write(entry.join("record.json"), "{").unwrap(),
                    Damage::Facts => fs::remove_dir_all(store.join("v1/facts")).unwrap(),
                    Damage::Byte | Damage::File => {
                        let Some(file) = files(&store).into_iter().find(|file| file.starts_with(&entry)) else {
                            continue;
                        };
                        match damage {
                            Damage::File => fs::remove_file(&file).unwrap(),
                            _ => fs::write(&file, "damaged").unwrap(),
                        }
                    }
                }
                assert_eq!(place.build(), first, "{damage:?} of entry {which}, layers: {layers}");
            }
        }
    }
}

#[test]
fn damage_is_found_removed_and_named_by_store_verify() {
    needs_root!();
    let archive = Archive::new();
    let mut place = dated(&archive, true);
    let first = place.build();
    place.project.run(["store", "verify"]).success();
    let store = place.project.store().to_owned();
    let file = files(&store).into_iter().find(|file| file.ends_with("etc/log")).unwrap();
    // Also where it looks untouched but for the ctime.
    let before = filetime::FileTime::from_last_modification_time(&fs::metadata(&file).unwrap());
    fs::write(&file, "2\n").unwrap();
    filetime::set_file_mtime(&file, before).unwrap();
    place.project.run(["store", "verify"]).code(1).prints("removed: `etc/log` has other contents");
    assert!(!file.exists());
    place.project.run(["store", "verify"]).success();
    assert_eq!(place.build(), first);
}

#[test]
fn an_entry_at_anothers_place_or_with_a_changed_record_is_no_hit() {
    needs_root!();
    let archive = Archive::new();
    let mut place = dated(&archive, true);
    let first = place.build();
    let store = place.project.store().to_owned();
    let of = |kind: &str| {
        let all = entries(&store);
        all.into_iter()
            .filter(|entry| entry.strip_prefix(store.join("v1")).unwrap().starts_with(kind))
            .collect::<Vec<_>>()
    };
    let trees = of("trees");
    let aside = trees[0].with_file_name("aside");
    for (from, to) in [(&trees[0], &aside), (&trees[1], &trees[0]), (&aside, &trees[1])] {
        fs::rename(from, to).unwrap();
    }
    assert_eq!(place.build(), first);
    place.project.run(["store", "verify"]).success();
    let record = of("outputs")[0].join("record.json");
    let text = fs::read_to_string(&record).unwrap().replace("\"removed\":[]", "\"removed\":[\"out.tar\"]");
    fs::write(&record, text).unwrap();
    place.project.run(["store", "verify"]).code(1).prints("removed: its record is damaged");
    assert_eq!(place.build(), first);
}

#[test]
fn results_of_older_versions_are_no_hits() {
    needs_root!();
    let archive = Archive::new();
    let mut place = dated(&archive, true);
    let first = place.build();
    // As they were sealed before listings were.
    for entry in entries(place.project.store()) {
        let record = entry.join("record.json");
        let text = fs::read_to_string(&record).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
        value["contents"] = serde_json::Value::Null;
        fs::write(&record, value.to_string()).unwrap();
        let _ = fs::remove_file(entry.join("listing.json"));
    }
    assert_eq!(place.build(), first);
    place.project.run(["store", "verify"]).success();
}

#[test]
fn what_changes_while_a_build_goes_on_is_planned_anew() {
    let Some(project) = Project::new().file("overlay/file", "before\n").tiny(
        "  - { action: run, chroot: true, command: 'sleep 2' }\n  - { action: overlay, source: overlay }\n  - { action: pack, file: out.tar, compression: none }\n",
    ) else {
        skip!("no static busybox");
    };
    let mut running = project.start(["build", "recipe.yaml", "--artifactdir", "out"]);
    let scratch = project.store().join("v1/scratch");
    running.wait_until("the first step runs", || {
        fs::read_dir(&scratch).into_iter().flatten().flatten().any(|dir| dir.path().join("step-2").exists())
    });
    project.write("overlay/file", "after\n");
    running.finish().success().says("file overlay/file changed while the build was going on");
    let text = String::from_utf8_lossy(&fs::read(project.path("out/out.tar")).unwrap()).into_owned();
    assert!(text.contains("after\n") && !text.contains("before\n"));
}

/// A tiny recipe in a place that keeps layers.
fn tiny(actions: &str) -> Option<Project> {
    Project::new().tiny(actions)
}

#[test]
fn a_layer_without_its_artifacts_is_no_result() {
    let Some(project) = tiny(
        "  - { action: run, command: 'echo hi > $ARTIFACTDIR/x.txt; echo hi > $ROOTDIR/etc/hi' }\n  - { action: pack, file: out.tar, compression: none }\n",
    ) else {
        skip!("no static busybox");
    };
    project.build([]).success();
    let first = artifacts(&project.path("out"));
    assert!(first.contains_key("x.txt"), "{first:?}");
    for kind in ["gone", "damaged"] {
        fs::remove_dir_all(project.path("out")).unwrap();
        for entry in fs::read_dir(project.store().join("v1/outputs")).unwrap().flatten() {
            match (kind, entry.path().join("files/x.txt")) {
                ("gone", file) if file.exists() => fs::remove_dir_all(entry.path()).unwrap(),
                (_, file) if file.exists() => fs::write(file, "ho\n").unwrap(),
                _ => {}
            }
        }
        project.build([]).success();
        assert_eq!(artifacts(&project.path("out")), first, "{kind}");
    }
}

#[test]
fn builds_that_meet_at_a_step_leave_the_same() {
    let Some(project) = tiny(
        "  - { action: run, command: 'sleep 1; echo hi > $ARTIFACTDIR/x.txt; echo hi > $ROOTDIR/etc/hi' }\n  - { action: pack, file: out.tar, compression: none }\n",
    ) else {
        skip!("no static busybox");
    };
    let running: Vec<_> =
        ["a", "b", "c"].into_iter().map(|out| project.start(["build", "recipe.yaml", "--artifactdir", out])).collect();
    running.into_iter().for_each(|running| drop(running.finish().success()));
    let first = artifacts(&project.path("a"));
    assert_eq!(first.len(), 2, "{first:?}");
    for out in ["b", "c"] {
        assert_eq!(artifacts(&project.path(out)), first);
    }
}

#[test]
fn an_artifact_may_be_moved_by_a_later_step() {
    let Some(project) = tiny(
        "  - { action: pack, file: out.tar, compression: none }\n  - { action: run, postprocess: true, command: 'mv $ARTIFACTDIR/out.tar $ARTIFACTDIR/other.tar' }\n",
    ) else {
        skip!("no static busybox");
    };
    for _ in 0..2 {
        project.build([]).success();
        assert_eq!(artifacts(&project.path("out")).into_keys().collect::<Vec<_>>(), ["other.tar"]);
    }
}

#[test]
fn a_log_beside_the_recipe_does_not_end_a_build() {
    let Some(project) = tiny(
        "  - { action: run, command: 'echo hi > $ROOTDIR/etc/hi; sleep 1' }\n  - { action: pack, file: out.tar, compression: none }\n",
    ) else {
        skip!("no static busybox");
    };
    let log = project.path("build.log");
    let mut last = Vec::new();
    for _ in 0..2 {
        let log = fs::File::create(&log).unwrap();
        let running = project.start_with(["build", "recipe.yaml", "--artifactdir", "out"], |command| {
            command.stdout(log.try_clone().unwrap()).stderr(log);
        });
        running.finish().success();
        let now = fs::read(project.path("out/out.tar")).unwrap();
        assert!(last.is_empty() || last == now);
        last = now;
    }
    assert!(
        project.read("build.log").contains("build.log changes while the build goes on"),
        "{}",
        project.read("build.log")
    );
}

#[test]
fn what_a_step_copies_with_its_date_by_the_second_is_dated_by_the_plan() {
    let actions = "  - action: run\n    chroot: true\n    command: mkdir /tmp/b; echo x > /tmp/b/f; touch -d \"$(date '+%Y-%m-%d %H:%M:%S')\" /etc/f\n  - { action: pack, file: out.tar, compression: none }\n";
    let Some(project) = tiny(actions) else { skip!("no static busybox") };
    project.build([]).success();
    let first = artifacts(&project.path("out"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    project.build(["--no-cache"]).success();
    assert_eq!(artifacts(&project.path("out")), first);
}

#[test]
fn a_file_that_the_user_put_among_the_artifacts_is_taken_as_it_stands() {
    let Some(project) = tiny(
        "  - { action: run, command: 'cp $ARTIFACTDIR/app.conf $ROOTDIR/etc/; echo built >> $ARTIFACTDIR/app.conf' }\n  - { action: pack, file: out.tar, compression: none }\n",
    ) else {
        skip!("no static busybox");
    };
    for text in ["one\n", "two\n"] {
        project.write("out/app.conf", text);
        project.build([]).success();
        assert_eq!(project.read("out/app.conf"), format!("{text}built\n"));
        let packed = String::from_utf8_lossy(&fs::read(project.path("out/out.tar")).unwrap()).into_owned();
        assert!(packed.contains(text), "{text}");
        project.build([]).success().says("cached");
    }
}

#[test]
fn a_step_cannot_set_the_clock_of_the_machine() {
    needs_root!();
    let Some(project) =
        tiny("  - { action: run, chroot: true, command: 'date -s 2001-01-01 2>&1 | grep permitted' }\n")
    else {
        skip!("no static busybox");
    };
    let before = std::time::SystemTime::now();
    project.build([]).success();
    assert!(before.elapsed().is_ok_and(|elapsed| elapsed < std::time::Duration::from_secs(600)));
}
