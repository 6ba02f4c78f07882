//! Artifacts that are kept and put back.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use debforge::store::{Store, TreeRecord};

use super::{id, store};

fn save(store: &Store, from: &Path, files: &[&str]) {
    let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    store.save_outputs(&id(1), from, &files, &[], &TreeRecord::default()).unwrap();
}

#[test]
fn files_links_and_directories_come_back_as_they_were() {
    let (_dir, store) = store();
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name);
    std::fs::write(at("image"), "bytes").unwrap();
    std::fs::set_permissions(at("image"), PermissionsExt::from_mode(0o640)).unwrap();
    filetime::set_file_mtime(at("image"), filetime::FileTime::from_unix_time(1_700_000_000, 5)).unwrap();
    std::os::unix::fs::symlink("image", at("latest")).unwrap();
    std::fs::create_dir_all(at("repo/objects/empty")).unwrap();
    std::fs::write(at("repo/objects/a"), "a").unwrap();
    std::fs::write(at("not-saved"), "").unwrap();
    assert!(!store.has_outputs(&id(1)));
    save(&store, from.path(), &["image", "latest", "repo"]);
    assert!(store.has_outputs(&id(1)));

    let into = tempfile::tempdir().unwrap();
    let names = store.restore_outputs(&id(1), into.path()).unwrap().unwrap();
    assert_eq!(names, ["image", "latest", "repo"].map(PathBuf::from));
    let back = |name: &str| into.path().join(name);
    let stat = std::fs::metadata(back("image")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o640, 1_700_000_000, 5));
    assert_eq!(std::fs::read(back("image")).unwrap(), b"bytes");
    assert_eq!(std::fs::read_link(back("latest")).unwrap(), Path::new("image"));
    assert_eq!(std::fs::read(back("repo/objects/a")).unwrap(), b"a");
    assert!(back("repo/objects/empty").is_dir());
    assert!(!back("not-saved").exists());
    assert_eq!(store.restore_outputs(&id(2), into.path()).unwrap(), None);
}

#[test]
fn paths_out_of_the_artifacts_are_refused() {
    let (_dir, store) = store();
    let from = tempfile::tempdir().unwrap();
    for path in ["../x", "/etc/passwd", "."] {
        let files = [PathBuf::from(path)];
        assert!(store.save_outputs(&id(1), from.path(), &files, &[], &TreeRecord::default()).is_err(), "{path}");
    }
}

#[test]
fn holes_stay_holes() {
    let (_dir, store) = store();
    let from = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(from.path().join("image")).unwrap();
    file.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"somewhere", 600 << 20).unwrap();
    save(&store, from.path(), &["image"]);
    let into = tempfile::tempdir().unwrap();
    store.restore_outputs(&id(1), into.path()).unwrap().unwrap();
    let stat = std::fs::metadata(into.path().join("image")).unwrap();
    assert_eq!(stat.len(), 1 << 30);
    assert!(stat.blocks() * 512 < 1 << 20, "{} bytes allocated", stat.blocks() * 512);
    let mut read = [0; 9];
    let file = std::fs::File::open(into.path().join("image")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, 600 << 20).unwrap();
    assert_eq!(&read, b"somewhere");
    assert!(store.entries().unwrap()[0].size < 1 << 20);
}

#[test]
fn what_is_damaged_is_dropped() {
    for damage in ["changed", "shorter", "gone"] {
        let (_dir, store) = store();
        let from = tempfile::tempdir().unwrap();
        std::fs::write(from.path().join("image"), vec![1; 3_000_000]).unwrap();
        save(&store, from.path(), &["image"]);
        let kept = store.root().join("v1/outputs").join(&id(1).0).join("files/image");
        match damage {
            "changed" => {
                let file = std::fs::File::options().write(true).open(&kept).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &[2], 2_999_999).unwrap();
            }
            "shorter" => std::fs::File::options().write(true).open(&kept).unwrap().set_len(1000).unwrap(),
            _ => std::fs::remove_file(&kept).unwrap(),
        }
        let into = tempfile::tempdir().unwrap();
        std::fs::write(into.path().join("image"), "the last good one").unwrap();
        assert_eq!(store.restore_outputs(&id(1), into.path()).unwrap(), None, "{damage}");
        assert_eq!(std::fs::read(into.path().join("image")).unwrap(), b"the last good one");
        assert!(!store.has_outputs(&id(1)));
    }
}

#[test]
fn what_still_stands_there_is_not_copied_again() {
    let (_dir, store) = store();
    let from = tempfile::tempdir().unwrap();
    let into = tempfile::tempdir().unwrap();
    std::fs::write(from.path().join("image"), "bytes").unwrap();
    save(&store, from.path(), &["image"]);
    let target = into.path().join("image");
    std::fs::rename(from.path().join("image"), &target).unwrap();
    store.note_outputs(&id(1), into.path()).unwrap();
    let inode = || std::fs::metadata(&target).unwrap().ino();
    let before = inode();
    for _ in 0..2 {
        store.restore_outputs(&id(1), into.path()).unwrap().unwrap();
        assert_eq!(inode(), before);
    }
    std::fs::write(&target, "other").unwrap();
    store.restore_outputs(&id(1), into.path()).unwrap().unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"bytes");
    let restored = inode();
    store.restore_outputs(&id(1), into.path()).unwrap().unwrap();
    assert_eq!(inode(), restored);
}

#[test]
fn files_that_are_not_what_was_saved_are_not_noted() {
    let (_dir, store) = store();
    let from = tempfile::tempdir().unwrap();
    std::fs::write(from.path().join("image"), "bytes").unwrap();
    save(&store, from.path(), &["image"]);
    let into = tempfile::tempdir().unwrap();
    std::fs::write(into.path().join("image"), "other").unwrap();
    store.note_outputs(&id(1), into.path()).unwrap();
    store.restore_outputs(&id(1), into.path()).unwrap().unwrap();
    assert_eq!(std::fs::read(into.path().join("image")).unwrap(), b"bytes");
}
