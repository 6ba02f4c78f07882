//! What EFI calls an architecture.

use crate::debian::Architecture;

/// Names of an architecture in EFI's file names and in GRUB's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiNames {
    /// "x64", as in grubx64.efi.
    pub short: &'static str,
    /// "BOOTX64.EFI": what firmware starts from a disk that it does not know (UEFI, 3.5.1.1).
    pub removable: &'static str,
    /// "x86_64-efi": GRUB's directory of modules.
    pub grub: &'static str,
    /// "grub-efi-amd64": GRUB's packages begin so.
    pub package: &'static str,
    /// Whether Debian signs boot loaders for it.
    pub signed: bool,
}

/// `None` for architectures that do not boot by EFI.
pub fn efi_names(architecture: Architecture) -> Option<EfiNames> {
    let (short, removable, grub, package, signed) = match architecture.name() {
        "amd64" => ("x64", "BOOTX64.EFI", "x86_64-efi", "grub-efi-amd64", true),
        "arm64" => ("aa64", "BOOTAA64.EFI", "arm64-efi", "grub-efi-arm64", true),
        "i386" => ("ia32", "BOOTIA32.EFI", "i386-efi", "grub-efi-ia32", true),
        "armhf" => ("arm", "BOOTARM.EFI", "arm-efi", "grub-efi-arm", false),
        "riscv64" => ("riscv64", "BOOTRISCV64.EFI", "riscv64-efi", "grub-efi-riscv64", false),
        "loong64" => ("loongarch64", "BOOTLOONGARCH64.EFI", "loongarch64-efi", "grub-efi-loong64", false),
        _ => return None,
    };
    Some(EfiNames { short, removable, grub, package, signed })
}
