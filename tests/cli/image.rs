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
