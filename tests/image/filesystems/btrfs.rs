//! Btrfs.

use std::fs;
use std::path::Path;

use debforge::image::FilesystemKind::Btrfs;
use rstest::rstest;

use super::{Making, UUID, grow, listing, output, same, same_twice_of, workshop};

const LENGTH: u64 = 256 << 20;

/// Whether the installed mkfs.btrfs knows hard links and subvolumes.
fn is_new() -> bool {
    let help = std::process::Command::new("mkfs.btrfs").arg("--help").output().unwrap();
    [help.stdout, help.stderr].iter().any(|said| String::from_utf8_lossy(said).contains("--subvol"))
}

/// What the installed mkfs.btrfs can be told of.
fn plant(top: &Path, backwards: bool) {
    grow(top, backwards);
    let links = ["many/zz-hard", "many/zz \"short\"", "many/zz-long", "etc/long"];
    for name in links.into_iter().filter(|_| !is_new()).chain(["dev/null", "dev/sda"]) {
        fs::remove_file(top.join(name)).unwrap();
    }
    let date = filetime::FileTime::from_unix_time(1_600_000_000, 0);
    for entry in walkdir::WalkDir::new(top).contents_first(true) {
        filetime::set_symlink_file_times(entry.unwrap().path(), date, date).unwrap();
    }
}

#[rstest]
#[case(None)]
#[case(Some("zstd:3"))]
fn holds_the_tree_and_nothing_of_its_host(#[case] compression: Option<&str>) {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    needs_root!();
    let made = same_twice_of(plant, |top| {
        let mut making = Making::of(Btrfs, top, LENGTH);
        making.contents.compression = compression.map(String::from);
        making
    });
    let alone = made.alone();
    output("btrfs", &["check", "--check-data-csum", alone.to_str().unwrap()]);
    let about = output("blkid", &["-p", alone.to_str().unwrap()]);
    assert!(about.contains(UUID) && about.contains("FORGE"), "{about}");
    let directory = workshop();
    plant(directory.path(), false);
    made.mounted("btrfs", |at| same(&listing(directory.path()), &listing(at)));
    assert!(made.allocated() < 30 << 20, "{} bytes on the disk", made.allocated());
}

#[test]
fn holds_subvolumes_and_nothing_of_its_host() {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    needs_root!();
    if !is_new() {
        skip!("this mkfs.btrfs makes no subvolumes");
    }
    let names = ["many", "etc", "usr", "many/deep"];
    let made = same_twice_of(plant, |top| {
        let mut making = Making::of(Btrfs, top, LENGTH);
        making.contents.subvolumes = names.map(String::from).into();
        making.tree.subvolumes = names.map(|name| (name.to_owned(), name.into())).into();
        making
    });
    let alone = made.alone();
    output("btrfs", &["check", "--check-data-csum", alone.to_str().unwrap()]);
    let roots = output("btrfs", &["inspect-internal", "dump-tree", "-t", "uuid", alone.to_str().unwrap()]);
    assert_eq!(roots.matches("UUID_KEY_SUBVOL").count(), names.len() + 1, "{roots}");
}

#[test]
fn a_tree_of_an_ordinary_user_makes_the_same() {
    needs_program!("mkfs.btrfs", "btrfs-progs");
    // Files of many directories, whose order no two file systems share.
    let sow = |top: &Path, backwards: bool| {
        let mut names: Vec<String> = (0..900).map(|n| format!("{}/{n:x}", n * 7 % 31)).collect();
        if backwards {
            names.reverse();
        }
        for name in &names {
            let path = top.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name.repeat(name.len() * 40)).unwrap();
        }
        let date = filetime::FileTime::from_unix_time(1_600_000_000, 0);
        for entry in walkdir::WalkDir::new(top).contents_first(true) {
            filetime::set_file_mtime(entry.unwrap().path(), date).unwrap();
        }
    };
    let made = same_twice_of(sow, |top| Making::of(Btrfs, top, LENGTH));
    output("btrfs", &["check", "--check-data-csum", made.alone().to_str().unwrap()]);
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
    if is_new() {
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
