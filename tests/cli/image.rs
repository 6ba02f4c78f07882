//! Images for tests, made by the programs that everybody makes images with.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Project, find_program};

/// Runs a program that has to do well.
#[track_caller]
pub fn tool(program: &str, arguments: &[&str], input: &str, directory: &Path) -> String {
    let path = find_program(program).unwrap_or_else(|| panic!("{program}"));
    let mut child = Command::new(path)
        .args(arguments)
        .current_dir(directory)
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A GPT disk of 8 MiB with an EFI system partition of FAT12 at 1 MiB that has these files in EFI/BOOT.
pub fn disk_with_esp(project: &Project, name: &str, files: &[(&str, &str)]) {
    let at = project.path(".");
    project.write(name, vec![0; 8 << 20]);
    let table = "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\n\
        start=2048, size=8192, type=U, name=esp, uuid=66666666-7777-8888-9999-AAAAAAAAAAAA\n";
    tool("sfdisk", &["-q", name], table, &at);
    let image = format!("{name}@@1M");
    tool(
        "mformat",
        &["-i", &image, "-v", "ESP", "-N", "12345678", "-T", "8192", "-h", "16", "-s", "32", "::"],
        "",
        &at,
    );
    tool("mmd", &["-i", &image, "::EFI", "::EFI/BOOT"], "", &at);
    for (file, text) in files {
        project.write("file", text);
        tool("mcopy", &["-i", &image, "file", &format!("::EFI/BOOT/{file}")], "", &at);
    }
}

/// The directory of a small system: two packages, a kernel, an fstab.
pub fn system_root(project: &Project, name: &str) {
    let write = |path: &str, text: &str| project.write(&format!("{name}/{path}"), text);
    write("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n");
    write("etc/hostname", "forge\n");
    write(
        "etc/fstab",
        "UUID=11111111-2222-3333-4444-555555555555 / ext4 defaults 0 1\nUUID=1234-5678 /boot/efi vfat umask=0077 0 2\n",
    );
    write("boot/vmlinuz-6.12.1-amd64", "kernel\n");
    write("boot/initrd.img-6.12.1-amd64", "initrd\n");
    write("boot/efi/.keep", "");
    write("boot/grub/grub.cfg", "menuentry debian\n");
    write("lib/modules/6.12.1-amd64/modules.dep", "");
    write(
        "var/lib/dpkg/status",
        "Package: base-files\nStatus: install ok installed\nInstalled-Size: 100\nArchitecture: amd64\nVersion: 13.8\n\n\
         Package: dpkg\nStatus: install ok installed\nInstalled-Size: 200\nArchitecture: amd64\nVersion: 1.22.21\n\n\
         Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n",
    );
    write("usr/share/doc/dpkg/copyright", "free\n");
}

/// A GPT disk of 16 MiB: the EFI system partition of [`disk_with_esp`], and a system on ext4 behind it,
/// from the directory `root` (made where it is not there).
pub fn system_disk(project: &Project, name: &str, root: &str) {
    if !project.path(root).exists() {
        system_root(project, root);
    }
    disk_with_esp(project, name, &[("BOOTX64.EFI", "MZ")]);
    let at = project.path(".");
    tool("truncate", &["-s", "16M", name], "", &at);
    let part = "start=10240, size=20480, type=L, name=root, uuid=66666666-7777-8888-9999-BBBBBBBBBBBB\n";
    tool("sfdisk", &["-q", "--relocate", "gpt-bak-std", name], "", &at);
    tool("sfdisk", &["-q", "--append", name], part, &at);
    let options = "offset=5242880,hash_seed=11111111-2222-3333-4444-555555555555,root_owner=0:0";
    let uuid = "11111111-2222-3333-4444-555555555555";
    tool(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-d", root, "-L", "root", "-U", uuid, "-E", options, name, "10M"],
        "",
        &at,
    );
}

/// Whether nothing is left of the work on large files.
pub fn scratch_is_empty(project: &Project) -> bool {
    let left = std::fs::read_dir(project.store().join("v1/scratch")).into_iter().flatten().count();
    left == 0
}
