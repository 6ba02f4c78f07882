//! As much of ELF (elf(5)) as it takes to tell architectures apart.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::debian::Architecture;

/// What the first 20 bytes of an architecture's programs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elf {
    wide: bool,
    big_endian: bool,
    machine: u16,
}

impl Elf {
    pub(super) fn of(architecture: Architecture) -> Self {
        // Machine numbers: elf.h, EM_*.
        let (wide, big_endian, machine) = match architecture {
            Architecture::Amd64 => (true, false, 62),
            Architecture::Arm64 => (true, false, 183),
            Architecture::Armel | Architecture::Armhf => (false, false, 40),
            Architecture::I386 => (false, false, 3),
            Architecture::Loong64 => (true, false, 258),
            Architecture::Mips64el => (true, false, 8),
            Architecture::Mipsel => (false, false, 8),
            Architecture::Ppc64el => (true, false, 21),
            Architecture::Riscv64 => (true, false, 243),
            Architecture::S390x => (true, true, 22),
        };
        Self { wide, big_endian, machine }
    }

    /// The header of a program that sets nothing but what every one has. Registrations may look at
    /// all of it.
    pub(super) fn whole_header(self) -> Vec<u8> {
        let mut header = self.header();
        header.resize(64, 0);
        header
    }

    /// The first bytes of a program: identification, type (an executable), machine.
    fn header(self) -> Vec<u8> {
        let mut header = vec![0; 16];
        header[..4].copy_from_slice(b"\x7fELF");
        header[4] = if self.wide { 2 } else { 1 };
        header[5] = if self.big_endian { 2 } else { 1 };
        header[6] = 1;
        header.extend(self.half(2));
        header.extend(self.half(self.machine));
        header
    }

    /// Magic and mask that match executables and shared objects (position-independent programs) for
    /// any operating system's ABI byte.
    pub(super) fn pattern(self) -> (Vec<u8>, Vec<u8>) {
        let mut mask = vec![0xff; 16];
        mask[7] = 0;
        mask.extend(self.half(0xfffe));
        mask.extend([0xff, 0xff]);
        (self.header(), mask)
    }

    fn half(self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Whether the kernel runs a program that does nothing but end well; of the two architectures
    /// whose programs another one's kernel may run.
    pub(super) fn try_to_run(self) -> bool {
        let code: &[u8] = match self.machine {
            // xor eax, eax; inc eax; xor ebx, ebx; int 0x80
            3 => &[0x31, 0xc0, 0x40, 0x31, 0xdb, 0xcd, 0x80],
            // mov r7, #1; mov r0, #0; svc #0
            40 => &[0x01, 0x70, 0xa0, 0xe3, 0x00, 0x00, 0xa0, 0xe3, 0x00, 0x00, 0x00, 0xef],
            _ => return false,
        };
        let Ok(fd) = memfd_create("debforge", MFdFlags::MFD_CLOEXEC) else { return false };
        let mut file = File::from(fd);
        if file.write_all(&self.program32(code)).is_err() {
            return false;
        }
        // A file that is still open for writing does not run.
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let Ok(read_only) = File::open(&path) else { return false };
        let path = format!("/proc/{}/fd/{}", std::process::id(), read_only.as_raw_fd());
        drop(file);
        let mut command = std::process::Command::new(path);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// A 32-bit little-endian program of one segment.
    fn program32(self, code: &[u8]) -> Vec<u8> {
        const BASE: u32 = 0x0001_0000;
        const HEADERS: u32 = 52 + 32;
        let mut program = self.header();
        let size = HEADERS + code.len() as u32;
        // e_version, e_entry, e_phoff, e_shoff, e_flags (ARM: EABI version 5).
        let flags = if self.machine == 40 { 0x0500_0000 } else { 0 };
        for word in [1, BASE + HEADERS, 52, 0, flags] {
            program.extend(u32::to_le_bytes(word));
        }
        // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
        for half in [52u16, 32, 1, 0, 0, 0] {
            program.extend(half.to_le_bytes());
        }
        // PT_LOAD from the file's start; readable and executable.
        for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
            program.extend(u32::to_le_bytes(word));
        }
        program.extend(code);
        program
    }
}

/// Whether a program needs no loader (it has no PT_INTERP header), as one must that runs in any chroot.
pub(super) fn is_static(path: &Path) -> bool {
    let mut start = Vec::new();
    let Ok(file) = File::open(path) else { return false };
    if file.take(4096).read_to_end(&mut start).is_err() || start.get(..4) != Some(b"\x7fELF") {
        return false;
    }
    !start.windows(6).any(|window| window == b"/ld-li" || window == b"/ld64." || window == b"/ld.so")
}
