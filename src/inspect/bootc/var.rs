//! Checks of /var.

use std::path::PathBuf;

use super::{Found, at, listed};
use crate::inspect::Tree;
use crate::inspect::tree::EntryKind;

pub(super) fn run(tree: &dyn Tree) -> Found {
    let real = at(tree, "var/run")?.is_some_and(|entry| !matches!(entry.kind, EntryKind::Link(_)));
    Ok(real.then(|| "/var/run is not a link to /run".to_owned()))
}

pub(super) fn logs(tree: &dyn Tree) -> Found {
    let mut logs = Vec::new();
    let mut todo = vec![PathBuf::from("var/log")];
    while let Some(directory) = todo.pop() {
        for entry in tree.list(&directory)? {
            match entry.kind {
                EntryKind::Directory => todo.push(entry.path),
                EntryKind::File if entry.size > 0 => logs.push(format!("/{}", entry.path.display())),
                _ => {}
            }
        }
    }
    logs.sort();
    Ok(listed("there are logs", &logs))
}
