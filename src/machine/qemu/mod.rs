//! Virtual machines that images are started in: which QEMU, with which firmware and devices.
//!
//! [`Guest`] is what is wanted, [`Guest::command`] what it comes to as a command line: pure, so that it can
//! be printed and tested. [`console`] runs it.

pub mod accelerator;
pub mod console;
mod firmware;
pub mod preparation;
pub(in crate::machine) mod running;
pub mod sifive;
pub(in crate::machine) mod transcript;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use accelerator::Accelerator;
pub use firmware::{Code, Firmware};
pub use preparation::Preparation;

use super::find_program;
use crate::debian::Architecture;
use crate::diagnostics::Fault;
use crate::inspect::Format;

/// Memory of a machine that nobody said it for, in MiB.
const MEMORY: u64 = 1024;

/// A machine to be started.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Of its processor.
    pub architecture: Architecture,
    /// QEMU's name of a board, with options (`sifive_u,msel=11`); `None` for a machine of QEMU's own.
    pub board: Option<String>,
    /// What starts the image.
    pub code: Code,
    /// How its processor runs.
    pub accelerator: Accelerator,
    /// In MiB.
    pub memory: Option<u64>,
    /// Number of processors.
    pub processors: Option<u32>,
    /// Whether it has a screen, in a window.
    pub graphical: bool,
    /// What its disk or CD is.
    pub medium: Medium,
    /// What is in the flash of a board.
    pub flash: Option<Flash>,
    /// Ports of this machine that lead to ports of the guest.
    pub forwards: Vec<Forward>,
    /// Where the serial console goes.
    pub serial: Serial,
    /// A port for programs in the guest: see [`Port`].
    pub port: Option<Port>,
    /// Whether it goes on when the guest starts anew, rather than ending.
    pub restarts: bool,
}

/// A line to a program in the guest, which finds it as `/dev/virtio-ports/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// The number of the socket that it leads to, which QEMU inherits.
    pub socket: i32,
}

/// What a machine starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// The file.
    pub file: PathBuf,
    /// What it is.
    pub format: Format,
    /// Whether it is a CD, which nobody writes to.
    pub cd: bool,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Whether nobody wants what the guest writes.
    pub throwaway: bool,
}

/// The bytes of a board's SPI flash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flash {
    /// The file, raw, as large as the flash.
    pub file: PathBuf,
    /// Whether nobody wants what the guest writes.
    pub throwaway: bool,
}

/// A port of this machine that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// On this machine, of the loopback interface alone.
    pub host: u16,
    /// Of the guest.
    pub guest: u16,
}

/// Where the serial console goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serial {
    /// To whoever runs QEMU, as bytes and nothing else.
    Pipe,
    /// To a terminal, with QEMU's own keys.
    Terminal,
}

impl Guest {
    /// QEMU and its arguments.
    pub fn command(&self) -> Result<Vec<String>> {
        let program = program(self.architecture)?;
        let mut line = vec![program.to_string_lossy().into_owned()];
        line.extend(["-name", "debforge", "-nodefaults", "-no-user-config"].map(str::to_owned));
        if self.board.is_some() {
            // A board has the devices that it has.
            line.retain(|word| word != "-nodefaults");
        }
        let mut add = |words: &[&str]| line.extend(words.iter().map(|word| (*word).to_owned()));
        add(&["-machine", &self.machine(), "-accel", self.accelerator.qemu()]);
        if self.board.is_none() {
            add(&["-cpu", self.processor()]);
            add(&["-m", &self.memory.unwrap_or(MEMORY).to_string()]);
            add(&["-smp", &self.processors.unwrap_or_else(processors).to_string()]);
        } else {
            if let Some(memory) = self.memory {
                add(&["-m", &memory.to_string()]);
            }
            if let Some(processors) = self.processors {
                add(&["-smp", &processors.to_string()]);
            }
        }
        match self.serial {
            Serial::Pipe => add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]),
            Serial::Terminal => add(&["-serial", "mon:stdio"]),
        }
        if self.serial == Serial::Pipe {
            add(&["-monitor", "none"]);
        }
        if !self.restarts {
            add(&["-no-reboot"]);
        }
        for word in self.code.arguments() {
            add(&[&word]);
        }
        for word in self.devices() {
            add(&[&word]);
        }
        Ok(line)
    }

    fn machine(&self) -> String {
        if let Some(board) = &self.board {
            return board.clone();
        }
        let mut machine = match self.architecture {
            Architecture::Amd64 | Architecture::I386 => "q35",
            // Kernels for 32 bits find PCI only below 4 GiB.
            Architecture::Armhf | Architecture::Armel => "virt,highmem=off",
            _ => "virt",
        }
        .to_owned();
        if self.code.wants_smm() {
            machine.push_str(",smm=on");
        }
        machine
    }

    fn processor(&self) -> &'static str {
        if self.accelerator == Accelerator::Kvm {
            return "host";
        }
        // Emulated ones that can do what Debian wants and no more: what is emulated costs time.
        match self.architecture {
            Architecture::Amd64 | Architecture::I386 => "Nehalem",
            Architecture::Arm64 => "cortex-a72",
            Architecture::Armhf | Architecture::Armel => "cortex-a15",
            Architecture::Riscv64 => "rv64",
            Architecture::Loong64 => "la464",
            _ => "max",
        }
    }

    fn devices(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut add = |items: &[&str]| words.extend(items.iter().map(|item| (*item).to_owned()));
        let Medium { file, format, cd, sector_size, throwaway } = &self.medium;
        let mut drive = format!("file={},format={}", in_list(file), format.qemu());
        if *throwaway {
            drive.push_str(",cache=unsafe");
        }
        let forwards: String = self
            .forwards
            .iter()
            .map(|Forward { host, guest }| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"))
            .collect();
        if self.board.is_some() {
            let interface = if *cd { "if=none,id=disk,media=cdrom" } else { "if=sd" };
            add(&["-drive", &format!("{interface},{drive}")]);
            if let Some(Flash { file, throwaway }) = &self.flash {
                let snapshot = if *throwaway { ",snapshot=on" } else { "" };
                add(&["-drive", &format!("if=mtd,format=raw{snapshot},file={}", in_list(file))]);
            }
            if !forwards.is_empty() {
                add(&["-nic", &format!("user{forwards}")]);
            }
            if !self.graphical {
                add(&["-display", "none"]);
            }
            return words;
        }
        if *cd {
            add(&["-drive", &format!("if=none,id=disk,media=cdrom,readonly=on,{drive}")]);
            if self.is_pc() {
                add(&["-device", "ide-cd,drive=disk,bootindex=0"]);
            } else {
                add(&["-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=disk,bootindex=0"]);
            }
        } else {
            add(&["-drive", &format!("if=none,id=disk,discard=unmap,{drive}")]);
            let mut device = "virtio-blk-pci,drive=disk".to_owned();
            // A kernel that QEMU starts itself has that place.
            if !self.code.is_kernel() {
                device.push_str(",bootindex=0");
            }
            if *sector_size != 512 {
                device.push_str(&format!(",logical_block_size={sector_size},physical_block_size={sector_size}"));
            }
            add(&["-device", &device]);
        }
        // Without a ROM nothing is tried over the network.
        add(&["-netdev", &format!("user,id=network{forwards}")]);
        add(&["-device", "virtio-net-pci,netdev=network,romfile="]);
        add(&["-device", "virtio-rng-pci"]);
        if let Some(Port { name, socket }) = &self.port {
            add(&["-device", "virtio-serial-pci", "-chardev", &format!("socket,id=port,fd={socket}")]);
            add(&["-device", &format!("virtserialport,chardev=port,name={name}")]);
        }
        if self.graphical {
            add(&["-device", if self.is_pc() { "virtio-vga" } else { "virtio-gpu-pci" }]);
            add(&["-device", "qemu-xhci", "-device", "usb-kbd", "-device", "usb-tablet"]);
        } else {
            if self.is_pc() && self.code.is_qemus_own() {
                // GRUB, as `update-grub` sets it up, waits for ever for a BIOS to have a screen.
                add(&["-device", "VGA"]);
            }
            add(&["-display", "none"]);
        }
        words
    }

    fn is_pc(&self) -> bool {
        matches!(self.architecture, Architecture::Amd64 | Architecture::I386)
    }
}

/// A file's name in QEMU's lists, where a comma in it is written twice.
fn in_list(file: &Path) -> String {
    file.to_string_lossy().replace(',', ",,")
}

/// As many processors as help a boot.
fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |number| u32::try_from(number.get()).unwrap_or(1)).min(4)
}

/// The QEMU that emulates an architecture.
pub fn program(architecture: Architecture) -> Result<PathBuf> {
    let (name, package) = match architecture {
        Architecture::Amd64 | Architecture::I386 => ("qemu-system-x86_64", "qemu-system-x86"),
        Architecture::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
        Architecture::Armhf | Architecture::Armel => ("qemu-system-arm", "qemu-system-arm"),
        Architecture::Riscv64 => ("qemu-system-riscv64", "qemu-system-riscv"),
        Architecture::Loong64 => ("qemu-system-loongarch64", "qemu-system-misc"),
        other => {
            return Err(Fault::recipe(format!("debforge knows no machine that starts images of {other}"))
                .hint("`debforge inspect` looks into them")
                .into());
        }
    };
    find_program(name).ok_or_else(|| {
        let fault = Fault::machine(format!("{name} is missing, which runs {architecture} machines"))
            .hint(format!("sudo apt install {package}"));
        match package {
            "qemu-system-riscv" => fault.hint("on Debian 12 the package is qemu-system-misc"),
            _ => fault,
        }
        .into()
    })
}

/// Boards of QEMU that Debian runs on, and their architectures.
const BOARDS: [(&str, Architecture); 12] = [
    ("bananapi", Architecture::Armhf),
    ("bpim2u", Architecture::Armhf),
    ("cubieboard", Architecture::Armhf),
    ("orangepi-pc", Architecture::Armhf),
    ("raspi2b", Architecture::Armhf),
    ("raspi3b", Architecture::Arm64),
    ("raspi4b", Architecture::Arm64),
    ("sabrelite", Architecture::Armhf),
    ("sifive_u", Architecture::Riscv64),
    ("vexpress-a15", Architecture::Armhf),
    ("xlnx-zcu102", Architecture::Arm64),
    ("xlnx-versal-virt", Architecture::Arm64),
];

/// The architecture of a board by QEMU's name of it.
pub fn board_architecture(board: &str) -> Option<Architecture> {
    let name = board.split(',').next().unwrap_or_default();
    BOARDS.iter().find(|(known, _)| *known == name).map(|(_, architecture)| *architecture)
}

/// The command that makes a throw-away layer over an image, which gets what the guest writes.
pub fn overlay(image: &Path, format: Format, overlay: &Path, size: u64) -> Preparation {
    let size = size.to_string();
    let words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", format.qemu(), "-b"];
    Preparation::command(words.map(Path::new).into_iter().chain([image, overlay, Path::new(&size)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest {
            architecture: Architecture::Amd64,
            board: None,
            code: Code::default(),
            accelerator: Accelerator::tcg(),
            memory: None,
            processors: Some(2),
            graphical: false,
            medium: Medium {
                file: "/a,b/disk.qcow2".into(),
                format: Format::Qcow2,
                cd: false,
                sector_size: 512,
                throwaway: true,
            },
            flash: None,
            forwards: Vec::new(),
            serial: Serial::Pipe,
            port: None,
            restarts: true,
        }
    }

    fn line(guest: &Guest) -> Option<String> {
        program(guest.architecture).ok()?;
        Some(guest.command().unwrap().join(" "))
    }

    #[test]
    fn a_disk_is_a_virtio_disk_and_commas_are_doubled() {
        let Some(line) = line(&guest()) else { return };
        assert!(line.contains("file=/a,,b/disk.qcow2,format=qcow2,cache=unsafe"), "{line}");
        assert!(line.contains("-machine q35 -accel tcg"), "{line}");
        assert!(line.contains("-m 1024 -smp 2"), "{line}");
        assert!(!line.contains("block_size"), "{line}");
    }

    #[test]
    fn large_sectors_are_told_to_the_disk() {
        let mut guest = guest();
        guest.medium.sector_size = 4096;
        let Some(line) = line(&guest) else { return };
        assert!(line.contains("logical_block_size=4096,physical_block_size=4096"), "{line}");
    }

    #[test]
    fn boards_take_a_card_and_keep_their_own_devices() {
        let mut guest = guest();
        (guest.architecture, guest.board) = (Architecture::Armhf, Some("orangepi-pc".into()));
        guest.forwards = vec![Forward { host: 2222, guest: 22 }];
        let Some(line) = line(&guest) else { return };
        assert!(line.contains("-machine orangepi-pc"), "{line}");
        assert!(line.contains("-drive if=sd,file=/a,,b/disk.qcow2"), "{line}");
        assert!(line.contains("-nic user,hostfwd=tcp:127.0.0.1:2222-:22"), "{line}");
        assert!(!line.contains("if=mtd"), "{line}");
        assert!(!line.contains("virtio") && !line.contains("-nodefaults") && !line.contains("-cpu"), "{line}");
    }

    #[test]
    fn a_flash_is_written_to_where_that_is_wanted() {
        let mut guest = guest();
        (guest.architecture, guest.board) = (Architecture::Armhf, Some("orangepi-pc".into()));
        for (throwaway, word) in
            [(true, "if=mtd,format=raw,snapshot=on,file=/a,,b"), (false, "if=mtd,format=raw,file=/a,,b")]
        {
            guest.flash = Some(Flash { file: "/a,b".into(), throwaway });
            let Some(line) = line(&guest) else { return };
            assert!(line.ends_with(&format!("-drive {word} -display none")), "{line}");
        }
    }

    #[test]
    fn a_kernel_starts_without_firmware_and_a_port_leads_into_the_guest() {
        let mut guest = guest();
        guest.code = Code::of_kernel("/k,1".into(), "/i".into(), "ro quiet".into());
        guest.port = Some(Port { name: "org.example", socket: 7 });
        guest.restarts = false;
        let Some(line) = line(&guest) else { return };
        assert!(line.contains("-kernel /k,1 -initrd /i -append ro quiet"), "{line}");
        assert!(line.contains("-no-reboot") && !line.contains("bootindex"), "{line}");
        assert!(line.contains("-chardev socket,id=port,fd=7 -device virtserialport,chardev=port,name=org.example"));
    }

    #[test]
    fn boards_have_architectures() {
        assert_eq!(board_architecture("sifive_u,msel=11"), Some(Architecture::Riscv64));
        assert_eq!(board_architecture("toaster"), None);
    }
}
