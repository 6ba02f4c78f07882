//! What is told of files: what belongs to them, and nothing of the file system that they lie on.

use std::collections::HashMap;

/// The first number, of the tree's top. Btrfs's own first one, so that mkfs.btrfs, which before version
/// 6.12 takes these for its own, can have them as they are.
const FIRST: u64 = 256;
/// The device of all files of a tree, which may lie on several.
const DEVICE: (u32, u32) = (0, 1);
/// Size of any directory, and of a block.
const BLOCK: u32 = 4096;
/// What sizes are counted in (stat(2)).
const UNIT: u64 = 512;

/// Numbers of files in the order of their first sight; hard links share one.
#[derive(Debug, Default)]
pub(super) struct Inodes {
    known: HashMap<(u64, u64), u64>,
}

impl Inodes {
    /// The number of a file with this device and number on the host.
    pub(super) fn number(&mut self, device: u64, inode: u64) -> u64 {
        let next = FIRST + self.known.len() as u64;
        *self.known.entry((device, inode)).or_insert(next)
    }

    /// Takes the host out of what stat(2) said.
    pub(super) fn settle(&mut self, about: &mut libc::stat) {
        about.st_ino = self.number(about.st_dev, about.st_ino);
        about.st_dev = nix::sys::stat::makedev(DEVICE.0.into(), DEVICE.1.into());
        if about.st_mode & libc::S_IFMT == libc::S_IFDIR {
            about.st_nlink = 1;
            about.st_size = BLOCK.into();
        }
        about.st_blksize = BLOCK as _;
        about.st_blocks = blocks(about.st_size as u64) as _;
        (about.st_atime, about.st_atime_nsec) = (about.st_mtime, about.st_mtime_nsec);
        (about.st_ctime, about.st_ctime_nsec) = (about.st_mtime, about.st_mtime_nsec);
    }

    /// Takes the host out of what statx(2) said.
    pub(super) fn settle_extended(&mut self, about: &mut libc::statx) {
        let device = nix::sys::stat::makedev(about.stx_dev_major.into(), about.stx_dev_minor.into());
        about.stx_ino = self.number(device, about.stx_ino);
        (about.stx_dev_major, about.stx_dev_minor) = DEVICE;
        if u32::from(about.stx_mode) & libc::S_IFMT == libc::S_IFDIR {
            about.stx_nlink = 1;
            about.stx_size = BLOCK.into();
        }
        about.stx_blksize = BLOCK;
        about.stx_blocks = blocks(about.stx_size);
        (about.stx_attributes, about.stx_attributes_mask) = (0, 0);
        (about.stx_atime, about.stx_ctime, about.stx_btime) = (about.stx_mtime, about.stx_mtime, about.stx_mtime);
    }
}

fn blocks(size: u64) -> u64 {
    size.next_multiple_of(BLOCK.into()) / UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_as_they_are_seen_and_links_share_a_number() {
        let mut inodes = Inodes::default();
        let numbers = [(1, 9), (1, 5), (2, 9), (1, 9)].map(|(device, inode)| inodes.number(device, inode));
        assert_eq!(numbers, [256, 257, 258, 256]);
    }
}
