//! GRUB, for EFI and for BIOS.

use anyhow::Result;

use super::efi::EfiNames;
use super::grub_config;
use super::layout::{self, OnDisk};
use super::site::Site;
use crate::image::{FilesystemKind, TableKind};

/// Where GRUB's own files are in the root.
const LIBRARY: &str = "/usr/lib/grub";

/// GRUB's directory in the system (`prefix`).
pub const DIRECTORY: &str = "/boot/grub";

/// GRUB's platform on BIOS machines.
pub const BIOS: &str = "i386-pc";

/// `boot.img` in the root, once installed.
pub const BOOT_IMAGE: &str = "/boot/grub/i386-pc/boot.img";

/// `core.img` in the root, once installed.
pub const CORE_IMAGE: &str = "/boot/grub/i386-pc/core.img";

/// A script of this name makes GRUB's image find [`DIRECTORY`]; only there while the image is made.
const EARLY: &str = "early.cfg";

/// Whether GRUB 2.12 reads a kind of file system.
pub fn reads(kind: FilesystemKind) -> bool {
    module(kind).is_some()
}

/// GRUB's module for a kind of file system.
pub fn module(kind: FilesystemKind) -> Option<&'static str> {
    Some(match kind {
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => "ext2",
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => "fat",
        FilesystemKind::Btrfs => "btrfs",
        FilesystemKind::Xfs => "xfs",
        FilesystemKind::F2fs => "f2fs",
        FilesystemKind::Squashfs => "squash4",
        FilesystemKind::Exfat => "exfat",
        FilesystemKind::Hfs => "hfs",
        FilesystemKind::Hfsplus | FilesystemKind::Hfsx => "hfsplus",
        FilesystemKind::Nilfs2 => "nilfs2",
        FilesystemKind::Ntfs => "ntfs",
        FilesystemKind::None | FilesystemKind::Erofs | FilesystemKind::Swap | FilesystemKind::Verity => return None,
    })
}

/// GRUB's name of a partition table.
pub fn table(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Gpt => "gpt",
        TableKind::Msdos => "msdos",
    }
}

/// Sets answers to packages' questions.
const DEBCONF: &str = "/usr/bin/debconf-set-selections";

/// There where grub-pc is installed.
const GRUB_PC: &str = "/var/lib/dpkg/info/grub-pc.postinst";
/// Rules that look for partition tables.
const UDEV_BLKID: &str = "/usr/lib/udev/rules.d/60-persistent-storage.rules";
/// A rule that has to come after those.
const DEVICE_RULE: &str = "/etc/udev/rules.d/65-grub-device.rules";

/// Installs GRUB for EFI, for BIOS, or for both, with one configuration.
pub fn install(site: &Site<'_>, efi: Option<&EfiNames>, bios: bool) -> Result<()> {
    let boot = layout::locate(site.spec, site.slot, DIRECTORY)?;
    layout::check_readable("GRUB", &boot, reads)?;
    if let Some(names) = efi {
        install_efi(site, names, &boot)?;
    }
    if bios {
        install_bios(site, &boot)?;
    }
    grub_config::write(site)
}

/// The files of the EFI system partitions: Debian's signed shim and GRUB where the root has them, else an
/// image that is made of the root's modules.
fn install_efi(site: &Site<'_>, names: &EfiNames, boot: &OnDisk<'_>) -> Result<()> {
    let grub = format!("{LIBRARY}/{}-signed/grub{}.efi.signed", names.grub, names.short);
    let shim = shim(names, "shim");
    let wants_signed = site.options.secure_boot;
    for (mount, _) in layout::esps(site.spec, site.slot)? {
        let esp = mount.path.trim_end_matches('/');
        let vendor = format!("{esp}/EFI/{}", vendor(site)?);
        if wants_signed != Some(false) && site.has(&grub) && site.has(&shim) {
            install_signed(site, names, esp, &vendor, &grub)?;
        } else if wants_signed == Some(true) {
            let signed = format!("{}-signed", names.package);
            return Err(site.missing("the root has no signed GRUB", &[&signed, "shim-signed"]).into());
        } else {
            install_unsigned(site, names, esp, &vendor, boot)?;
        }
    }
    copy_modules(site, names.grub)?;
    if site.options.removable && site.has(DEBCONF) {
        // Upgrades of the packages renew this path too.
        let answer = format!("{} grub2/force_efi_extra_removable boolean true\n", names.package);
        preset(site, answer, "having upgrades of GRUB renew the removable path")?;
    }
    Ok(())
}

/// Answers questions of packages before they are asked.
fn preset(site: &Site<'_>, answers: String, doing: &str) -> Result<()> {
    site.cx.chroot([DEBCONF]).input(answers).run(doing)?;
    for backup in ["config", "templates"] {
        site.remove(&format!("/var/cache/debconf/{backup}.dat-old"))?;
    }
    Ok(())
}

fn shim(names: &EfiNames, program: &str) -> String {
    format!("/usr/lib/shim/{program}{}.efi.signed", names.short)
}

/// The directory below EFI/ that the signed GRUB looks into.
fn vendor(site: &Site<'_>) -> Result<String> {
    site.os_release("ID", "debian")
}

fn install_signed(site: &Site<'_>, names: &EfiNames, esp: &str, vendor: &str, grub: &str) -> Result<()> {
    let short = names.short;
    let manager = shim(names, "mm");
    let mut places = vec![(format!("{vendor}/shim{short}.efi"), vendor)];
    let removable = format!("{esp}/EFI/BOOT");
    if site.options.removable {
        places.push((format!("{removable}/{}", names.removable), &removable));
    }
    for (first, directory) in &places {
        site.copy(&shim(names, "shim"), first)?;
        site.copy(grub, &format!("{directory}/grub{short}.efi"))?;
        if site.has(&manager) {
            site.copy(&manager, &format!("{directory}/mm{short}.efi"))?;
        }
    }
    // What makes a boot entry again that the firmware has lost. Not beside the removable path, where it
    // would make one, and restart, on each new machine.
    for (from, to) in [(shim(names, "fb"), format!("fb{short}.efi")), (csv(names), csv_name(names))] {
        if site.has(&from) {
            site.copy(&from, &format!("{vendor}/{to}"))?;
        }
    }
    // The signed GRUB looks for its configuration here, wherever it was started from.
    site.write(&format!("{vendor}/grub.cfg"), grub_config::stub(site)?)?;
    Ok(())
}

fn csv_name(names: &EfiNames) -> String {
    format!("BOOT{}.CSV", names.short.to_uppercase())
}

fn csv(names: &EfiNames) -> String {
    format!("/usr/lib/shim/{}", csv_name(names))
}

fn install_unsigned(site: &Site<'_>, names: &EfiNames, esp: &str, vendor: &str, boot: &OnDisk<'_>) -> Result<()> {
    if site.spec.deploys.len() > 1 {
        // Such an image finds one directory of GRUB's; the signed one reads a menu of deploys first.
        let signed = format!("{}-signed", names.package);
        let fault = site.missing("only the signed GRUB offers several deploys", &[&signed, "shim-signed"]);
        return Err(fault.hint("or use `type: systemd-boot`").into());
    }
    let file = format!("{vendor}/grub{}.efi", names.short);
    make_image(site, names.grub, &format!("{}-bin", names.package), boot, &[], &file)?;
    if site.options.removable {
        site.copy(&file, &format!("{esp}/EFI/BOOT/{}", names.removable))?;
    }
    Ok(())
}

/// GRUB's first sector and core image as files of the root; [`crate::image::grub`] puts them into the
/// image.
fn install_bios(site: &Site<'_>, boot: &OnDisk<'_>) -> Result<()> {
    crate::image::grub::place(site.spec)?;
    make_image(site, BIOS, "grub-pc-bin", boot, &["biosdisk"], CORE_IMAGE)?;
    copy_modules(site, BIOS)?;
    name_device(site)
}

/// Tells grub-pc where its upgrades install GRUB on the machine: it asks, and fails where nobody answers. What the
/// disk is called there nobody knows, so udev names it by its partition table.
fn name_device(site: &Site<'_>) -> Result<()> {
    if !site.has(GRUB_PC) || !site.has(DEBCONF) {
        return Ok(());
    }
    if !site.has(UDEV_BLKID) {
        let answer = "grub-pc grub-pc/install_devices_empty boolean true\n";
        return preset(site, answer.to_owned(), "having upgrades of GRUB leave the first sectors alone");
    }
    let id = site.spec.disk_id.to_lowercase();
    let rule = format!(
        "# The disk that upgrades of grub-pc install GRUB on (debconf-show grub-pc).\nSUBSYSTEM==\"block\", \
         ENV{{DEVTYPE}}==\"disk\", ENV{{ID_PART_TABLE_UUID}}==\"{id}\", SYMLINK+=\"disk/by-id/ptuuid-{id}\"\n"
    );
    site.write(DEVICE_RULE, rule)?;
    let answer = format!("grub-pc grub-pc/install_devices multiselect /dev/disk/by-id/ptuuid-{id}\n");
    preset(site, answer, "telling upgrades of GRUB which disk is theirs")
}

/// Makes a GRUB image with the modules that find and read its directory; all others are read from there.
fn make_image(
    site: &Site<'_>,
    platform: &str,
    package: &str,
    boot: &OnDisk<'_>,
    modules: &[&str],
    file: &str,
) -> Result<()> {
    let library = format!("{LIBRARY}/{platform}");
    if !site.has(&format!("{library}/moddep.lst")) {
        return Err(site.missing(&format!("the root has no GRUB for {platform}"), &[package]).into());
    }
    if !site.has("/usr/bin/grub-mkimage") {
        return Err(site.missing("the root has no grub-mkimage", &["grub-common"]).into());
    }
    let directory = file.rsplit_once('/').map_or("/", |(directory, _)| directory);
    site.make_directory(directory)?;
    let early = format!("{directory}/{EARLY}");
    site.write(&early, grub_config::early(site)?)?;
    let filesystem = module(boot.partition.contents.kind).unwrap_or("ext2");
    let words = ["grub-mkimage", "-d", &library, "-O", platform, "-c", &early, "-p", &boot.path, "-o", file];
    let table = format!("part_{}", table(site.spec.table));
    let finding = [table.as_str(), filesystem, "search_fs_uuid"];
    site.cx
        .chroot(words.iter().chain(modules).chain(&finding).copied())
        .run(&format!("making GRUB's image for {platform}"))?;
    site.set_readable(file)?;
    site.remove(&early)?;
    Ok(())
}

/// Copies a platform's modules to where GRUB loads them from. The signed GRUB has its own, and loads
/// none where secure boot is on.
fn copy_modules(site: &Site<'_>, platform: &str) -> Result<()> {
    let from = format!("{LIBRARY}/{platform}");
    for name in site.names(&from)? {
        let wanted = [".mod", ".lst"].iter().any(|end| name.ends_with(end)) || name == "boot.img";
        if wanted && (name != "boot.img" || platform == BIOS) {
            site.copy(&format!("{from}/{name}"), &format!("{DIRECTORY}/{platform}/{name}"))?;
        }
    }
    Ok(())
}
