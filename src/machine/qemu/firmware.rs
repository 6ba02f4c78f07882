//! Firmware for virtual machines, as Debian packages it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::in_list;
use crate::debian::Architecture;
use crate::diagnostics::Fault;

/// Kinds of firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// UEFI (EDK 2; U-Boot's where there is no EDK 2).
    Efi,
    /// SeaBIOS, which QEMU brings along.
    Bios,
    /// U-Boot, which reads extlinux.conf and boot scripts besides.
    UBoot,
}

/// Firmware in flash: code that is only read, and variables.
struct Flash {
    architecture: Architecture,
    secure: bool,
    code: &'static str,
    variables: &'static str,
    package: &'static str,
}

/// The first that is there is taken.
const FLASHES: [Flash; 13] = [
    flash(Architecture::Amd64, false, "OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd", "ovmf"),
    flash(Architecture::Amd64, false, "OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd", "ovmf"),
    flash(Architecture::Amd64, true, "OVMF/OVMF_CODE_4M.secboot.fd", "OVMF/OVMF_VARS_4M.ms.fd", "ovmf"),
    flash(Architecture::Amd64, true, "OVMF/OVMF_CODE.secboot.fd", "OVMF/OVMF_VARS.ms.fd", "ovmf"),
    flash(Architecture::I386, false, "OVMF/OVMF32_CODE_4M.fd", "OVMF/OVMF32_VARS_4M.fd", "ovmf-ia32"),
    flash(Architecture::I386, false, "OVMF/OVMF32_CODE_4M.secboot.fd", "OVMF/OVMF32_VARS_4M.fd", "ovmf-ia32"),
    flash(Architecture::Arm64, false, "AAVMF/AAVMF_CODE.no-secboot.fd", "AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64"),
    flash(Architecture::Arm64, false, "AAVMF/AAVMF_CODE.fd", "AAVMF/AAVMF_VARS.fd", "qemu-efi-aarch64"),
    flash(Architecture::Arm64, true, "AAVMF/AAVMF_CODE.secboot.fd", "AAVMF/AAVMF_VARS.ms.fd", "qemu-efi-aarch64"),
    flash(Architecture::Arm64, true, "AAVMF/AAVMF_CODE.ms.fd", "AAVMF/AAVMF_VARS.ms.fd", "qemu-efi-aarch64"),
    flash(Architecture::Armhf, false, "AAVMF/AAVMF32_CODE.fd", "AAVMF/AAVMF32_VARS.fd", "qemu-efi-arm"),
    flash(
        Architecture::Riscv64,
        false,
        "qemu-efi-riscv64/RISCV_VIRT_CODE.fd",
        "qemu-efi-riscv64/RISCV_VIRT_VARS.fd",
        "qemu-efi-riscv64",
    ),
    flash(
        Architecture::Loong64,
        false,
        "qemu-efi-loongarch64/QEMU_EFI.fd",
        "qemu-efi-loongarch64/QEMU_VARS.fd",
        "qemu-efi-loongarch64",
    ),
];

const fn flash(
    architecture: Architecture,
    secure: bool,
    code: &'static str,
    variables: &'static str,
    package: &'static str,
) -> Flash {
    Flash { architecture, secure, code, variables, package }
}

/// U-Boot for QEMU's own machines (package u-boot-qemu): the option that takes it, and the file.
const U_BOOTS: [(Architecture, &str, &str); 5] = [
    (Architecture::Amd64, "-bios", "/usr/lib/u-boot/qemu-x86_64/u-boot.rom"),
    (Architecture::Arm64, "-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin"),
    (Architecture::Armhf, "-bios", "/usr/lib/u-boot/qemu_arm/u-boot.bin"),
    (Architecture::I386, "-bios", "/usr/lib/u-boot/qemu-x86/u-boot.rom"),
    // OpenSBI starts it, which QEMU brings along.
    (Architecture::Riscv64, "-kernel", "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"),
];

/// What a machine starts with, in files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Code {
    flash: Option<(PathBuf, PathBuf)>,
    /// Where the variables are copied from.
    template: Option<PathBuf>,
    secure_on_pc: bool,
    /// Options of QEMU with files: `-bios`, `-kernel`.
    files: Vec<(&'static str, PathBuf)>,
    /// The command line of a kernel that QEMU starts itself.
    line: Option<String>,
    /// For people: "EFI", "BIOS", "U-Boot".
    pub name: &'static str,
}

impl Code {
    /// Finds firmware. `variables` is where the machine's own copy of its variables will lie.
    pub fn find(architecture: Architecture, firmware: Firmware, secure: bool, variables: &Path) -> Result<Self> {
        Self::find_below(Path::new("/"), architecture, firmware, secure, variables)
    }

    fn find_below(
        top: &Path,
        architecture: Architecture,
        firmware: Firmware,
        secure: bool,
        variables: &Path,
    ) -> Result<Self> {
        if secure && firmware != Firmware::Efi {
            return Err(Fault::recipe("secure boot wants EFI").into());
        }
        let u_boot = || {
            let (_, option, file) = U_BOOTS.iter().find(|(of, ..)| *of == architecture)?;
            let file = top.join(file.trim_start_matches('/'));
            file.exists().then(|| Self { files: vec![(*option, file)], name: "U-Boot", ..Self::default() })
        };
        match firmware {
            Firmware::Bios => match architecture {
                Architecture::Amd64 | Architecture::I386 => Ok(Self { name: "BIOS", ..Self::default() }),
                other => Err(Fault::recipe(format!("{other} machines have no BIOS")).into()),
            },
            Firmware::UBoot => u_boot().ok_or_else(|| missing("U-Boot", architecture, &["u-boot-qemu"]).into()),
            Firmware::Efi => {
                let mut packages = Vec::new();
                for flash in FLASHES.iter().filter(|flash| flash.architecture == architecture && flash.secure == secure)
                {
                    let file = |name: &str| top.join("usr/share").join(name);
                    if file(flash.code).exists() && file(flash.variables).exists() {
                        return Ok(Self {
                            flash: Some((file(flash.code), variables.to_owned())),
                            template: Some(file(flash.variables)),
                            secure_on_pc: secure && architecture == Architecture::Amd64,
                            name: if secure { "EFI with secure boot" } else { "EFI" },
                            ..Self::default()
                        });
                    }
                    if !packages.contains(&flash.package) {
                        packages.push(flash.package);
                    }
                }
                if let Some(code) = u_boot().filter(|_| !secure) {
                    return Ok(Self { name: "EFI of U-Boot", ..code });
                }
                if packages.is_empty() && secure {
                    return Err(
                        Fault::recipe(format!("Debian has no firmware with secure boot for {architecture}")).into()
                    );
                }
                if !secure && U_BOOTS.iter().any(|(of, ..)| *of == architecture) {
                    packages.push("u-boot-qemu");
                }
                Err(missing("EFI firmware", architecture, &packages).into())
            }
        }
    }

    /// A board's own: nothing, or a file in the place of what QEMU would start.
    pub fn of_board(bios: Option<PathBuf>, kernel: Option<PathBuf>) -> Self {
        let files = [("-bios", bios), ("-kernel", kernel)];
        let files = files.into_iter().filter_map(|(option, file)| Some((option, file?))).collect();
        Self { files, name: "the board's own", ..Self::default() }
    }

    /// A kernel that QEMU starts itself, with its initramfs and its command line: no firmware, no boot loader.
    pub fn of_kernel(kernel: PathBuf, initrd: PathBuf, line: String) -> Self {
        let files = vec![("-kernel", kernel), ("-initrd", initrd)];
        Self { files, line: Some(line), name: "kernel", ..Self::default() }
    }

    pub(super) fn is_kernel(&self) -> bool {
        self.line.is_some()
    }

    /// Whether it is what QEMU starts by itself.
    pub(super) fn is_qemus_own(&self) -> bool {
        self.flash.is_none() && self.files.is_empty()
    }

    /// The file of variables that the machine's own is to be a copy of.
    pub fn template(&self) -> Option<(&Path, &Path)> {
        Some((self.template.as_deref()?, &self.flash.as_ref()?.1))
    }

    pub(super) fn wants_smm(&self) -> bool {
        self.secure_on_pc
    }

    pub(super) fn arguments(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some((code, variables)) = &self.flash {
            words.extend([
                "-drive".to_owned(),
                format!("if=pflash,unit=0,format=raw,readonly=on,file={}", in_list(code)),
                "-drive".to_owned(),
                format!("if=pflash,unit=1,format=raw,file={}", in_list(variables)),
            ]);
        }
        if self.secure_on_pc {
            words.extend(["-global".to_owned(), "driver=cfi.pflash01,property=secure,value=on".to_owned()]);
        }
        for (option, file) in &self.files {
            words.extend([(*option).to_owned(), file.to_string_lossy().into_owned()]);
        }
        if let Some(line) = &self.line {
            words.extend(["-append".to_owned(), line.clone()]);
        }
        words
    }
}

fn missing(what: &str, architecture: Architecture, packages: &[&str]) -> Fault {
    let fault = Fault::machine(format!("{what} for {architecture} machines is missing"));
    match packages {
        [] => fault,
        [first, rest @ ..] => {
            let fault = fault.hint(format!("sudo apt install {first}"));
            rest.iter().fold(fault, |fault, other| fault.hint(format!("or {other}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str], architecture: Architecture, firmware: Firmware, secure: bool) -> Result<Code> {
        let top = tempfile::tempdir().unwrap();
        for file in files {
            let file = top.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        Code::find_below(top.path(), architecture, firmware, secure, Path::new("/vars,1"))
    }

    #[test]
    fn the_machine_gets_a_copy_of_the_variables() {
        let files = ["usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"];
        let code = found(&files, Architecture::Amd64, Firmware::Efi, false).unwrap();
        assert_eq!(code.template().unwrap().1, Path::new("/vars,1"));
        let words = code.arguments().join(" ");
        assert!(words.contains("readonly=on,file=") && words.contains("unit=1,format=raw,file=/vars,,1"), "{words}");
        assert!(!code.wants_smm());
    }

    #[test]
    fn secure_boot_takes_other_firmware() {
        let files = ["usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "usr/share/OVMF/OVMF_VARS_4M.ms.fd"];
        let code = found(&files, Architecture::Amd64, Firmware::Efi, true).unwrap();
        assert!(code.wants_smm());
        assert!(found(&files, Architecture::Amd64, Firmware::Efi, false).is_err());
        assert!(found(&files, Architecture::Amd64, Firmware::Bios, true).is_err());
    }

    #[test]
    fn what_is_missing_is_named_by_its_package() {
        let fault = |architecture, firmware| {
            crate::diagnostics::fault_of(&found(&[], architecture, firmware, false).unwrap_err())
        };
        assert_eq!(fault(Architecture::Arm64, Firmware::Efi).hints[0], "sudo apt install qemu-efi-aarch64");
        assert_eq!(fault(Architecture::Riscv64, Firmware::UBoot).hints, ["sudo apt install u-boot-qemu"]);
        assert_eq!(fault(Architecture::Arm64, Firmware::Bios).message, "arm64 machines have no BIOS");
    }

    #[test]
    fn u_boot_stands_in_for_efi() {
        let files = ["usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"];
        let code = found(&files, Architecture::Riscv64, Firmware::Efi, false).unwrap();
        assert_eq!(code.arguments()[0], "-kernel");
        assert_eq!(code.name, "EFI of U-Boot");
    }
}
