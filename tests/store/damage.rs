//! Bytes of the store count because they are the right ones, not because they are there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use debforge::store::fetch::Request;
use debforge::store::{Begun, IdMap, Store, TreeRecord};
use rstest::rstest;
use sha2::{Digest, Sha256, Sha512};

use super::{id, store};
use crate::harness::http::Server;

/// What happens to a file between two builds.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One byte is another one; size and date are as they were.
    Byte,
    /// It is shorter.
    Cut,
    /// A link is in its place, to something else.
    Link,
    /// It is gone.
    Gone,
}

impl Damage {
    fn apply(self, path: &Path) {
        // The clock of a file system ticks every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let meta = fs::metadata(path).unwrap();
        let open = || {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            File::options().read(true).write(true).open(path).unwrap()
        };
        match self {
            Self::Byte => {
                let file = open();
                let at = meta.len() / 2;
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                // Digits stay digits, so that what is read as a text still can be.
                file.write_all_at(&[if byte[0] == b'1' { b'2' } else { b'1' }], at).unwrap();
                file.set_modified(meta.modified().unwrap()).unwrap();
            }
            Self::Cut => open().set_len(meta.len() / 2).unwrap(),
            Self::Link => {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
            }
            Self::Gone => fs::remove_file(path).unwrap(),
        }
    }
}

/// The same store as another process has it.
fn again(store: &Store) -> Store {
    Store::open(store.root()).unwrap()
}

fn map() -> IdMap {
    IdMap("root".into())
}

#[rstest]
fn a_damaged_download_is_fetched_again(
    #[values(Damage::Byte, Damage::Cut, Damage::Link, Damage::Gone)] damage: Damage,
    #[values(true, false)] by_sha512: bool,
) {
    let (_dir, store) = store();
    let served = tempfile::tempdir().unwrap();
    fs::write(served.path().join("file"), "0123456789".repeat(100)).unwrap();
    let server = Server::new(served.path());
    let text = fs::read(served.path().join("file")).unwrap();
    let (sha256, sha512) = (hex::encode(Sha256::digest(&text)), hex::encode(Sha512::digest(&text)));
    let request = match by_sha512 {
        true => Request { url: server.url("file"), sha512: Some(sha512), ..Request::default() },
        false => Request { url: server.url("file"), sha256: Some(sha256), ..Request::default() },
    };
    let kept = store.fetch(&request, &mut |_, _| {}).unwrap().path;
    damage.apply(&kept);
    let store = again(&store);
    let fetched = store.fetch(&request, &mut |_, _| {}).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), text);
    assert_eq!(server.count("file"), 2);
    let said = store.notes();
    assert_eq!(said.len(), usize::from(!matches!(damage, Damage::Gone)), "{said:?}");
    assert!(said.iter().all(|note| note.contains("was damaged")), "{said:?}");
    // Once is enough.
    store.fetch(&request, &mut |_, _| {}).unwrap();
    assert_eq!((server.count("file"), store.notes().len()), (2, 0));
}

#[test]
fn an_index_that_names_another_file_is_not_believed() {
    let (_dir, store) = store();
    let served = tempfile::tempdir().unwrap();
    fs::write(served.path().join("file"), "right").unwrap();
    let server = Server::new(served.path());
    let sha512 = hex::encode(Sha512::digest("right"));
    let request = Request { url: server.url("file"), sha512: Some(sha512.clone()), ..Request::default() };
    store.fetch(&request, &mut |_, _| {}).unwrap();
    let other = store.keep_text("wrong").unwrap();
    fs::write(store.root().join("v1/blobs/sha512").join(sha512), &other).unwrap();
    let fetched = again(&store).fetch(&request, &mut |_, _| {}).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), b"right");
}

#[rstest]
fn a_damaged_package_heals(#[values(Damage::Byte, Damage::Cut, Damage::Link, Damage::Gone)] damage: Damage) {
    let (_dir, store) = store();
    let from = tempfile::tempdir().unwrap();
    let deb = from.path().join("one.deb");
    fs::write(&deb, "0123456789").unwrap();
    let sha256 = hex::encode(Sha256::digest("0123456789"));
    let kept = store.add_package(&deb, &sha256).unwrap();
    // The pool may have it as a link to the same file.
    let text = fs::read(&kept).unwrap();
    fs::remove_file(&deb).unwrap();
    damage.apply(&kept);
    let store = again(&store);
    assert_eq!(store.package(&sha256), None);
    fs::write(&deb, &text).unwrap();
    assert_eq!(fs::read(store.add_package(&deb, &sha256).unwrap()).unwrap(), text);
}

#[rstest]
fn damaged_artifacts_are_no_hit(#[values(Damage::Byte, Damage::Cut, Damage::Link, Damage::Gone)] damage: Damage) {
    for damaged in ["files/image", "record.json"] {
        let (_dir, store) = store();
        let from = tempfile::tempdir().unwrap();
        fs::write(from.path().join("image"), "0123456789").unwrap();
        store.save_outputs(&id(1), from.path(), &["image".into()], &[], &TreeRecord::default()).unwrap();
        damage.apply(&store.root().join("v1/outputs").join(&id(1).0).join(damaged));
        let into = tempfile::tempdir().unwrap();
        assert_eq!(again(&store).restore_outputs(&id(1), into.path()).unwrap(), None, "{damaged}");
        assert!(!again(&store).has_outputs(&id(1)) && fs::read_dir(into.path()).unwrap().count() == 0);
    }
}

#[rstest]
fn a_damaged_layer_is_no_hit(#[values(Damage::Byte, Damage::Cut, Damage::Link, Damage::Gone)] damage: Damage) {
    for damaged in ["tree/etc/file", "listing.json", "record.json"] {
        let (_dir, store) = store();
        let Begun::Pending(tree) = store.begin(&map(), &id(1), &mut |_| {}).unwrap() else { panic!() };
        fs::create_dir(tree.path.join("etc")).unwrap();
        fs::write(tree.path.join("etc/file"), "0123456789").unwrap();
        let tree = tree.seal(TreeRecord::default()).unwrap();
        assert_eq!(store.damage(&tree).unwrap(), None);
        let entry = tree.path.parent().unwrap().to_owned();
        drop(tree);
        damage.apply(&entry.join(damaged));
        let store = again(&store);
        let found = store.tree(&map(), &id(1)).unwrap();
        let Some(tree) = found else { continue };
        // What tells of a file that nobody touched it is no part of a listing's digest: without it the file is read.
        let text = || fs::read_to_string(tree.path.join("etc/file")).unwrap();
        let whole = damaged == "listing.json" && matches!(damage, Damage::Byte) && text() == "0123456789";
        assert!(whole || store.damage(&tree).unwrap().is_some(), "{damaged}");
    }
}

#[rstest]
fn a_damaged_directory_of_a_tool_s_is_made_anew(
    #[values(Damage::Byte, Damage::Cut, Damage::Link, Damage::Gone)] damage: Damage,
    #[values("tree/lists", "listing.json", "record.json")] damaged: &str,
) {
    let (_dir, store) = store();
    let make = |store: &Store| {
        let fill = &mut |path: &Path| Ok(fs::write(path.join("lists"), "0123456789")?);
        store.state_dir("lists", &id(1), fill).unwrap()
    };
    let path = make(&store).path;
    damage.apply(&path.parent().unwrap().join(damaged));
    let store = again(&store);
    let state = make(&store);
    assert_eq!(fs::read_to_string(state.path.join("lists")).unwrap(), "0123456789");
    assert!(state.path.join("lists").symlink_metadata().unwrap().is_file());
}

#[rstest]
fn a_damaged_fact_is_none(#[values(Damage::Byte, Damage::Cut, Damage::Link, Damage::Gone)] damage: Damage) {
    let (_dir, store) = store();
    store.remember("what", &serde_json::json!({ "number": 111111111111111111_u64 }));
    let facts = fs::read_dir(store.root().join("v1/facts")).unwrap();
    let paths: Vec<_> = facts.map(|entry| entry.unwrap().path()).collect();
    assert!(again(&store).recall("what").is_some());
    paths.iter().for_each(|path| damage.apply(path));
    assert_eq!(again(&store).recall("what"), None);
    assert_eq!(again(&store).facts_since(std::time::SystemTime::UNIX_EPOCH).len(), 0);
    let path = &paths[0];
    let _ = fs::remove_file(path);
    store.remember("what", &serde_json::json!(1111));
    let text = fs::read_to_string(path).unwrap().replace("1111", "1112");
    fs::write(path, text).unwrap();
    assert_eq!(again(&store).recall("what"), None, "a number that can be read");
}
