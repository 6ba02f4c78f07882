//! Boot loaders of disks that OSTree deploys to: installed from the deployment's packages, with a menu of the
//! deployments.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{deployment, system};
use crate::build::BuildContext;
use crate::build::bootloader::grub_word::quoted;
use crate::build::bootloader::{EfiNames, Options, cmdline, extlinux, grub, layout};
use crate::build::files::RootFiles;
use crate::build::inside::Inside;
use crate::diagnostics::Fault;
use crate::image::Spec;
use crate::ostree::entry::{self, Entry};

/// Writes grub.cfg from OSTree's boot entries: a script, which is on the running system, too.
pub const GENERATOR: &str = include_str!("grub_generator.sh");

/// What the generator puts before the entries.
const HEADER: &str = "/boot/grub/ostree.cfg";

/// A loader that OSTree can write a configuration for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// GRUB, for EFI where `efi` is given, and for BIOS.
    Grub {
        /// Whether for BIOS, too.
        bios: bool,
    },
    /// extlinux.conf for U-Boot.
    Extlinux,
}

/// A disk, and the deployment that boot loaders come from.
struct Disk<'a> {
    cx: &'a BuildContext<'a>,
    spec: &'a Spec,
    /// The disk.
    files: RootFiles,
    /// The system that is started first.
    system: PathBuf,
    options: &'a Options,
}

/// Installs a loader; versions of the kernels that it starts.
pub fn install(cx: &BuildContext<'_>, loader: Loader, efi: Option<&EfiNames>, options: &Options) -> Result<String> {
    let spec = cx.image.context("no step before describes an image")?;
    let disk = Disk { cx, spec, files: RootFiles::open(cx.root)?, system: cx.root.join(deployment(cx.root)?), options };
    disk.set_arguments(loader)?;
    match loader {
        Loader::Grub { bios } => {
            let boot = layout::locate(spec, None, grub::DIRECTORY)?;
            layout::check_readable("GRUB", &boot, grub::reads)?;
            if let Some(names) = efi {
                disk.install_efi(names, &boot)?;
            }
            if bios {
                crate::image::grub::place(spec)?;
                disk.make_image(grub::BIOS, "grub-pc-bin", &boot, &["biosdisk"], grub::CORE_IMAGE)?;
                disk.copy_modules(grub::BIOS)?;
            }
            disk.write_grub_menu()?;
        }
        Loader::Extlinux => disk.write_extlinux()?,
    }
    let kernels = disk.system()?.names("/usr/lib/modules")?;
    Ok(kernels.join(", "))
}

impl Disk<'_> {
    fn system(&self) -> Result<RootFiles> {
        RootFiles::open(&self.system)
    }

    fn missing(&self, what: &str, packages: &[&str]) -> anyhow::Error {
        Fault::failed(what.to_owned())
            .hint(format!("it comes with the commit: before `ostree-prepare`, an `apt` with {}", packages.join(", ")))
            .into()
    }

    /// Adds what the recipe says to the kernel command line of all entries.
    fn set_arguments(&self, loader: Loader) -> Result<()> {
        for (path, mut entry) in system::entries(&self.files)? {
            let line = entry.get("options").unwrap_or_default().to_owned();
            let words = cmdline::words(self.spec, None, &line, self.options);
            if loader == Loader::Extlinux {
                // What writes grub.cfg looks at them itself, as it will on the running system.
                words.iter().try_for_each(|word| extlinux::check_word(word))?;
            }
            entry.set("options", words.join(" "));
            self.files.write(&path, entry.text())?;
        }
        Ok(())
    }

    /// Copies a file of the deployment to the disk.
    fn copy(&self, from: &str, to: &str) -> Result<()> {
        let mut bytes = Vec::new();
        let doing = || format!("copying {from} to {to}");
        Inside::open(&self.system)?.read(Path::new(from)).with_context(doing)?.read_to_end(&mut bytes)?;
        self.files.write(to, bytes).with_context(doing)
    }

    fn install_efi(&self, names: &EfiNames, boot: &layout::OnDisk<'_>) -> Result<()> {
        let all = layout::esps(self.spec, None)?;
        all.iter().try_for_each(|(mount, _)| self.install_esp(names, boot, mount.path.trim_end_matches('/')))
    }

    fn install_esp(&self, names: &EfiNames, boot: &layout::OnDisk<'_>, esp: &str) -> Result<()> {
        let system = self.system()?;
        let short = names.short;
        let signed = format!("/usr/lib/grub/{}-signed/grub{short}.efi.signed", names.grub);
        let shim = |program: &str| format!("/usr/lib/shim/{program}{short}.efi.signed");
        let has_signed = system.has(&signed) && system.has(&shim("shim"));
        let vendor = format!("{esp}/EFI/debian");
        let removable = format!("{esp}/EFI/BOOT");
        let stub = format!(
            "search.fs_uuid {} root\nset prefix=($root){}\nconfigfile $prefix/grub.cfg\n",
            boot.partition.contents.uuid,
            quoted(&boot.path)
        );
        match (self.options.secure_boot, has_signed) {
            (Some(true), false) => {
                let package = format!("{}-signed", names.package);
                Err(self.missing("the system has no signed GRUB", &[&package, "shim-signed"]))
            }
            (Some(false), _) | (None, false) => {
                let file = format!("{vendor}/grub{short}.efi");
                self.make_image(names.grub, &format!("{}-bin", names.package), boot, &[], &file)?;
                self.files.copy(&file, &format!("{removable}/{}", names.removable))?;
                self.copy_modules(names.grub)
            }
            (_, true) => {
                for (directory, first) in
                    [(&vendor, format!("shim{short}.efi")), (&removable, names.removable.to_owned())]
                {
                    self.copy(&shim("shim"), &format!("{directory}/{first}"))?;
                    self.copy(&signed, &format!("{directory}/grub{short}.efi"))?;
                    if system.has(&shim("mm")) {
                        self.copy(&shim("mm"), &format!("{directory}/mm{short}.efi"))?;
                    }
                }
                self.files.write(&format!("{vendor}/grub.cfg"), stub)
            }
        }
    }

    /// Makes a GRUB image by the deployment's own grub-mkimage.
    fn make_image(
        &self,
        platform: &str,
        package: &str,
        boot: &layout::OnDisk<'_>,
        modules: &[&str],
        file: &str,
    ) -> Result<()> {
        let system = self.system()?;
        let library = format!("/usr/lib/grub/{platform}");
        if !system.has(&format!("{library}/moddep.lst")) || !system.has("/usr/bin/grub-mkimage") {
            return Err(self.missing(&format!("the system has no GRUB for {platform}"), &[package, "grub-common"]));
        }
        let work = self.cx.scratch.join(format!("grub-{platform}"));
        std::fs::create_dir_all(&work).context("making a place for GRUB's image")?;
        let early =
            format!("search.fs_uuid {} root\nset prefix=($root){}\n", boot.partition.contents.uuid, quoted(&boot.path));
        std::fs::write(work.join("early.cfg"), early).context("writing GRUB's first script")?;
        let filesystem = grub::module(boot.partition.contents.kind).unwrap_or("ext2");
        let table = format!("part_{}", grub::table(self.spec.table));
        let words = ["grub-mkimage", "-d", &library, "-O", platform, "-c", "/tmp/grub/early.cfg", "-p", &boot.path];
        let words = words.iter().chain(&["-o", "/tmp/grub/image"]).chain(modules);
        let finding = [table.as_str(), filesystem, "search_fs_uuid"];
        let words = words.chain(&finding).copied();
        self.cx
            .chroot_in(&self.system, words)
            .bind(&work, "/tmp/grub", false)
            .run(&format!("making GRUB's image for {platform}"))?;
        let image = std::fs::read(work.join("image")).context("reading GRUB's image")?;
        self.files.write(file, image)
    }

    fn copy_modules(&self, platform: &str) -> Result<()> {
        let from = format!("/usr/lib/grub/{platform}");
        for name in self.system()?.names(&from)? {
            let wanted = [".mod", ".lst"].iter().any(|end| name.ends_with(end));
            if wanted || (name == "boot.img" && platform == grub::BIOS) {
                self.copy(&format!("{from}/{name}"), &format!("{}/{platform}/{name}", grub::DIRECTORY))?;
            }
        }
        Ok(())
    }

    /// grub.cfg stands beside the entries, so that OSTree switches both at once.
    fn write_grub_menu(&self) -> Result<()> {
        self.files.write(HEADER, self.header())?;
        self.files.link(&format!("{}/grub.cfg", grub::DIRECTORY), "../loader/grub.cfg")?;
        let root = self.cx.root.to_str().context("the root's path is not UTF-8")?;
        let loader = Inside::open(self.cx.root)?.resolve(Path::new("/boot/loader"))?;
        let output = format!("{root}/{}/grub.cfg", loader.display());
        let script = self.cx.scratch.join("grub-mkconfig");
        std::fs::write(&script, GENERATOR).context("writing the generator of grub.cfg")?;
        let script = script.to_str().context("the scratch directory's path is not UTF-8")?;
        self.cx
            .host_alone(["sh", script, "-o", &output])
            .writable(self.cx.root)
            .env("OSTREE_BOOT", format!("{root}/boot"))
            .run("writing grub.cfg")?;
        self.files.set_readable(&format!("/{}/grub.cfg", loader.display()))?;
        self.set_loader("grub2")
    }

    fn set_loader(&self, name: &str) -> Result<()> {
        let repo = format!("--repo={}/ostree/repo", self.cx.root.display());
        self.cx
            .host_alone(["ostree", "config", &repo, "set", "sysroot.bootloader", name])
            .writable(self.cx.root)
            .run("naming the boot loader")
    }

    /// What stands before the entries, kept for all updates.
    fn header(&self) -> String {
        let mut text = String::from("set default=0\nset fallback=1\n");
        writeln!(text, "set timeout={}", self.options.timeout.unwrap_or(5)).unwrap_or_default();
        let console = self.options.console.as_deref().unwrap_or_default();
        if let Some((unit, speed)) = serial(console) {
            writeln!(text, "serial --unit={unit} --speed={speed}").unwrap_or_default();
            text.push_str("terminal_input console serial\nterminal_output console serial\n");
        }
        text
    }

    /// extlinux.conf is what libostree's backend for syslinux writes.
    fn write_extlinux(&self) -> Result<()> {
        let boot = layout::locate(self.spec, None, "/boot")?;
        layout::check_readable("U-Boot", &boot, extlinux::reads)?;
        let entries: Vec<Entry> = system::entries(&self.files)?.into_iter().map(|(_, entry)| entry).collect();
        let text = entry::syslinux(&entries, self.options.timeout.unwrap_or(5));
        let loader = Inside::open(self.cx.root)?.resolve(Path::new("/boot/loader"))?;
        self.files.write(&format!("/{}/syslinux.cfg", loader.display()), text)?;
        for link in ["/boot/syslinux/syslinux.cfg", "/boot/extlinux/extlinux.conf"] {
            self.files.link(link, "../loader/syslinux.cfg")?;
        }
        self.set_loader("syslinux")
    }
}

/// The number and the speed of a PC's serial port.
fn serial(console: &str) -> Option<(&str, String)> {
    let (device, settings) = console.split_once(',').unwrap_or((console, "115200"));
    let speed: String = settings.chars().take_while(char::is_ascii_digit).collect();
    Some((device.strip_prefix("ttyS")?, speed))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::build::bootloader::grub_word::tests::WORDS;

    /// What the generator writes for an entry: the `linux` line, or what it complains of.
    fn generated(options: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let entries = dir.path().join("loader/entries");
        std::fs::create_dir_all(&entries).unwrap();
        let text = format!("title It's \\n\nversion 1\noptions {options}\nlinux /ostree/vmlinuz\n");
        std::fs::write(entries.join("ostree-1.conf"), text).unwrap();
        let done = Command::new("sh").args(["-c", GENERATOR]).env("OSTREE_BOOT", dir.path()).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        if !done.status.success() {
            return Err(String::from_utf8(done.stderr).unwrap());
        }
        assert!(text.contains(r"menuentry 'It'\''s \n' --id ostree-1 {"), "{text}");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("linux /boot/ostree/vmlinuz "));
        Ok(line.unwrap().to_owned())
    }

    #[test]
    fn updates_write_kernel_arguments_by_the_same_rules_as_images() {
        for (word, written) in WORDS {
            match (generated(&format!("rw {word} quiet")), written) {
                (Ok(line), Some(written)) => assert_eq!(line, format!("rw {written} quiet")),
                (Err(said), None) => assert!(said.contains(&format!("the argument {word}")), "{said}"),
                (other, _) => panic!("{word}: {other:?}"),
            }
        }
    }
}
