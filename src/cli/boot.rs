//! `debforge boot`: starts an image in a virtual machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::StoreArgs;
use super::machine::mebibytes;
use super::output::print;
use crate::build::archive::Compression;
use crate::debian::Architecture;
use crate::diagnostics::{Fault, fault_of};
use crate::image::TableKind;
use crate::image::table::Entry;
use crate::inspect::bootable::Bootable;
use crate::inspect::{Format, Source, Workplace};
use crate::machine::qemu::console::{Ending, Session};
use crate::machine::qemu::{self, Accelerator, Code, Firmware, Flash, Forward, Guest, Medium, Preparation, Serial};
use crate::machine::qemu::{preparation::shell_line, sifive};
use crate::report;
use crate::say;
use crate::store::Store;
use crate::store::size::parse;

/// How long `--expect` waits where nobody says how long.
const PATIENCE: Duration = Duration::from_secs(600);

/// Start an image in a virtual machine, its serial console in the terminal.
///
/// Architecture and firmware are found out from the image. What the machine writes is thrown away when it
/// ends, unless `--persist` is given. Ctrl-A x ends the machine.
///
/// With `--expect` the exit code is 0 when the text has come, and 1 when the machine ends, its kernel panics
/// or the time is up before that.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image: raw, qcow2, vmdk, vdi, vhdx or ISO, also compressed (zst, xz, gz, …).
    image: PathBuf,

    /// Architecture of the machine, as Debian names it [default: the image's].
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,

    /// What starts the image.
    #[arg(long, value_enum, default_value = "auto")]
    firmware: FirmwareArg,

    /// Start only what is signed, with Microsoft's keys as computers are sold with.
    #[arg(long)]
    secure_boot: bool,

    /// A board of QEMU in place of its generic machine, with options as QEMU takes them: `orangepi-pc`, `sifive_u`. The image is its SD card.
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,

    /// First program of the board (QEMU's -bios), such as U-Boot's SPL [default: the board's; that of the card for sifive_u].
    #[arg(long, value_name = "FILE", requires = "machine")]
    bios: Option<PathBuf>,

    /// Program that the board's first one starts (QEMU's -kernel), such as U-Boot.
    #[arg(long, value_name = "FILE", requires = "machine")]
    kernel: Option<PathBuf>,

    /// Raw file of the board's SPI flash, as large as the flash [default: none; for sifive_u, one that leads U-Boot to the card].
    #[arg(long, value_name = "FILE", requires = "machine")]
    flash: Option<PathBuf>,

    /// Memory of the machine, such as 2G [default: 1G, or the board's].
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,

    /// Processors of the machine [default: those of this one, at most 4].
    #[arg(short, long, value_name = "NUMBER")]
    cpus: Option<u32>,

    /// How the machine's processor runs.
    #[arg(long, value_enum, default_value = "auto")]
    accel: AccelArg,

    /// Wait until this text is on the console, then end the machine; several are waited for one after the other.
    #[arg(long, value_name = "TEXT")]
    expect: Vec<String>,

    /// End the machine after so many seconds [default: 600 with --expect, else never].
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,

    /// Keep what is said on the console in a file.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Let the machine write to the image itself, and to the file of `--flash`.
    #[arg(long)]
    persist: bool,

    /// Disk of this size, larger than the image: first boot may grow into it.
    #[arg(long, value_name = "SIZE", conflicts_with = "persist")]
    size: Option<String>,

    /// Put the image in as a CD (ISO) rather than as a disk.
    #[arg(long, conflicts_with_all = ["persist", "size"])]
    cdrom: bool,

    /// Let this port of the loopback interface lead to the machine's ssh.
    #[arg(long, value_name = "PORT")]
    ssh: Option<u16>,

    /// Let a port of the loopback interface lead to one of the machine.
    #[arg(long = "port", value_name = "HOST:GUEST")]
    ports: Vec<String>,

    /// Give the machine a screen, in a window.
    #[arg(long)]
    graphical: bool,

    /// Print the commands that start the machine, and start nothing.
    #[arg(long)]
    print: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// What starts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FirmwareArg {
    /// EFI where the image has something for it, else BIOS, else U-Boot
    Auto,
    /// UEFI
    Efi,
    /// BIOS (amd64, i386)
    Bios,
    /// U-Boot, which reads extlinux.conf and boot scripts
    UBoot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AccelArg {
    /// KVM where it works, else emulation
    Auto,
    /// This machine's processor
    Kvm,
    /// Emulation
    Tcg,
}

impl AccelArg {
    /// What a machine of an architecture gets.
    pub(super) fn accelerator(self, architecture: Architecture, program: &Path, store: &Store) -> Accelerator {
        match self {
            Self::Auto => {
                let waiting = super::Waiting::start();
                waiting.say("trying once whether KVM works");
                crate::machine::vm::accelerator(architecture, program, store, &mut |what| waiting.say(what))
            }
            Self::Kvm => Accelerator::Kvm,
            Self::Tcg => Accelerator::tcg(),
        }
    }
}

impl FirmwareArg {
    /// The firmware for an image.
    pub(super) fn firmware(self, architecture: Architecture, found: &Bootable, secure: bool) -> Firmware {
        let pc = matches!(architecture, Architecture::Amd64 | Architecture::I386);
        match self {
            Self::Efi => Firmware::Efi,
            Self::Bios => Firmware::Bios,
            Self::UBoot => Firmware::UBoot,
            Self::Auto if secure || found.efi_for(architecture).is_some() => Firmware::Efi,
            Self::Auto if pc && found.bios => Firmware::Bios,
            Self::Auto if !pc && found.extlinux => Firmware::UBoot,
            Self::Auto => Firmware::Efi,
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    crate::machine::interruptible()?;
    let forwards = args.forwards()?;
    let memory = args.memory.as_deref().map(mebibytes).transpose()?;
    let wanted = args.size.as_deref().map(parse).transpose()?;
    let workplace = Workplace::new(|| args.store.open()?.scratch());
    let source = Source::open(&args.image, &workplace)?;
    args.check(&source)?;
    let found = Bootable::of(&source.bytes)?;
    let architecture = args.architecture(&found)?;
    let program = qemu::program(architecture)?;
    // What is printed is run in a directory of its own.
    let place = |name: &str| if args.print { Ok(PathBuf::from(name)) } else { workplace.fresh(name) };
    let mut code = args.code(architecture, &found, &place)?;
    let size = args.disk_size(source.bytes.len(), wanted)?;
    let image = source.unpacked.canonicalize().with_context(|| format!("reading {}", args.image.display()))?;
    let throwaway = !args.persist && !args.cdrom;
    let mut prepare = Vec::new();
    let medium = Medium {
        file: if throwaway { place("disk.qcow2")? } else { image.clone() },
        format: if throwaway { Format::Qcow2 } else { source.format },
        cd: args.cdrom,
        sector_size: found.table.as_ref().map_or(512, |table| table.sector_size),
        throwaway,
    };
    if throwaway {
        prepare.push(qemu::overlay(&image, source.format, &medium.file, size));
    }
    if let Some((template, copy)) = code.template() {
        prepare.push(Preparation::command([Path::new("cp"), template, copy]));
    }
    let card = args.starts_from_card(&found);
    if let Some((_, first_stage)) = &card {
        let file = place("spl.bin")?;
        let mut disk = image.clone();
        if source.format != Format::Raw {
            disk = place("card.raw")?;
            let words = ["qemu-img", "convert", "-f", source.format.qemu(), "-O", "raw"];
            prepare.push(Preparation::command(words.map(Path::new).into_iter().chain([&*image, &disk])));
        }
        prepare.push(part(&disk, first_stage, &file));
        code = Code::of_board(Some(file), None);
    }
    let flash = match &args.flash {
        Some(file) => Some(args.check_flash(file)?),
        None if args.is_sifive() => {
            let file = place("flash.bin")?;
            prepare.push(sifive::flash(&file));
            Some(file)
        }
        None => None,
    };
    let accelerator = args.accel.accelerator(architecture, &program, &args.store.open()?);
    let guest = Guest {
        architecture,
        board: card.map(|(board, _)| board).or_else(|| args.machine.clone()),
        code,
        accelerator,
        memory: memory.or(args.is_sifive().then_some(sifive::MEMORY)),
        processors: args.cpus,
        graphical: args.graphical,
        medium,
        flash: flash.map(|file| Flash { file, throwaway: !args.persist }),
        forwards,
        serial: if args.print { Serial::Terminal } else { Serial::Pipe },
        port: None,
        restarts: true,
    };
    if args.print {
        let mut lines = vec!["cd \"$(mktemp -d)\"".to_owned()];
        lines.extend(prepare.iter().map(Preparation::shell));
        lines.push(shell_line(&guest.command()?));
        return print(&(lines.join("\n") + "\n")).map(|()| 0);
    }
    prepare.iter().try_for_each(Preparation::carry_out)?;
    args.introduce(&source, &found, &guest, size);
    let session = Session {
        timeout: args.timeout.map(Duration::from_secs).or((!args.expect.is_empty()).then_some(PATIENCE)),
        log: args.log.as_deref().map(create).transpose()?,
        input: args.expect.is_empty(),
        expected: args.expect.clone(),
    };
    let started = Instant::now();
    let ending = session.run(&guest.command()?).map_err(|error| match args.hears_nothing(&found, architecture) {
        Some(why) => fault_of(&error).hint(why).into(),
        None => error,
    })?;
    if ending == Ending::Expected {
        let seconds = report::seconds(started.elapsed().as_secs_f64());
        say!("\n`{}` after {seconds}", args.expect.join("`, `"));
    }
    Ok(0)
}

impl Args {
    fn check(&self, source: &Source) -> Result<()> {
        if source.bytes.is_empty() {
            return Err(Fault::recipe(format!("{} is empty", self.image.display())).into());
        }
        if source.compression != Compression::None && (self.persist || self.print) {
            let option = if self.persist { "--persist" } else { "--print" };
            return Err(Fault::recipe(format!("{option} cannot be had with a compressed image"))
                .hint(format!("unpack {} first", self.image.display()))
                .into());
        }
        if source.bytes.has(257, b"ustar") {
            return Err(Fault::recipe(format!("{} is an archive, not a disk", self.image.display()))
                .hint("`debforge inspect` looks into it")
                .into());
        }
        Ok(())
    }

    fn architecture(&self, found: &Bootable) -> Result<Architecture> {
        if let Some(name) = &self.arch {
            return name.parse().map_err(|error: String| {
                let known: Vec<_> = Architecture::ALL.iter().map(|known| known.name()).collect();
                Fault::recipe(error).hint(format!("known: {}", known.join(", "))).into()
            });
        }
        self.machine
            .as_deref()
            .and_then(qemu::board_architecture)
            .or_else(|| found.architecture())
            .ok_or_else(|| {
                Fault::recipe(format!("{} does not show what machine it is for", self.image.display()))
                    .hint("it has no program for EFI, no boot sector for a BIOS, and no root file system that can be read here")
                    .hint("say it with --arch")
                    .into()
            })
    }

    fn is_sifive(&self) -> bool {
        self.machine.as_deref().is_some_and(sifive::is)
    }

    /// What a board starts from its card, where nobody says what it starts.
    fn starts_from_card<'a>(&self, found: &'a Bootable) -> Option<(String, &'a Entry)> {
        let board = self.machine.as_deref().filter(|_| self.bios.is_none() && self.kernel.is_none())?;
        sifive::from_card(board, found.table.as_ref()?)
    }

    /// The flash of a board, by its absolute path.
    fn check_flash(&self, file: &Path) -> Result<PathBuf> {
        let absolute = absolute(file)?;
        let length = absolute.metadata().with_context(|| format!("looking at {}", file.display()))?.len();
        if !self.is_sifive() || length == sifive::FLASH_SIZE {
            return Ok(absolute);
        }
        let (size, length) = (report::bytes(sifive::FLASH_SIZE), report::bytes(length));
        Err(Fault::recipe(format!("the flash of sifive_u has {size}, {} has {length}", file.display()))
            .hint(format!("make it as large: truncate -s {} {}", sifive::FLASH_SIZE, file.display()))
            .into())
    }

    fn code(
        &self,
        architecture: Architecture,
        found: &Bootable,
        place: &dyn Fn(&str) -> Result<PathBuf>,
    ) -> Result<Code> {
        if self.machine.is_some() {
            let file = |file: &Option<PathBuf>| file.as_deref().map(absolute).transpose();
            return Ok(Code::of_board(file(&self.bios)?, file(&self.kernel)?));
        }
        let firmware = self.firmware.firmware(architecture, found, self.secure_boot);
        Code::find(architecture, firmware, self.secure_boot, &place("variables.fd")?)
    }

    /// Of the disk that the machine sees.
    fn disk_size(&self, image: u64, wanted: Option<u64>) -> Result<u64> {
        let too_small = wanted.filter(|wanted| *wanted < image);
        if let Some(wanted) = too_small {
            let (wanted, image) = (report::bytes(wanted), report::bytes(image));
            return Err(Fault::recipe(format!("a disk of {wanted} is too small for an image of {image}")).into());
        }
        let size = wanted.unwrap_or(image);
        if self.machine.is_none() || self.cdrom || size.is_power_of_two() {
            return Ok(size.next_multiple_of(512));
        }
        if self.persist {
            return Err(Fault::recipe(format!(
                "QEMU's SD cards have a power of two as their size, the image has {size} bytes"
            ))
            .hint("without --persist the machine sees a larger card")
            .hint(format!("or make it larger: truncate -s {} {}", size.next_power_of_two(), self.image.display()))
            .into());
        }
        Ok(size.next_power_of_two())
    }

    fn forwards(&self) -> Result<Vec<Forward>> {
        let ssh = self.ssh.map(|host| Forward { host, guest: 22 });
        let port = |text: &String| {
            let (host, guest) = text.split_once(':')?;
            Some(Forward { host: host.parse().ok()?, guest: guest.parse().ok()? })
        };
        let mut all: Vec<Forward> = ssh.into_iter().collect();
        for text in &self.ports {
            let wrong = || Fault::recipe(format!("`{text}` is not two ports")).hint("write it like 8080:80");
            all.push(port(text).ok_or_else(wrong)?);
        }
        Ok(all)
    }

    /// Why what is waited for may never come to the console that is listened to.
    fn hears_nothing(&self, found: &Bootable, architecture: Architecture) -> Option<String> {
        let waits = !self.expect.is_empty() && self.machine.is_none();
        let port = found.silent_port(architecture).filter(|_| waits)?;
        Some(format!(
            "the image's kernel writes nothing to the serial port: `console: {port}` of the action `bootloader` tells it of that"
        ))
    }

    fn introduce(&self, source: &Source, found: &Bootable, guest: &Guest, size: u64) {
        let table = match &found.table {
            _ if found.iso => "iso",
            Some(table) if table.kind == TableKind::Gpt => "gpt",
            Some(_) => "msdos",
            None => "no partition table",
        };
        let machine = match &self.machine {
            Some(board) => board.clone(),
            None => format!("{}, {}", guest.architecture, guest.code.name),
        };
        let mut disk = report::bytes(source.bytes.len());
        if size != source.bytes.len() && !self.persist && !self.cdrom {
            disk = format!("{disk} on a disk of {}", report::bytes(size));
        }
        let name = self.image.file_name().unwrap_or(self.image.as_os_str()).to_string_lossy();
        say!("{name} · {machine} · {table} · {disk}");
        match &guest.accelerator {
            Accelerator::Kvm => {}
            Accelerator::Tcg(Some(why)) => say!("{}", report::note(&format!("without KVM, so slow: {why}"))),
            Accelerator::Tcg(None) => {}
        }
        if self.machine.is_none()
            && guest.code.name.starts_with("EFI")
            && found.efi_for(guest.architecture).is_none()
            && !found.iso
        {
            let text = format!("the image has no EFI program that a new {} machine would start", guest.architecture);
            say!("{}", report::note(&text));
        }
        if let Some(why) = self.hears_nothing(found, guest.architecture) {
            say!("{}", report::note(&why));
        }
        for Forward { host, guest } in &guest.forwards {
            say!("localhost:{host} leads to its port {guest}");
        }
        if self.expect.is_empty() {
            say!("Ctrl-A x ends the machine{}", if self.persist { "" } else { "; what it writes is not kept" });
        }
        say!();
    }
}

/// A file that QEMU is to open, wherever it runs.
fn absolute(file: &Path) -> Result<PathBuf> {
    let wrong = |error| Fault::recipe(format!("{} cannot be opened: {error}", file.display())).into();
    file.canonicalize().map_err(wrong)
}

/// The command that copies a partition out of a disk.
fn part(disk: &Path, part: &Entry, to: &Path) -> Preparation {
    let words = [
        "dd".to_owned(),
        format!("if={}", disk.display()),
        format!("of={}", to.display()),
        "iflag=skip_bytes,count_bytes".to_owned(),
        format!("skip={}", part.start),
        format!("count={}", part.length),
        "status=none".to_owned(),
    ];
    Preparation::Command(words.into())
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("writing {}", path.display()))
}
