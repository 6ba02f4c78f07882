//! Debian architectures.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An architecture that Debian has ports of and that qemu-user can emulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Architecture {
    Amd64,
    Arm64,
    Armel,
    Armhf,
    I386,
    Loong64,
    Mips64el,
    Mipsel,
    Ppc64el,
    Riscv64,
    S390x,
}

impl Architecture {
    /// All of them, in the alphabet's order.
    pub const ALL: [Self; 11] = [
        Self::Amd64,
        Self::Arm64,
        Self::Armel,
        Self::Armhf,
        Self::I386,
        Self::Loong64,
        Self::Mips64el,
        Self::Mipsel,
        Self::Ppc64el,
        Self::Riscv64,
        Self::S390x,
    ];

    /// Debian's name, as in `dpkg --print-architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armel => "armel",
            Self::Armhf => "armhf",
            Self::I386 => "i386",
            Self::Loong64 => "loong64",
            Self::Mips64el => "mips64el",
            Self::Mipsel => "mipsel",
            Self::Ppc64el => "ppc64el",
            Self::Riscv64 => "riscv64",
            Self::S390x => "s390x",
        }
    }

    /// The qemu-user emulator's suffix: `qemu-aarch64` runs arm64.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
            Self::Armel | Self::Armhf => "arm",
            Self::I386 => "i386",
            Self::Loong64 => "loongarch64",
            Self::Mips64el => "mips64el",
            Self::Mipsel => "mipsel",
            Self::Ppc64el => "ppc64le",
            Self::Riscv64 => "riscv64",
            Self::S390x => "s390x",
        }
    }

    /// The architecture that this program was compiled for.
    pub fn host() -> Self {
        match std::env::consts::ARCH {
            "aarch64" => Self::Arm64,
            "arm" => Self::Armhf,
            "x86" => Self::I386,
            "loongarch64" => Self::Loong64,
            "powerpc64" => Self::Ppc64el,
            "riscv64" => Self::Riscv64,
            "s390x" => Self::S390x,
            _ => Self::Amd64,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.name() == name)
            .ok_or_else(|| format!("`{name}` is not a Debian architecture"))
    }
}
