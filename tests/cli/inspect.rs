//! `debforge inspect`, on artifacts that the usual programs have made.

use super::image::{self, tool};
use crate::harness::project::Finished;
use crate::harness::{Project, User, has_program, source_dir};

/// Ends a test without the programs that make its images.
macro_rules! needs_image_programs {
    () => {
        for (program, package) in
            [("sfdisk", "fdisk"), ("mformat", "mtools"), ("mke2fs", "e2fsprogs"), ("qemu-img", "qemu-utils")]
        {
            needs_program!(program, package);
        }
    };
}

/// What was printed, without what depends on this machine's disk and on the width of sizes.
fn squeezed(finished: &Finished) -> String {
    let text = finished.stdout_filtered().replace(", [SIZE] on this disk", "");
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_disk_with_all_that_is_on_it() {
    needs_image_programs!();
    let project = Project::new();
    image::system_disk(&project, "disk.img", "root");
    let finished = project.run(["inspect", "disk.img"]).success();
    insta::assert_snapshot!(squeezed(&finished));
    project
        .run(["inspect", "disk.img", "--packages"])
        .success()
        .prints("\n\nbase-files  13.8     amd64\ndpkg        1.22.21  amd64\n");
}

#[test]
fn what_is_found_is_the_same_whatever_the_disk_is_wrapped_in() {
    needs_image_programs!();
    let project = Project::new();
    image::system_disk(&project, "disk.img", "root");
    let at = project.path(".");
    tool("qemu-img", &["convert", "-O", "qcow2", "disk.img", "disk.qcow2"], "", &at);
    tool("qemu-img", &["convert", "-O", "vmdk", "disk.img", "disk.vmdk"], "", &at);
    tool("qemu-img", &["convert", "-O", "vdi", "disk.img", "disk.vdi"], "", &at);
    let disk = std::fs::read(project.path("disk.img")).unwrap();
    project.write("disk.img.zst", zstd::encode_all(&*disk, 1).unwrap());
    tool("gzip", &["-1", "-k", "disk.img"], "", &at);
    let facts = |name: &str| {
        let finished = project.run(["inspect", name, "--json"]).success();
        let mut all: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        for own in ["file", "format", "compression", "allocated"] {
            all.as_object_mut().unwrap().remove(own);
        }
        all
    };
    let plain = facts("disk.img");
    assert_eq!(plain["system"]["packages"][0]["name"], "base-files", "{plain:#}");
    for wrapped in ["disk.qcow2", "disk.vmdk", "disk.vdi", "disk.img.zst", "disk.img.gz"] {
        assert_eq!(facts(wrapped), plain, "{wrapped}");
    }
    assert!(image::scratch_is_empty(&project), "what was unpacked is gone");
}

#[test]
fn every_readable_file_system_shows_its_system() {
    needs_image_programs!();
    let project = Project::new();
    image::system_root(&project, "root");
    let at = project.path(".");
    let mut made = Vec::new();
    let mut make = |program: &str, arguments: &[&str], file: &str| {
        if has_program(program) {
            tool(program, arguments, "", &at);
            made.push(file.to_owned());
        }
    };
    make("mke2fs", &["-q", "-t", "ext2", "-d", "root", "ext2.img", "8M"], "ext2.img");
    make("mke2fs", &["-q", "-t", "ext4", "-d", "root", "ext4.img", "8M"], "ext4.img");
    make("mksquashfs", &["root", "squashfs.img", "-quiet", "-comp", "zstd"], "squashfs.img");
    make("mkfs.erofs", &["--quiet", "erofs.img", "root"], "erofs.img");
    make("mkfs.btrfs", &["-q", "--rootdir", "root", "btrfs.img"], "btrfs.img");
    make("tar", &["cf", "root.tar", "-C", "root", "."], "root.tar");
    make("tar", &["cJf", "root.tar.xz", "-C", "root", "."], "root.tar.xz");
    for file in made {
        let finished = project.run(["inspect", &file]).success().says_nothing_of("note:");
        finished
            .prints("kernels   6.12.1-amd64")
            .prints("system    Debian GNU/Linux 13 (trixie)")
            .prints("packages  2, ");
    }
}

#[test]
fn a_file_system_that_cannot_be_read_into_is_said() {
    needs_program!("mkfs.xfs", "xfsprogs");
    // Somebody who can neither mount it nor start a machine.
    let user = match User::ordinary() {
        Ok(user) if !user.is_root() => user,
        _ => skip!("needs an ordinary user"),
    };
    let project = Project::of(user).env("PATH", "/nowhere");
    let uuid = "uuid=11111111-2222-3333-4444-555555555555";
    tool("mkfs.xfs", &["-q", "-L", "data", "-m", uuid, "-d", "file,name=xfs.img,size=300m"], "", &project.path("."));
    let seen = project.run(["inspect", "xfs.img"]).success();
    seen.clone().prints("note: only a kernel reads the files of xfs");
    assert!(seen.stdout.contains("xfs") && seen.stdout.contains("data"), "{seen}");
}

#[test]
fn boards_show_their_boot_loader() {
    needs_program!("sfdisk", "fdisk");
    let project = Project::new();
    let mut disk = vec![0; 4 << 20];
    disk[0x2004..0x200c].copy_from_slice(b"eGON.BT0");
    project.write("card.img", disk);
    let table = "label: dos\nlabel-id: 0x12345678\nstart=2048, type=83, bootable\n";
    tool("sfdisk", &["-q", "card.img"], table, &project.path("."));
    insta::assert_snapshot!(squeezed(&project.run(["inspect", "card.img"]).success()));
}

#[test]
fn an_iso_image_shows_the_live_system_in_it() {
    needs_program!("xorriso", "xorriso");
    needs_program!("mksquashfs", "squashfs-tools");
    let project = Project::new();
    image::system_root(&project, "root");
    let at = project.path(".");
    std::fs::create_dir_all(project.path("iso/live")).unwrap();
    tool("mksquashfs", &["root", "iso/live/filesystem.squashfs", "-quiet"], "", &at);
    tool("xorriso", &["-as", "mkisofs", "-quiet", "-R", "-V", "LIVE", "-o", "live.iso", "iso"], "", &at);
    project
        .run(["inspect", "live.iso"])
        .success()
        .prints("live.iso · ISO image")
        .prints("LIVE")
        .prints("live/filesystem.squashfs  squashfs (gzip)")
        .prints("packages  2, ");
}

#[test]
fn what_is_nothing_is_refused() {
    let project = Project::new().file("zeros", vec![0; 8192]).file("text", "hello\n").file("empty", "");
    for name in ["zeros", "text", "empty"] {
        project.run(["inspect", name]).code(2).says(&format!("{name} is nothing that debforge knows"));
    }
    project.run(["inspect", "nothing"]).code(2).says("nothing cannot be opened");
    project.run(["inspect", &source_dir().display().to_string()]).code(2).says("is a directory");
}

#[test]
fn damaged_images_are_told_of_and_nothing_worse() {
    needs_image_programs!();
    let project = Project::new();
    image::system_disk(&project, "disk.img", "root");
    let whole = std::fs::read(project.path("disk.img")).unwrap();
    // Where the table, the FAT and the root's structures are.
    for (at, length) in
        [(512, 64), (1024, 128), ((1 << 20) + 11, 40), ((5 << 20) + 1024, 200), ((5 << 20) + 4096, 4096)]
    {
        let mut broken = whole.clone();
        broken[at..at + length].iter_mut().enumerate().for_each(|(index, byte)| *byte ^= (index * 37 + 90) as u8);
        project.write("broken.img", broken);
        let finished = project.run(["inspect", "broken.img"]);
        assert!(matches!(finished.code, Some(0..=2)), "{at}: {finished}");
        finished.says_nothing_of("panicked");
    }
    project.write("short.img", &whole[..6 << 20]);
    let finished = project.run(["inspect", "short.img"]);
    assert!(matches!(finished.code, Some(0..=2)), "{finished}");
}
