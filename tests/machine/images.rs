//! Images that are mounted while they are made, with file systems that this machine's kernel may lack.

use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::harness::Project;

/// A step writes into every file system of the mounted image and looks at what it is mounted as.
fn recipe(sector_size: u32) -> String {
    format!(
        "architecture: amd64
sectorsize: {sector_size}
actions:
  - {{ action: unpack, origin: recipe, file: root.tar }}
  - action: image-partition
    imagename: disk.img
    imagesize: 700MB
    partitiontype: gpt
    strategy: mounted
    partitions:
      - {{ name: efi, fs: vfat, size: 300MiB, flags: [esp] }}
      - {{ name: data, fs: f2fs, size: 100MiB }}
      - {{ name: root, fs: ext4, size: rest }}
    mountpoints:
      - {{ mountpoint: /, partition: root }}
      - {{ mountpoint: /boot/efi, partition: efi }}
      - {{ mountpoint: /data, partition: data }}
  - action: filesystem-deploy
  - action: run
    command: |
      for place in boot/efi data; do echo written > \"$IMAGEMNTDIR/$place/written\"; done
      grep -E ' (vfat|f2fs|ext4) ' /proc/mounts | cut -d' ' -f3 | sort -u | tr '\\n' ' '
"
    )
}

#[test]
fn file_systems_that_this_kernel_lacks_are_mounted_in_uml() {
    needs_uml!();
    needs_program!("mkfs.vfat", "dosfstools");
    needs_program!("mkfs.f2fs", "f2fs-tools");
    needs_program!("mdir", "mtools");
    let Some(project) = Project::new().kernel_of("uml").tiny("") else { skip!("needs a static busybox") };
    for sector_size in [512, 4096] {
        project.write("recipe.yaml", recipe(sector_size));
        project.build(["-b", "uml", "-v"]).success().says("ext4 f2fs vfat");
        let image = project.path("out/disk.img");
        // The first sector of the first entry of a GPT, whose entries begin at the third sector; sfdisk of
        // Debian 12 reads sectors of 512 bytes alone.
        let mut first = [0; 8];
        let entry = 2 * u64::from(sector_size);
        std::fs::File::open(&image).expect("the image").read_exact_at(&mut first, entry + 32).expect("the table");
        let offset = u64::from_le_bytes(first) * u64::from(sector_size);
        let listed = Command::new("mdir")
            .args(["-b", "-i", &format!("{}@@{offset}", image.display()), "::"])
            .output()
            .expect("starting mdir");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("written"), "sectors of {sector_size}: {listed}");
        // It stays sparse: far from the 700 MB that it spans.
        let allocated = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&image).unwrap()) * 512;
        assert!(allocated < 100 << 20, "{allocated} bytes are allocated");
    }
}

/// Only the kernel fills it, so a recipe of debos has it mounted without a word, and goes where that can be.
#[test]
fn a_recipe_of_debos_with_a_file_system_that_only_a_kernel_fills_is_built_in_uml() {
    needs_uml!();
    needs_program!("mkfs.nilfs2", "nilfs-tools");
    let recipe = "architecture: {{ or .architecture `amd64` }}
actions:
  - { action: unpack, origin: recipe, file: root.tar }
  - action: image-partition
    imagename: disk.img
    imagesize: 400MB
    partitiontype: gpt
    partitions:
      - { name: root, fs: ext4, start: 1MiB, end: 200MB }
      - { name: logs, fs: nilfs2, start: 200MB, end: 100% }
    mountpoints:
      - { mountpoint: /, partition: root }
      - { mountpoint: /var/log, partition: logs }
  - action: filesystem-deploy
    setup-kernel-cmdline: false
  - action: run
    command: |
      echo written > $ROOTDIR/var/log/written && chown 7:8 $ROOTDIR/var/log/written
      findmnt --noheadings --output fstype,target $IMAGE-part2
      grep -E '^PARTUUID=\\S+\\s+/var/log\\s+nilfs2\\s' $ROOTDIR/etc/fstab
";
    let Some(project) = Project::new().kernel_of("uml").tiny("") else { skip!("needs a static busybox") };
    project.write("recipe.yaml", recipe);
    project.build(["-b", "uml", "-v"]).success().says("nilfs2 ");
    let part = crate::image::disk::partition(&project, 2);
    let found = Command::new("blkid").args(["-p", "-o", "export"]).arg(&part).output().expect("starting blkid");
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.contains("TYPE=nilfs2") && found.contains("LABEL=logs"), "{found}");
    // Its log holds what was written, as it is.
    let bytes = std::fs::read(&part).expect("the partition");
    assert!(bytes.windows(8).any(|bytes| bytes == b"written\n"), "the file is not there");
}
