//! EROFS and SquashFS.

use std::fs;

use debforge::image::FilesystemKind::{self, Erofs, Squashfs};
use rstest::rstest;

use super::{EPOCH, Making, UUID, grow, listing, output, same, same_twice, workshop};

const LENGTH: u64 = 32 << 20;

#[rstest]
#[case(None)]
#[case(Some("lz4hc:9"))]
fn erofs_holds_the_tree(#[case] compression: Option<&str>) {
    needs_program!("mkfs.erofs", "erofs-utils");
    needs_root!();
    let made = same_twice(|top| {
        let mut making = Making::of(Erofs, top, LENGTH);
        making.contents.compression = compression.map(String::from);
        making
    });
    let alone = made.alone();
    output("fsck.erofs", &[alone.to_str().unwrap()]);
    let about = output("blkid", &["-p", alone.to_str().unwrap()]);
    assert!(about.contains(&format!("UUID=\"{UUID}\"")), "{about}");
    let about = output("dump.erofs", &["-s", alone.to_str().unwrap()]);
    assert!(about.contains("0d61e1cf"), "{about}");
    let label = fs::read(&alone).unwrap();
    assert_eq!(&label[1024 + 64..1024 + 80], b"FORGE\0\0\0\0\0\0\0\0\0\0\0");
    let directory = workshop();
    grow(directory.path(), false);
    made.mounted("erofs", |at| same(&listing(directory.path()), &listing(at)));
}

#[rstest]
#[case(None)]
#[case(Some("gzip:1"))]
#[case(Some("xz"))]
fn squashfs_holds_the_tree(#[case] compression: Option<&str>) {
    needs_program!("mksquashfs", "squashfs-tools");
    needs_root!();
    let prepare = |top: &std::path::Path| {
        let date =
            |path: &std::path::Path| filetime::FileTime::from_last_modification_time(&fs::metadata(path).unwrap());
        for (path, list) in [("etc/empty", "system.posix_acl_access"), ("many/deep", "system.posix_acl_default")] {
            let path = top.join(path);
            let before = date(&path);
            xattr::remove(&path, list).unwrap();
            filetime::set_file_mtime(&path, before).unwrap();
        }
    };
    let made = same_twice(|top| {
        prepare(top);
        let mut making = Making::of(Squashfs, top, LENGTH);
        making.contents.compression = compression.map(String::from);
        making
    });
    let alone = made.alone();
    let about = output("unsquashfs", &["-s", alone.to_str().unwrap()]);
    let expected = compression.map_or("zstd", |text| text.split(':').next().unwrap());
    assert!(about.contains(&format!("Compression {expected}")), "{about}");
    let directory = workshop();
    let (grown, back) = (directory.path().join("grown"), directory.path().join("back"));
    grow(&grown, false);
    prepare(&grown);
    output("unsquashfs", &["-q", "-n", "-d", back.to_str().unwrap(), alone.to_str().unwrap()]);
    same(&listing(&grown), &listing(&back));
    assert!(fs::metadata(back.join("var/large")).is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt;
        meta.mtime() == EPOCH
    }));
}

#[rstest]
#[case(Erofs)]
#[case(Squashfs)]
fn is_as_large_as_it_has_to_be(#[case] kind: FilesystemKind) {
    needs_program!("mkfs.erofs", "erofs-utils");
    needs_program!("mksquashfs", "squashfs-tools");
    let directory = workshop();
    let noise: Vec<u8> = (0..30_000_u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes().to_vec()).collect();
    fs::write(directory.path().join("noise"), &noise).unwrap();
    let mut making = Making::of(kind, directory.path(), 0);
    making.length = making.minimum();
    assert!(making.length < noise.len() as u64 + 20_000, "{}", making.length);
    making.make().unwrap();
    making.length -= 4096;
    let fault = making.fault();
    assert!(fault.contains("the contents need 9"), "{fault}");
    making.tree.top = None;
    making.make().unwrap();
}

#[test]
fn says_what_it_cannot_hold() {
    needs_program!("mksquashfs", "squashfs-tools");
    needs_program!("mkfs.erofs", "erofs-utils");
    needs_root!();
    let directory = workshop();
    grow(directory.path(), false);
    let squashfs = Making::of(Squashfs, directory.path(), LENGTH).fault();
    let mut erofs = Making::of(Erofs, directory.path(), LENGTH);
    erofs.contents.compression = Some("brotli".into());
    insta::assert_snapshot!(format!("{squashfs}\n\n{}", erofs.fault()), @r"
    making the file system `root`: `/etc/empty` has an access control list, which SquashFS cannot keep
    hint: take it away in a step before (`setfacl -b FILE`), or use erofs, which keeps it

    making the file system `root`: the installed mkfs.erofs cannot compress with brotli
    hint: zstd and deflate want erofs-utils 1.8 (Debian 13); `compression: lz4hc` works with every version
    ");
}
