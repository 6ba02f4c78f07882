//! What a machine is started from, laid out in a directory of its own.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::initramfs::Initramfs;
use super::lines::Lines;
use super::modules::{self, Module};
use super::orders::{Orders, Share, Way};
use super::surroundings::{self, Surroundings};
use super::virtiofs::{self, Server};
use super::{Devices, Hypervisor, Start, qemu, uml};
use crate::debian::Architecture;
use crate::diagnostics::Fault;
use crate::sandbox::{Bind, Command, Input, Isolation, Told, View};

/// Where the guest sees this machine's store.
pub(in crate::machine) const LENDER: &str = "/run/debforge/store";

/// Where the guest sees the directory of a job that is no build.
pub(super) const WORK: &str = "/run/debforge/work";

/// What is to be run for a machine.
pub(super) struct Prepared {
    /// The machine itself.
    pub(super) machine: Command,
    /// What serves it files, to be started first.
    pub(super) server: Option<Server>,
}

/// Lays out what the guest finds in `own`, and gives the commands that make the machine.
pub(super) fn prepare(start: &Start, isolation: Isolation, disk: &Path, own: &Path, lines: &Lines) -> Result<Prepared> {
    let written = std::slice::from_ref(&start.artifact_dir);
    // What the machine's own process needs, and what the guest sees.
    let outside = Surroundings::with_programs(&start.visible, written);
    let inside = match &start.root {
        Some(_) => Surroundings::bare(&start.visible, written),
        None => Surroundings::with_programs(&start.visible, written),
    };
    let mut shared: Vec<(PathBuf, PathBuf, bool)> =
        inside.directories.iter().map(|(path, read_only)| (path.clone(), path.clone(), *read_only)).collect();
    if start.root.is_none() {
        let etc = own.join("etc");
        crate::debian::system::copy_settings(&etc, surroundings::NAME_SERVER)?;
        shared.push((etc, "/etc".into(), true));
    }
    // At the store's own place the guest mounts its disk.
    shared.push((start.store.clone(), LENDER.into(), true));
    shared.extend(start.work.iter().map(|work| (work.clone(), PathBuf::from(WORK), false)));
    let layout = Layout { start, links: &inside.links, disk, own, lines, program: super::own_program()?, shared };
    let confined = isolation == Isolation::Namespaces;
    let socket = own.join("line/files");
    fs::create_dir(own.join("line"))?;
    let served = match start.hypervisor {
        Hypervisor::Kvm | Hypervisor::Qemu if confined => virtiofs::find(start.modules_dir.as_deref(), &socket)?,
        _ => None,
    };
    let (argv, mut files) = match start.hypervisor {
        Hypervisor::Uml => layout.uml(confined)?,
        Hypervisor::Kvm | Hypervisor::Qemu => layout.qemu(served.is_some().then_some(socket.as_path()))?,
    };
    files.extend(outside.directories.iter().cloned());
    files.extend(start.root.iter().map(|image| (image.clone(), true)));
    files.push((own.to_owned(), false));
    files.push((disk.to_owned(), false));
    let path = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("TMPDIR", "/tmp")];
    let command = |argv, view, binds| Command {
        argv,
        environment: path.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        directory: None,
        view,
        binds,
        network: false,
        input: Input::Null,
        uniform: None,
        remounts: false,
        told: Told::Truth,
    };
    let view = |name| match isolation {
        Isolation::Namespaces => Ok(View::Chroot { root: jail(&own.join(name), &outside)? }),
        Isolation::Chroot => anyhow::Ok(View::Host { root: None, writable: Vec::new() }),
    };
    let server = match served {
        Some(argv) => {
            // Beside what is shared, only its own program and the place of its socket.
            let mut seen = vec![(own.join("line"), false)];
            seen.extend(outside.directories.iter().filter(|(path, _)| path.starts_with("/usr")).cloned());
            Some(Server { command: command(argv, view("server")?, layout.binds(&seen)), socket })
        }
        None => None,
    };
    let binds = if confined { layout.binds(&files) } else { Vec::new() };
    let mut machine = Command {
        // UML's network is a line to a process outside.
        network: start.network && start.hypervisor != Hypervisor::Uml,
        directory: start.libraries.clone(),
        ..command(argv, view("root")?, binds)
    };
    if start.libraries.is_some() {
        machine.environment.insert("LD_LIBRARY_PATH".into(), ".".into());
    }
    Ok(Prepared { machine, server })
}

/// A root for the machine's own process, so that whoever breaks out of the guest finds nothing.
fn jail(root: &Path, surroundings: &Surroundings) -> Result<PathBuf> {
    fs::create_dir(root)?;
    for (name, target) in &surroundings.links {
        std::os::unix::fs::symlink(target, root.join(name))?;
    }
    Ok(root.to_owned())
}

struct Layout<'a> {
    start: &'a Start,
    /// Symbolic links at the top of the guest's root.
    links: &'a [(String, String)],
    disk: &'a Path,
    own: &'a Path,
    lines: &'a Lines,
    program: PathBuf,
    /// What is shared: from, to, and whether it is only read.
    shared: Vec<(PathBuf, PathBuf, bool)>,
}

/// A command line, and files that the machine's process has to see; whether they are only read.
type Laid = (Vec<String>, Vec<(PathBuf, bool)>);

impl Layout<'_> {
    fn uml(&self, confined: bool) -> Result<Laid> {
        let place = self.own.join("modules");
        fs::create_dir(&place)?;
        let lay = |(number, module): (usize, Module)| {
            let path = place.join(format!("{number:02}-{}.ko", module.name));
            fs::write(&path, module.contents()?).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        let modules = self.modules(&[])?.into_iter().enumerate().map(lay).collect::<Result<_>>()?;
        let ways = self.shared.iter().map(|(from, ..)| Way::Hostfs(from.clone())).collect();
        let orders = self.orders(modules, ways, &uml::DEVICES);
        let file = self.own.join("orders.json");
        // What the recipe's properties and variables say is nobody else's.
        let doing = "writing the machine's orders";
        let mut written = fs::File::options().write(true).create_new(true).mode(0o600).open(&file).context(doing)?;
        written.write_all(&serde_json::to_vec(&orders)?).context(doing)?;
        let uml_dir = self.own.join("uml");
        fs::create_dir(&uml_dir)?;
        let parts = uml::Parts {
            disk: self.disk,
            program: &self.program,
            orders: &file,
            own: &uml_dir,
            lines: self.lines,
            confined,
        };
        let kernel = self.start.libraries.as_ref().unwrap_or(&self.start.kernel);
        Ok((uml::command(self.start, &parts), vec![(self.program.clone(), true), (kernel.clone(), true)]))
    }

    /// With `socket`, that of what serves files, else each directory is shared by itself.
    fn qemu(&self, socket: Option<&Path>) -> Result<Laid> {
        let architecture = Architecture::host();
        let emulator = crate::machine::qemu::program(architecture)?;
        let share =
            |(number, (from, _, read_only)): (usize, &(PathBuf, PathBuf, bool))| qemu::share(number, from, *read_only);
        let (shares, ways): (Vec<qemu::Shared>, Vec<Way>) = match socket {
            Some(_) => (Vec::new(), self.shared.iter().map(|(from, ..)| Way::Within(from.clone())).collect()),
            None => self.shared.iter().enumerate().map(share).map(|share| (share.clone(), share.way)).unzip(),
        };
        let mut initramfs = Initramfs::new();
        initramfs.program(&self.program, Path::new(qemu::PROGRAM))?;
        let sharing: &[&str] = if socket.is_some() { &qemu::VIRTIOFS } else { &qemu::PLAN9 };
        let modules = self.modules(&[&qemu::MODULES, sharing].concat())?;
        initramfs.modules(&modules);
        let paths = Initramfs::paths(&modules);
        let outside = socket.map(|_| virtiofs::TAG.to_owned());
        let orders = Orders { outside, ..self.orders(paths, ways, &qemu::DEVICES) };
        initramfs.file(Path::new(qemu::ORDERS), 0o600, serde_json::to_vec(&orders)?);
        let file = self.own.join("initramfs");
        initramfs.write(&file)?;
        let parts = qemu::Parts {
            program: &emulator,
            disk: self.disk,
            initramfs: &file,
            shares: &shares,
            socket,
            lines: self.lines,
        };
        let words = qemu::command(self.start, architecture, &parts);
        let mut files: Vec<(PathBuf, bool)> = qemu::own_files().into_iter().map(|path| (path, true)).collect();
        files.push((self.start.kernel.clone(), true));
        if self.start.hypervisor == Hypervisor::Kvm {
            files.push(("/dev/kvm".into(), false));
        }
        Ok((words, files))
    }

    /// The modules that the guest loads: those for the machine's devices first.
    fn modules(&self, devices: &[&str]) -> Result<Vec<Module>> {
        let Some(directory) = &self.start.modules_dir else { return Ok(Vec::new()) };
        let wanted = self.start.modules.iter().map(String::as_str);
        let wanted: Vec<&str> = devices.iter().copied().chain(wanted).collect();
        let mut closure = modules::closure(directory, &wanted)?;
        closure.missing.retain(|name| !qemu::PERHAPS.contains(&name.as_str()));
        // Of a kernel of the user's own nobody knows what it has built in.
        if !closure.missing.is_empty() && !self.start.own_kernel {
            let missing = closure.missing.join(", ");
            return Err(Fault::machine(format!("the kernel {} has no {missing}", self.start.kernel.display()))
                .hint("`--kernel FILE` names another one")
                .into());
        }
        Ok(closure.modules)
    }

    fn orders(&self, modules: Vec<PathBuf>, ways: Vec<Way>, devices: &Devices) -> Orders {
        let start = self.start;
        let shares = ways.into_iter().zip(&self.shared);
        Orders {
            modules,
            shares: shares
                .map(|(way, (_, at, read_only))| Share { way, at: at.clone(), read_only: *read_only })
                .collect(),
            outside: None,
            links: self.links.to_vec(),
            root: start.root.as_ref().map(|_| devices.root.into()),
            files: match start.root {
                Some(_) => vec![
                    ("/etc/resolv.conf".into(), surroundings::NAME_SERVER.into()),
                    ("/etc/hostname".into(), "debforge\n".into()),
                    ("/etc/hosts".into(), "127.0.0.1 localhost debforge\n".into()),
                ],
                None => Vec::new(),
            },
            disk: devices.disk.into(),
            store: start.store.clone(),
            interface: start.network.then(|| devices.interface.into()),
            channel: devices.channel.into(),
            terminal: devices.terminal.into(),
            window: crate::sys::terminal::size(&std::io::stdin().as_fd()).ok().filter(|(rows, _)| *rows > 0),
            emulator: start.emulator.clone(),
            environment: start.environment.clone(),
            job: start.job.clone(),
        }
    }

    /// What the machine's process sees: what the guest sees, and `files`.
    fn binds(&self, files: &[(PathBuf, bool)]) -> Vec<Bind> {
        let bind = |path: &Path, read_only| Bind { source: path.into(), target: path.into(), read_only };
        let shared = self.shared.iter().map(|(from, _, read_only)| bind(from, *read_only));
        shared.chain(files.iter().map(|(path, read_only)| bind(path, *read_only))).collect()
    }
}
