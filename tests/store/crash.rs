//! Builds that are killed, and builds that meet.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use debforge::store::{Begun, IdMap, Store, TreeRecord};
use sha2::{Digest, Sha256};

use super::{id, store};

/// Tells this program, started again as one test, which store to work in and how.
const STORE: &str = "DEBFORGE_TEST_CHILD_STORE";
const WORK: &str = "DEBFORGE_TEST_CHILD_WORK";
/// Files in each entry.
const FILES: usize = 12;

fn map() -> IdMap {
    IdMap("root".into())
}

fn spawn(store: &Path, work: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["store::crash::child", "--exact", "--nocapture"])
        .env(STORE, store)
        .env(WORK, work)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test: what the other process does, when a test starts this program again.
#[test]
fn child() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let store = Store::open(Path::new(&path)).unwrap();
    match std::env::var(WORK).unwrap().as_str() {
        "everything" => make_everything(&store),
        "hold" => {
            let Begun::Pending(tree) = store.begin(&map(), &id(1), &mut |_| {}).unwrap() else { panic!() };
            fill(&tree.path, 1);
            std::fs::write(store.root().join("held"), "").unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
        "race" => {
            for number in 0..20 {
                if let Begun::Pending(tree) = store.begin(&map(), &id(number), &mut |_| {}).unwrap() {
                    fill(&tree.path, number);
                    tree.seal(TreeRecord::default()).unwrap();
                    let log = std::fs::File::options().create(true).append(true).open(store.root().join("made"));
                    std::io::Write::write_all(&mut log.unwrap(), format!("{number}\n").as_bytes()).unwrap();
                }
            }
        }
        other => panic!("{other}"),
    }
}

fn text(number: usize, file: usize) -> String {
    format!("{number} {file}\n").repeat(1000)
}

fn fill(dir: &Path, number: usize) {
    for file in 0..FILES {
        std::fs::write(dir.join(file.to_string()), text(number, file)).unwrap();
    }
}

fn assert_whole(dir: &Path, number: usize) {
    for file in 0..FILES {
        let found = std::fs::read_to_string(dir.join(file.to_string())).unwrap();
        assert!(found == text(number, file), "file {file} of entry {number} is not whole");
    }
}

/// Makes and drops entries of all kinds until killed.
fn make_everything(store: &Store) {
    let work = store.scratch().unwrap();
    for round in 0.. {
        let number = round % 6;
        if let Begun::Pending(tree) = store.begin(&map(), &id(number), &mut |_| {}).unwrap() {
            fill(&tree.path, number);
            tree.seal(TreeRecord::default()).unwrap();
        }
        let from = work.path.join(round.to_string());
        std::fs::create_dir(&from).unwrap();
        fill(&from, number);
        store.save_outputs(&id(number), &work.path, &[round.to_string().into()], &[], &TreeRecord::default()).unwrap();
        let package = from.join("0");
        store.add_package(&package, &hex::encode(Sha256::digest(text(number, 0)))).unwrap();
        store
            .state_dir("lists", &id(number), &mut |path| {
                fill(path, number);
                Ok(())
            })
            .unwrap();
        store.remember(&number.to_string(), &text(number, 0).into());
        if round % 7 == 6 {
            store.evict(Some(400_000)).unwrap();
        }
    }
}

#[test]
fn whatever_is_visible_after_kill_is_whole() {
    let (dir, _) = store();
    let mut seen = 0;
    for round in 0..40u64 {
        let mut child = spawn(dir.path(), "everything");
        std::thread::sleep(Duration::from_millis(10 + round * 37 % 90));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for left in ["scratch", "trash", "locks"] {
            let left: Vec<_> = dir.path().join("v1").join(left).read_dir().unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        }
        for number in 0..6 {
            if let Some(tree) = store.tree(&map(), &id(number)).unwrap() {
                assert_whole(&tree.path, number);
                seen += 1;
            }
            let into = tempfile::tempdir().unwrap();
            if let Some(names) = store.restore_outputs(&id(number), into.path()).unwrap() {
                assert_whole(&into.path().join(&names[0]), number);
                seen += 1;
            }
            if let Some(package) = store.package(&hex::encode(Sha256::digest(text(number, 0)))) {
                assert_eq!(std::fs::read_to_string(package).unwrap(), text(number, 0));
                seen += 1;
            }
            let state = store.state_dir("lists", &id(number), &mut |path| {
                assert!(path.read_dir()?.next().is_none(), "made in what a killed build left");
                fill(path, number);
                Ok(())
            });
            assert_whole(&state.unwrap().path, number);
            if let Some(fact) = store.recall(&number.to_string()) {
                assert_eq!(fact, text(number, 0));
            }
        }
    }
    assert!(seen > 100, "the children made only {seen} entries");
}

#[test]
fn the_claim_of_a_killed_build_passes_on() {
    let (dir, store) = store();
    let mut child = spawn(dir.path(), "hold");
    wait_for(|| dir.path().join("held").exists());
    std::thread::scope(|scope| {
        let (said, hears) = std::sync::mpsc::channel();
        let store = &store;
        let waits = scope.spawn(move || store.begin(&map(), &id(1), &mut |_| said.send(()).unwrap()).unwrap());
        hears.recv().unwrap();
        assert!(!waits.is_finished());
        // Others look at the store meanwhile, and clear nothing away that is in use.
        Store::open(dir.path()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let Begun::Pending(tree) = waits.join().unwrap() else { panic!("sealed by nobody") };
        assert!(tree.path.read_dir().unwrap().next().is_none());
        fill(&tree.path, 1);
        assert_whole(&tree.seal(TreeRecord::default()).unwrap().path, 1);
        assert!(hears.recv().is_err(), "waiting is said once");
    });
    drop(Store::open(dir.path()).unwrap());
    assert_eq!(dir.path().join("v1/scratch").read_dir().unwrap().count(), 0);
}

#[test]
fn builds_that_meet_make_each_tree_once() {
    let (dir, store) = store();
    let children: Vec<Child> = (0..4).map(|_| spawn(dir.path(), "race")).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut made: Vec<usize> =
        std::fs::read_to_string(dir.path().join("made")).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    made.sort_unstable();
    assert_eq!(made, (0..20).collect::<Vec<_>>());
    for number in made {
        assert_whole(&store.tree(&map(), &id(number)).unwrap().unwrap().path, number);
    }
    assert_eq!(dir.path().join("v1/locks").read_dir().unwrap().count(), 0);
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "nothing happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}
