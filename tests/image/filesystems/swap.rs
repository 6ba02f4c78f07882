//! Swap space.

use debforge::image::FilesystemKind::Swap;
use debforge::image::filesystem::Tree;

use super::{Making, UUID, contents, output};

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
