//! How a live image is booted: GRUB for EFI and for BIOS, and the image around both.
//!
//! EFI finds a FAT file system: from a CD as El Torito's second image, from a stick as a partition of
//! the GPT, which is the same bytes. BIOS finds El Torito's first image, or the first sector of a
//! stick. Either way GRUB then looks for the image's id, and reads the menu beside it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use walkdir::WalkDir;

use crate::build::BuildContext;
use crate::build::image::{Room, make_alone};
use crate::build::inside::{Inside, Kind};
use crate::debian::Architecture;
use crate::diagnostics::Fault;
use crate::image::Contents;
use crate::image::filesystem::Tree;

/// What starts a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Firmware {
    Bios,
    Efi,
}

impl Firmware {
    /// What machines of an architecture have.
    pub(super) fn of(architecture: Architecture) -> &'static [Self] {
        match architecture {
            Architecture::Amd64 | Architecture::I386 => &[Self::Bios, Self::Efi],
            other if Efi::of(other).is_some() => &[Self::Efi],
            _ => &[],
        }
    }

    /// As in a recipe.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Efi => "efi",
        }
    }
}

/// Names of EFI's parts for an architecture.
struct Efi {
    /// In Debian's names of files.
    suffix: &'static str,
    /// GRUB's platform.
    platform: &'static str,
    /// Debian's packages with GRUB, without `grub-efi-`.
    package: &'static str,
}

impl Efi {
    fn of(architecture: Architecture) -> Option<Self> {
        let (suffix, platform, package) = match architecture {
            Architecture::Amd64 => ("x64", "x86_64-efi", "amd64"),
            Architecture::Arm64 => ("aa64", "arm64-efi", "arm64"),
            Architecture::Armhf | Architecture::Armel => ("arm", "arm-efi", "arm"),
            Architecture::I386 => ("ia32", "i386-efi", "ia32"),
            Architecture::Loong64 => ("loongarch64", "loongarch64-efi", "loong64"),
            Architecture::Riscv64 => ("riscv64", "riscv64-efi", "riscv64"),
            _ => return None,
        };
        Some(Self { suffix, platform, package })
    }

    /// What firmware looks for on removable media (UEFI specification, 3.5.1.1).
    fn default_name(&self) -> String {
        format!("BOOT{}.EFI", self.suffix.to_uppercase())
    }
}

/// The boot loaders of an image: what each is called on it, and its bytes.
pub(super) struct Loaders {
    efi: Vec<(String, Vec<u8>)>,
    signed: bool,
    bios: Option<Bios>,
}

/// GRUB's parts for the BIOS.
struct Bios {
    /// The first sector.
    hybrid: Vec<u8>,
    /// Whether they are the root's, rather than this machine's.
    in_root: bool,
}

/// Where an image's boot loaders are, in the step's scratch directory.
pub(super) struct Boot {
    esp: Option<PathBuf>,
    /// First sector for the BIOS.
    hybrid: Option<PathBuf>,
}

/// Where El Torito's image for the BIOS is.
const ELTORITO: &str = "boot/grub/eltorito.img";

/// Where GRUB's modules for the BIOS are, and what makes an image of them.
const PC: &str = "/usr/lib/grub/i386-pc";
const MKIMAGE: &str = "/usr/bin/grub-mkimage";

/// Where the root's grub-mkimage finds the step's directory.
const WORK: &str = "/tmp/debforge-iso";

/// What GRUB needs until the kernel has taken over.
const MODULES: [&str; 20] = [
    "all_video",
    "biosdisk",
    "configfile",
    "echo",
    "gzio",
    "halt",
    "iso9660",
    "linux",
    "ls",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_file",
    "search_label",
    "serial",
    "sleep",
    "terminal",
    "test",
];

/// Bytes of a file of the root, or else of this machine.
fn read(root: &Inside, path: &str) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if root.kind(Path::new(path))? == Some(Kind::File) {
        root.read(Path::new(path))?.read_to_end(&mut bytes).with_context(|| format!("reading {path} of the root"))?;
        return Ok(Some(bytes));
    }
    match File::open(path) {
        Ok(mut file) => {
            file.read_to_end(&mut bytes).with_context(|| format!("reading {path} of this machine"))?;
            Ok(Some(bytes))
        }
        Err(_) => Ok(None),
    }
}

impl Loaders {
    /// Finds the boot loaders; the fault names the packages that are missing.
    pub(super) fn find(root: &Inside, architecture: Architecture, firmware: &[Firmware]) -> Result<Self> {
        let mut loaders = Self { efi: Vec::new(), signed: false, bios: None };
        let mut missing = Vec::new();
        if firmware.contains(&Firmware::Efi)
            && let Some(efi) = Efi::of(architecture)
            && !loaders.find_efi(root, &efi)?
        {
            missing.push((
                "EFI",
                match architecture {
                    Architecture::Amd64 | Architecture::Arm64 => {
                        format!("grub-efi-{}-signed, shim-signed", efi.package)
                    }
                    _ => format!("grub-efi-{}-bin", efi.package),
                },
            ));
        }
        if firmware.contains(&Firmware::Bios) {
            loaders.bios = Bios::find(root)?;
            if loaders.bios.is_none() {
                missing.push(("BIOS", "grub-common, grub-pc-bin".to_owned()));
            }
        }
        if missing.is_empty() {
            return Ok(loaders);
        }
        let what: Vec<&str> = missing.iter().map(|(what, _)| *what).collect();
        let packages: Vec<&str> = missing.iter().map(|(_, packages)| packages.as_str()).collect();
        let mut fault =
            Fault::failed(format!("there is no GRUB for {} in the root, nor on this machine", what.join(" and ")))
                .hint(format!(
                    "install it in the root before this action: `apt` with `packages: [{}]`",
                    packages.join(", ")
                ));
        if firmware.len() > missing.len() {
            fault = fault.hint(format!("or leave {} out with `firmware`", what.join(" and ")));
        }
        Err(fault.into())
    }

    /// Debian's GRUB for CDs, which holds all its modules: with a signature and the shim that vouches for
    /// it, or without.
    fn find_efi(&mut self, root: &Inside, efi: &Efi) -> Result<bool> {
        let Efi { suffix, platform, .. } = efi;
        let grub = read(root, &format!("/usr/lib/grub/{platform}-signed/gcd{suffix}.efi.signed"))?;
        let shim = read(root, &format!("/usr/lib/shim/shim{suffix}.efi.signed"))?;
        if let (Some(grub), Some(shim)) = (grub, shim) {
            self.signed = true;
            self.efi.push((efi.default_name(), shim));
            self.efi.push((format!("grub{suffix}.efi"), grub));
            let manager = format!("mm{suffix}.efi");
            self.efi.extend(read(root, &format!("/usr/lib/shim/{manager}.signed"))?.map(|bytes| (manager, bytes)));
            return Ok(true);
        }
        let grub = read(root, &format!("/usr/lib/grub/{platform}/monolithic/gcd{suffix}.efi"))?;
        self.efi.extend(grub.map(|bytes| (efi.default_name(), bytes)));
        Ok(!self.efi.is_empty())
    }

    /// For the log.
    pub(super) fn described(&self) -> String {
        let efi = match (self.efi.is_empty(), self.signed) {
            (true, _) => "no EFI",
            (false, true) => "EFI with secure boot",
            (false, false) => "EFI without secure boot",
        };
        let bios = match &self.bios {
            None => "no BIOS",
            Some(bios) if bios.in_root => "BIOS",
            Some(_) => "BIOS by this machine's GRUB",
        };
        format!("{efi}, {bios}")
    }

    /// Puts them into the image's tree and beside it. `id` is what they look for.
    pub(super) fn install(&self, cx: &BuildContext<'_>, tree: &Path, id: &str, fat: &Contents) -> Result<Boot> {
        let seek = format!(
            "search --no-floppy --set=root --file /.disk/{id}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
        );
        let work = cx.scratch.join("loaders");
        fs::create_dir_all(&work).context("making a place for the boot loaders")?;
        fs::write(work.join("grub.cfg"), &seek).context("writing GRUB's first menu")?;
        let mut boot = Boot { esp: None, hybrid: None };
        if !self.efi.is_empty() {
            boot.esp = Some(self.esp(cx, tree, &seek, fat)?);
        }
        if let Some(bios) = &self.bios {
            bios.make_image(cx, &work)?;
            fs::copy(work.join("eltorito.img"), tree.join(ELTORITO)).context("copying GRUB's image")?;
            let hybrid = work.join("hybrid.img");
            fs::write(&hybrid, &bios.hybrid).context("writing GRUB's first sector")?;
            boot.hybrid = Some(hybrid);
        }
        Ok(boot)
    }

    /// Makes the file system that EFI finds. The loaders are in the image's tree as well, for sticks that
    /// its files are copied to.
    fn esp(&self, cx: &BuildContext<'_>, tree: &Path, seek: &str, fat: &Contents) -> Result<PathBuf> {
        let top = cx.scratch.join("esp");
        for base in [top.as_path(), tree] {
            let directory = base.join("EFI/BOOT");
            fs::create_dir_all(&directory).context("making a place for EFI's boot loaders")?;
            for (name, bytes) in &self.efi {
                fs::write(directory.join(name), bytes).with_context(|| format!("writing {name}"))?;
            }
        }
        fs::create_dir_all(top.join("boot/grub")).context("making a place for GRUB's first menu")?;
        fs::write(top.join("boot/grub/grub.cfg"), seek).context("writing GRUB's first menu")?;
        date(&top, cx.source_date_epoch)?;
        let image = cx.scratch.join("esp.img");
        File::create(&image).context("making a file for EFI's file system")?;
        let contents = Tree { top: Some(top), ..Tree::default() };
        let room = Room::Contents { margin: 256 << 10, percent: 0 };
        make_alone(cx, "EFI's file system", fat, &contents, room, &image)?;
        Ok(image)
    }
}

impl Bios {
    fn find(root: &Inside) -> Result<Option<Self>> {
        let has = |path: &str| -> Result<bool> { Ok(root.kind(Path::new(path))? == Some(Kind::File)) };
        let hybrid = format!("{PC}/boot_hybrid.img");
        let in_root = has(MKIMAGE)? && has(&hybrid)?;
        let on_host = Path::new(MKIMAGE).is_file() && Path::new(&hybrid).is_file();
        if !in_root && !on_host {
            return Ok(None);
        }
        let bytes = if in_root { read(root, &hybrid)? } else { fs::read(&hybrid).ok() };
        Ok(bytes.map(|hybrid| Self { hybrid, in_root }))
    }

    /// Makes `eltorito.img` in the step's directory.
    fn make_image(&self, cx: &BuildContext<'_>, work: &Path) -> Result<()> {
        let seen = if self.in_root { Path::new(WORK) } else { work };
        let path = |name: &str| seen.join(name).display().to_string();
        let mut argv: Vec<String> =
            ["grub-mkimage", "-O", "i386-pc-eltorito", "-d", PC, "-p", "/boot/grub", "-c"].map(str::to_owned).into();
        argv.extend([path("grub.cfg"), "-o".to_owned(), path("eltorito.img")]);
        argv.extend(MODULES.map(str::to_owned));
        let runner = if self.in_root { cx.chroot(argv).bind(work, WORK, false) } else { cx.host_alone(argv) };
        runner.run("making GRUB's image for the BIOS")
    }
}

/// Dates all that is in a directory.
fn date(top: &Path, epoch: i64) -> Result<()> {
    let time = filetime::FileTime::from_unix_time(epoch, 0);
    for entry in WalkDir::new(top).contents_first(true) {
        let entry = entry.context("reading the image's files")?;
        filetime::set_file_times(entry.path(), time, time)
            .with_context(|| format!("dating {}", entry.path().display()))?;
    }
    Ok(())
}

/// Writes the image: ISO 9660 with Rock Ridge and Joliet, El Torito, and a GPT.
pub(super) fn write(
    cx: &BuildContext<'_>,
    boot: &Boot,
    tree: &Path,
    volume_id: &str,
    id: &str,
    output: &Path,
) -> Result<()> {
    /// EFI system partition.
    const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
    /// The partition with the ISO file system: what others call "basic data".
    const DATA: &str = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";
    date(tree, cx.source_date_epoch)?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("the path of the store is not UTF-8");
    let time = Timestamp::from_second(cx.source_date_epoch).context("SOURCE_DATE_EPOCH")?;
    let mut argv: Vec<String> =
        ["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J", "-joliet-long"].map(Into::into).into();
    argv.extend(["-iso-level", "3", "-V", volume_id].map(str::to_owned));
    // ISO 9660 knows hundredths of a second.
    argv.push(format!("--modification-date={}00", time.strftime("%Y%m%d%H%M%S")));
    argv.extend(["--gpt_disk_guid", &id.replace('-', "")].map(str::to_owned));
    argv.extend(["--set_all_file_dates", "set_to_mtime"].map(str::to_owned));
    // So that the partition can be mounted, and not only the whole disk.
    argv.extend(["-partition_offset", "16", "-c", "boot/boot.cat"].map(str::to_owned));
    if let Some(hybrid) = &boot.hybrid {
        argv.extend(["-b", ELTORITO, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"].map(str::to_owned));
        argv.extend(["--grub2-boot-info", "--grub2-mbr", &text(hybrid)?].map(str::to_owned));
        // Some BIOSes only start a disk with an active partition.
        argv.push("--mbr-force-bootable".to_owned());
    }
    if let Some(esp) = &boot.esp {
        if boot.hybrid.is_some() {
            argv.push("-eltorito-alt-boot".to_owned());
        }
        argv.extend(["-e", "--interval:appended_partition_2:all::", "-no-emul-boot"].map(str::to_owned));
        argv.extend(["-append_partition", "2", ESP, &text(esp)?].map(str::to_owned));
        argv.extend(["-appended_part_as_gpt", "-iso_mbr_part_type", DATA].map(str::to_owned));
    }
    argv.extend(["-o".to_owned(), text(output)?, text(tree)?]);
    let directory = output.parent().context("an artifact without a directory")?;
    cx.host_alone(argv).writable(directory).run("writing the image")
}
