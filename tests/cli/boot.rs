//! `debforge boot`, with disks whose only program is a boot sector: real machines, over in a moment.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{Project, find_program, has_program};

/// What the boot sectors print.
const WORDS: &str = "the sector speaks";

/// Ends a test without the machine it needs.
macro_rules! needs_qemu {
    () => {
        needs_program!("qemu-system-x86_64", "qemu-system-x86");
        needs_program!("qemu-img", "qemu-utils");
    };
}

/// A disk whose boot sector writes itself to the second sector by the BIOS, prints [`WORDS`] on the first
/// serial port, and then halts, or turns the machine off.
fn disk(turns_off: bool) -> Vec<u8> {
    let mut sector = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xc0, // mov es, ax
        0xfc, // cld
        0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector
        0xbb, 0x00, 0x7c, // mov bx, 0x7c00: from here
        0xb9, 0x02, 0x00, // mov cx, 2: to the second one
        0xba, 0x80, 0x00, // mov dx, 0x80: of the first disk
        0xcd, 0x13, // int 0x13
        0xbe, 0x2d, 0x7c, // mov si, 0x7c2d: the words
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz +3
        0xee, // out dx, al
        0xeb, 0xf8, // jmp to lodsb
    ];
    match turns_off {
        // mov dx, 0x604; mov ax, 0x2000; out dx, ax: ACPI's power button of QEMU's q35
        true => sector.extend([0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef]),
        false => sector.extend([0x90; 7]),
    }
    sector.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to hlt
    assert_eq!(sector.len(), 0x2d);
    sector.extend(WORDS.as_bytes());
    sector.extend(b"\r\n");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    sector
}

fn project(turns_off: bool) -> Project {
    Project::new().file("disk.img", disk(turns_off))
}

fn boot<'a>(more: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    ["boot", "disk.img", "--accel", "tcg", "-m", "64"].into_iter().chain(more).collect()
}

#[test]
fn the_text_on_the_console_is_waited_for_and_the_image_stays_as_it_is() {
    needs_qemu!();
    let project = project(false);
    let finished = project.run(boot(["--expect", "sector", "--expect", "speaks", "--log", "console.log"])).success();
    finished
        .prints(WORDS)
        .says("disk.img · amd64, BIOS · no partition table · [SIZE]")
        .says("`sector`, `speaks` after [TIME]");
    assert!(project.read("console.log").contains(WORDS));
    assert!(fs::read(project.path("disk.img")).unwrap() == disk(false), "what the machine wrote is thrown away");
}

#[test]
fn the_image_is_written_to_where_that_is_wanted() {
    needs_qemu!();
    let project = project(true);
    project.run(boot(["--persist"])).success().prints(WORDS);
    let written = fs::read(project.path("disk.img")).unwrap();
    assert!(written[512..1024] == written[..512], "the boot sector has written itself");
}

#[test]
fn a_text_that_does_not_come_is_a_failure_with_the_last_lines() {
    needs_qemu!();
    let project = project(false);
    let finished = project.run(boot(["--expect", "login:", "--timeout", "8"])).code(1);
    insta::assert_snapshot!(finished.stderr_filtered(), @r"
    disk.img · amd64, BIOS · no partition table · [SIZE]

    error: the machine was stopped after [TIME] without `login:` on its console
      │ the sector speaks
    ");
}

#[test]
fn a_machine_that_ends_too_early_is_a_failure() {
    needs_qemu!();
    let project = project(true);
    project
        .run(boot(["--expect", "login:"]))
        .code(1)
        .says("error: the machine ended without `login:` on its console\n  │ the sector speaks");
    project.run(boot([])).success().says("Ctrl-A x ends the machine; what it writes is not kept");
}

#[test]
fn an_interrupted_machine_ends_with_everything_that_is_its() {
    needs_qemu!();
    for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGKILL, None)] {
        let project = project(false);
        let mut running = project.start(boot(["--expect", "login:", "--log", "console.log"]));
        let log = project.path("console.log");
        running.wait_until("the machine", || fs::read_to_string(&log).is_ok_and(|text| text.contains(WORDS)));
        running.signal(signal);
        assert_eq!(running.finish().code, code);
        assert!(project.leftovers().is_empty(), "{signal}: {:#?}", project.leftovers());
    }
}

#[test]
fn images_of_other_forms_start_too() {
    needs_qemu!();
    let project = project(true);
    project.write("disk.img.zst", zstd::encode_all(&*disk(true), 3).unwrap());
    let converted = std::process::Command::new("qemu-img")
        .args(["convert", "-O", "qcow2", "disk.img", "disk.qcow2"])
        .current_dir(project.path("."))
        .status();
    assert!(converted.unwrap().success());
    for image in ["disk.img.zst", "disk.qcow2"] {
        project.run(["boot", image, "--accel", "tcg", "-m", "64", "--expect", WORDS]).success();
    }
    project.run(["boot", "disk.img.zst", "--persist"]).code(2).says("hint: unpack disk.img.zst first");
}

#[test]
fn the_disk_may_be_larger_than_the_image() {
    needs_qemu!();
    let project = project(false);
    project.run(boot(["--size", "8G", "--print"])).success().prints("disk.qcow2 8589934592\n");
    project.run(boot(["--size", "512K", "--print"])).code(2).says("is too small for an image of");
}

#[test]
fn boards_take_the_image_as_their_card() {
    needs_program!("qemu-system-arm", "qemu-system-arm");
    let project = Project::new().file("card.img", vec![0; 3 << 20]).file("spl.bin", "");
    let printed =
        project.run(["boot", "card.img", "--machine", "orangepi-pc", "--bios", "spl.bin", "--print"]).success();
    printed
        .prints("-machine orangepi-pc")
        .prints("disk.qcow2 4194304\n")
        .prints("if=sd,file=disk.qcow2")
        .prints("/spl.bin");
    project
        .run(["boot", "card.img", "--machine", "orangepi-pc", "--persist", "--print"])
        .code(2)
        .says("a power of two");
}

#[test]
fn a_hifive_unleashed_gets_what_its_boot_rom_and_its_flash_would_have() {
    needs_program!("qemu-system-riscv64", "qemu-system-misc or qemu-system-riscv");
    needs_qemu!();
    needs_program!("sfdisk", "fdisk");
    let project = Project::new().file("card.img", vec![0; 4 << 20]).file("flash.bin", vec![0; 1 << 20]);
    super::image::tool(
        "sfdisk",
        &["-q", "card.img"],
        "label: gpt\nstart=34, size=2048, type=5B193300-FC78-40CD-8002-E86C45580B47\n",
        &project.path("."),
    );
    let mut card = fs::read(project.path("card.img")).unwrap();
    card[34 * 512..][..3].copy_from_slice(b"SPL");
    project.write("card.img", &card);
    let printed = |more: &[&str]| {
        let words = ["boot", "card.img", "--machine", "sifive_u", "--accel", "tcg", "--print"];
        project.run(words.into_iter().chain(more.iter().copied()))
    };
    let all = printed(&[]).success().prints("-machine sifive_u,msel=11 ").prints(" -m 8192 ").prints(" -bios spl.bin ");
    let all = all.prints(" -drive if=mtd,format=raw,snapshot=on,file=flash.bin ").stdout;
    // All but QEMU itself.
    let lines = all.trim_end().rsplit_once('\n').unwrap().0;
    let made = tempfile::tempdir().unwrap();
    let lines = lines.replace("cd \"$(mktemp -d)\"", &format!("cd {}", made.path().display()));
    assert!(std::process::Command::new("sh").args(["-ec", &lines]).status().unwrap().success(), "{lines}");
    let read = |name: &str| fs::read(made.path().join(name)).unwrap();
    assert!(read("spl.bin") == card[34 * 512..(34 + 2048) * 512], "the first stage");
    let flash = read("flash.bin");
    assert_eq!(flash.len(), 32 << 20);
    assert!(flash[0x1fff000..].starts_with(b"\x27\x05\x19\x56"), "a script for U-Boot");
    assert!(flash[0x1fff000 + 72..].starts_with(b"run bootcmd_mmc0\n\0"), "the script's words");
    // What is said goes first.
    printed(&["--bios", "card.img", "-m", "4G"])
        .success()
        .prints("card.img -drive")
        .prints("sifive_u -accel")
        .prints("-m 4096");
    printed(&["--flash", "flash.bin"])
        .code(2)
        .says("the flash of sifive_u has")
        .says("hint: make it as large: truncate -s 33554432");
    printed(&["--flash", "nothing.bin"]).code(2).says("nothing.bin cannot be opened");
    project.run(["boot", "card.img", "--flash", "flash.bin"]).code(2).says("--machine <NAME>");
    fs::File::options().write(true).open(project.path("flash.bin")).unwrap().set_len(32 << 20).unwrap();
    printed(&["--flash", "flash.bin"]).success().prints("if=mtd,format=raw,snapshot=on,file=/");
    printed(&["--flash", "flash.bin", "--persist"]).success().prints("if=mtd,format=raw,file=/");
}

#[test]
fn the_machine_is_found_out_from_the_image() {
    for program in ["sfdisk", "mformat", "mcopy"] {
        needs_program!(program, "fdisk or mtools");
    }
    let project = Project::new();
    for (file, architecture, qemu) in
        [("BOOTAA64.EFI", "arm64", "qemu-system-aarch64"), ("BOOTX64.EFI", "amd64", "qemu-system-x86_64")]
    {
        if !has_program(qemu) {
            skip!("needs {qemu}");
        }
        super::image::disk_with_esp(&project, "esp.img", &[(file, "MZ")]);
        let finished = project.run(["boot", "esp.img", "--print", "--accel", "tcg"]);
        if finished.code == Some(3) {
            finished
                .says(&format!("error: EFI firmware for {architecture} machines is missing"))
                .says("sudo apt install");
            continue;
        }
        finished.success().prints(&format!("{qemu} ")).prints("if=pflash,unit=0").prints("\ncp /usr/share/");
    }
}

#[test]
fn secure_boot_takes_the_firmware_with_keys() {
    if !std::path::Path::new("/usr/share/OVMF/OVMF_VARS_4M.ms.fd").exists() {
        skip!("needs ovmf");
    }
    needs_qemu!();
    project(false).run(boot(["--secure-boot", "--print"])).success().prints("q35,smm=on").prints("OVMF_VARS_4M.ms.fd");
}

#[test]
fn ports_of_this_machine_lead_to_the_guest() {
    needs_qemu!();
    let project = project(false);
    project
        .run(boot(["--ssh", "2222", "--port", "8080:80", "--print"]))
        .success()
        .prints("hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:8080-:80");
    project.run(boot(["--port", "80", "--print"])).code(2).says("`80` is not two ports");
}

#[test]
fn what_cannot_be_started_is_said() {
    let project = Project::new().file("empty.img", "").file("zeros.img", vec![0; 1 << 20]);
    project.run(["boot", "nothing.img"]).code(2).says("nothing.img cannot be opened");
    project.run(["boot", "empty.img"]).code(2).says("empty.img is empty");
    project.run(["boot", "zeros.img"]).code(2).says("does not show what machine it is for").says("say it with --arch");
    project.run(["boot", "zeros.img", "--arch", "arm46"]).code(2).says("`arm46` is not a Debian architecture");
    project.run(["boot", "zeros.img", "--arch", "s390x"]).code(2).says("knows no machine");
}

#[test]
fn a_missing_qemu_is_named_by_its_package() {
    let project = project(false).env("PATH", "/nowhere");
    assert!(find_program("qemu-system-x86_64").is_none_or(|path| path.starts_with("/usr/bin")));
    project
        .run(boot([]))
        .code(3)
        .says("qemu-system-x86_64 is missing, which runs amd64 machines")
        .says("sudo apt install qemu-system-x86");
}

#[test]
fn a_kernel_that_is_told_of_no_serial_console_is_named_where_one_listens_to_it() {
    needs_qemu!();
    needs_program!("mke2fs", "e2fsprogs");
    for (consoles, silent) in [("quiet", true), ("console=tty0", true), ("console=tty0 console=ttyS0,115200", false)] {
        let menu = format!("menuentry 'Debian' {{\n\tlinux /boot/vmlinuz-6.12 root=/dev/vda ro {consoles}\n}}\n");
        let project = Project::new().file("tree/boot/grub/grub.cfg", menu);
        let made = std::process::Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(project.path("tree"))
            .arg(project.path("disk.img"))
            .arg("8M")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output();
        assert!(made.unwrap().status.success());
        // ext4 leaves the first sectors to loaders.
        let mut bytes = fs::read(project.path("disk.img")).unwrap();
        bytes[..512].copy_from_slice(&disk(false)[..512]);
        fs::write(project.path("disk.img"), bytes).unwrap();
        let way_out = "`console: ttyS0` of the action `bootloader`";
        let finished = project.run(boot(["--expect", "login:", "--timeout", "5"])).code(1);
        let finished = if silent { finished.says(way_out) } else { finished.says_nothing_of(way_out) };
        let hints = finished.stderr_filtered().matches("= hint: the image's kernel writes nothing").count();
        assert_eq!(hints, usize::from(silent), "{finished}");
        // What is no kernel's may come all the same.
        project.run(boot(["--expect", "speaks"])).success();
    }
}

#[test]
fn kvm_that_starts_no_kernel_is_not_taken() {
    slow!();
    needs_root!();
    if !std::path::Path::new("/dev/kvm").exists() {
        skip!("needs /dev/kvm");
    }
    let project = Project::new().shared_store().file("disk.img", disk(true));
    // What a build with KVM comes to is what an image is started with.
    let recipe = "actions:\n  - { action: run, command: 'true' }\n";
    project.write("recipe.yaml", recipe);
    let works = project.run(["build", "recipe.yaml", "--artifactdir", "out", "-b", "kvm"]).code == Some(0);
    let finished = project.run(["boot", "disk.img", "-m", "64", "--expect", WORDS]).success();
    match works {
        true => finished.says_nothing_of("without KVM"),
        false => finished.says("note: without KVM, so slow: "),
    };
}
