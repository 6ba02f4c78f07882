//! Programs of other architectures: run by the kernel itself, or by qemu-user that binfmt_misc
//! starts for them (the kernel's Documentation/admin-guide/binfmt-misc.rst).

mod elf;
mod private;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::elf::Elf;
pub use self::private::{PrivateBinfmt, helper};
use super::Sandbox;
use crate::debian::Architecture;
use crate::diagnostics::Fault;

/// Where the machine's registrations are shown.
const REGISTRATIONS: &str = "/proc/sys/fs/binfmt_misc";

/// How a chroot of an architecture can run its programs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// The processor and kernel run them.
    Native,
    /// qemu-user runs them.
    Emulated {
        /// The emulator on the host.
        by: PathBuf,
        /// Whether the kernel knows it already; else builds register it for themselves alone, in a
        /// user namespace.
        registered: bool,
    },
    /// Nothing runs them.
    Missing {
        /// What is not there, as a sentence.
        why: String,
        /// A command that helps.
        hint: String,
    },
}

/// What this machine can do with programs of an architecture.
pub fn support(architecture: Architecture) -> Support {
    if runs_natively(architecture) {
        return Support::Native;
    }
    let header = Elf::of(architecture).whole_header();
    let mut loose = None;
    for registration in registrations() {
        if registration.enabled && registration.matches(&header) {
            if registration.fixed {
                return Support::Emulated { by: registration.interpreter, registered: true };
            }
            loose = Some(registration);
        }
    }
    let install = "sudo apt install qemu-user-static binfmt-support";
    match emulator(architecture) {
        Some(by) if private::supported() => Support::Emulated { by, registered: false },
        Some(by) => Support::Missing {
            why: match loose {
                Some(_) => format!("{} is registered without the flag F, so it is not found in a chroot", by.display()),
                None => format!("{} is not registered with the kernel (binfmt_misc)", by.display()),
            },
            hint: install.into(),
        },
        None => Support::Missing {
            why: format!("no emulator runs programs of {architecture}: qemu-{} is missing", architecture.qemu()),
            hint: install.into(),
        },
    }
}

/// The emulator that a machine of our own would need for an architecture; `None` where the processor runs
/// its programs. A fault with the way out where there is none.
pub fn needed_emulator(architecture: Architecture) -> Result<Option<PathBuf>> {
    if architecture == Architecture::host() {
        return Ok(None);
    }
    emulator(architecture).map(Some).ok_or_else(|| {
        let qemu = architecture.qemu();
        Fault::machine(format!("no emulator runs programs of {architecture}: qemu-{qemu}-static is missing"))
            .hint("sudo apt install qemu-user-static")
            .into()
    })
}

/// Registers an emulator with the kernel of a machine that is ours alone.
pub fn register_for_all(architecture: Architecture, emulator: &Path) -> Result<()> {
    let mount = private::registered(architecture, emulator)?;
    let at = std::fs::File::open(REGISTRATIONS)?;
    crate::sys::mount::attach(&mount, &at)?;
    Ok(())
}

impl Sandbox {
    /// The same sandbox, whose commands may be programs of the architecture; in the engine's process.
    /// A fault with the way out where they cannot.
    pub fn emulating(&self, architecture: Architecture) -> Result<Self> {
        match support(architecture) {
            Support::Native | Support::Emulated { registered: true, .. } => Ok(self.clone()),
            Support::Emulated { by, registered: false } => {
                let private = PrivateBinfmt::register(architecture, &by).map_err(|error| {
                    Fault::machine(format!("{} cannot be registered for this build: {error:#}", by.display()))
                        .hint("sudo apt install binfmt-support")
                })?;
                Ok(Self { isolation: self.isolation, binfmt: Some(std::sync::Arc::new(private)) })
            }
            Support::Missing { why, hint } => Err(Fault::machine(why).hint(hint).into()),
        }
    }
}

fn runs_natively(architecture: Architecture) -> bool {
    use Architecture::{Amd64, Arm64, Armel, Armhf, I386};
    let host = Architecture::host();
    match (host, architecture) {
        _ if host == architecture => true,
        // These kernels may or may not have been built with the older instruction set's system calls.
        (Amd64, I386) | (Arm64, Armhf | Armel) => Elf::of(architecture).try_to_run(),
        (Armhf, Armel) => true,
        _ => false,
    }
}

/// A static emulator of the host.
fn emulator(architecture: Architecture) -> Option<PathBuf> {
    let qemu = architecture.qemu();
    [format!("/usr/bin/qemu-{qemu}-static"), format!("/usr/bin/qemu-{qemu}")]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| elf::is_static(path))
}

/// One of the kernel's registrations.
#[derive(Debug, PartialEq, Eq)]
struct Registration {
    enabled: bool,
    interpreter: PathBuf,
    /// Flag F: opened when it was registered, so also found from a chroot.
    fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

fn registrations() -> Vec<Registration> {
    let Ok(entries) = std::fs::read_dir(Path::new(REGISTRATIONS)) else { return Vec::new() };
    entries.flatten().filter_map(|entry| Registration::parse(&std::fs::read_to_string(entry.path()).ok()?)).collect()
}

impl Registration {
    fn parse(text: &str) -> Option<Self> {
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', ':'])).map(str::trim);
        let magic = hex::decode(field("magic")?).ok()?;
        let mask = match field("mask") {
            Some(mask) => hex::decode(mask).ok()?,
            None => vec![0xff; magic.len()],
        };
        Some(Self {
            enabled: text.lines().next()? == "enabled",
            interpreter: field("interpreter")?.into(),
            fixed: field("flags").is_some_and(|flags| flags.contains('F')),
            offset: field("offset")?.parse().ok()?,
            magic,
            mask,
        })
    }

    fn matches(&self, header: &[u8]) -> bool {
        let Some(part) = header.get(self.offset..self.offset + self.magic.len()) else { return false };
        part.iter().zip(&self.magic).zip(&self.mask).all(|((byte, magic), mask)| byte & mask == magic & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn a_registration_matches_programs_of_its_architecture_alone() {
        let registration = Registration::parse(ARM64).expect("parses");
        assert!(registration.enabled && registration.fixed);
        for architecture in Architecture::ALL {
            let matches = registration.matches(&Elf::of(architecture).whole_header());
            assert_eq!(matches, architecture == Architecture::Arm64, "{architecture}");
        }
    }

    #[test]
    fn what_is_switched_off_or_not_fixed_is_seen() {
        let off = ARM64.replace("enabled", "disabled").replace("POF", "PO");
        let registration = Registration::parse(&off).expect("parses");
        assert!(!registration.enabled && !registration.fixed);
        assert_eq!(Registration::parse("enabled"), None);
    }

    #[test]
    fn our_own_registrations_match_their_architectures_alone() {
        for registered in Architecture::ALL {
            let elf = Elf::of(registered);
            let (magic, mask) = elf.pattern();
            let registration =
                Registration { enabled: true, interpreter: "q".into(), fixed: true, offset: 0, magic, mask };
            for architecture in Architecture::ALL {
                let same = Elf::of(architecture) == elf;
                assert_eq!(
                    registration.matches(&Elf::of(architecture).whole_header()),
                    same,
                    "{registered} {architecture}"
                );
            }
        }
    }

    #[test]
    fn this_machine_runs_its_own_programs() {
        assert_eq!(support(Architecture::host()), Support::Native);
    }
}
