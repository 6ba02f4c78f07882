//! Swap space, and files that are.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use debforge::image::FilesystemKind::{self, Btrfs, Ext2, Ext3, Ext4, Swap, Xfs};
use debforge::image::filesystem::Tree;
use rstest::rstest;

use super::{Making, UUID, contents, output, workshop};

/// A swap file that has nothing but its first page on the disk.
fn plant(path: &Path, length: u64) {
    File::create(path).unwrap().set_len(length).unwrap();
    output("mkswap", &["--uuid", UUID, path.to_str().unwrap()]);
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(fs::metadata(path).unwrap().blocks() * 512 < length);
}

#[rstest]
#[case(Ext2, "swap \"file\" of 'mine'")]
#[case(Ext3, "swapfile")]
#[case(Ext4, "swapfile")]
#[case(Xfs, "swapfile")]
fn a_swap_file_stays_allocated(#[case] kind: FilesystemKind, #[case] name: &str) {
    needs_program!("mkswap", "util-linux");
    needs_program!(if kind == Xfs { "mkfs.xfs" } else { "mke2fs" }, "e2fsprogs and xfsprogs");
    let directory = workshop();
    let sizes = [(name, 12 << 20), ("small", 64 << 10)];
    for (name, length) in sizes {
        plant(&directory.path().join(name), length);
    }
    fs::hard_link(directory.path().join("small"), directory.path().join("again")).unwrap();
    if kind == Xfs {
        fs::remove_file(directory.path().join("again")).unwrap();
    }
    let mut making = Making::of(kind, directory.path(), 0);
    making.length = making.minimum();
    let made = making.make().unwrap();
    assert!(made.bytes() == making.make().unwrap().bytes());
    if kind != Xfs {
        output("e2fsck", &["-f", "-n", made.alone().to_str().unwrap()]);
    }
    needs_root!();
    made.mounted(kind.fstab_type().unwrap(), |at| {
        for (name, length) in sizes {
            let meta = fs::metadata(at.join(name)).unwrap();
            assert_eq!((meta.len(), meta.mode() & 0o7777), (length, 0o600));
            assert!(meta.blocks() * 512 >= length, "{name} has {} of {length} bytes", meta.blocks() * 512);
            assert!(fs::read(at.join(name)).unwrap() == fs::read(directory.path().join(name)).unwrap());
        }
    });
}

#[test]
fn a_swap_file_that_would_be_of_no_use_is_refused() {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    let directory = workshop();
    plant(&directory.path().join("swapfile"), 1 << 20);
    let fault = Making::of(Btrfs, directory.path(), 256 << 20).fault();
    assert!(fault.contains("`/swapfile` is swap space") && fault.contains("strategy: mounted"), "{fault}");
}

#[test]
fn is_known_by_its_uuid() {
    needs_program!("mkswap", "util-linux");
    let making = Making { contents: contents(Swap), tree: Tree::default(), length: 10 << 20, sector_size: 512 };
    let made = making.make().unwrap();
    assert!(made.bytes() == making.make().unwrap().bytes());
    let report = output("blkid", &["-p", made.alone().to_str().unwrap()]);
    for expected in [&format!("UUID=\"{UUID}\""), "LABEL=\"FORGE\"", "TYPE=\"swap\""] {
        assert!(report.contains(expected), "{report}");
    }
    assert!(made.allocated() <= 4 << 10, "{} bytes on the disk", made.allocated());
}
