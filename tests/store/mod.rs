//! The store, used as builds use it.

mod crash;
mod damage;
mod digest;
mod disk;
mod fetch;
mod outputs;
mod publication;

use debforge::store::{EntryId, Store};

/// A name for an entry.
fn id(number: usize) -> EntryId {
    EntryId(format!("{number:064x}"))
}

/// A store in a directory of its own.
fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}
