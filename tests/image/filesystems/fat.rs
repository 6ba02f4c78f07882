//! FAT12, FAT16, FAT32.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use debforge::image::FilesystemKind::{self, Fat12, Fat16, Fat32};
use filetime::FileTime;
use rstest::rstest;

use super::{EPOCH, Made, Making, output, workshop};

/// A boot partition's tree.
fn plant(top: &Path, backwards: bool) {
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("EFI/BOOT/BOOTX64.EFI".into(), b"MZ".repeat(50_000)),
        ("EFI/debian/grub.cfg".into(), b"set x\n".to_vec()),
        ("config.txt".into(), b"arm_64bit=1\n".to_vec()),
        ("a long name, with späces.dtb".into(), vec![3; 70_001]),
        ("overlays/ελ.dtbo".into(), vec![4; 10]),
        ("empty".into(), Vec::new()),
    ];
    files.extend((0..200).map(|n| (format!("overlays/overlay-number-{n}.dtbo"), vec![n as u8; n * 37])));
    if backwards {
        files.reverse();
    }
    for (name, bytes) in &files {
        let path = top.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    for entry in walkdir::WalkDir::new(top).contents_first(true) {
        let path = entry.unwrap().into_path();
        let seconds = if path.ends_with("config.txt") { EPOCH + 99 } else { 1_500_000_000 };
        filetime::set_file_mtime(&path, FileTime::from_unix_time(seconds, 0)).unwrap();
    }
}

fn made_twice(kind: FilesystemKind, length: u64, sector_size: u32) -> (tempfile::TempDir, Made) {
    let directory = workshop();
    let [first, second] = [false, true].map(|backwards| {
        let top = directory.path().join(backwards.to_string());
        plant(&top, backwards);
        let mut making = Making::of(kind, &top, length);
        making.sector_size = sector_size;
        making.make().unwrap()
    });
    assert!(first.bytes() == second.bytes(), "they differ");
    (directory, first)
}

#[rstest]
#[case(Fat12, 3 << 20, 512)]
#[case(Fat16, 20 << 20, 512)]
#[case(Fat32, 64 << 20, 512)]
#[case(Fat32, 8 << 20, 512)]
#[case(Fat32, 300 << 20, 4096)]
fn holds_the_tree(#[case] kind: FilesystemKind, #[case] length: u64, #[case] sector_size: u32) {
    needs_program!("mkfs.vfat", "dosfstools");
    let (directory, made) = made_twice(kind, length, sector_size);
    let alone = made.alone();
    let path = alone.to_str().unwrap();
    let report = output("fsck.vfat", &["-n", "-v", path]);
    assert!(!report.contains("wrong") && !report.contains("differ"), "{report}");
    let bits = format!("{kind:?}").replace("Fat", "");
    assert!(report.contains(&format!("{bits} bit entries")), "{report}");
    if length == 8 << 20 {
        // mtools takes a FAT32 with so few clusters for a FAT16.
        return;
    }
    needs_program!("mcopy", "mtools");
    let back = directory.path().join("back");
    fs::create_dir(&back).unwrap();
    output("mcopy", &["-s", "-m", "-n", "-i", path, "::*", back.to_str().unwrap()]);
    let lines = |top: &Path| -> Vec<String> {
        let entries = walkdir::WalkDir::new(top).min_depth(1).sort_by_file_name().into_iter();
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                let hash = meta.is_file().then(|| blake3::hash(&fs::read(entry.path()).unwrap()).to_hex());
                format!("{} {hash:?}", entry.path().strip_prefix(top).unwrap().display())
            })
            .collect()
    };
    assert_eq!(lines(&directory.path().join("false")), lines(&back));
    let listed = output("mdir", &["-i", path, "-/", "-a", "::"]);
    assert!(listed.contains("Volume in drive : is FORGE") && listed.contains("DEAD-BEEF"), "{listed}");
    let line = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("GRUB     CFG").contains("2017-07-14   2:40"), "{listed}");
    assert!(line("CONFIG   TXT").contains("2024-01-01   0:00"), "{listed}");
    assert!(line("<DIR>").contains("2017-07-14   2:40"), "{listed}");
    let allocated = made.allocated();
    assert!(allocated < 3_000_000, "{allocated} bytes on the disk");
}

#[test]
fn a_root_directory_of_fixed_size_is_made_larger() {
    needs_program!("mkfs.vfat", "dosfstools");
    let directory = workshop();
    for n in 0..400 {
        fs::write(directory.path().join(format!("overlay number {n}.dtbo")), "x").unwrap();
    }
    let made = Making::of(Fat16, directory.path(), 20 << 20).make().unwrap();
    output("fsck.vfat", &["-n", made.alone().to_str().unwrap()]);
}

#[rstest]
#[case(Fat12)]
#[case(Fat16)]
#[case(Fat32)]
fn fits_into_its_minimum(#[case] kind: FilesystemKind) {
    needs_program!("mkfs.vfat", "dosfstools");
    let directory = workshop();
    plant(directory.path(), false);
    for extra in 0..3 {
        let mut making = Making::of(kind, directory.path(), 0);
        making.length = making.minimum();
        let made = making.make().unwrap();
        output("fsck.vfat", &["-n", made.alone().to_str().unwrap()]);
        let larger = if kind == Fat12 { 900_000 } else { 23 << 20 };
        fs::write(directory.path().join(format!("extra-{extra}")), vec![1; larger]).unwrap();
    }
}

#[test]
fn says_what_it_cannot_hold() {
    needs_program!("mkfs.vfat", "dosfstools");
    let directory = workshop();
    let fault = |name: &str| {
        let top = directory.path().join(name);
        Making::of(Fat32, &top, 40 << 20).fault()
    };
    let at = |name: &str| directory.path().join(name);
    for top in ["link", "colon", "case", "large", "full"] {
        fs::create_dir_all(at(top).join("dir")).unwrap();
    }
    symlink("a", at("link/dir/b")).unwrap();
    fs::write(at("colon/dir/a:b"), "").unwrap();
    fs::write(at("case/dir/readme"), "").unwrap();
    fs::write(at("case/dir/README"), "").unwrap();
    fs::File::create(at("large/dir/huge")).unwrap().set_len(4 << 30).unwrap();
    fs::File::create(at("full/dir/large")).unwrap().set_len(50_000_000).unwrap();
    let all = ["link", "colon", "case", "large", "full"].map(fault).join("\n\n");
    insta::assert_snapshot!(all, @r"
    making the file system `root`: `/dir/b` cannot be on FAT: FAT has no symbolic links
    hint: remove or rename the file in a step before, or use another file system for that directory

    making the file system `root`: `/dir/a:b` cannot be on FAT: names on FAT have no ':'
    hint: remove or rename the file in a step before, or use another file system for that directory

    making the file system `root`: `/dir/README` and `/dir/readme` cannot both be on FAT, to which they are one name
    hint: remove or rename one of them in a step before

    making the file system `root`: `/dir/huge` cannot be on FAT: files on FAT are smaller than 4 GiB
    hint: remove or rename the file in a step before, or use another file system for that directory

    making the file system `root`: the contents need 51 MB, the partition has 42 MB
    hint: make `root` larger, or as large as its contents: `imagesize: auto` of an image with partitions, `size: auto` of one without
    ");
}

#[test]
fn an_open_kind_is_the_one_that_mkfs_chooses() {
    needs_program!("mkfs.vfat", "dosfstools");
    let directory = workshop();
    let path = directory.path().join("fat");
    for size in [1, 7, 8, 9, 32, 100, 511, 512, 600].map(|mib| mib << 20) {
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        output("mkfs.vfat", &[path.to_str().unwrap()]);
        let report = output("fsck.vfat", &["-n", "-v", path.to_str().unwrap()]);
        let bits = format!("{:?}", debforge::image::filesystem::fat_for(size)).replace("Fat", "");
        assert!(report.contains(&format!("{bits} bit entries")), "{size}: {report}");
    }
}
