//! Artifacts on their way into the artifact directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use debforge::store::Store;

use super::store;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), text).unwrap();
    }
}

fn put(store: &Store, into: &Path, files: &[(&str, &str)]) -> anyhow::Result<()> {
    let publication = store.publication(into)?;
    write(&publication.files(), files);
    let paths: Vec<&Path> = files.iter().map(|(path, _)| Path::new(path)).collect();
    publication.place(&mut |_| panic!("nobody else is here"))?.put(&paths)
}

#[test]
fn files_and_new_directories_get_their_places_and_nothing_else_is_left() {
    let (_dir, store) = store();
    let into = tempfile::tempdir().unwrap();
    write(into.path(), &[("a", "old"), ("tree/one", "old"), ("tree/other", "stays")]);
    put(&store, into.path(), &[("a", "new"), ("new/deep/file", "new"), ("tree/one", "new")]).unwrap();
    assert_eq!(names(into.path()), ["a", "new", "tree"]);
    for path in ["a", "new/deep/file", "tree/one"] {
        assert_eq!(fs::read_to_string(into.path().join(path)).unwrap(), "new");
    }
    assert_eq!(names(&into.path().join("tree")), ["one", "other"]);
    assert!(names(&store.root().join("v1/publications")).is_empty());
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_published() {
    let (_dir, store) = store();
    let into = tempfile::tempdir().unwrap();
    for (path, said) in [("way", "is a directory, and a file is to take its place"), ("file/b", "is no directory")] {
        write(into.path(), &[("a", "old"), ("way/file", "x"), ("file", "x")]);
        let error = put(&store, into.path(), &[("a", "new"), (path, "new")]).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(fs::read_to_string(into.path().join("a")).unwrap(), "old");
        assert_eq!(names(into.path()), ["a", "file", "way"]);
    }
}

#[test]
fn a_failure_on_the_way_takes_back_what_was_done() {
    let (_dir, store) = store();
    let into = tempfile::tempdir().unwrap();
    write(into.path(), &[("a", "old"), ("c", "old")]);
    let chattr = |mode: &str| Command::new("chattr").arg(mode).arg(into.path().join("c")).status();
    if !chattr("+i").is_ok_and(|status| status.success()) {
        skip!("needs a file system with chattr(1), and the right to use it");
    }
    let put = put(&store, into.path(), &[("a", "new"), ("b", "new"), ("c", "new")]);
    chattr("-i").unwrap();
    let error = format!("{:#}", put.unwrap_err());
    assert!(error.contains("into its place"), "{error}");
    assert_eq!(names(into.path()), ["a", "c"]);
    assert_eq!(fs::read_to_string(into.path().join("a")).unwrap(), "old");
}

#[test]
fn one_publishes_at_a_time_and_says_who_is_waited_for() {
    let (_dir, store) = store();
    let into = tempfile::tempdir().unwrap();
    let first = store.publication(into.path()).unwrap().place(&mut |_| panic!("nobody else is here")).unwrap();
    std::thread::scope(|scope| {
        let (said, hears) = std::sync::mpsc::channel();
        let (store, into) = (&store, into.path());
        let waits = scope.spawn(move || {
            let publication = store.publication(into).unwrap();
            write(&publication.files(), &[("a", "new")]);
            let mut waiting = |holder: Option<&debforge::store::Holder>| said.send(holder.cloned()).unwrap();
            publication.place(&mut waiting).unwrap().put(&[Path::new("a")]).unwrap();
        });
        let holder = hears.recv().unwrap().expect("who has it");
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.to_string().contains("since "), "{holder}");
        assert!(!waits.is_finished() && !into.join("a").exists());
        drop(first);
        waits.join().unwrap();
    });
    assert_eq!(names(into.path()), ["a"]);
}
