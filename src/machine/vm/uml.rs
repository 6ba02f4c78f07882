//! User-mode Linux: a kernel that is a program, its devices given by numbers of open files.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::lines::Lines;
use super::{Devices, Start};

/// How often a processor counts its delay loop in a tick, about: measuring it takes a quarter of a second, and
/// nothing that a build does depends on it.
const DELAY_LOOP: u32 = 24_000_000;

/// As UML names its devices.
pub(super) const DEVICES: Devices =
    Devices { disk: "/dev/ubda", root: "/dev/ubdb", channel: "/dev/ttyS0", terminal: "/dev/ttyS1", interface: "vec0" };

/// What a machine is started from.
pub(super) struct Parts<'a> {
    pub(super) disk: &'a Path,
    /// Of these two the kernel opens the paths.
    pub(super) program: &'a Path,
    pub(super) orders: &'a Path,
    /// A directory of its own.
    pub(super) own: &'a Path,
    pub(super) lines: &'a Lines,
    /// Whether its process sees nothing but what it is to see.
    pub(super) confined: bool,
}

/// The command line.
pub(super) fn command(start: &Start, parts: &Parts<'_>) -> Vec<String> {
    let Parts { disk, program, orders, own, lines, confined } = *parts;
    let number = |file: &OwnedFd| file.as_raw_fd();
    // Without ptrace(2) programs run twice as fast, and can reach the memory of UML's kernel: they are kept
    // from this machine by what is around UML, and where nothing is, by ptrace(2). A kernel that does not know
    // this takes it for a variable of its first process.
    let seccomp = if confined { "auto" } else { "off" };
    let mut words = vec![
        start.kernel.display().to_string(),
        format!("mem={}M", start.memory),
        format!("uml_dir={}/", own.display()),
        format!("seccomp={seccomp}"),
        format!("ubd0={}", disk.display()),
        // The console goes out and takes nothing in. Left to itself UML puts its name last, behind what is
        // for the first process.
        "console=tty0".into(),
        "con=null".into(),
        "con0=null,fd:1".into(),
        "ssl=null".into(),
        format!("ssl0=fd:{0},fd:{0}", number(&lines.channel)),
        format!("ssl1=fd:{0},fd:{0}", number(&lines.terminal)),
        "root=/dev/root".into(),
        "rootfstype=hostfs".into(),
        "rootflags=/".into(),
        "ro".into(),
        // A panic ends the machine; started anew it would do the same again.
        "panic=-1".into(),
        "noreboot".into(),
        format!("lpj={DELAY_LOOP}"),
        "cryptomgr.notests".into(),
    ];
    if let Some(root) = &start.root {
        words.push(format!("ubd1r={}", root.display()));
    }
    if let Some(network) = &lines.network {
        words.push(format!("{}:transport=fd,fd={},vec=0", DEVICES.interface, number(network)));
    }
    words.push(format!("init={}", program.display()));
    words.extend(["--", super::guest::NAME].map(str::to_owned));
    words.push(orders.display().to_string());
    words
}
