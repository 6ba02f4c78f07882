//! The Raspberry Pi's firmware, kernel and settings, put in place by raspi-firmware's own hook.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::cmdline;
use super::layout;
use super::site::Site;
use crate::build::command::shell_word;
use crate::build::files::RootFiles;
use crate::diagnostics::Fault;
use crate::image::{Partition, Spec};

/// Where Debian mounts the partition that the firmware reads.
pub const FIRMWARE: &str = "/boot/firmware";

/// What the package runs for each new kernel.
const HOOK: &str = "/etc/kernel/postinst.d/z50-raspi-firmware";

/// Its settings, and words for the kernel command line.
const SETTINGS: &str = "/etc/default/raspi-firmware";
const WORDS: &str = "/etc/default/raspi-extra-cmdline";

/// Starts the block of settings that is ours.
const MARK: &str = "# What the image was built with:";

/// The partition that the firmware reads.
pub fn partition<'a>(spec: &'a Spec, slot: Option<&'a str>) -> Result<&'a Partition> {
    let mount = spec.mounts_of(slot).find(|mount| mount.path == FIRMWARE);
    let partition = mount.and_then(|mount| spec.partition(&mount.partition));
    match partition {
        Some(partition) if layout::is_fat(partition.contents.kind) => Ok(partition),
        Some(partition) => {
            Err(Fault::recipe(format!("the Raspberry Pi cannot read the partition `{}`", partition.name))
                .hint("its firmware reads FAT only: `fs: fat32`")
                .into())
        }
        None => Err(Fault::recipe(format!("no partition is mounted at {FIRMWARE}"))
            .hint("the firmware wants one with `fs: fat32`, of type 0x0c on msdos, of some 512 MiB")
            .into()),
    }
}

/// Sets the hook up for the image and runs it.
pub fn install(site: &Site<'_>) -> Result<()> {
    partition(site.spec, site.slot)?;
    if !site.has(HOOK) {
        let fault = site.missing("the root has no Raspberry Pi firmware", &["raspi-firmware"]);
        return Err(fault.hint("Debian has it in non-free-firmware: add that to the bootstrap's `components`").into());
    }
    // The hook is content without.
    for kernel in site.kernels()? {
        if kernel.initrd.is_none() {
            let what = format!("the kernel {} has no initrd, which Debian's kernels want", kernel.version);
            return Err(site.missing(&what, &["initramfs-tools"]).into());
        }
    }
    site.write_cmdline()?;
    write_settings(site)?;
    for name in site.names("/usr/lib/raspi-firmware")? {
        copy(site, &format!("/usr/lib/raspi-firmware/{name}"), &format!("{FIRMWARE}/{name}"))?;
    }
    site.make_directory(FIRMWARE)?;
    let firmware = RootFiles::open(site.cx.root)?.find(FIRMWARE)?.context("the directory is gone")?;
    site.cx
        .chroot([HOOK])
        .env("DEB_MAINT_PARAMS", "configure")
        // The hook insists on a mount point.
        .bind(firmware, FIRMWARE, false)
        .run("putting kernel and settings beside the firmware")?;
    check(site)
}

fn copy(site: &Site<'_>, from: &str, to: &str) -> Result<()> {
    if !site.has_directory(from) {
        return site.copy(from, to);
    }
    site.names(from)?.iter().try_for_each(|name| copy(site, &format!("{from}/{name}"), &format!("{to}/{name}")))
}

/// Presets what the hook would else find out of the machine that builds.
fn write_settings(site: &Site<'_>) -> Result<()> {
    let before = site.text(SETTINGS)?.unwrap_or_default();
    let before = before.split(MARK).next().unwrap_or_default().trim_end();
    let root = cmdline::root(&site.words).context("the kernel command line names no root")?;
    let (consoles, words): (Vec<&str>, Vec<&str>) =
        cmdline::without_root(&site.words).into_iter().partition(|word| word.starts_with("console="));
    let consoles: Vec<&str> = consoles.iter().filter_map(|word| word.strip_prefix("console=")).collect();
    let mut text = format!("{before}\n\n{MARK}\n");
    writeln!(text, "ROOTPART={}", shell_word(root))?;
    writeln!(
        text,
        "CONSOLES={}",
        shell_word(&if consoles.is_empty() { serial(site).into() } else { consoles.join(" ") })
    )?;
    // Given on the command line, 64 MiB keep a Pi 4 from starting; the hook knows only the Pi it runs on.
    if !before.lines().any(|line| line.starts_with("CMA=")) {
        writeln!(text, "CMA=0")?;
    }
    site.write(SETTINGS, text.trim_start())?;
    if !words.is_empty() {
        let mut all = site.text(WORDS)?.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        all.extend(
            words
                .iter()
                .filter(|word| !all.iter().any(|known| known == *word))
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        );
        site.write(WORDS, format!("{}\n", all.join(" ")))?;
    }
    Ok(())
}

/// The screen, and the serial port on the pins: the second one on a Pi 3 and 4.
fn serial(site: &Site<'_>) -> &'static str {
    match site.cx.architecture.name() {
        "arm64" => "tty0 ttyS1,115200",
        _ => "tty0 ttyAMA0,115200",
    }
}

/// Looks whether all is there that the firmware goes by.
fn check(site: &Site<'_>) -> Result<()> {
    let config = site.text(&format!("{FIRMWARE}/config.txt"))?.unwrap_or_default();
    let named =
        config.lines().filter_map(|line| line.strip_prefix("kernel=").or_else(|| line.strip_prefix("initramfs ")));
    let named: Vec<&str> = named.map(str::trim).collect();
    if named.is_empty() {
        return Err(Fault::failed(format!("raspi-firmware's hook wrote no kernel into {FIRMWARE}/config.txt")).into());
    }
    for name in named {
        if !site.has(&format!("{FIRMWARE}/{name}")) {
            return Err(Fault::failed(format!("{FIRMWARE}/config.txt names {name}, which is not there")).into());
        }
    }
    let line = site.text(&format!("{FIRMWARE}/cmdline.txt"))?.unwrap_or_default();
    let root = format!("root={}", cmdline::root(&site.words).unwrap_or_default());
    if !line.split_whitespace().any(|word| word == root) {
        return Err(Fault::failed(format!("{FIRMWARE}/cmdline.txt does not say {root}")).into());
    }
    Ok(())
}
