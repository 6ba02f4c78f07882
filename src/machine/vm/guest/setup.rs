//! What a guest needs beside its file systems.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::sys;

/// Addresses of user-mode networking: QEMU's and libslirp's own defaults.
const ADDRESS: [u8; 4] = [10, 0, 2, 15];
const NETMASK: [u8; 4] = [255, 255, 255, 0];
const GATEWAY: [u8; 4] = [10, 0, 2, 2];

/// How long a device may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// Mounts the devices, and gives the first process an output, which it lacks where /dev was empty.
pub(super) fn console() {
    let flags = nix::mount::MsFlags::empty();
    // An initramfs has no devices of its own but those that the kernel opened for us.
    let _ = nix::mount::mount(Some("devtmpfs"), "/dev", Some("devtmpfs"), flags, None::<&str>);
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console") {
        let _ = nix::unistd::dup2_stdin(&console);
        let _ = nix::unistd::dup2_stdout(&console);
        let _ = nix::unistd::dup2_stderr(&console);
    }
}

/// Loads modules in the order given.
pub(super) fn modules(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let file = File::open(path).with_context(|| format!("opening the module {}", path.display()))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("loading the module {}", path.display()));
            }
        }
    }
    Ok(())
}

/// Waits for a device: drivers make some of theirs a moment after they are loaded.
pub(super) fn device(path: &Path) -> Result<()> {
    let started = Instant::now();
    while !path.exists() {
        ensure!(started.elapsed() < PATIENCE, "the machine has no {}", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Brings up the loopback interface and, where there is a network, the one that leads to it.
pub(super) fn network(interface: Option<&str>) -> Result<()> {
    sys::network::loopback_up().context("setting up the loopback interface")?;
    let Some(interface) = interface else { return Ok(()) };
    sys::network::configure(interface, ADDRESS, NETMASK, GATEWAY)
        .with_context(|| format!("setting up the network interface {interface}"))
}

/// Makes the terminal for shells what the engine reads from and writes to. Messages go on to the console.
pub(super) fn terminal(path: &Path, window: Option<(u16, u16)>) {
    let Ok(terminal) = File::options().read(true).write(true).open(path) else { return };
    if let Some((rows, columns)) = window {
        let _ = sys::terminal::set_size(&terminal.as_fd(), rows, columns);
    }
    let _ = sys::terminal::take_control(&terminal.as_fd());
    let _ = nix::unistd::dup2_stdin(&terminal);
    let _ = nix::unistd::dup2_stdout(&terminal);
}

/// Gives the engine its environment.
pub(super) fn environment(variables: &BTreeMap<String, String>) {
    sys::process::set_environment(variables);
}
