//! XFS.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use debforge::image::FilesystemKind::Xfs;
use filetime::FileTime;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::tree::CAPABILITY;
use super::{EPOCH, Making, UUID, listing, output, same, same_twice_of, workshop};

const LENGTH: u64 = 320 << 20;

/// What mkfs.xfs can be told of.
fn plant(top: &Path, backwards: bool) {
    fs::create_dir_all(top.join("var/lib/dpkg/info")).unwrap();
    fs::create_dir_all(top.join("tmp")).unwrap();
    let mut numbers: Vec<u32> = (0..400).collect();
    if backwards {
        numbers.reverse();
    }
    for n in numbers {
        let path = top.join(format!("var/lib/dpkg/info/libc{n}:amd64.list"));
        fs::write(&path, vec![n as u8; n as usize * 50]).unwrap();
        lchown(&path, Some(n * 10_000_000), Some(n)).unwrap();
    }
    fs::write(top.join("su"), "su").unwrap();
    lchown(top.join("su"), Some(1), Some(u32::MAX - 1)).unwrap();
    fs::set_permissions(top.join("su"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(top.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("../lib/x", top.join("var/link")).unwrap();
    mknod(&top.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3)).unwrap();
    nix::unistd::mkfifo(&top.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::set_permissions(top, fs::Permissions::from_mode(0o711)).unwrap();
    for entry in walkdir::WalkDir::new(top).contents_first(true) {
        let path = entry.unwrap().into_path();
        let seconds = if path.ends_with("su") { EPOCH + 9 } else { 1_500_000_000 };
        let date = FileTime::from_unix_time(seconds, 0);
        filetime::set_symlink_file_times(&path, date, date).unwrap();
    }
}

#[test]
fn holds_the_tree() {
    needs_program!("mkfs.xfs", "xfsprogs");
    needs_root!();
    let made = same_twice_of(plant, |top| Making::of(Xfs, top, LENGTH));
    let alone = made.alone();
    output("xfs_repair", &["-n", "-f", alone.to_str().unwrap()]);
    let about = output("blkid", &["-p", alone.to_str().unwrap()]);
    assert!(about.contains(UUID) && about.contains("FORGE"), "{about}");
    let directory = workshop();
    plant(directory.path(), false);
    made.mounted("xfs", |at| same(&listing(directory.path()), &listing(at)));
    assert!(made.allocated() < 8 << 20, "{} bytes on the disk", made.allocated());
}

#[test]
fn fits_into_its_minimum() {
    needs_program!("mkfs.xfs", "xfsprogs");
    let directory = workshop();
    for n in 0..100 {
        fs::write(directory.path().join(format!("data-{n}")), vec![7; 3_000_000]).unwrap();
    }
    let mut making = Making::of(Xfs, directory.path(), 0);
    making.sector_size = 4096;
    making.length = making.minimum();
    let made = making.make().unwrap();
    output("xfs_repair", &["-n", "-f", made.alone().to_str().unwrap()]);
    making.length = 310 << 20;
    assert!(making.fault().contains("the contents need"), "{}", making.fault());
}

#[test]
fn a_damaged_one_is_not_handed_out() {
    needs_program!("mkfs.xfs", "xfsprogs");
    let directory = workshop();
    fs::write(directory.path().join("data"), vec![7; 150_000_000]).unwrap();
    match Making::of(Xfs, directory.path(), LENGTH).make() {
        // A version that writes it right.
        Ok(made) => drop(output("xfs_repair", &["-n", "-f", made.alone().to_str().unwrap()])),
        Err(error) => assert!(format!("{error:#}").contains("mkfs.xfs has damaged it"), "{error:#}"),
    }
}

#[test]
fn says_what_it_cannot_hold() {
    needs_program!("mkfs.xfs", "xfsprogs");
    needs_root!();
    let directory = workshop();
    let at = |name: &str| directory.path().join(name);
    for name in ["capability", "hard", "space"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("capability/ping"), "").unwrap();
    xattr::set(at("capability/ping"), "security.capability", &hex::decode(CAPABILITY).unwrap()).unwrap();
    fs::write(at("hard/perl"), "").unwrap();
    fs::hard_link(at("hard/perl"), at("hard/perl5.40.1")).unwrap();
    fs::write(at("space/a name"), "").unwrap();
    let all = ["capability", "hard", "space"].map(|name| Making::of(Xfs, &at(name), LENGTH).fault()).join("\n\n");
    insta::assert_snapshot!(all, @r"
    making the file system `root`: `/ping` cannot be on an XFS that is made without a device: it has the attribute security.capability
    hint: `strategy: mounted` fills XFS through the kernel; ext4 and erofs keep everything offline too

    making the file system `root`: `/perl5.40.1` cannot be on an XFS that is made without a device: it is a hard link to another file
    hint: `strategy: mounted` fills XFS through the kernel; ext4 and erofs keep everything offline too

    making the file system `root`: `/a name` cannot be on an XFS that is made without a device: its name has a space
    hint: `strategy: mounted` fills XFS through the kernel; ext4 and erofs keep everything offline too
    ");
}
