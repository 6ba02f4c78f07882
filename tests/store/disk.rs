//! A disk that is full.

use std::path::Path;

use debforge::diagnostics::fault_of;
use debforge::store::fetch::Request;
use debforge::store::{Begun, IdMap, Store, TreeRecord};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::id;
use crate::harness::http::Server;

/// Mounts a small file system in a mount namespace of this thread's own; false where that is not possible.
fn small_disk(at: &Path, options: &str) -> bool {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).is_ok()
        && mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(options)).is_ok()
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    if !small_disk(dir.path(), "size=2M") {
        skip!("needs a mount namespace");
    }
    let store = Store::open(dir.path()).unwrap();
    let large = tempfile::tempdir().unwrap();
    std::fs::write(large.path().join("file"), vec![7; 4 << 20]).unwrap();

    let files = ["file".into()];
    let error = store.save_outputs(&id(1), large.path(), &files, &[], &TreeRecord::default()).unwrap_err();
    assert!(fault_of(&error).message.contains("is full"), "{error:#}");
    assert!(!store.has_outputs(&id(1)));

    let server = Server::new(large.path());
    let request = Request { url: server.url("file"), ..Request::default() };
    let error = store.fetch(&request, &mut |_, _| {}).unwrap_err();
    let message = fault_of(&error).message;
    assert!(message.contains("has 4.2 MB") && message.contains("has room for"), "{message}");
    assert!(fault_of(&error).hints.iter().any(|hint| hint.contains("store prune")));
    assert_eq!(server.count("file"), 1, "a full disk is not a reason to try again");

    let Begun::Pending(tree) = store.begin(&IdMap("root".into()), &id(2), &mut |_| {}).unwrap() else { panic!() };
    while std::fs::write(tree.path.join("file"), vec![1; 1 << 20]).is_ok() {
        let count = tree.path.read_dir().unwrap().count();
        std::fs::rename(tree.path.join("file"), tree.path.join(format!("file{count}"))).unwrap();
    }
    // Threads of its own, which see the disk that only this one sees.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let record = TreeRecord { detail: "x".repeat(100_000), ..TreeRecord::default() };
    let error = threads.install(|| tree.seal(record)).unwrap_err();
    assert!(fault_of(&error).message.contains("is full"), "{error:#}");
    assert!(store.tree(&IdMap("root".into()), &id(2)).unwrap().is_none());
    assert!(store.entries().unwrap().is_empty());
    // And there is room again.
    std::fs::write(dir.path().join("room"), vec![1; 1 << 20]).unwrap();
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_disk_without_inodes_is_not_called_full() {
    let dir = tempfile::tempdir().unwrap();
    if !small_disk(dir.path(), "nr_inodes=60") {
        skip!("needs a mount namespace");
    }
    let store = Store::open(dir.path()).unwrap();
    let many = tempfile::tempdir().unwrap();
    let files: Vec<std::path::PathBuf> = (0..60).map(|number| number.to_string().into()).collect();
    files.iter().for_each(|file| std::fs::write(many.path().join(file), "").unwrap());
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let saved = threads.install(|| store.save_outputs(&id(1), many.path(), &files, &[], &TreeRecord::default()));
    let fault = fault_of(&saved.unwrap_err());
    // By now what was made is removed again; what is said was found out before.
    assert!(fault.message.contains("has no inodes left") && !fault.message.contains("is full"), "{fault:?}");
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}
