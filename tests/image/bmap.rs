//! Block maps: `bmaptool` reads them, and a card that was full of junk holds the image afterwards.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::artifacts::output;
use crate::harness::{Project, find_program};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 96 * MIB;

fn program(name: &str) -> Command {
    Command::new(find_program(name).unwrap_or_else(|| panic!("there is no {name}")))
}

/// A card with a FAT at 1 MiB, an ext4 at 17 MiB, a squashfs at 65 MiB, and nothing at 69 MiB, as tools of
/// others make it: the free clusters' table and a file's zeros are holes.
fn image(path: &Path, tree: &Path) {
    fs::create_dir_all(tree.join("directory")).unwrap();
    fs::write(tree.join("text"), "hello\n".repeat(40_000)).unwrap();
    fs::write(tree.join("directory/zeros"), vec![0; 300_000]).unwrap();
    File::create(path).unwrap().set_len(SIZE).unwrap();
    let table = "label: gpt\nfirst-lba: 2048\n\
                 start=1MiB, size=16MiB, type=U\nstart=17MiB, size=48MiB\nstart=65MiB, size=4MiB\nstart=69MiB, size=26MiB\n";
    let mut sfdisk = program("sfdisk").arg("--quiet").arg(path).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut sfdisk.stdin.take().unwrap(), table.as_bytes()).unwrap();
    assert!(sfdisk.wait().unwrap().success());

    let fat = path.with_extension("fat");
    File::create(&fat).unwrap().set_len(16 * MIB).unwrap();
    output(program("mkfs.vfat").args(["-F", "16"]).arg(&fat));
    output(program("mcopy").arg("-s").arg("-i").arg(&fat).args([tree.join("text"), tree.join("directory")]).arg("::"));
    let squashfs = path.with_extension("squashfs");
    output(program("mksquashfs").arg(tree).arg(&squashfs).args(["-quiet", "-no-progress"]));
    let ext4 = path.with_extension("ext4");
    File::create(&ext4).unwrap().set_len(48 * MIB).unwrap();
    output(program("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(tree).arg(&ext4));
    let disk = File::options().write(true).open(path).unwrap();
    for (part, at) in [(&fat, 1), (&ext4, 17), (&squashfs, 65)] {
        let bytes = fs::read(part).unwrap();
        for (index, block) in bytes.chunks(4096).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                disk.write_all_at(block, at * MIB + index as u64 * 4096).unwrap();
            }
        }
    }
}

/// Writes the blocks of a map to a card, as `bmaptool copy` does.
fn copy_by_map(map: &str, image: &File, card: &File) -> u64 {
    let mut copied = 0;
    for line in map.lines().filter(|line| line.contains("<Range")) {
        let range = line.split_once("> ").unwrap().1.split_once(" <").unwrap().0;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let mut bytes = vec![0; ((last - first + 1) * 4096) as usize];
        image.read_exact_at(&mut bytes, first * 4096).unwrap();
        card.write_all_at(&bytes, first * 4096).unwrap();
        copied += bytes.len() as u64;
    }
    copied
}

#[test]
fn a_card_full_of_junk_holds_the_image_afterwards() {
    for (name, package) in [
        ("bmaptool", "bmap-tools"),
        ("sfdisk", "fdisk"),
        ("mkfs.vfat", "dosfstools"),
        ("mcopy", "mtools"),
        ("mke2fs", "e2fsprogs"),
        ("mksquashfs", "squashfs-tools"),
        ("unsquashfs", "squashfs-tools"),
    ] {
        needs_program!(name, package);
    }
    let project = Project::new().recipe("architecture: amd64\nactions:\n  - { action: bmap, file: disk.img }\n");
    fs::create_dir(project.path("out")).unwrap();
    let (disk, tree) = (project.path("out/disk.img"), project.path("tree"));
    image(&disk, &tree);
    project.build([]).success();
    let map = project.read("out/disk.img.bmap");

    // bmaptool checks the map's own checksum and that of each range.
    let copy = project.path("copy");
    let mut bmaptool = program("bmaptool");
    bmaptool.args(["copy", "--bmap"]).arg(project.path("out/disk.img.bmap")).arg(&disk).arg(&copy);
    output(&mut bmaptool);
    assert!(fs::read(&copy).unwrap() == fs::read(&disk).unwrap());

    let card = project.path("card");
    fs::write(&card, vec![0xa5; SIZE as usize]).unwrap();
    let file = File::options().read(true).write(true).open(&card).unwrap();
    let copied = copy_by_map(&map, &File::open(&disk).unwrap(), &file);
    assert!(copied < 20 * MIB, "{copied} bytes were written");
    output(program("sfdisk").arg("--verify").arg(&card));
    let part = |name: &str, at: u64, length: u64| {
        let mut bytes = vec![0; (length * MIB) as usize];
        file.read_exact_at(&mut bytes, at * MIB).unwrap();
        project.write(name, bytes);
        project.path(name)
    };
    let fat = part("fat", 1, 16);
    output(program("fsck.vfat").arg("-n").arg(&fat));
    let zeros = program("mtype").arg("-i").arg(&fat).arg("::directory/zeros").output().unwrap().stdout;
    assert!(zeros == vec![0; 300_000], "the zeros in the FAT are junk");
    let ext4 = part("ext4", 17, 48);
    output(program("e2fsck").args(["-f", "-n"]).arg(&ext4));
    let mut debugfs = program("debugfs");
    let text = debugfs.args(["-R", "cat /text"]).arg(&ext4).output().unwrap().stdout;
    assert!(text == fs::read(tree.join("text")).unwrap());
    let unpacked = project.path("unpacked");
    output(program("unsquashfs").args(["-quiet", "-no-progress", "-d"]).arg(&unpacked).arg(part("squashfs", 65, 4)));
    assert!(fs::read(unpacked.join("directory/zeros")).unwrap() == vec![0; 300_000]);
    // Nothing is left that the card had where the empty partition begins and ends.
    let empty = fs::read(part("empty", 69, 26)).unwrap();
    assert!(empty[..65_536].iter().chain(&empty[empty.len() - 65_536..]).all(|byte| *byte == 0));
    assert!(empty[13 << 20] == 0xa5, "all of an empty partition is written");
}

#[test]
fn a_map_follows_from_the_contents_and_not_from_the_holes() {
    needs_program!("mkfs.vfat", "dosfstools");
    let project = Project::new().recipe(
        "architecture: amd64\nactions:\n  - { action: bmap, file: sparse.img }\n  - { action: bmap, file: dense.img }\n",
    );
    project.write("out/sparse.img", "");
    let path = project.path("out/sparse.img");
    File::options().write(true).open(&path).unwrap().set_len(32 * MIB).unwrap();
    output(program("mkfs.vfat").args(["--invariant", "-F", "16"]).arg(&path));
    project.write("out/dense.img", fs::read(&path).unwrap());
    project.build([]).success();
    assert_eq!(project.read("out/sparse.img.bmap"), project.read("out/dense.img.bmap"));
    assert!(project.read("out/sparse.img.bmap").contains("<MappedBlocksCount> "));
}
