//! An emulator registered for one build alone: since Linux 6.7 each user namespace can have a
//! binfmt_misc of its own, so neither privileges nor a change to the machine are needed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use super::elf::Elf;
use crate::debian::Architecture;
use crate::sys;
use crate::sys::output::print;

/// A registration that ends when this is dropped.
#[derive(Debug)]
pub struct PrivateBinfmt {
    /// The user namespace that has it, where it is not the engine's own.
    pub(in crate::sandbox) namespace: Option<OwnedFd>,
    _mount: OwnedFd,
}

/// Whether this kernel has private registrations.
pub(super) fn supported() -> bool {
    let Ok(system) = nix::sys::utsname::uname() else { return false };
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

impl PrivateBinfmt {
    /// Registers the emulator: in the engine's user namespace, or where the engine is the machine's
    /// root, in one that differs from the machine's in nothing else.
    pub(super) fn register(architecture: Architecture, emulator: &Path) -> Result<Self> {
        if super::super::in_initial_user_namespace() {
            Self::through_helper(architecture, emulator)
        } else {
            Ok(Self { namespace: None, _mount: registered(architecture, emulator)? })
        }
    }

    fn through_helper(architecture: Architecture, emulator: &Path) -> Result<Self> {
        let mut helper = std::process::Command::new(super::super::program())
            .arg("__binfmt")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a helper")?;
        let result = (|| {
            let (Some(mut to), Some(from)) = (helper.stdin.take(), helper.stdout.take()) else {
                bail!("the helper has no pipes")
            };
            let mut from = BufReader::new(from);
            let mut hear = || {
                let mut line = String::new();
                from.read_line(&mut line)?;
                anyhow::Ok(line.trim().to_owned())
            };
            if hear()? != "unmapped" {
                bail!("a user namespace is refused");
            }
            let process = format!("/proc/{}", helper.id());
            for map in ["uid_map", "gid_map"] {
                std::fs::write(format!("{process}/{map}"), "0 0 4294967295").context("mapping all ids")?;
            }
            writeln!(to, "{architecture} {}", emulator.display())?;
            let answer = hear()?;
            let Ok(mount) = answer.parse::<i32>() else { bail!("{answer}") };
            let hold = |path: String, flags| open(path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty());
            Ok(Self {
                namespace: Some(hold(format!("{process}/ns/user"), OFlag::O_RDONLY)?),
                _mount: hold(format!("{process}/fd/{mount}"), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?,
            })
        })();
        // Its pipes are closed by now, which ends it.
        helper.wait()?;
        result
    }
}

/// Mounts the binfmt_misc of this user namespace, not yet anywhere, and registers the emulator with it.
pub(super) fn registered(architecture: Architecture, emulator: &Path) -> Result<OwnedFd> {
    let mount = sys::mount::detached(c"binfmt_misc").context("mounting binfmt_misc")?;
    let escape = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let (magic, mask) = Elf::of(architecture).pattern();
    // Flags as Debian's own registration: argv[0] kept, the program handed over open, found in any chroot.
    let line = format!(":qemu-{architecture}:M::{}:{}:{}:POF", escape(magic), escape(mask), emulator.display());
    let register = openat(&mount, "register", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    File::from(register).write_all(line.as_bytes()).with_context(|| format!("registering {}", emulator.display()))?;
    Ok(mount)
}

/// The hidden subcommand `__binfmt`: the side of [`PrivateBinfmt::register`] that lives in the new
/// user namespace.
pub fn helper() -> i32 {
    let told = (|| {
        let mut input = String::new();
        unshare(CloneFlags::CLONE_NEWUSER)?;
        print("unmapped\n")?;
        std::io::stdin().read_line(&mut input)?;
        let (architecture, emulator) = input.trim_end().split_once(' ').context("nothing to register")?;
        let architecture: Architecture = architecture.parse().map_err(anyhow::Error::msg)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        registered(architecture, Path::new(emulator))
    })();
    let _ = match &told {
        Ok(mount) => print(&format!("{}\n", mount.as_raw_fd())),
        Err(error) => print(&format!("{error:#}\n")),
    };
    // Until it is taken over.
    let _ = std::io::stdin().read_line(&mut String::new());
    i32::from(told.is_err())
}
