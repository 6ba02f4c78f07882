//! extlinux.conf for U-Boot, written by the root's own u-boot-menu.

use anyhow::{Context, Result};

use super::cmdline;
use super::layout;
use super::site::Site;
use crate::build::command::shell_word;
use crate::diagnostics::Fault;
use crate::image::FilesystemKind;

/// Read after /etc/default/u-boot by u-boot-menu.
const SETTINGS: &str = "/etc/u-boot-menu/conf.d/50-image.conf";

/// There only while the configuration is written: tells u-boot-menu what it would see once installed.
const LAYOUT: &str = "/etc/u-boot-menu/conf.d/99-layout.conf";

/// What U-Boot reads.
pub const CONFIG: &str = "/boot/extlinux/extlinux.conf";

/// Whether the U-Boots that Debian builds read a kind of file system.
pub fn reads(kind: FilesystemKind) -> bool {
    use FilesystemKind::{Btrfs, Ext2, Ext3, Ext4};
    matches!(kind, Ext2 | Ext3 | Ext4 | Btrfs) || layout::is_fat(kind)
}

/// Refuses a word of the kernel command line that would reach the kernel as another: U-Boot puts its own variables
/// into what it reads, and takes single quotes and backslashes away (`cli_simple_process_macros`).
pub fn check_word(word: &str) -> Result<()> {
    let Some(spoiled) = word.chars().find(|c| "$'\\".contains(*c)) else { return Ok(()) };
    Err(Fault::recipe(format!("U-Boot cannot give the kernel the argument `{word}`"))
        .hint(format!("{spoiled:?} is the reason: U-Boot takes it for its own"))
        .into())
}

/// Writes u-boot-menu's settings, has it write extlinux.conf, and looks whether that fits the root.
pub fn install(site: &Site<'_>) -> Result<()> {
    let boot = layout::locate(site.spec, site.slot, "/boot")?;
    layout::check_readable("U-Boot", &boot, reads)?;
    let kernels = site.kernels()?;
    site.words.iter().try_for_each(|word| check_word(word))?;
    if !site.has("/usr/sbin/u-boot-update") {
        return Err(site.missing("the root has no u-boot-update", &["u-boot-menu"]).into());
    }
    site.write_cmdline()?;
    let root = layout::locate(site.spec, site.slot, "/")?;
    let separate = root.partition.name != boot.partition.name;
    site.write(SETTINGS, settings(site, separate)?)?;
    if separate {
        if !site.has("/usr/bin/rsync") {
            site.cx.warn("without `rsync` in the root, u-boot-menu copies no device trees of later kernels to /boot");
        }
        for kernel in &kernels {
            copy_device_trees(site, &kernel.version)?;
        }
    }
    // It compares the devices of / and /boot by `stat --printf %d`. In the tree they are always the same.
    let device = if separate { "$3" } else { "0" };
    site.write(LAYOUT, format!("stat() {{ echo \"{device}\"; }}\n"))?;
    let written = site.cx.chroot(["u-boot-update"]).run("writing extlinux.conf");
    site.remove(LAYOUT)?;
    written?;
    let text = site.text(CONFIG)?.context("u-boot-update wrote no extlinux.conf")?;
    check(site, &text, separate)
}

fn settings(site: &Site<'_>, separate: bool) -> Result<String> {
    let root = cmdline::root(&site.words).context("the kernel command line names no root")?;
    let rest = cmdline::without_root(&site.words);
    let rest = if rest.is_empty() { "ro".to_owned() } else { rest.join(" ") };
    let mut text = String::from("# What the image was built with; read by u-boot-update.\n");
    let mut set = |name: &str, value: &str| text.push_str(&format!("{name}={}\n", shell_word(value)));
    set("U_BOOT_ROOT", &format!("root={root}"));
    set("U_BOOT_PARAMETERS", &rest);
    match site.options.timeout {
        // U-Boot takes 0 tenths of a second for ever.
        Some(0) => set("U_BOOT_PROMPT", "0"),
        Some(seconds) => set("U_BOOT_TIMEOUT", &(seconds * 10).to_string()),
        None => {}
    }
    if separate {
        set("U_BOOT_SYNC_DTBS", "true");
        set("U_BOOT_FDT_DIR", "/dtbs/");
    }
    Ok(text)
}

/// Copies a kernel's device trees to a /boot of its own, where U-Boot sees them.
fn copy_device_trees(site: &Site<'_>, version: &str) -> Result<()> {
    let from = format!("/usr/lib/linux-image-{version}");
    let mut ahead = vec![String::new()];
    while let Some(below) = ahead.pop() {
        for name in site.names(&format!("{from}{below}"))? {
            let path = format!("{below}/{name}");
            if site.has_directory(&format!("{from}{path}")) {
                ahead.push(path);
            } else {
                site.copy(&format!("{from}{path}"), &format!("/boot/dtbs/{version}{path}"))?;
            }
        }
    }
    Ok(())
}

/// The paths that a line names.
fn paths(line: &str) -> Option<impl Iterator<Item = &str>> {
    let mut words = line.split_whitespace();
    let keyword = words.next()?;
    ["linux", "initrd", "fdt", "fdtdir", "fdtoverlays"].contains(&keyword).then_some(words)
}

/// Looks whether what it names is there, and whether it names the image's root.
fn check(site: &Site<'_>, text: &str, separate: bool) -> Result<()> {
    let top = if separate { "/boot" } else { "" };
    for path in text.lines().filter_map(paths).flatten() {
        let full = format!("{top}{path}");
        if !site.has(&full) && !site.has_directory(&full) {
            return Err(Fault::failed(format!("{CONFIG} names {path}, which is not there")).into());
        }
    }
    let root = cmdline::root(&site.words).map(|root| format!("root={root}")).unwrap_or_default();
    let entries = text.lines().filter(|line| line.trim_start().starts_with("linux ")).count();
    let rooted = text.lines().filter(|line| line.trim_start().starts_with("append ") && line.contains(&root)).count();
    if entries == 0 || rooted < entries {
        return Err(Fault::failed(format!("{CONFIG} has no kernel, or another root than {root}"))
            .hint("does another file below /etc/u-boot-menu/conf.d set U_BOOT_ROOT?")
            .into());
    }
    Ok(())
}
