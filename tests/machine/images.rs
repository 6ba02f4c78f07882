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
