//! ext2, ext3, ext4.

use std::fs;
use std::path::Path;

use debforge::image::FilesystemKind::{self, Ext2, Ext3, Ext4};
use rstest::rstest;

use super::{EPOCH, Making, UUID, grow, listing, output, same, same_twice, same_twice_of, workshop};

const LENGTH: u64 = 48 << 20;

#[rstest]
#[case(Ext2)]
#[case(Ext3)]
#[case(Ext4)]
fn holds_the_tree(#[case] kind: FilesystemKind) {
    needs_program!("mke2fs", "e2fsprogs");
    let made = same_twice(|top| Making::of(kind, top, LENGTH));
    let alone = made.alone();
    let path = alone.to_str().unwrap();
    output("e2fsck", &["-f", "-n", path]);
    let about = output("dumpe2fs", &["-h", path]);
    for expected in [format!("Filesystem UUID:          {UUID}"), "Filesystem volume name:   FORGE".into()] {
        assert!(about.contains(&expected), "{about}");
    }
    assert_eq!(about.contains("has_journal"), kind != Ext2, "{about}");
    let directory = workshop();
    grow(directory.path(), false);
    let expected = listing(directory.path());
    needs_root!();
    made.mounted(kind.fstab_type().unwrap(), |at| {
        same(&expected, &listing(at));
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(at.join("var/sparse")).unwrap();
        assert!(meta.blocks() * 512 < 200_000, "the sparse file takes {} blocks", meta.blocks());
        for entry in walkdir::WalkDir::new(at) {
            let meta = entry.unwrap().path().symlink_metadata().unwrap();
            assert!(meta.ctime() <= EPOCH && meta.atime() <= EPOCH);
        }
    });
}

#[rstest]
#[case("bigalloc")]
#[case("casefold")]
#[case("inline_data")]
fn holds_the_tree_with_other_features(#[case] feature: &str) {
    needs_program!("mke2fs", "e2fsprogs");
    let made = same_twice(|top| {
        let mut making = Making::of(Ext4, top, LENGTH);
        making.contents.features.push(feature.into());
        making.contents.mkfs_options.push("-b4096".into());
        making
    });
    output("e2fsck", &["-f", "-n", made.alone().to_str().unwrap()]);
}

#[test]
fn attributes_that_an_inode_has_no_room_for_come_in_one_order() {
    needs_program!("mke2fs", "e2fsprogs");
    let plant = |top: &Path, backwards: bool| {
        fs::create_dir_all(top).unwrap();
        let path = top.join("file");
        fs::write(&path, "x").unwrap();
        let mut names = ["user.a", "user.b", "user.c"];
        if backwards {
            names.reverse();
        }
        names.iter().for_each(|name| xattr::set(&path, name, &[b'x'; 60]).unwrap());
        for entry in [path.as_path(), top] {
            filetime::set_file_mtime(entry, filetime::FileTime::from_unix_time(1_500_000_000, 0)).unwrap();
        }
    };
    let made = same_twice_of(plant, |top| Making::of(Ext4, top, LENGTH));
    output("e2fsck", &["-f", "-n", made.alone().to_str().unwrap()]);
}

#[test]
fn keeps_what_chattr_has_set() {
    needs_program!("mke2fs", "e2fsprogs");
    let directory = workshop();
    for (flags, name) in [("+A", "no dates"), ("+dS", "file")] {
        let path = directory.path().join(name);
        fs::write(&path, name).unwrap();
        let status = std::process::Command::new("chattr").arg(flags).arg(&path).status();
        if !status.is_ok_and(|status| status.success()) {
            skip!("needs a file system with the flags of chattr");
        }
    }
    fs::create_dir(directory.path().join("dir")).unwrap();
    output("chattr", &["+D", directory.path().join("dir").to_str().unwrap()]);
    let making = Making::of(Ext4, directory.path(), LENGTH);
    let made = making.make().unwrap();
    let alone = made.alone();
    let alone = alone.to_str().unwrap();
    output("e2fsck", &["-f", "-n", alone]);
    for (name, flags) in [("no dates", "0x80080"), ("file", "0x80048"), ("dir", "0x90000"), ("lost+found", "0x80000")] {
        let said = output("debugfs", &["-R", &format!("stat \"/{name}\""), alone]);
        assert!(said.contains(&format!("Flags: {flags}\n")), "{name}: {said}");
    }
}

#[test]
fn takes_no_more_of_the_disk_than_it_holds() {
    needs_program!("mke2fs", "e2fsprogs");
    let directory = workshop();
    let bytes: Vec<u8> = (0..40_u64 << 20).map(|n| ((n * 7) >> 3) as u8 | 1).collect();
    fs::write(directory.path().join("data"), &bytes).unwrap();
    let made = Making::of(Ext4, directory.path(), 1 << 30).make().unwrap();
    let allocated = made.allocated();
    assert!(allocated < bytes.len() as u64 * 105 / 100, "{allocated} bytes for {}", bytes.len());
}

#[rstest]
#[case(Ext2, &[], 512)]
#[case(Ext4, &[], 512)]
#[case(Ext4, &["-m", "0"], 512)]
#[case(Ext4, &["-b4096"], 512)]
#[case(Ext4, &[], 4096)]
fn fits_into_its_minimum(#[case] kind: FilesystemKind, #[case] options: &[&str], #[case] sector_size: u32) {
    needs_program!("mke2fs", "e2fsprogs");
    let directory = workshop();
    grow(directory.path(), false);
    for extra in 0..4 {
        let bytes: Vec<u8> = (0..17_u64 << 20).map(|n| ((n * 3) >> 2) as u8 | 1).collect();
        fs::write(directory.path().join(format!("extra-{extra}")), &bytes).unwrap();
        let mut making = Making::of(kind, directory.path(), 0);
        making.contents.mkfs_options = options.iter().map(ToString::to_string).collect();
        making.sector_size = sector_size;
        making.length = making.minimum();
        let made = making.make().unwrap();
        let alone = made.alone();
        output("e2fsck", &["-f", "-n", alone.to_str().unwrap()]);
        // Whatever is free is little.
        let about = output("dumpe2fs", &["-h", alone.to_str().unwrap()]);
        let number = |name: &str| -> u64 {
            let line = about.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().last().unwrap().parse().unwrap()
        };
        let spare = (number("Free blocks:") - number("Reserved block count:")) * number("Block size:");
        assert!(spare < making.length / 20 + (2 << 20), "{spare} of {} bytes are free", making.length);
        // And not much smaller would do.
        making.length = making.length / 100 * 88 / 4096 * 4096;
        let fault = making.fault();
        assert!(fault.contains("the contents need"), "{fault}");
    }
}

#[test]
fn says_what_it_needs() {
    needs_program!("mke2fs", "e2fsprogs");
    let directory = workshop();
    fs::write(directory.path().join("data"), vec![1; 20_000_000]).unwrap();
    insta::assert_snapshot!(Making::of(Ext4, directory.path(), 16 << 20).fault(), @r"
    making the file system `root`: the contents need 23 MB, the partition has 17 MB
    hint: make `root` larger, or as large as its contents: `imagesize: auto` of an image with partitions, `size: auto` of one without
    ");
}

#[test]
fn has_inodes_for_many_small_files() {
    needs_program!("mke2fs", "e2fsprogs");
    let directory = workshop();
    for n in 0..3000 {
        fs::write(directory.path().join(n.to_string()), "").unwrap();
    }
    let made = Making::of(Ext4, directory.path(), 34 << 20).make().unwrap();
    output("e2fsck", &["-f", "-n", made.alone().to_str().unwrap()]);
}

#[test]
fn leaves_out_what_lies_elsewhere() {
    needs_program!("mke2fs", "e2fsprogs");
    needs_root!();
    let directory = workshop();
    let top = directory.path().join("tree");
    grow(&top, false);
    let instead = directory.path().join("instead");
    fs::write(&instead, "another\n").unwrap();
    let mut making = Making::of(Ext4, &top, LENGTH);
    making.tree.hidden = vec!["many".into()];
    making.tree.replaced = vec![("etc/hostname".into(), instead)];
    let made = making.make().unwrap();
    let path = made.alone();
    let path = path.to_str().unwrap();
    let lines = output("debugfs", &["-R", "ls -p /many", path]);
    assert_eq!(lines.lines().filter(|line| line.starts_with('/')).count(), 2, "{lines}");
    assert!(output("debugfs", &["-R", "cat /etc/hostname", path]).contains("another"));
    assert!(
        making.minimum() < {
            making.tree.hidden.clear();
            making.minimum()
        }
    );
}
