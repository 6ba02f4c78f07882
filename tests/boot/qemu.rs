//! Virtual machines for images, by `debforge boot`, one at a time: they emulate every instruction, and
//! two that share a processor take each other's time until both time out.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use debforge::debian::Architecture;
use debforge::machine::qemu::{self, Code, Firmware};

use crate::harness::{Project, has_program, user};

/// Seconds until a machine must have said what is waited for. Many times what it takes when nothing
/// else runs: what fails here is broken, not slow.
const PATIENCE: &str = "900";

/// Lines of the console that a failing test shows.
const SHOWN: usize = 120;

/// A machine that boots an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// A PC with a BIOS.
    Amd64Bios,
    /// A PC with EFI, without secure boot.
    Amd64Efi,
    /// A PC with EFI that starts only what is signed.
    Amd64SecureBoot,
    /// An ARM server with EFI.
    Arm64Efi,
    /// Orange Pi PC (Allwinner H3): its boot ROM reads U-Boot from the card.
    OrangePiPc,
    /// HiFive Unleashed: debforge stands for its boot ROM, and has QEMU start U-Boot's first stage from the card.
    SifiveU,
}

/// Ends a test where a machine cannot be had; to be asked before the image is built.
macro_rules! needs_machine {
    ($machine:expr) => {
        if let Some(reason) = $machine.missing() {
            skip!("{reason}");
        }
    };
}

impl Machine {
    /// Why it cannot be had here.
    pub fn missing(self) -> Option<String> {
        if !has_program("qemu-img") {
            return Some("needs qemu-img (package qemu-utils)".into());
        }
        let (architecture, firmware, secure) = match self {
            Self::Amd64Bios => (Architecture::Amd64, Some(Firmware::Bios), false),
            Self::Amd64Efi => (Architecture::Amd64, Some(Firmware::Efi), false),
            Self::Amd64SecureBoot => (Architecture::Amd64, Some(Firmware::Efi), true),
            Self::Arm64Efi => (Architecture::Arm64, Some(Firmware::Efi), false),
            Self::OrangePiPc => (Architecture::Armhf, None, false),
            Self::SifiveU => (Architecture::Riscv64, None, false),
        };
        if let Err(error) = qemu::program(architecture) {
            return Some(format!("{error:#}"));
        }
        let found = Code::find(architecture, firmware?, secure, "variables.fd".as_ref());
        found.err().map(|error| format!("{error:#}"))
    }

    /// As `debforge boot` takes it.
    fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Amd64Bios => vec!["--firmware", "bios"],
            Self::Amd64Efi | Self::Arm64Efi => vec!["--firmware", "efi"],
            Self::Amd64SecureBoot => vec!["--firmware", "efi", "--secure-boot"],
            Self::OrangePiPc => vec!["--machine", "orangepi-pc"],
            Self::SifiveU => vec!["--machine", "sifive_u"],
        }
    }
}

/// Waits until no other test has a machine; the next one starts when what it gives is dropped.
pub fn alone() -> impl Drop {
    struct Alone(#[allow(dead_code)] MutexGuard<'static, ()>, #[allow(dead_code)] fs::File);
    impl Drop for Alone {
        fn drop(&mut self) {}
    }
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Other runs of the tests wait too.
    let lock = fs::File::create(user::work_dir().join("machine.lock")).expect("the machines' lock");
    lock.lock().expect("the machines' lock");
    Alone(one, lock)
}

/// Boots an image of a project, with further arguments for `debforge boot` (`--cdrom`), until its serial
/// console has said the markers, one after the other, and returns all that it said until then. Fails
/// with the end of the console otherwise. The image is not changed.
pub fn boot(project: &Project, machine: Machine, image: &str, more: &[&str], markers: &[&str]) -> String {
    let _one = alone();
    let console = project.path("console.log");
    fs::remove_file(&console).ok();
    let log = console.display().to_string();
    let mut args = vec!["boot", image, "--accel", "tcg", "--timeout", PATIENCE, "--log", &log];
    args.extend(machine.arguments());
    args.extend(more);
    args.extend(markers.iter().flat_map(|marker| ["--expect", marker]));
    let start = Instant::now();
    let finished = project.run(args);
    let said = fs::read(&console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let seconds = start.elapsed().as_secs();
    if finished.code != Some(0) {
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        panic!("{machine:?} after {seconds} s:\n{}\nthe end of its console:\n{tail}", finished.stderr);
    }
    eprintln!("{machine:?} said {markers:?} after {seconds} s");
    said
}
