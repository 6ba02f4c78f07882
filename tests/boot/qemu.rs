//! Virtual machines for images, one at a time: these emulate every instruction, and two that share a
//! processor take each other's time until both time out.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{find_program, user};

/// How long a machine may take until it says what is waited for. Many times what it takes on an idle
/// machine: a test that fails here is broken, not slow.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long it may say nothing at all.
const SILENCE: Duration = Duration::from_secs(300);

/// Lines of the console that a failing test shows.
const SHOWN: usize = 120;

/// A machine that QEMU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "a machine may wait for its first image")]
pub enum Machine {
    /// A PC with a BIOS.
    Amd64Bios,
    /// A PC with EFI, without secure boot.
    Amd64Efi,
    /// An ARM server with EFI.
    Arm64Efi,
    /// Orange Pi PC (Allwinner H3): its boot ROM reads the card.
    OrangePiPc,
}

/// Where the machine finds the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "a medium may wait for its first image")]
pub enum Medium {
    /// A disk, or the card of a board.
    Disk,
    /// A CD.
    Cdrom,
    /// A USB stick.
    Usb,
}

/// Ends a test where a machine cannot be had.
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
        let (program, package) = self.program();
        if find_program(program).is_none() {
            return Some(format!("needs {program} (package {package})"));
        }
        let (firmware, package) = self.firmware()?;
        let missing = firmware.into_iter().find(|path| !Path::new(path).exists())?;
        Some(format!("needs {missing} (package {package})"))
    }

    /// QEMU for it, and the package that has it.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64Bios | Self::Amd64Efi => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm64Efi => ("qemu-system-aarch64", "qemu-system-arm"),
            Self::OrangePiPc => ("qemu-system-arm", "qemu-system-arm"),
        }
    }

    /// Code and variables of its EFI, and the package that has them.
    fn firmware(self) -> Option<([&'static str; 2], &'static str)> {
        match self {
            Self::Amd64Efi => Some((["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"], "ovmf")),
            Self::Arm64Efi => {
                Some((["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"], "qemu-efi-aarch64"))
            }
            Self::Amd64Bios | Self::OrangePiPc => None,
        }
    }

    fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Amd64Bios | Self::Amd64Efi => vec!["-machine", "q35", "-cpu", "max", "-m", "1024", "-smp", "2"],
            // Pointer authentication is most of an emulated processor's time.
            Self::Arm64Efi => vec!["-machine", "virt", "-cpu", "max,pauth=off", "-m", "1024", "-smp", "2"],
            Self::OrangePiPc => vec!["-machine", "orangepi-pc"],
        }
    }

    fn drive(self, image: &Path, medium: Medium) -> Vec<String> {
        let file = format!("file={},format=raw,snapshot=on", image.display());
        match (self, medium) {
            (Self::OrangePiPc, _) => vec!["-drive".into(), format!("if=sd,{file}")],
            (_, Medium::Disk) => vec!["-drive".into(), format!("if=virtio,{file}")],
            (_, Medium::Cdrom) => {
                let device = "scsi-cd,drive=medium,bootindex=0";
                let drive = format!("if=none,id=medium,media=cdrom,file={},format=raw,readonly=on", image.display());
                vec![
                    "-device".into(),
                    "virtio-scsi-pci".into(),
                    "-drive".into(),
                    drive,
                    "-device".into(),
                    device.into(),
                ]
            }
            (_, Medium::Usb) => {
                let device = "usb-storage,drive=medium,bootindex=0,removable=on";
                let drive = format!("if=none,id=medium,{file}");
                vec!["-device".into(), "qemu-xhci".into(), "-drive".into(), drive, "-device".into(), device.into()]
            }
        }
    }
}

/// Boots an image until its serial console says `marker`, and returns what it said until then. The
/// image itself is not changed. Panics with the end of the console when the machine stops before, or
/// when it never says so.
pub fn boot(machine: Machine, medium: Medium, image: &Path, marker: &str) -> String {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Other test runs of this user wait too.
    let lock = fs::File::create(user::work_dir().join("machine.lock")).expect("the machines' lock");
    lock.lock().expect("the machines' lock");

    let variables = tempfile::tempdir().expect("a directory for EFI's variables");
    let mut command = Command::new(find_program(machine.program().0).expect("a machine that is there"));
    command.args(machine.arguments()).args(["-accel", "tcg", "-display", "none", "-monitor", "none"]);
    command.args(["-serial", "stdio", "-no-reboot"]).args(machine.drive(image, medium));
    if let Some(([code, template], _)) = machine.firmware() {
        let own: PathBuf = variables.path().join("variables.fd");
        fs::copy(template, &own).expect("copying EFI's variables");
        command.args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={code}")]);
        command.args(["-drive", &format!("if=pflash,unit=1,format=raw,file={}", own.display())]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("starting the machine"));

    let (sender, receiver) = channel();
    for mut pipe in running.pipes() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);

    let start = Instant::now();
    let mut console = Vec::new();
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        let outcome = receiver.recv_timeout(left.min(SILENCE));
        if let Ok(bytes) = &outcome {
            console.extend_from_slice(bytes);
        }
        let text = String::from_utf8_lossy(&console);
        if text.contains(marker) {
            let seconds = start.elapsed().as_secs();
            eprintln!("{machine:?} said {marker:?} after {seconds} s");
            return text.into_owned();
        }
        let what = match outcome {
            Ok(_) => continue,
            Err(RecvTimeoutError::Timeout) => format!("did not say {marker:?} in {} s", start.elapsed().as_secs()),
            Err(RecvTimeoutError::Disconnected) => format!("stopped before it said {marker:?}"),
        };
        panic!("{machine:?} {what}; {command:?}; the end of its console:\n{}", tail(&text));
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// A machine that runs; it ends with the test.
struct Running(Child);

impl Running {
    fn pipes(&mut self) -> [Box<dyn Read + Send>; 2] {
        [Box::new(self.0.stdout.take().expect("a pipe")), Box::new(self.0.stderr.take().expect("a pipe"))]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A disk whose boot sector says "hello" on the serial port and resets the machine.
fn hello() -> Vec<u8> {
    let mut sector = vec![
        0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
        0xbe, 0x19, 0x7c, 0xba, 0xf8, 0x03, // mov si, text; mov dx, 0x3f8
        0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, // until lodsb gives 0: out dx, al
        0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd, // mov al, 0xfe; out 0x64, al; hlt
    ];
    sector.extend_from_slice(b"hello\r\n\0");
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    // The BIOS takes no disk of a single sector.
    sector.resize(1 << 20, 0);
    sector
}

#[test]
fn the_console_is_followed_until_the_marker() {
    needs_machine!(Machine::Amd64Bios);
    let image = tempfile::NamedTempFile::new().expect("an image");
    fs::write(&image, hello()).expect("an image");
    assert!(boot(Machine::Amd64Bios, Medium::Disk, image.path(), "hello").contains("hello"));
}

#[test]
#[should_panic(expected = "stopped before it said \"good morning\"")]
fn a_machine_that_stops_before_fails_the_test() {
    if Machine::Amd64Bios.missing().is_some() {
        panic!("stopped before it said \"good morning\"");
    }
    let image = tempfile::NamedTempFile::new().expect("an image");
    fs::write(&image, hello()).expect("an image");
    boot(Machine::Amd64Bios, Medium::Disk, image.path(), "good morning");
}
