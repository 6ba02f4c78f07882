//! QEMU as what runs a machine: a kernel started straight from its file, and virtio for all the rest.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::lines::Lines;
use super::orders::Way;
use super::{Devices, Hypervisor, Start};
use crate::debian::Architecture;

/// As Linux names the devices below: the ports of its only serial device, its disks in their order.
pub(super) const DEVICES: Devices =
    Devices { disk: "/dev/vda", root: "/dev/vdb", channel: "/dev/vport0p1", terminal: "/dev/hvc0", interface: "eth0" };

/// Modules for the devices that the machine has.
pub(super) const MODULES: [&str; 7] =
    ["virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng", "crc32c_generic", "ext4"];

/// Modules for directories that are shared, by 9p and by virtiofs.
pub(super) const PLAN9: [&str; 2] = ["9pnet_virtio", "9p"];
pub(super) const VIRTIOFS: [&str; 1] = ["virtiofs"];

/// Those that file systems ask for by name, and that not every kernel has as modules.
pub(super) const PERHAPS: [&str; 2] = ["crc32_generic", "crc32c_generic"];

/// Where the initial root has the program and its orders.
pub(super) const PROGRAM: &str = "/debforge";
pub(super) const ORDERS: &str = "/orders.json";

/// What QEMU is told of a directory: how the guest mounts it, and the two words that share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) way: Way,
    words: Vec<String>,
}

/// Shares a directory by 9p; `number` makes its names.
pub(super) fn share(number: usize, path: &Path, read_only: bool) -> Shared {
    let tag = format!("share{number}");
    let read_only = if read_only { ",readonly=on" } else { "" };
    let path = escaped(path);
    let words = [
        "-fsdev".to_owned(),
        format!("local,id={tag},path={path},security_model=none,multidevs=remap{read_only}"),
        "-device".to_owned(),
        format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ];
    Shared { way: Way::Plan9(tag), words: words.into() }
}

/// The files that a machine is started from.
pub(super) struct Parts<'a> {
    pub(super) program: &'a Path,
    pub(super) disk: &'a Path,
    pub(super) initramfs: &'a Path,
    pub(super) shares: &'a [Shared],
    /// The socket of a server of files, in place of the shares.
    pub(super) socket: Option<&'a Path>,
    pub(super) lines: &'a Lines,
}

/// The command line.
pub(super) fn command(start: &Start, architecture: Architecture, parts: &Parts<'_>) -> Vec<String> {
    let number = |file: &OwnedFd| file.as_raw_fd();
    let kvm = start.hypervisor == Hypervisor::Kvm;
    let mut words = vec![parts.program.display().to_string()];
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    add(&["-name", "debforge", "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]);
    let machine = machine(architecture);
    // The server of files reads and writes the guest's memory, which has to be shared with it.
    let machine = match parts.socket {
        Some(_) => format!("{machine},memory-backend=memory"),
        None => machine.to_owned(),
    };
    add(&["-machine", &machine, "-accel", if kvm { "kvm" } else { "tcg,thread=multi" }]);
    add(&["-cpu", if kvm { "host" } else { processor(architecture) }]);
    add(&["-m", &start.memory.to_string(), "-smp", &start.processors.to_string()]);
    add(&["-kernel", &start.kernel.display().to_string(), "-initrd", &parts.initramfs.display().to_string()]);
    add(&["-append", &kernel_command_line(architecture)]);
    add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    // The first of all virtio devices: its ports are named by that.
    add(&["-device", "virtio-serial-pci,id=serial"]);
    for (name, file, device) in [
        ("terminal", &parts.lines.terminal, "virtconsole,nr=0"),
        ("channel", &parts.lines.channel, "virtserialport,nr=1"),
    ] {
        add(&["-chardev", &format!("socket,id={name},fd={}", number(file))]);
        add(&["-device", &format!("{device},bus=serial.0,chardev={name}")]);
    }
    if let Some(socket) = parts.socket {
        let (size, socket, tag) = (start.memory, escaped(socket), super::virtiofs::TAG);
        add(&["-object", &format!("memory-backend-memfd,id=memory,size={size}M,share=on")]);
        add(&["-chardev", &format!("socket,id=files,path={socket}")]);
        add(&["-device", &format!("vhost-user-fs-pci,chardev=files,tag={tag},queue-size=1024")]);
    }
    let disk = escaped(parts.disk);
    add(&[
        "-drive",
        &format!("file={disk},if=none,id=store,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap"),
    ]);
    add(&["-device", "virtio-blk-pci,drive=store"]);
    if let Some(root) = &start.root {
        let root = escaped(root);
        add(&["-drive", &format!("file={root},if=none,id=root,format=raw,readonly=on")]);
        add(&["-device", "virtio-blk-pci,drive=root"]);
    }
    if start.network {
        // Without a ROM nothing is tried over the network.
        add(&["-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile="]);
    }
    add(&["-device", "virtio-rng-pci"]);
    words.extend(parts.shares.iter().flat_map(|share| share.words.clone()));
    words
}

fn machine(architecture: Architecture) -> &'static str {
    match architecture {
        // Starts a little sooner than q35, and has all that is wanted.
        Architecture::Amd64 | Architecture::I386 => "pc",
        _ => "virt",
    }
}

/// An emulated processor that can do what Debian wants and no more.
fn processor(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 | Architecture::I386 => "Nehalem",
        Architecture::Arm64 => "cortex-a72",
        _ => "max",
    }
}

fn kernel_command_line(architecture: Architecture) -> String {
    let console = match architecture {
        Architecture::Arm64 | Architecture::Armhf => "ttyAMA0",
        _ => "ttyS0",
    };
    // What checks, measures or protects the machine costs it seconds where its processor is emulated, and
    // protects nobody here.
    format!(
        "console={console} quiet panic=-1 mitigations=off cryptomgr.notests no_timer_check noreplace-smp tsc=reliable \
         rodata=off random.trust_cpu=on net.ifnames=0 rdinit={PROGRAM} -- {} {ORDERS}",
        super::guest::NAME
    )
}

/// A path in QEMU's lists, where a comma is written twice.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Files of this machine that QEMU itself reads, beside its program.
pub(super) fn own_files() -> Vec<PathBuf> {
    // Its answers for names come from there.
    ["/etc/resolv.conf"].map(PathBuf::from).into_iter().filter(|path| path.is_file()).collect()
}
