//! F2FS.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

use debforge::image::FilesystemKind::F2fs;

use super::{EPOCH, Making, grow, output, same_twice_of, workshop};

const LENGTH: u64 = 128 << 20;

/// What sload.f2fs can be told of.
fn plant(top: &Path, backwards: bool) {
    grow(top, backwards);
    let date = filetime::FileTime::from_unix_time(1_600_000_000, 0);
    for entry in walkdir::WalkDir::new(top) {
        let path = entry.unwrap().into_path();
        let names: Vec<_> = xattr::list(&path).unwrap().collect();
        names.iter().for_each(|name| xattr::remove(&path, name).unwrap());
    }
    for name in ["dev/null", "dev/sda", "var/pipe"] {
        fs::remove_file(top.join(name)).unwrap();
    }
    lchown(top.join("etc/hostname"), Some(1000), Some(65_535)).unwrap();
    for entry in walkdir::WalkDir::new(top).contents_first(true) {
        filetime::set_symlink_file_times(entry.unwrap().path(), date, date).unwrap();
    }
}

/// What fsck.f2fs tells of all inodes: number, name, mode, owner, links, size, date.
fn inodes(image: &str) -> Vec<String> {
    (3..400)
        .map(|number| {
            // It asks whether to write the file out.
            let script = format!("echo N | dump.f2fs -i 0x{number:x} '{image}'");
            let text = output("sh", &["-c", &script]);
            let field = |name: &str| {
                let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or("");
                line.split_once('[').map_or("", |(_, value)| value).trim_end_matches(']').trim().to_owned()
            };
            ["i_name", "i_mode", "i_uid", "i_gid", "i_links", "i_size", "i_mtime"].map(field).join(" ")
        })
        .take_while(|line| !line.trim().is_empty())
        .collect()
}

#[test]
fn holds_the_tree() {
    needs_program!("sload.f2fs", "f2fs-tools");
    needs_root!();
    let made = same_twice_of(plant, |top| Making::of(F2fs, top, LENGTH));
    let alone = made.alone();
    let path = alone.to_str().unwrap();
    let report = output("fsck.f2fs", &["--dry-run", path]);
    assert!(!report.contains("[Fail]"), "{report}");
    let bytes = made.bytes();
    assert!(!bytes.windows(13).any(|window| window == b"Linux version"), "it names the builder's kernel");
    insta::assert_snapshot!(inodes(path)[..12].join("\n"), @r#"
     0x    41e8 : 16872 0x       3 : 3 0x       4 : 4 0x       7 : 7 0x    1000 : 4096 0x5f5e1000 : 1600000000
    dev 0x    41ed : 16877 0x       0 : 0 0x       0 : 0 0x       2 : 2 0x    1000 : 4096 0x5f5e1000 : 1600000000
    etc 0x    41ed : 16877 0x       0 : 0 0x       0 : 0 0x       2 : 2 0x    1000 : 4096 0x5f5e1000 : 1600000000
    many 0x    41ed : 16877 0x       0 : 0 0x       0 : 0 0x       3 : 3 0x    d000 : 53248 0x5f5e1000 : 1600000000
    usr 0x    41ed : 16877 0x       0 : 0 0x       0 : 0 0x       3 : 3 0x    1000 : 4096 0x5f5e1000 : 1600000000
    var 0x    41ed : 16877 0x       0 : 0 0x       0 : 0 0x       3 : 3 0x    1000 : 4096 0x5f5e1000 : 1600000000
    empty 0x    81b4 : 33204 0x       0 : 0 0x       0 : 0 0x       1 : 1 0x       0 : 0 0x5f5e1000 : 1600000000
    hard 0x    81a4 : 33188 0x       0 : 0 0x       0 : 0 0x       2 : 2 0x       6 : 6 0x5f5e1000 : 1600000000
    hostname 0x    81a0 : 33184 0x     3e8 : 1000 0x    ffff : 65535 0x       1 : 1 0x       6 : 6 0x5f5e1000 : 1600000000
    long 0x    a1ff : 41471 0x       7 : 7 0x       8 : 8 0x       1 : 1 0x     4b0 : 1200 0x5f5e1000 : 1600000000
    name with spaces, ümläuts 'and' "quotes" 0x    81a4 : 33188 0x       0 : 0 0x       0 : 0 0x       1 : 1 0x    1388 : 5000 0x5f5e1000 : 1600000000
    short 0x    a1ff : 41471 0x       0 : 0 0x       0 : 0 0x       1 : 1 0x       f : 15 0x5f5e1000 : 1600000000
    "#);
    assert!(made.allocated() < 14 << 20, "{} bytes on the disk", made.allocated());
}

#[test]
fn fits_into_its_minimum() {
    needs_program!("sload.f2fs", "f2fs-tools");
    for size in [1_000_000, 100_000_000] {
        let directory = workshop();
        fs::write(directory.path().join("data"), vec![7; size]).unwrap();
        for n in 0..100 {
            fs::write(directory.path().join(n.to_string()), vec![8; n * 20]).unwrap();
        }
        filetime::set_file_mtime(directory.path(), filetime::FileTime::from_unix_time(EPOCH, 0)).unwrap();
        let hash = |path: &Path| blake3::hash(&fs::read(path).unwrap());
        let mut making = Making::of(F2fs, directory.path(), 0);
        making.length = making.minimum();
        let made = making.make().unwrap();
        let report = output("fsck.f2fs", &["--dry-run", made.alone().to_str().unwrap()]);
        assert!(!report.contains("[Fail]"), "{report}");
        let back = made.alone().with_file_name("lost_found");
        let number =
            inodes(made.alone().to_str().unwrap()).iter().position(|line| line.starts_with("data ")).unwrap() + 3;
        let script =
            format!("cd '{}' && echo Y | dump.f2fs -i 0x{number:x} alone.img", back.parent().unwrap().display());
        output("sh", &["-c", &script]);
        assert_eq!(hash(&directory.path().join("data")), hash(&back.join("data")));
        making.length = size as u64;
        assert!(making.fault().contains("the contents need"), "{}", making.fault());
    }
}

#[test]
fn says_what_it_cannot_hold() {
    needs_program!("sload.f2fs", "f2fs-tools");
    needs_root!();
    let directory = workshop();
    grow(directory.path(), false);
    insta::assert_snapshot!(Making::of(F2fs, directory.path(), LENGTH).fault(), @r"
    making the file system `root`: `/dev/null` cannot be on an F2FS that is made without a device: it is a device node
    hint: `strategy: mounted` fills F2FS through the kernel; ext4 and erofs keep everything offline too
    ");
}
