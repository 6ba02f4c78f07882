//! Small facts that builds keep for later ones, such as what a step was made from last time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Store;
use super::entry::{record_of, record_text};

/// How many facts are kept.
const BOUND: usize = 4096;

/// Where facts stand.
const FACTS: &str = "facts";

impl Store {
    /// Keeps a small fact under a key: best effort, bounded in number.
    pub fn remember(&self, key: &str, value: &serde_json::Value) {
        let path = self.fact_path(key);
        let fresh = !path.exists();
        if let Err(error) = self.write_atomically(&path, &record_text(&path, value.to_string().as_bytes())) {
            tracing::debug!("{error:#}");
        }
        // Names are digests: one in 16 of the new facts counts them all.
        if fresh && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('0')) {
            forget_oldest(&self.dir(FACTS), BOUND);
        }
    }

    /// A fact that was kept.
    pub fn recall(&self, key: &str) -> Option<serde_json::Value> {
        let path = self.fact_path(key);
        read(&path).or_else(|| read(&self.lent(Path::new(FACTS).join(path.file_name()?))?))
    }

    /// All facts that were written at or after a time, under the names of their files.
    pub fn facts_since(&self, time: SystemTime) -> BTreeMap<String, serde_json::Value> {
        let entries = std::fs::read_dir(self.dir(FACTS)).into_iter().flatten().flatten();
        let fresh =
            entries.filter(|entry| entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at >= time));
        fresh.filter_map(|entry| Some((entry.file_name().into_string().ok()?, read(&entry.path())?))).collect()
    }

    /// Takes over facts of another store's [`Store::facts_since`].
    pub fn adopt_facts(&self, facts: &BTreeMap<String, serde_json::Value>) {
        for (name, value) in facts.iter().filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            let path = self.dir(FACTS).join(name);
            if let Err(error) = self.write_atomically(&path, &record_text(&path, value.to_string().as_bytes())) {
                tracing::debug!("{error:#}");
            }
        }
        forget_oldest(&self.dir(FACTS), BOUND);
    }

    fn fact_path(&self, key: &str) -> PathBuf {
        self.dir(FACTS).join(&blake3::hash(key.as_bytes()).to_hex()[..32])
    }
}

/// A fact, if its file is as it was written, under this name.
fn read(path: &Path) -> Option<serde_json::Value> {
    record_of(path, &std::fs::read(path).ok()?)
}

/// Removes the files that were written longest ago, down to a number of them.
pub(super) fn forget_oldest(dir: &Path, bound: usize) {
    let mut found: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    if found.len() <= bound {
        return;
    }
    found.sort();
    for (_, path) in found.iter().take(found.len() - bound) {
        let _ = std::fs::remove_file(path);
    }
}

/// Removes files that were written longer ago than this.
pub(super) fn forget_older(dir: &Path, age: Duration) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let written = entry.metadata().and_then(|stat| stat.modified());
        if written.is_ok_and(|written| written.elapsed().is_ok_and(|elapsed| elapsed > age)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_recalled_by_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.recall("a"), None);
        store.remember("a", &serde_json::json!({"inputs": [1, 2]}));
        store.remember("a/b", &serde_json::json!("other"));
        assert_eq!(store.recall("a"), Some(serde_json::json!({"inputs": [1, 2]})));
        store.remember("a", &serde_json::json!(3));
        assert_eq!(Store::open(dir.path()).unwrap().recall("a"), Some(serde_json::json!(3)));
    }

    #[test]
    fn the_oldest_facts_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        for age in 0..10 {
            let path = dir.path().join(age.to_string());
            std::fs::write(&path, "").unwrap();
            let time = filetime::FileTime::from_unix_time(1_000_000 - age, 0);
            filetime::set_file_mtime(&path, time).unwrap();
        }
        forget_oldest(dir.path(), 3);
        let mut left: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0", "1", "2"]);
    }
}
