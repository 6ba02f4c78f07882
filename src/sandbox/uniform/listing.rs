//! A directory that a command reads, its names in the order of their bytes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;

use super::inodes::Inodes;

/// Bytes of a `struct linux_dirent64` before its name (getdents(2)).
const HEADER: usize = 19;
/// What each of them begins at a multiple of.
const ALIGNMENT: usize = 8;

/// An open directory and how far it was read.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<Entry>,
    next: usize,
}

#[derive(Debug)]
struct Entry {
    name: OsString,
    number: u64,
    kind: u8,
}

impl Listing {
    /// Reads a directory whole.
    pub(super) fn read(directory: &Path, inodes: &mut Inodes) -> io::Result<Self> {
        let mut found = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        found.sort_by_key(fs::DirEntry::file_name);
        let top = fs::metadata(directory)?;
        let own = inodes.number(top.dev(), top.ino());
        let mut entries: Vec<Entry> =
            [".", ".."].map(|name| Entry { name: name.into(), number: own, kind: libc::DT_DIR }).into();
        for entry in found {
            let about = entry.metadata()?;
            let number = inodes.number(about.dev(), about.ino());
            entries.push(Entry { name: entry.file_name(), number, kind: kind(about.file_type()) });
        }
        Ok(Self { entries, next: 0 })
    }

    /// The next entries as getdents64(2) has them, as many as fit; none at the end.
    pub(super) fn fill(&mut self, room: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        while let Some(entry) = self.entries.get(self.next) {
            let name = entry.name.as_bytes();
            let length = (HEADER + name.len() + 1).next_multiple_of(ALIGNMENT);
            if bytes.len() + length > room {
                break;
            }
            self.next += 1;
            let end = bytes.len() + length;
            bytes.extend(entry.number.to_ne_bytes());
            bytes.extend((self.next as u64).to_ne_bytes());
            bytes.extend((length as u16).to_ne_bytes());
            bytes.push(entry.kind);
            bytes.extend(name);
            bytes.resize(end, 0);
        }
        match bytes.is_empty() && self.next < self.entries.len() {
            true => Err(Errno::EINVAL),
            false => Ok(bytes),
        }
    }

    /// Goes to a place that [`Listing::fill`] gave, or to the start; where it is then.
    pub(super) fn seek(&mut self, offset: i64, whence: i32) -> Result<i64, Errno> {
        match (whence, usize::try_from(offset)) {
            (libc::SEEK_SET, Ok(next)) => self.next = next.min(self.entries.len()),
            (libc::SEEK_CUR, Ok(0)) => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(self.next as i64)
    }
}

fn kind(about: fs::FileType) -> u8 {
    match about {
        _ if about.is_dir() => libc::DT_DIR,
        _ if about.is_symlink() => libc::DT_LNK,
        _ if about.is_char_device() => libc::DT_CHR,
        _ if about.is_block_device() => libc::DT_BLK,
        _ if about.is_fifo() => libc::DT_FIFO,
        _ if about.is_socket() => libc::DT_SOCK,
        _ => libc::DT_REG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_sorted_in_pieces_and_again_from_any_place() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["zebra", "alpha", "Beta", "a name that is longer than others"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let mut listing = Listing::read(dir.path(), &mut Inodes::default()).unwrap();
        let names = |bytes: &[u8]| {
            let mut names = Vec::new();
            let mut rest = bytes;
            while !rest.is_empty() {
                let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
                let name = rest[HEADER..length].split(|byte| *byte == 0).next().unwrap();
                names.push(String::from_utf8(name.to_vec()).unwrap());
                rest = &rest[length..];
            }
            names
        };
        assert_eq!(names(&listing.fill(80).unwrap()), [".", "..", "Beta"]);
        let place = listing.seek(0, libc::SEEK_CUR).unwrap();
        let rest = ["a name that is longer than others", "alpha", "zebra"];
        assert_eq!(names(&listing.fill(1000).unwrap()), rest);
        assert!(listing.fill(1000).unwrap().is_empty());
        listing.seek(place, libc::SEEK_SET).unwrap();
        assert_eq!(listing.fill(20), Err(Errno::EINVAL));
        assert_eq!(names(&listing.fill(1000).unwrap()), rest);
    }
}
