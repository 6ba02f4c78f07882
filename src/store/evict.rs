//! What the store holds, and making room in it: least recently used first, never what is in use.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::entry::{self, RECORD, SYNCED, Sealed};
use super::facts::forget_oldest;
use super::fetch::{BLOBS, BLOBS_BY_SHA512};
use super::files::{is_doubtful, is_synced, mark_synced};
use super::lock::{MakeLock, check_cancelled};
use super::packages::PACKAGES;
use super::state::state_lock;
use super::{Store, random_name, session};

/// How long the kernel is left to write by itself before the store asks for it.
const UNSYNCED: Duration = Duration::from_secs(60);
/// How long after that it does not ask because there is much else to write.
const OVERDUE: Duration = Duration::from_secs(3600);
/// How much that is, in bytes: a fraction of a second for most disks.
const MUCH: u64 = 32 << 20;
/// How many answers of servers are remembered.
const VALIDATORS: usize = 4096;

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A layer of a root, or an unpacked download.
    Tree,
    /// Artifacts of a step.
    Output,
    /// A fetched file.
    Download,
    /// A Debian package.
    Package,
    /// A directory of a tool's own, such as apt's lists.
    State,
    /// The first part of a file whose transfer broke off.
    Partial,
    /// The disk of machines, with a store of its own; and roots of machines.
    Machine,
}

impl Kind {
    /// In the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Tree, Self::Output, Self::Download, Self::Package, Self::State, Self::Partial, Self::Machine];

    /// In the plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Tree => "trees",
            Self::Output => "outputs",
            Self::Download => "downloads",
            Self::Package => "packages",
            Self::State => "state",
            Self::Partial => "partial",
            Self::Machine => "machines",
        }
    }
}

/// An entry of the store as it is listed.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub id: String,
    /// Allocated on the disk, in bytes.
    pub size: u64,
    /// When it was used last.
    #[serde(serialize_with = "unix_seconds")]
    pub used: SystemTime,
    /// What its maker says of it: "78 packages, 111 MB"; of a file, its name where it came from.
    pub detail: String,
    /// The recipe that it was made for.
    pub recipe: String,
    /// The step that made it: "3/7 apt".
    pub step: String,
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    synced: bool,
    #[serde(skip)]
    made: SystemTime,
}

impl Listed {
    /// Where it stands.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn unix_seconds<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs()))
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Surplus {
    /// What goes beyond a size in bytes, or beyond the store's bound.
    Beyond(Option<u64>),
    /// What was not used for a time.
    Older(Duration),
    /// Everything.
    All,
}

/// What making room came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cleared {
    /// Entries removed.
    pub entries: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Entries that would have been removed, but are in use.
    pub in_use: usize,
    /// What is left, in bytes.
    pub left: u64,
}

impl Store {
    /// All entries, by kind and then least recently used first.
    pub fn entries(&self) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        for map in children(&self.dir("trees")) {
            found.extend(children(&map).iter().filter_map(|dir| listed_entry(Kind::Tree, dir)));
        }
        found.extend(children(&self.dir("outputs")).iter().filter_map(|dir| listed_entry(Kind::Output, dir)));
        for kind in children(&self.dir("state")) {
            found.extend(children(&kind).iter().filter_map(|dir| self.listed_state(dir)));
        }
        for (kind, dir) in [(Kind::Download, BLOBS), (Kind::Package, PACKAGES), (Kind::Partial, "partial")] {
            found.extend(children(&self.dir(dir)).iter().filter_map(|path| listed_file(kind, path)));
        }
        let disks = children(&self.machines()).into_iter();
        let disks = disks.filter(|path| path.extension().is_some_and(|extension| extension == "ext4"));
        found.extend(disks.filter_map(|path| listed_file(Kind::Machine, &path)));
        found.sort_by(|a, b| (a.kind, a.used, &a.id).cmp(&(b.kind, b.used, &b.id)));
        Ok(found)
    }

    /// Removes what is too much.
    pub fn remove(&self, surplus: Surplus) -> Result<Cleared> {
        match surplus {
            Surplus::Beyond(limit) => self.evict(limit),
            Surplus::Older(age) => self.evict_older(age),
            Surplus::All => self.clear(),
        }
    }

    /// Makes room down to a size (the store's [bound](Store::bound) where none is given), least
    /// recently used first. Does nothing while another build does it. Once per build is enough.
    pub fn evict(&self, limit: Option<u64>) -> Result<Cleared> {
        let entries = self.entries()?;
        self.settle(&entries)?;
        let total: u64 = entries.iter().map(|entry| entry.size).sum();
        let limit = limit.map_or_else(|| self.bound(total), Ok)?;
        for dir in ["validators", BLOBS_BY_SHA512] {
            forget_oldest(&self.dir(dir), VALIDATORS);
        }
        self.remove_entries(entries, |_, left| left > limit)
    }

    /// Has the disk hold all that was sealed, where the machine may be switched off at any moment.
    pub fn persist(&self) -> Result<()> {
        if self.is_precarious() { self.settle(&self.entries()?) } else { Ok(()) }
    }

    /// Removes what was not used for a time.
    pub fn evict_older(&self, age: Duration) -> Result<Cleared> {
        let before = SystemTime::now() - age;
        self.remove_entries(self.entries()?, |entry, _| entry.used < before)
    }

    /// Removes everything that is not in use, remembered facts and digests too.
    pub fn clear(&self) -> Result<Cleared> {
        let cleared = self.remove_entries(self.entries()?, |_, _| true)?;
        for dir in ["facts", "validators", BLOBS_BY_SHA512] {
            forget_oldest(&self.dir(dir), 0);
        }
        self.forget_digests();
        Ok(cleared)
    }

    /// Removes entries, least recently used first, as `wanted` says of each and of the size that is left by then.
    fn remove_entries(&self, mut entries: Vec<Listed>, wanted: impl Fn(&Listed, u64) -> bool) -> Result<Cleared> {
        entries.sort_by_key(|entry| entry.used);
        let mut cleared = Cleared { left: entries.iter().map(|entry| entry.size).sum(), ..Cleared::default() };
        let Some(_one) = MakeLock::try_take(self.dir("locks").join("evict"))? else { return Ok(cleared) };
        let kept_since = session::oldest(&self.dir("sessions"));
        for entry in &entries {
            check_cancelled()?;
            if !wanted(entry, cleared.left) {
                continue;
            }
            if self.remove_entry(entry, kept_since)? {
                cleared.entries += 1;
                cleared.bytes += entry.size;
                cleared.left -= entry.size;
            } else {
                cleared.in_use += 1;
            }
        }
        Ok(cleared)
    }

    /// Removes an entry that is of no use to anybody; false where a build holds it.
    pub(super) fn remove_damaged(&self, entry: &Listed) -> Result<bool> {
        // What opening it has dropped already is gone, too.
        self.remove_entry(entry, None)
    }

    /// Whether the entry is gone.
    fn remove_entry(&self, entry: &Listed, kept_since: Option<SystemTime>) -> Result<bool> {
        match entry.kind {
            Kind::Tree | Kind::Output | Kind::State => self.discard(&entry.path),
            Kind::Download | Kind::Package => {
                if kept_since.is_some_and(|since| entry.used >= since) {
                    return Ok(false);
                }
                self.remove_file(entry)
            }
            Kind::Machine if entry.path == self.machine_disk() => self.remove_machine_disk(),
            // A machine that is using it keeps it until it ends.
            Kind::Machine => Ok(std::fs::remove_file(&entry.path).is_ok()),
            Kind::Partial => {
                let name = entry.id.trim_end_matches(".json");
                match MakeLock::try_take(self.dir("locks").join(format!("fetch-{name}")))? {
                    Some(_lock) => Ok(std::fs::remove_file(&entry.path).is_ok()),
                    None => Ok(false),
                }
            }
        }
    }

    /// Removes a single file unless it is handed out meanwhile: that changes its mtime first and
    /// looks whether it is still there last, so the file is taken away first and looked at last.
    fn remove_file(&self, entry: &Listed) -> Result<bool> {
        let doomed = self.dir("trash").join(random_name());
        match std::fs::rename(&entry.path, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).with_context(|| format!("dropping {}", entry.path.display())),
        }
        let used = std::fs::metadata(&doomed).and_then(|stat| stat.modified());
        if used.is_ok_and(|used| used != entry.used) {
            let _ = std::fs::rename(&doomed, &entry.path);
            return Ok(false);
        }
        let _ = std::fs::remove_file(&doomed);
        Ok(true)
    }

    /// Has the disk hold what is a minute old, so that it survives a power cut. By then the kernel
    /// has written it by itself, and this only notes it; but asking makes it write all else that
    /// waits, such as the layer just made, so that is put off for an hour while there is much.
    fn settle(&self, entries: &[Listed]) -> Result<()> {
        let now = SystemTime::now();
        let unsynced = entries.iter().filter(|entry| !entry.synced);
        let Some(age) = unsynced.filter_map(|entry| now.duration_since(entry.made).ok()).max() else { return Ok(()) };
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        if !self.is_precarious() && (age < UNSYNCED || (age < OVERDUE && waiting_to_be_written(&meminfo) > MUCH)) {
            return Ok(());
        }
        let root = std::fs::File::open(self.root())?;
        nix::unistd::syncfs(&root).context("writing the store to the disk")?;
        for entry in entries.iter().filter(|entry| !entry.synced) {
            // Best effort: an entry may be gone, or belong to somebody else.
            let _ = match entry.kind {
                Kind::Tree | Kind::Output | Kind::State => std::fs::write(entry.path.join(SYNCED), ""),
                Kind::Download | Kind::Package => mark_synced(&entry.path),
                Kind::Partial | Kind::Machine => Ok(()),
            };
        }
        Ok(())
    }

    /// Like other entries; one that is being made stands at its place already, and is left out.
    fn listed_state(&self, dir: &Path) -> Option<Listed> {
        if let Some(listed) = listed_entry(Kind::State, dir) {
            return Some(listed);
        }
        let lock = state_lock(&name_of(dir.parent()?), &name_of(dir));
        if let Ok(Some(_claim)) = MakeLock::try_take(self.dir("locks").join(lock))
            && !dir.join(RECORD).exists()
            && let Err(error) = self.discard(dir)
        {
            tracing::warn!("{error:#}");
        }
        None
    }
}

/// Bytes that the kernel has yet to write to disks (proc_meminfo(5)).
fn waiting_to_be_written(meminfo: &str) -> u64 {
    let kibibytes = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let waiting = meminfo.lines().filter(|line| line.starts_with("Dirty:") || line.starts_with("Writeback:"));
    waiting.filter_map(kibibytes).sum::<u64>() * 1024
}

fn children(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn listed_entry(kind: Kind, dir: &Path) -> Option<Listed> {
    let record = dir.join(RECORD);
    let sealed: Sealed<serde::de::IgnoredAny> = entry::unproved(&std::fs::read(&record).ok()?)?;
    let synced = dir.join(SYNCED).exists();
    Some(Listed {
        kind,
        id: name_of(dir),
        size: sealed.size,
        used: std::fs::metadata(&record).ok()?.modified().ok()?,
        path: dir.to_owned(),
        // What another boot left unsynced goes when it is next asked for.
        synced: synced || !sealed.of_this_boot(),
        made: SystemTime::UNIX_EPOCH + Duration::from_secs(sealed.made),
        detail: sealed.record.detail,
        recipe: sealed.record.recipe,
        step: sealed.record.step,
    })
}

fn listed_file(kind: Kind, path: &Path) -> Option<Listed> {
    let stat = std::fs::metadata(path).ok().filter(|stat| stat.is_file())?;
    let used = stat.modified().ok()?;
    Some(Listed {
        kind,
        id: name_of(path),
        size: stat.blocks() * 512,
        used,
        detail: String::new(),
        recipe: String::new(),
        step: String::new(),
        path: path.to_owned(),
        // What another boot left unsynced is read before it counts, not noted as synced.
        synced: kind == Kind::Partial || is_synced(stat.mode()) || is_doubtful(&stat),
        made: used,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Begun, EntryId, IdMap, Tree, TreeRecord};

    const MAP: &str = "root";

    fn id(number: usize) -> EntryId {
        EntryId(format!("{number:064x}"))
    }

    fn make(store: &Store, number: usize) -> Tree {
        match store.begin(&IdMap(MAP.into()), &id(number), &mut |_| {}).unwrap() {
            Begun::Pending(tree) => {
                std::fs::write(tree.path.join("file"), vec![1; 100_000]).unwrap();
                tree.seal(TreeRecord::default()).unwrap()
            }
            Begun::Sealed(tree) => tree,
        }
    }

    fn left(store: &Store) -> Vec<usize> {
        let mut left: Vec<usize> =
            store.entries().unwrap().iter().map(|entry| usize::from_str_radix(&entry.id, 16).unwrap()).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_of_one_build_the_last_layer() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..3 {
            let store = Store::open(dir.path()).unwrap();
            make(&store, 2 * number);
            make(&store, 2 * number + 1);
        }
        // A later build uses the chain of the first again.
        let store = Store::open(dir.path()).unwrap();
        for number in 0..2 {
            assert!(store.tree(&IdMap(MAP.into()), &id(number)).unwrap().is_some());
        }
        let one = store.entries().unwrap()[0].size;
        assert!(one >= 100_000);
        for expected in [vec![0, 1, 2, 4, 5], vec![0, 1, 4, 5], vec![0, 1, 4], vec![0, 1], vec![0], vec![]] {
            let cleared = store.evict(Some(one * expected.len() as u64)).unwrap();
            assert_eq!((cleared.entries, cleared.bytes), (1, one));
            assert_eq!(left(&store), expected);
        }
    }

    #[test]
    fn what_is_in_use_stays_and_something_else_goes_instead() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        drop((make(&store, 1), make(&store, 2)));
        let used = make(&store, 3);
        let size = store.entries().unwrap()[0].size;
        let cleared = store.evict(Some(size)).unwrap();
        assert_eq!(cleared, Cleared { entries: 2, bytes: 2 * size, in_use: 1, left: size });
        assert_eq!(left(&store), [3]);
        assert!(used.path.join("file").exists());
        drop(used);
        store.clear().unwrap();
        assert_eq!(left(&store), [0; 0]);
    }

    #[test]
    fn packages_of_a_living_session_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.deb");
        std::fs::write(&file, "not really a package").unwrap();
        let digest = crate::store::files::sha256_of(&file).unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        assert_eq!(store.package(&digest), None);
        assert!(store.add_package(&file, &digest.replace('0', "1").replace('a', "b")).is_err());
        let kept = store.add_package(&file, &digest.to_uppercase()).unwrap();
        assert_eq!(std::fs::read(&kept).unwrap(), b"not really a package");
        let other = Store::open(&dir.path().join("store")).unwrap();
        assert_eq!(other.evict(Some(0)).unwrap().in_use, 1);
        assert_eq!(other.package(&digest), Some(kept.clone()));
        drop((store, other));
        let later = Store::open(&dir.path().join("store")).unwrap();
        assert_eq!(later.evict(Some(0)).unwrap().entries, 1);
        assert_eq!(later.package(&digest), None);
        assert!(file.exists());
    }

    #[test]
    fn a_package_that_a_crash_may_have_damaged_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.deb");
        std::fs::write(&file, "contents").unwrap();
        let digest = crate::store::files::sha256_of(&file).unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let kept = store.add_package(&file, &digest).unwrap();
        store.settle(&store.entries().unwrap()).unwrap();
        assert!(!is_synced(std::fs::metadata(&kept).unwrap().mode()), "noted as written at once");
        let mut entries = store.entries().unwrap();
        entries[0].made -= OVERDUE * 2;
        store.settle(&entries).unwrap();
        assert!(is_synced(std::fs::metadata(&kept).unwrap().mode()));
    }

    #[test]
    fn what_waits_to_be_written_is_read_from_meminfo() {
        let text = "MemFree:  5 kB\nDirty:               120 kB\nWriteback:             3 kB\nWritebackTmp:   7 kB\n";
        assert_eq!(waiting_to_be_written(text), 123 * 1024);
        assert_eq!(waiting_to_be_written(""), 0);
    }

    #[test]
    fn a_state_directory_is_made_once_and_at_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut made = 0;
        let mut place = PathBuf::new();
        assert!(store.state_dir("apt-lists", &id(1), &mut |_| anyhow::bail!("no network")).is_err());
        assert!(store.entries().unwrap().is_empty());
        for _ in 0..2 {
            let state = store
                .state_dir("apt-lists", &id(1), &mut |path| {
                    made += 1;
                    assert!(path.read_dir()?.next().is_none());
                    assert!(store.entries()?.is_empty(), "visible before it is whole");
                    place = path.to_owned();
                    Ok(std::fs::write(path.join("Packages"), "")?)
                })
                .unwrap();
            assert!(state.path.join("Packages").exists());
            assert_eq!(state.path, place);
            assert_eq!(store.evict(Some(0)).unwrap().in_use, 1);
        }
        assert_eq!(made, 1);
        assert_eq!(store.evict(Some(0)).unwrap().entries, 1);
        assert!(!place.exists());
    }
}
