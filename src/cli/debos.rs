//! Options of debos that are about its virtual machine, which debforge does not have yet.

/// They are taken, so that command lines for debos work, and it is said that they do nothing.
#[derive(Debug, Clone, clap::Args)]
pub struct MachineArgs {
    /// Memory of the virtual machine.
    #[arg(short = 'm', long, hide = true)]
    memory: Option<String>,

    /// Processors of the virtual machine.
    #[arg(short = 'c', long, hide = true)]
    cpus: Option<String>,

    /// Size of the virtual machine's scratch disk.
    #[arg(long, hide = true)]
    scratchsize: Option<String>,

    /// Show the boot of the virtual machine.
    #[arg(long, hide = true)]
    show_boot: bool,

    /// Run without a virtual machine.
    #[arg(long, hide = true)]
    disable_fakemachine: bool,
}

impl MachineArgs {
    /// A line where one of them was given.
    pub fn note(&self) -> Option<String> {
        let given = [
            ("--memory", self.memory.is_some()),
            ("--cpus", self.cpus.is_some()),
            ("--scratchsize", self.scratchsize.is_some()),
            ("--show-boot", self.show_boot),
            ("--disable-fakemachine", self.disable_fakemachine),
        ];
        let names: Vec<&str> = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        let does = if names.len() == 1 { "does" } else { "do" };
        let names = names.join(", ");
        (!names.is_empty())
            .then(|| format!("{names} {does} nothing: there are no virtual machines yet, builds run on this one"))
    }
}
