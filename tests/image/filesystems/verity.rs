//! dm-verity's hashes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use debforge::image::filesystem::{Tree, verity, verity_length};
use debforge::image::{FilesystemKind, Verity};

use super::{Making, OFFSET, contents, output, workshop};

#[test]
fn hashes_a_part_of_the_image() {
    needs_program!("veritysetup", "cryptsetup-bin");
    let directory = workshop();
    let image = directory.path().join("disk.img");
    let file = File::create(&image).unwrap();
    let (data_offset, data_length) = (16 << 20, 4 << 20);
    file.set_len(32 << 20).unwrap();
    file.write_all_at(&[7; 3_000_000], data_offset).unwrap();
    let mut contents = contents(FilesystemKind::Verity);
    contents.verity = Some(Verity { data: "root".into(), salt: "00ff".repeat(16) });
    let length = verity_length(data_length);
    assert_eq!(length, (1 + 8 + 1) * 4096);
    let making = Making { contents, tree: Tree::default(), length, sector_size: 512 };
    let root = making.request(&image, |request| verity(request, data_offset, data_length)).unwrap();
    let again = making.request(&image, |request| verity(request, data_offset, data_length)).unwrap();
    assert_eq!(root, again);
    let part = |name: &str, offset: u64, length: u64| {
        let path = directory.path().join(name);
        let mut bytes = vec![0; length as usize];
        File::open(&image).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (data, hashes) = (part("data", data_offset, data_length), part("hashes", OFFSET, length));
    output("veritysetup", &["verify", &data, &hashes, &root]);
    assert!(output("veritysetup", &["dump", &hashes]).contains(&"00ff".repeat(16)));
}
