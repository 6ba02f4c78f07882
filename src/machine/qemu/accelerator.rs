//! Whether KVM works here: tried with a machine that only says a word.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use crate::debian::Architecture;
use crate::store::Store;
use crate::sys::process::die_with_us;

/// How a machine's processor runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accelerator {
    /// This machine's own runs it.
    Kvm,
    /// It is emulated, and why.
    Tcg(Option<String>),
}

/// A guest that can start at all has said its word in a fraction of this.
const PATIENCE: Duration = Duration::from_secs(5);

const WORD: &[u8] = b"debforge";

/// A boot sector for a BIOS that writes what stands behind it to the first serial port and halts:
/// xor ax,ax; mov ds,ax; cld; mov si,0x7c16; mov dx,0x3f8; lodsb; test al,al; jz +3; out dx,al; jmp -8; hlt; jmp -3.
const BOOT_SECTOR: [u8; 22] = [
    0x31, 0xc0, 0x8e, 0xd8, 0xfc, 0xbe, 0x16, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8,
    0xf4, 0xeb, 0xfd,
];

impl Accelerator {
    /// Emulation, for no reason that anybody has to hear.
    pub fn tcg() -> Self {
        Self::Tcg(None)
    }

    /// The better one that works for guests of an architecture. What was tried is remembered until this
    /// machine starts anew or QEMU changes.
    pub fn find(architecture: Architecture, qemu: &Path, store: &Store) -> Self {
        let host = Architecture::host();
        let fits = architecture == host || (host == Architecture::Amd64 && architecture == Architecture::I386);
        if !fits {
            return Self::Tcg(Some(format!("this machine is {host}")));
        }
        if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
            return Self::Tcg(Some(match error.kind() {
                std::io::ErrorKind::NotFound => "there is no /dev/kvm".into(),
                _ => format!("/dev/kvm: {error}"),
            }));
        }
        let key = format!("kvm\0{host}\0{}\0{}", qemu_stamp(qemu), boot_id());
        let known = store.recall(&key).and_then(|fact| Some(fact.get("fault")?.as_str()?.to_owned()));
        let fault = known.unwrap_or_else(|| {
            let fault = match store.scratch().and_then(|scratch| try_kvm(host, qemu, &scratch.path)) {
                Ok(()) => String::new(),
                Err(error) => format!("{error:#}"),
            };
            // An interrupted probe has found out nothing.
            if !crate::build::interrupted() {
                store.remember(&key, &json!({ "fault": fault }));
            }
            fault
        });
        if fault.is_empty() { Self::Kvm } else { Self::Tcg(Some(fault)) }
    }

    pub(super) fn qemu(&self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg(_) => "tcg",
        }
    }
}

/// What tells one QEMU from the next.
fn qemu_stamp(qemu: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(qemu).map(|stat| format!("{}-{}", stat.size(), stat.mtime())).unwrap_or_default()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Starts a guest that says a word.
fn try_kvm(host: Architecture, qemu: &Path, scratch: &Path) -> Result<()> {
    let program = scratch.join("probe");
    let machine = probe_machine(host, &program)?;
    run_probe(qemu, "kvm", &machine)
}

/// Writes the guest's program and gives QEMU's arguments for it.
fn probe_machine(host: Architecture, program: &Path) -> Result<Vec<String>> {
    let name = program.to_string_lossy().replace(',', ",,");
    let (code, words): (Vec<u8>, Vec<String>) = match host {
        Architecture::Amd64 | Architecture::I386 => {
            let mut sector = BOOT_SECTOR.to_vec();
            sector.extend(WORD);
            sector.resize(510, 0);
            sector.extend([0x55, 0xaa]);
            let drive = format!("if=ide,index=0,format=raw,file={name}");
            (sector, ["-machine", "q35", "-cpu", "host", "-drive", &drive].map(str::to_owned).into())
        }
        Architecture::Arm64 => {
            // mov x0, #0x09000000 (the serial port of `virt`); for each letter: mov w1, #letter; strb w1, [x0]; wfi; b -4
            let mut code: Vec<u32> = vec![0xd2a1_2000];
            for letter in WORD {
                code.extend([0x5280_0001 | u32::from(*letter) << 5, 0x3900_0001]);
            }
            code.extend([0xd503_207f, 0x17ff_ffff]);
            let code = code.into_iter().flat_map(u32::to_le_bytes).collect();
            (code, ["-machine", "virt,gic-version=max", "-cpu", "host", "-bios", &name].map(str::to_owned).into())
        }
        other => bail!("debforge cannot try KVM on {other}"),
    };
    let file = File::create(program)?;
    file.set_len(1 << 20)?;
    file.write_all_at(&code, 0)?;
    Ok(words)
}

fn run_probe(qemu: &Path, accelerator: &str, machine: &[String]) -> Result<()> {
    let mut command = Command::new(qemu);
    command
        .args(machine)
        .args(["-accel", accelerator, "-nodefaults", "-no-user-config", "-m", "64", "-display", "none"])
        .args(["-serial", "stdio", "-monitor", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    die_with_us(&mut command);
    let mut child = command.spawn().context("starting qemu")?;
    let said = child.stdout.take().map_or(Ok(Vec::new()), |output| listen(output, PATIENCE));
    let _ = child.kill();
    let output = child.wait_with_output().context("waiting for qemu")?;
    let said = said?;
    if said.windows(WORD.len()).any(|part| part == WORD) {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    match errors.lines().find(|line| !line.contains("terminating on signal")) {
        Some(line) => bail!("qemu said: {}", line.rsplit_once(": ").map_or(line, |(_, rest)| rest)),
        None => bail!("/dev/kvm opens, but a guest did not start within {} s", PATIENCE.as_secs()),
    }
}

/// What is said until the word has come, the speaker ends, or time is up.
fn listen(mut output: impl Read + AsFd, patience: Duration) -> Result<Vec<u8>> {
    let started = Instant::now();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while !said.windows(WORD.len()).any(|part| part == WORD) && !crate::build::interrupted() {
        let Some(left) = patience.checked_sub(started.elapsed()) else { break };
        let step = left.min(Duration::from_millis(200)).as_millis() as u16;
        let mut waiting = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::from(step)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match output.read(&mut buffer)? {
            0 => break,
            read => said.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::find_program;

    /// The probe's own guests start where they are emulated: it is KVM that the probe judges.
    #[test]
    fn the_guests_of_the_probe_say_their_word() {
        let dir = tempfile::tempdir().unwrap();
        for (architecture, program) in
            [(Architecture::Amd64, "qemu-system-x86_64"), (Architecture::Arm64, "qemu-system-aarch64")]
        {
            let Some(qemu) = find_program(program) else { continue };
            let mut machine = probe_machine(architecture, &dir.path().join("probe")).unwrap();
            if let Some(word) = machine.iter_mut().find(|word| *word == "host") {
                *word = if architecture == Architecture::Arm64 { "cortex-a57" } else { "qemu64" }.into();
            }
            // Emulation may be slow where other tests run.
            let tried = (0..6).map(|_| run_probe(&qemu, "tcg", &machine)).find(Result::is_ok);
            assert!(tried.is_some(), "{architecture}: {:?}", run_probe(&qemu, "tcg", &machine));
        }
    }
}
