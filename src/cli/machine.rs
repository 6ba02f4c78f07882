//! Where a build runs, and what a machine of its own is like.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::build::command::shell_word;
use crate::diagnostics::Fault;
use crate::machine::vm::{Hypervisor, Options};
use crate::store::size;

/// Options of a machine. Their names are debos's.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// Where the build runs.
    #[arg(short = 'b', long, alias = "fakemachine-backend", value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,

    /// Memory of the machine, such as 4G; a bare number is in MiB [default: 2G].
    #[arg(short, long, value_name = "SIZE")]
    pub(super) memory: Option<String>,

    /// Processors of the machine [default: those of this one]; UML has one.
    #[arg(short, long, value_name = "NUMBER")]
    pub(super) cpus: Option<u32>,

    /// Most that the machine's disk may hold, such as 100G [default: 64GiB]; it takes only what it holds.
    #[arg(long, value_name = "SIZE")]
    pub(super) scratchsize: Option<String>,

    /// Kernel of the machine [default: an installed one, else Debian's].
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,

    /// Use programs that debforge builds a root of, in place of those of this machine.
    #[arg(long)]
    pub machine_root: bool,

    /// Show what the machine's kernel says.
    #[arg(long)]
    pub show_boot: bool,

    /// The same as `--backend local`.
    #[arg(long, hide = true, conflicts_with = "backend")]
    pub(super) disable_fakemachine: bool,
}

/// Where a build runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Here where that works, else in the fastest machine that does
    Auto,
    /// Namespaces of this machine
    Local,
    /// User-mode Linux (amd64)
    Uml,
    /// QEMU with KVM
    Kvm,
    /// QEMU with an emulated processor
    Qemu,
}

impl Backend {
    /// The machine that is asked for; `None` where it is not a certain one.
    pub fn hypervisor(self) -> Option<Hypervisor> {
        match self {
            Self::Auto | Self::Local => None,
            Self::Uml => Some(Hypervisor::Uml),
            Self::Kvm => Some(Hypervisor::Kvm),
            Self::Qemu => Some(Hypervisor::Qemu),
        }
    }
}

impl MachineArgs {
    /// A machine about which nothing else is said.
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            memory: None,
            cpus: None,
            scratchsize: None,
            kernel: None,
            machine_root: false,
            show_boot: false,
            disable_fakemachine: false,
        }
    }

    /// Where the build is to run.
    pub fn wanted(&self) -> Backend {
        if self.disable_fakemachine { Backend::Local } else { self.backend }
    }

    /// What is said of the machine.
    pub fn options(&self) -> Result<Options> {
        if self.cpus == Some(0) {
            return Err(Fault::recipe("a machine without processors does nothing").into());
        }
        Ok(Options {
            memory: self.memory.as_deref().map(mebibytes).transpose()?,
            processors: self.cpus,
            disk_size: self.scratchsize.as_deref().map(size::parse).transpose()?,
            kernel: self.kernel.clone(),
            root: None,
            at_hand: false,
        })
    }

    /// The same options again, as a shell reads them.
    pub fn again(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let (true, Some(name)) = (self.wanted() != Backend::Auto, self.wanted().to_possible_value()) {
            words.extend(["-b".to_owned(), name.get_name().to_owned()]);
        }
        words.extend(self.machine_root.then(|| "--machine-root".to_owned()));
        let kernel = self.kernel.as_ref().map(|path| path.display().to_string());
        let cpus = self.cpus.map(|number| number.to_string());
        for (option, value) in
            [("-m", &self.memory), ("-c", &cpus), ("--scratchsize", &self.scratchsize), ("--kernel", &kernel)]
        {
            words.extend(value.iter().flat_map(|value| [option.to_owned(), shell_word(value)]));
        }
        words
    }

    /// The options that only a machine heeds, where any was given.
    pub fn unheeded(&self) -> Option<String> {
        let given = [
            ("--memory", self.memory.is_some()),
            ("--cpus", self.cpus.is_some()),
            ("--scratchsize", self.scratchsize.is_some()),
            ("--kernel", self.kernel.is_some()),
            ("--machine-root", self.machine_root),
            ("--show-boot", self.show_boot),
        ];
        let names: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        let does = if names.len() == 1 { "does" } else { "do" };
        let names = names.join(", ");
        (!names.is_empty()).then(|| format!("{names} {does} nothing here: the build runs on this machine itself"))
    }
}

/// `-m 2048` is in MiB, as for QEMU; `2GB` is 2048 of them, as for debos: memory comes in powers of two.
pub fn mebibytes(text: &str) -> Result<u64> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    Ok(size::parse(text.trim_end().trim_end_matches(['b', 'B']))?.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_mebibytes() {
        assert_eq!(mebibytes("2048").unwrap(), 2048);
        assert_eq!(mebibytes("2G").unwrap(), 2048);
        assert_eq!(mebibytes("1GB").unwrap(), 1024);
        assert_eq!(mebibytes("1.5 GiB").unwrap(), 1536);
        assert!(mebibytes("much").is_err());
    }
}
