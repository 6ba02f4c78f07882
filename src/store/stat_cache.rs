//! Digests of files of the host, remembered by what `stat` says of them.
//!
//! All of it is one small file, read when first asked for and replaced when something is added.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use nix::sys::statfs::statfs;

use super::Store;

/// Name of the file, below the layout's directory.
const FILE: &str = "digests";
/// First bytes of the file; they change with the form of what follows: a digest of the rest, and the rest.
const MAGIC: &[u8; 8] = b"dfstat 2";
/// How many files are remembered.
const BOUND: usize = 100_000;
/// A file that was written to so shortly before it was read may be written to again within the
/// same tick of the file system's clock, and then looks the same.
const RACY: Duration = Duration::from_secs(2);
/// A use is noted again only so many days later, so that unchanged files cause no writing.
const USE_DAYS: u32 = 7;

/// What distinguishes a file's contents without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Stamp {
    pub(super) fn of(stat: &Metadata) -> Self {
        Self {
            device: stat.dev(),
            inode: stat.ino(),
            size: stat.size(),
            modified: (stat.mtime(), stat.mtime_nsec() as u32),
            changed: (stat.ctime(), stat.ctime_nsec() as u32),
        }
    }

    /// Whether the file was left alone for a while before this moment, by its own account.
    fn settled_at(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let limit = now.saturating_sub(RACY);
        let limit = (limit.as_secs() as i64, limit.subsec_nanos());
        self.modified < limit && self.changed < limit
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    stamp: Stamp,
    digest: [u8; 32],
    /// Days since 1970.
    used: u32,
}

/// Length of one file's record in the form of the cache.
const RECORD: usize = 8 * 3 + (8 + 4) * 2 + 4 + 32;

impl Known {
    fn write(&self, out: &mut Vec<u8>) {
        let stamp = &self.stamp;
        for number in [stamp.device, stamp.inode, stamp.size] {
            out.extend(number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [stamp.modified, stamp.changed] {
            out.extend(seconds.to_le_bytes());
            out.extend(nanoseconds.to_le_bytes());
        }
        out.extend(self.used.to_le_bytes());
        out.extend(self.digest);
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (head, tail) = bytes.split_first_chunk::<N>()?;
            *bytes = tail;
            Some(*head)
        }
        let bytes = &mut bytes;
        let mut number = || Some(u64::from_le_bytes(take(bytes)?));
        let (device, inode, size) = (number()?, number()?, number()?);
        let mut time = || Some((i64::from_le_bytes(take(bytes)?), u32::from_le_bytes(take(bytes)?)));
        let (modified, changed) = (time()?, time()?);
        let used = u32::from_le_bytes(take(bytes)?);
        Some(Self { stamp: Stamp { device, inode, size, modified, changed }, digest: take(bytes)?, used })
    }
}

/// File systems whose change times are this kernel's own, kept on disk and finer than a second or two: f_type as in
/// statfs(2). What others say of a file (those over a network, FAT, what a virtual machine shares) proves nothing.
const EXACT: [u32; 13] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // ZFS
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlay
    0x7371_7368, // SquashFS
    0xe0f5_e1e2, // EROFS
    0x3153_464a, // JFS
    0x0000_3434, // NILFS
];

/// The digests known, by device and inode.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    known: HashMap<(u64, u64), Known>,
    /// Whether the file system of a device is one of [`EXACT`].
    exact: HashMap<u64, bool>,
    dirty: bool,
}

impl StatCache {
    /// What is not such a file counts as an empty one.
    fn parse(bytes: &[u8]) -> Self {
        let rest = bytes.strip_prefix(MAGIC.as_slice()).and_then(|rest| rest.split_first_chunk::<32>());
        let whole = rest.filter(|(digest, records)| blake3::hash(records) == **digest);
        let records = whole.map(|(_, records)| records).unwrap_or_default();
        let known = records.chunks_exact(RECORD).filter_map(Known::read);
        Self { known: known.map(|known| ((known.stamp.device, known.stamp.inode), known)).collect(), ..Self::default() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut all: Vec<&Known> = self.known.values().collect();
        all.sort_unstable_by_key(|known| std::cmp::Reverse(known.used));
        let mut records = Vec::new();
        for known in all.into_iter().take(BOUND) {
            known.write(&mut records);
        }
        [MAGIC.as_slice(), blake3::hash(&records).as_bytes(), &records].concat()
    }

    /// Whether a file's stat data says if it was changed.
    pub(super) fn tells_changes(&mut self, path: &Path, stamp: &Stamp) -> bool {
        *self
            .exact
            .entry(stamp.device)
            .or_insert_with(|| statfs(path).is_ok_and(|stat| EXACT.contains(&(stat.filesystem_type().0 as u32))))
    }

    pub(super) fn get(&mut self, stamp: &Stamp) -> Option<[u8; 32]> {
        let known = self.known.get_mut(&(stamp.device, stamp.inode)).filter(|known| known.stamp == *stamp)?;
        if today() >= known.used + USE_DAYS {
            known.used = today();
            self.dirty = true;
        }
        Some(known.digest)
    }

    /// Remembers the digest of a file that looked so at the moment `now` before it was read.
    pub(super) fn insert(&mut self, stamp: Stamp, digest: [u8; 32], now: SystemTime) {
        if stamp.settled_at(now) {
            self.known.insert((stamp.device, stamp.inode), Known { stamp, digest, used: today() });
            self.dirty = true;
        }
    }
}

fn today() -> u32 {
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (age.as_secs() / 86400) as u32
}

impl Store {
    /// Works with the cache, read first where it has not been yet.
    pub(super) fn digests<T>(&self, work: impl FnOnce(&mut StatCache) -> T) -> T {
        let mut cache = self.inner.digests.lock().unwrap_or_else(PoisonError::into_inner);
        work(cache.get_or_insert_with(|| self.read_digests()))
    }

    fn read_digests(&self) -> StatCache {
        StatCache::parse(&std::fs::read(self.dir(FILE)).unwrap_or_default())
    }

    /// Writes the cache if there is anything new in it, with what other builds added meanwhile. Best effort.
    pub(super) fn save_digests(&self) {
        let bytes = self.digests(|cache| {
            if !std::mem::take(&mut cache.dirty) {
                return None;
            }
            for (key, known) in self.read_digests().known {
                cache.known.entry(key).or_insert(known);
            }
            Some(cache.to_bytes())
        });
        if let Some(bytes) = bytes
            && let Err(error) = self.write_atomically(&self.dir(FILE), &bytes)
        {
            tracing::debug!("{error:#}");
        }
    }

    /// Forgets all digests.
    pub(super) fn forget_digests(&self) {
        self.digests(|cache| *cache = StatCache::default());
        let _ = std::fs::remove_file(self.dir(FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64, time: i64) -> Stamp {
        Stamp { device: 1, inode, size: 5, modified: (time, 7), changed: (time, 8) }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut cache = StatCache::default();
        for inode in 0..100 {
            cache.insert(stamp(inode, 1000), [inode as u8; 32], at(5000));
        }
        let mut read = StatCache::parse(&cache.to_bytes());
        assert_eq!(read.known.len(), 100);
        assert_eq!(read.get(&stamp(42, 1000)), Some([42; 32]));
        assert_eq!(read.get(&stamp(42, 1001)), None);
        assert!(!read.dirty);
    }

    #[test]
    fn files_written_to_just_before_are_not_remembered() {
        for (written, remembered) in [(1000, true), (4997, true), (4998, false), (5000, false), (6000, false)] {
            let mut cache = StatCache::default();
            cache.insert(stamp(1, written), [1; 32], at(5000));
            assert_eq!(cache.get(&stamp(1, written)).is_some(), remembered, "{written}");
        }
    }

    #[test]
    fn times_count_where_a_file_system_keeps_them() {
        let mut cache = StatCache::default();
        let mut tells = |path: &str| {
            let stamp = Stamp::of(&std::fs::symlink_metadata(path).unwrap());
            cache.tells_changes(Path::new(path), &stamp)
        };
        assert!(tells(env!("CARGO_MANIFEST_DIR")));
        assert!(!tells("/proc/self/status"));
    }

    #[test]
    fn a_damaged_file_is_an_empty_one() {
        assert!(StatCache::parse(b"").known.is_empty());
        assert!(StatCache::parse(b"dfstat 0junk").known.is_empty());
        assert!(StatCache::parse(b"dfstat 2junk").known.is_empty());
        let mut cache = StatCache::default();
        let stamp = Stamp { device: 1, inode: 2, size: 3, modified: (4, 5), changed: (6, 7) };
        cache.insert(stamp, [9; 32], SystemTime::now());
        let whole = cache.to_bytes();
        assert_eq!(StatCache::parse(&whole).get(&stamp), Some([9; 32]));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(StatCache::parse(&bytes).known.is_empty(), "byte {at}");
            assert!(StatCache::parse(&whole[..at]).known.is_empty(), "the first {at}");
        }
    }
}
