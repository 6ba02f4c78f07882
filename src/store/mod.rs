//! The store: sealed trees (root layers, unpacked downloads), step outputs, downloads, packages.
//!
//! An entry is either sealed and whole or invisible, also after `kill -9` or a power cut; locked
//! per entry, so that builds share it; bounded in size, least recently used first out.

mod birthplace;
mod copy;
pub mod digest;
mod elsewhere;
mod entry;
mod evict;
mod facts;
pub mod fetch;
mod files;
mod holder;
mod http;
mod listing;
mod lock;
mod machine_disk;
mod outputs;
mod overlay;
mod packages;
mod patience;
mod proxy;
mod publication;
mod resolver;
mod scratch;
mod session;
pub mod size;
mod stat_cache;
mod state;
mod trees;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use copy::copy_file;
pub use elsewhere::Elsewhere;
pub use evict::{Cleared, Kind, Listed, Surplus};
pub use holder::{Holder, set_holder, waiting_for};
pub use lock::{Waiting, set_cancelled};
pub use machine_disk::DiskLock;
pub use outputs::Outputs;
pub use overlay::MountedRoot;
pub use publication::{Awaited, Place, Publication, is_of_publication};
pub use scratch::Scratch;
pub use state::StateDir;
pub use trees::{Begun, PendingTree, Tree};
pub use verify::{Damaged, Verified};

use crate::diagnostics::Fault;
use crate::sys::remove::make_way;

/// A BLAKE3 digest that names an entry: 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub String);

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the owners of files in trees are to be read: trees of different id maps are never mixed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdMap(pub String);

/// How the root's state after each step is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpoints {
    /// Each step writes to the upper directory of an overlay mount.
    Overlay {
        /// In a user namespace overlay keeps its marks in `user.overlay.*`.
        userxattr: bool,
    },
    /// A plain directory, copied with shared extents before each step.
    Reflink,
    /// A plain directory that every step works on; nothing to go back to.
    None,
}

/// Facts sealed beside a tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TreeRecord {
    /// What to show for a cached step: "78 packages, 111 MB".
    pub detail: String,
    /// The recipe that it was made for, as the user named it.
    #[serde(default)]
    pub recipe: String,
    /// The step that made it: "3/7 apt".
    #[serde(default)]
    pub step: String,
    /// Seconds that making it took.
    pub seconds: f64,
    /// apt repositories that the root is set up for after the step, as one deb822 text.
    pub apt_sources: String,
    /// pacman's repositories of which the root has no database after the step, as one configuration.
    #[serde(default)]
    pub pacman: String,
    /// Secrets in the root: paths, and whether the build has made each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, bool>,
    /// Files of the root that chattr(1) protects after the step: paths below it, and letters. Layers cannot say it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub protected: BTreeMap<String, String>,
    /// Where a download or unpacked archive stands inside the tree; empty for root layers.
    pub origin: PathBuf,
    /// What was there when it was made.
    #[serde(default)]
    pub made_on: MadeOn,
}

/// The state that a step's result was made on. Its id says what that is made of; this says which bytes came of
/// that, which may be others where a step is run again that does not do the same each time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MadeOn {
    /// Digest of the layers below; empty where it is not known, as where nothing is kept of them.
    #[serde(default)]
    pub root: String,
    /// Digest of the artifacts so far; empty for a step that sees none.
    #[serde(default)]
    pub artifacts: String,
}

impl MadeOn {
    /// Whether what was made on this fits what there is: what is not known on either side says nothing.
    pub fn fits(&self, now: &Self) -> bool {
        let fits = |one: &str, other: &str| one.is_empty() || other.is_empty() || one == other;
        fits(&self.root, &now.root) && fits(&self.artifacts, &now.artifacts)
    }
}

/// The store at one place of the disk. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// `root` and the version of the layout.
    base: PathBuf,
    /// Another store, only to be read, that is asked for files and facts that this one lacks.
    lender: Option<PathBuf>,
    opened: SystemTime,
    /// How many entries this session has marked as used.
    used: AtomicU64,
    /// What keeps the files that were handed out.
    session: OnceLock<Option<session::Session>>,
    fetcher: fetch::Fetcher,
    digests: Mutex<Option<stat_cache::StatCache>>,
    /// Files whose bytes this process has compared with their names, as they looked then.
    proofs: Mutex<HashMap<PathBuf, stat_cache::Stamp>>,
    /// What is to be said; see [`Store::notes`].
    notes: Mutex<Vec<String>>,
}

/// The way out of a full disk.
const ROOM: &str = "`debforge store prune --to SIZE` makes room; DEBFORGE_STORE names a place on another disk";

/// The same in a machine.
const MORE: &str = "`--scratchsize SIZE` gives it a larger one";

/// Free bytes of a disk on which hardly anything can be written any more.
const NO_ROOM: u64 = 1 << 20;

/// The layout below [`Store::root`]; another layout stands beside it under another name.
const LAYOUT: &str = "v1";

/// Directories of the layout.
const DIRECTORIES: [&str; 16] = [
    "blobs/sha256",
    "blobs/sha512",
    "facts",
    "fresh",
    "locks",
    "machines",
    "outputs",
    "packages",
    "partial",
    "publications",
    "scratch",
    "sessions",
    "state",
    "trash",
    "trees",
    "validators",
];

/// Those of them with files of target systems.
const WITH_ROOTS: [&str; 3] = ["scratch", "trash", "trees"];

/// Lets nobody else into a directory: what is set-user-id in a system that is built, with whatever faults it has,
/// would be so for every user of this machine.
fn close(dir: &Path) -> std::io::Result<()> {
    let about = dir.metadata()?;
    if about.mode() & 0o077 == 0 || about.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

impl Store {
    /// `$DEBFORGE_STORE`, else `debforge` below the XDG cache directory.
    pub fn default_location() -> PathBuf {
        if let Some(path) = std::env::var_os("DEBFORGE_STORE").filter(|p| !p.is_empty()) {
            return path.into();
        }
        let cache = std::env::var_os("XDG_CACHE_HOME").filter(|p| !p.is_empty()).map(PathBuf::from);
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| "/root".into());
        cache.unwrap_or_else(|| home.join(".cache")).join("debforge")
    }

    /// Opens a store, making it where there is none, and removes what killed builds left in it.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_borrowing(root, None)
    }

    /// The same for the store of a machine that can be switched off at any moment: what it lacks is taken
    /// from the store at `lender`, which is only read, and what it seals is on the disk at once.
    pub fn open_borrowing(root: &Path, lender: Option<&Path>) -> Result<Self> {
        let base = root.join(LAYOUT);
        for dir in DIRECTORIES {
            let dir = base.join(dir);
            std::fs::create_dir_all(&dir).with_context(|| format!("making the store's {}", dir.display()))?;
        }
        for dir in WITH_ROOTS.map(|dir| base.join(dir)) {
            close(&dir).with_context(|| format!("closing the store's {} to others", dir.display()))?;
        }
        let root = root.canonicalize().with_context(|| format!("opening the store {}", root.display()))?;
        let base = root.join(LAYOUT);
        lock::sweep(&base.join("locks"));
        scratch::sweep(&base.join("scratch"));
        publication::sweep(&base.join("publications"));
        facts::forget_older(&base.join("fresh"), Duration::from_secs(3600));
        entry::empty_trash(&base.join("trash"));
        let inner = Inner {
            root,
            base,
            lender: lender.map(|lender| lender.join(LAYOUT)),
            opened: SystemTime::now(),
            used: AtomicU64::new(0),
            session: OnceLock::new(),
            fetcher: fetch::Fetcher::default(),
            digests: Mutex::new(None),
            proofs: Mutex::default(),
            notes: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it stands.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.inner.base.join(name)
    }

    /// Whether the machine may be switched off, so that what is done has to be on the disk.
    pub fn is_precarious(&self) -> bool {
        self.inner.lender.is_some()
    }

    /// A file that another store is willing to lend, by its path below the layout.
    fn lent(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = self.inner.lender.as_ref()?.join(path);
        path.is_file().then_some(path)
    }

    /// What people should know of the work of this store since they were last told: each a sentence.
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.inner.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, what: String) {
        self.inner.notes.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// The time to mark an entry as used with. Within a session it runs backwards in microseconds:
    /// builds use a layer before those on top of it, and those on top are to be evicted first.
    fn use_time(&self) -> SystemTime {
        let used = self.inner.used.fetch_add(1, Ordering::Relaxed);
        self.inner.opened - Duration::from_micros(used)
    }
}

impl Store {
    /// Writes a small file that is seen wholly or not at all.
    fn write_atomically(&self, path: &Path, contents: &[u8]) -> Result<()> {
        let fresh = self.dir("fresh").join(random_name());
        // What a recipe's properties and variables say is nobody else's.
        let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&fresh);
        let written = file.and_then(|mut file| file.write_all(contents)).and_then(|()| {
            make_way(path);
            std::fs::rename(&fresh, path)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        written.with_context(|| format!("writing {}", path.display())).map_err(|error| self.explain(error))
    }

    /// An error of work done in the store, with what a full disk has to do with it. Programs say it
    /// in words of their own, if at all, so the disk is asked too.
    pub fn explain_work(&self, error: anyhow::Error) -> anyhow::Error {
        let room =
            size::free_space(self.root()).map_or(true, |free| free >= NO_ROOM) && !size::lacks_inodes(self.root());
        if room && !is_disk_full(&error) {
            return error;
        }
        let mut fault = crate::diagnostics::fault_of(&error);
        let hint = match self.is_precarious() {
            true => format!("the machine's disk {}; {MORE}", size::full(self.root())),
            false => format!("the disk of the store {} {}; {ROOM}", self.root().display(), size::full(self.root())),
        };
        fault.hints.insert(0, hint);
        fault.into()
    }

    /// An error of writing to the store, with the way out where the disk is full.
    fn explain(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        let error: anyhow::Error = error.into();
        if !is_disk_full(&error) {
            return error;
        }
        if self.is_precarious() {
            return Fault::failed(format!("the machine's disk {}", size::full(self.root()))).hint(MORE).into();
        }
        let message = format!("the disk of the store {} {}", self.root().display(), size::full(self.root()));
        Fault::failed(message).hint(ROOM).into()
    }
}

/// Whether an error is that a disk has no room, or its quota is used up.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let kind = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<nix::errno::Errno>() {
        Some(errno) => Some(std::io::Error::from(*errno).kind()),
        None => cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
    };
    error.chain().filter_map(kind).any(|kind| matches!(kind, StorageFull | QuotaExceeded))
}

/// A short name that no other process or thread makes.
fn random_name() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{:x}-{random:016x}", std::process::id())
}
