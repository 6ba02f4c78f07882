//! Btrfs.

use std::fs;
use std::path::Path;

use debforge::image::FilesystemKind::Btrfs;

use super::{Making, UUID, grow, listing, output, same, workshop};

const LENGTH: u64 = 256 << 20;

/// What every mkfs.btrfs can be told of.
fn plant(top: &Path) {
    grow(top, false);
    for name in ["many/zz-hard", "etc/long", "dev/null", "dev/sda"] {
        fs::remove_file(top.join(name)).unwrap();
    }
    let date = filetime::FileTime::from_unix_time(1_600_000_000, 0);
    for entry in walkdir::WalkDir::new(top).contents_first(true) {
        filetime::set_symlink_file_times(entry.unwrap().path(), date, date).unwrap();
    }
}

#[test]
fn holds_the_tree() {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    needs_root!();
    let directory = workshop();
    plant(directory.path());
    let mut making = Making::of(Btrfs, directory.path(), LENGTH);
    making.contents.compression = Some("zstd:3".into());
    let made = making.make().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (first, second) = (made.bytes(), making.make().unwrap().bytes());
    let different = first.iter().zip(&second).position(|(a, b)| a != b);
    assert_eq!(different.map(|at| format!("{at:#x}")), None, "bytes differ from here");
    let alone = made.alone();
    output("btrfs", &["check", "--check-data-csum", alone.to_str().unwrap()]);
    let about = output("blkid", &["-p", alone.to_str().unwrap()]);
    assert!(about.contains(UUID) && about.contains("FORGE"), "{about}");
    made.mounted("btrfs", |at| same(&listing(directory.path()), &listing(at)));
    assert!(made.allocated() < 30 << 20, "{} bytes on the disk", made.allocated());
}

#[test]
fn fits_into_its_minimum() {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    let directory = workshop();
    for n in 0..300 {
        fs::write(directory.path().join(format!("small-{n}")), vec![1; n * 100]).unwrap();
        fs::write(directory.path().join(format!("large-{n}")), vec![7; 1_000_000]).unwrap();
    }
    let mut making = Making::of(Btrfs, directory.path(), 0);
    making.length = making.minimum();
    let made = making.make().unwrap();
    output("btrfs", &["check", made.alone().to_str().unwrap()]);
    making.length = 300 << 20;
    assert!(making.fault().contains("the contents need"), "{}", making.fault());
}

#[test]
fn says_what_an_old_one_cannot_hold() {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    let help = std::process::Command::new("mkfs.btrfs").arg("--help").output().unwrap();
    if [help.stdout, help.stderr].iter().any(|said| String::from_utf8_lossy(said).contains("--subvol")) {
        skip!("this mkfs.btrfs knows hard links and subvolumes");
    }
    let directory = workshop();
    fs::write(directory.path().join("perl"), "").unwrap();
    fs::hard_link(directory.path().join("perl"), directory.path().join("perl5.40.1")).unwrap();
    let mut making = Making::of(Btrfs, directory.path(), LENGTH);
    let links = making.fault();
    making.contents.subvolumes = vec!["@home".into()];
    insta::assert_snapshot!(format!("{links}\n\n{}", making.fault()), @r"
    making the file system `root`: `/perl5.40.1` is a hard link, of which the installed mkfs.btrfs makes a damaged file
    hint: btrfs-progs 6.12 and newer can (Debian 13)
    hint: `strategy: mounted` fills btrfs through the kernel

    making the file system `root`: the installed mkfs.btrfs cannot make the subvolume `@home`
    hint: btrfs-progs 6.12 and newer can (Debian 13)
    hint: `strategy: mounted` fills btrfs through the kernel
    ");
}
