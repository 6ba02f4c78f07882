//! Digests of trees, with and without what is remembered of them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use debforge::store::Store;
use debforge::store::digest::Entry;

use super::store;

fn digests(store: &Store, path: &Path) -> Vec<Entry> {
    store.digest_tree(path).unwrap()
}

fn digest(path: &Path) -> Vec<Entry> {
    digests(&store().1, path)
}

/// A step of a sequence that looks random and is the same each time.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn entries_are_sorted_and_relative_to_the_top() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b", "a/z", "a.txt"] {
        std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let paths: Vec<PathBuf> = digest(dir.path()).into_iter().map(|entry| entry.path).collect();
    assert_eq!(paths, ["", "a", "a/z", "a.txt", "b"].map(PathBuf::from));
    assert_eq!(digest(&dir.path().join("b"))[0].path, PathBuf::new());
    // A link to it is as good as the file.
    std::os::unix::fs::symlink("b", dir.path().join("link")).unwrap();
    assert_eq!(digest(&dir.path().join("link")), digest(&dir.path().join("b")));
}

#[test]
fn what_makes_a_file_what_it_is_counts_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "text").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let mut before = digest(&file);
    let mut changes = |what: &str, expected: bool| {
        let after = digest(&file);
        assert_eq!(after != before, expected, "{what}");
        before = after;
    };
    filetime::set_file_mtime(&file, filetime::FileTime::from_unix_time(1, 0)).unwrap();
    changes("mtime", false);
    std::fs::rename(&file, dir.path().join("old")).unwrap();
    std::fs::copy(dir.path().join("old"), &file).unwrap();
    changes("inode", false);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    changes("mode", true);
    std::fs::write(&file, "texT").unwrap();
    changes("contents", true);
    if xattr::set(&file, "user.colour", b"red").is_ok() {
        changes("attribute", true);
        xattr::set(&file, "user.colour", b"blue").unwrap();
        changes("attribute's value", true);
    } else {
        eprintln!("skipped in part: no user attributes in {}", dir.path().display());
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    changes("kind", true);
}

#[test]
fn holes_count_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let length = (3 << 20) + 5;
    let holes = std::fs::File::create(dir.path().join("holes")).unwrap();
    holes.set_len(length).unwrap();
    std::fs::write(dir.path().join("zeros"), vec![0; length as usize]).unwrap();
    assert_eq!(digest(&dir.path().join("holes")), digest(&dir.path().join("zeros")));
    holes.set_len(length + 1).unwrap();
    assert_ne!(digest(&dir.path().join("holes")), digest(&dir.path().join("zeros")));
}

#[test]
fn pipes_are_refused_and_sockets_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert_eq!(digest(dir.path()).len(), 1);
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = store().1.digest_tree(dir.path()).unwrap_err();
    assert!(format!("{error:#}").contains("pipe"), "{error:#}");
}

#[test]
fn what_is_remembered_never_differs_from_what_is_there() {
    const FILES: usize = 300;
    let (_dir, store) = store();
    let tree = tempfile::tempdir().unwrap();
    let file = |number: u64| tree.path().join(format!("{:03}", number % FILES as u64));
    let mut state = 0x2545_f491_4f6c_dd1d;
    for number in 0..FILES as u64 {
        std::fs::write(file(number), next(&mut state).to_string()).unwrap();
    }
    // What was just written is not remembered.
    digests(&store, tree.path());
    let cache = store.root().join("v1/digests");
    assert!(!cache.exists());
    std::thread::sleep(Duration::from_millis(2300));
    digests(&store, tree.path());
    let size = std::fs::metadata(&cache).unwrap().len();
    assert_eq!(size, 8 + 32 + 84 * FILES as u64);
    // Another store that reads it from the disk.
    let later = Store::open(store.root()).unwrap();
    for _ in 0..30 {
        for _ in 0..10 {
            let path = file(next(&mut state));
            let time = std::fs::metadata(&path).map(|stat| filetime::FileTime::from_last_modification_time(&stat));
            match next(&mut state) % 5 {
                // The same length, and the time set back.
                0 => {
                    let length = std::fs::metadata(&path).unwrap().len() as usize;
                    let text = format!("{:0>1$}", next(&mut state) % 1000, length);
                    std::fs::write(&path, text).unwrap();
                    filetime::set_file_mtime(&path, time.unwrap()).unwrap();
                }
                1 => std::fs::write(&path, next(&mut state).to_string()).unwrap(),
                2 => std::fs::rename(&path, file(next(&mut state))).unwrap_or(()),
                3 => std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap(),
                _ => {
                    let _ = std::fs::remove_file(&path);
                    let _ = std::os::unix::fs::symlink("target", &path);
                }
            }
            if !path.is_file() {
                let _ = std::fs::remove_file(&path);
                std::fs::write(&path, "fresh").unwrap();
            }
        }
        let fresh = digest(tree.path());
        assert_eq!(digests(&store, tree.path()), fresh);
        assert_eq!(digests(&later, tree.path()), fresh);
    }
}
