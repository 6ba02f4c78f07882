//! What a command cannot have where it runs, and would have elsewhere: told, so that no product is made without it.

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::sandbox::mounts::{STEPS, THERE};
use crate::sandbox::supervisor::{Caller, Handler, Verdict, Wanted};
use crate::sandbox::{Isolation, View, constant, in_initial_user_namespace};
use crate::sys::notify::Call;

/// CAP_MKNOD (linux/capability.h).
const CAP_MKNOD: u32 = 27;
/// Where nobody makes device nodes, whoever builds: dracut packs those that it can make, and an initramfs needs none.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Refuses device nodes where none can be made, and mounts and host names where there are no namespaces.
pub(in crate::sandbox) struct Refused {
    devices: bool,
    /// In programs of the host (debootstrap) it is known what is done without.
    mounts: bool,
    namespaces: bool,
    /// Hears what was refused, as the end of a sentence that begins with the command.
    tell: Box<dyn Fn(String) + Send>,
}

impl Refused {
    /// `None` where nothing is.
    pub(in crate::sandbox) fn new(
        view: &View,
        isolation: Isolation,
        tell: impl Fn(String) + Send + 'static,
    ) -> Option<Self> {
        let mounts = match view {
            View::Chroot { .. } => true,
            View::Host { root: Some(_), .. } | View::HostPrograms { root: Some(_), .. } => false,
            View::Host { root: None, .. } | View::HostPrograms { root: None, .. } => return None,
        };
        let devices = mounts && !makes_devices();
        let namespaces = isolation == Isolation::Chroot;
        (mounts || namespaces).then(|| Self { devices, mounts, namespaces, tell: Box::new(tell) })
    }

    fn refuse(&self, what: String) -> Result<Verdict, Errno> {
        (self.tell)(what);
        Err(Errno::EPERM)
    }

    fn node(&self, caller: &Caller<'_>, path: u64, mode: u64, number: u64) -> Result<Verdict, Errno> {
        let device = matches!(mode as u32 & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
        let path = caller.path(path)?;
        // What is made in /dev goes with the command, and a whiteout is no device.
        if !device || number == 0 || path.starts_with("/dev") || path.starts_with("/proc") {
            return Ok(Verdict::Pass);
        }
        if TEMPORARY.iter().any(|temporary| path.starts_with(temporary)) {
            return Err(Errno::EPERM);
        }
        if !self.devices {
            return Ok(Verdict::Pass);
        }
        self.refuse(format!("makes the device node {}", path.display()))
    }
}

/// Whether device nodes can be made here.
fn makes_devices() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let capable = u64::from_str_radix(effective.trim(), 16).is_ok_and(|bits| bits & (1 << CAP_MKNOD) != 0);
    capable && in_initial_user_namespace()
}

impl Handler for Refused {
    fn calls(&self) -> Vec<Wanted> {
        let mut calls = Vec::new();
        if self.mounts {
            calls.push(libc::SYS_mknodat);
            #[cfg(target_arch = "x86_64")]
            calls.push(libc::SYS_mknod);
        }
        if self.namespaces && self.mounts {
            calls.extend([libc::SYS_mount, libc::SYS_umount2, libc::SYS_sethostname, libc::SYS_pivot_root]);
            calls.extend(STEPS);
        }
        calls.into_iter().map(Wanted::all).collect()
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        Ok(())
    }

    fn required(&self) -> bool {
        // Elsewhere what it would refuse fails by itself or is done, and that nobody watches is said.
        self.namespaces
    }

    fn refuses_foreign(&self) -> bool {
        self.namespaces
    }

    fn foreign(&mut self) {
        (self.tell)("runs programs of another architecture, which find no /proc and no devices".into());
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let [first, second, third, fourth, ..] = call.arguments;
        match call.number {
            libc::SYS_mknodat => self.node(caller, second, third, fourth),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mknod => self.node(caller, first, second, third),
            libc::SYS_mount => {
                let kind = if third == 0 { "".into() } else { caller.path(third)? };
                let target = caller.path(second)?;
                match THERE.iter().any(|(known, at)| kind == Path::new(known) && target == Path::new(at)) {
                    true => Ok(Verdict::Value(0)),
                    false => self.refuse(format!("mounts something on {}", target.display())),
                }
            }
            libc::SYS_umount2 => {
                let target = caller.path(first)?;
                match THERE.iter().any(|(_, at)| target == Path::new(at)) {
                    true => Ok(Verdict::Value(0)),
                    // Nothing is mounted there.
                    false => Err(Errno::EINVAL),
                }
            }
            libc::SYS_sethostname => {
                let mut name = vec![0; second.min(64) as usize];
                caller.read(first, &mut name)?;
                match name == constant::NODE_NAME.as_bytes() {
                    true => Ok(Verdict::Value(0)),
                    false => self.refuse("sets the host name".into()),
                }
            }
            libc::SYS_pivot_root => self.refuse("changes its root".into()),
            number if STEPS.contains(&number) => Err(Errno::ENOSYS),
            _ => Ok(Verdict::Pass),
        }
    }
}
