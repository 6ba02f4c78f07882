//! Programs of another architecture.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use debforge::debian::Architecture;
use debforge::sandbox::binfmt::{Support, support};
use debforge::sandbox::{Exit, Isolation, Sandbox, View};

use super::{needs_mounts, tiny};

/// An arm64 program that exits with code 42.
fn program() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2u16, 183].into_iter().flat_map(u16::to_le_bytes));
    elf.extend(1u32.to_le_bytes());
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    elf.extend([1u32, 5].into_iter().flat_map(u32::to_le_bytes));
    for word in [0, BASE, BASE, HEADERS + 12, HEADERS + 12, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    // mov x0, #42; mov x8, #93; svc #0
    elf.extend([0xd280_0540u32, 0xd280_0ba8, 0xd400_0001].into_iter().flat_map(u32::to_le_bytes));
    elf
}

/// Runs the program in a root that has no emulator in it.
fn run_foreign() -> Option<(Exit, bool)> {
    let tiny = super::Tiny::new()?;
    let path = tiny.root().join("bin/foreign");
    fs::write(&path, program()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    super::use_program();
    let sandbox = Sandbox::new(Isolation::Namespaces).emulating(Architecture::Arm64).unwrap();
    let command = super::command(&["foreign"], View::Chroot { root: tiny.root() });
    let mut output = String::new();
    let exit = sandbox.run(&command, &mut |_, line| output.push_str(line)).unwrap();
    println!("{output}");
    Some((exit, sandbox.binfmt.is_some()))
}

#[test]
fn a_foreign_program_runs_as_the_machine_promises() {
    needs_mounts!();
    let _ = tiny!();
    let expected = match support(Architecture::Arm64) {
        Support::Missing { why, .. } => skip!("{why}"),
        Support::Native => false,
        Support::Emulated { registered, .. } => !registered,
    };
    assert_eq!(run_foreign(), Some((Exit::Code(42), expected)));
}

#[test]
#[ignore = "the inner side of another test"]
fn caller() {
    let Some(result) = run_foreign() else { return };
    assert_eq!(result, (Exit::Code(42), true));
    println!("foreign program ran");
}

#[test]
fn without_a_registration_the_build_makes_its_own_and_the_machine_none() {
    needs_mounts!();
    let _ = tiny!();
    match support(Architecture::Arm64) {
        Support::Emulated { .. } => {}
        other => skip!("needs an emulator for arm64: {other:?}"),
    }
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(7)) {
        skip!("needs Linux 6.7, this is {release}");
    }
    // In a mount namespace that does not show the machine's registrations.
    let hide = "mount -t tmpfs none /proc/sys/fs/binfmt_misc && exec \"$0\" --exact sandbox::foreign::caller --ignored --nocapture";
    let mut command = Command::new("unshare");
    if std::env::var_os("DEBFORGE_TEST_DIR").is_some() {
        // A user namespace that once had registrations of its own never sees the machine's again:
        // not the one that the other tests are in.
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", hide]).arg(std::env::current_exe().unwrap());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("foreign program ran"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let registered = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    assert!(registered.into_iter().all(|entry| entry.file_name() != "qemu-arm64"));
}
