//! systemd-boot, with an entry for each kernel (Boot Loader Specification, type 1).

use std::fmt::Write as _;

use anyhow::Result;

use super::efi::EfiNames;
use super::layout;
use super::site::{Kernel, Site};

/// Where the root has the programs.
const LIBRARY: &str = "/usr/lib/systemd/boot/efi";

/// The system's name among the entries, for kernels to come (kernel-install(8)); a machine id would be
/// another on each machine.
const TOKEN: &str = "/etc/kernel/entry-token";

/// Installs the loader, its settings and an entry for each kernel.
pub fn install(site: &Site<'_>, names: &EfiNames) -> Result<()> {
    let esp = layout::only_esp(site.spec, site.slot)?.0.path.trim_end_matches('/').to_owned();
    let kernels = site.kernels()?;
    install_programs(site, names, &esp)?;
    site.write(&format!("{esp}/loader/loader.conf"), loader_conf(site))?;
    site.write_cmdline()?;
    let token = token(site)?;
    site.write(TOKEN, format!("{token}\n"))?;
    let boot = layout::kernel_partition(site.spec, site.slot)?.0.path.trim_end_matches('/');
    // Says to kernel-install that kernels are laid out here as it would.
    site.write(&format!("{boot}/loader/entries.srel"), "type1\n")?;
    for kernel in &kernels {
        let (image, initrd) = place_kernel(site, kernel, boot, &token)?;
        let entry = entry(site, kernel, &token, &image, initrd.as_deref())?;
        site.write(&format!("{boot}/loader/entries/{token}-{}.conf", kernel.version), entry)?;
    }
    Ok(())
}

fn install_programs(site: &Site<'_>, names: &EfiNames, esp: &str) -> Result<()> {
    let short = names.short;
    let plain = format!("{LIBRARY}/systemd-boot{short}.efi");
    let signed = format!("{plain}.signed");
    let shim = format!("/usr/lib/shim/shim{short}.efi.signed");
    let manager = format!("/usr/lib/shim/mm{short}.efi.signed");
    let by_shim = site.options.secure_boot != Some(false) && site.has(&signed) && site.has(&shim);
    if site.options.secure_boot == Some(true) && !by_shim {
        let package = format!("systemd-boot-efi-{}-signed", site.cx.architecture.name());
        return Err(site.missing("the root has no signed systemd-boot", &[&package, "shim-signed"]).into());
    }
    let program = [by_shim.then_some(&signed), Some(&plain), Some(&signed)]
        .into_iter()
        .flatten()
        .find(|program| site.has(program));
    let Some(program) = program else {
        return Err(site.missing("the root has no systemd-boot", &["systemd-boot-efi"]).into());
    };
    site.copy(program, &format!("{esp}/EFI/systemd/systemd-boot{short}.efi"))?;
    if !site.options.removable {
        return Ok(());
    }
    let removable = format!("{esp}/EFI/BOOT");
    if by_shim {
        site.copy(&shim, &format!("{removable}/{}", names.removable))?;
        // The name that shim starts.
        site.copy(program, &format!("{removable}/grub{short}.efi"))?;
        if site.has(&manager) {
            site.copy(&manager, &format!("{removable}/mm{short}.efi"))?;
        }
    } else {
        site.copy(program, &format!("{removable}/{}", names.removable))?;
    }
    Ok(())
}

fn loader_conf(site: &Site<'_>) -> String {
    let timeout = site.options.timeout.map(|timeout| format!("timeout {timeout}\n")).unwrap_or_default();
    timeout + "console-mode keep\n"
}

fn token(site: &Site<'_>) -> Result<String> {
    let os = site.os_release("ID", "debian")?;
    Ok(site.slot.map_or(os.clone(), |slot| format!("{os}-{slot}")))
}

/// Where the firmware finds a kernel and its initrd: where they are, if that is on the partition, or
/// copies on it.
fn place_kernel(site: &Site<'_>, kernel: &Kernel, boot: &str, token: &str) -> Result<(String, Option<String>)> {
    let on = layout::kernel_partition(site.spec, site.slot)?.1;
    let here = layout::locate(site.spec, site.slot, &kernel.image)?;
    if here.partition.name == on.name {
        let initrd = kernel.initrd.as_deref().map(|path| layout::locate(site.spec, site.slot, path)).transpose()?;
        return Ok((here.path, initrd.map(|initrd| initrd.path)));
    }
    let directory = format!("/{token}/{}", kernel.version);
    let image = format!("{directory}/linux");
    site.copy(&kernel.image, &format!("{boot}{image}"))?;
    let Some(from) = &kernel.initrd else { return Ok((image, None)) };
    let initrd = format!("{directory}/initrd.img-{}", kernel.version);
    site.copy(from, &format!("{boot}{initrd}"))?;
    Ok((image, Some(initrd)))
}

fn entry(site: &Site<'_>, kernel: &Kernel, token: &str, image: &str, initrd: Option<&str>) -> Result<String> {
    let title = site.os_release("PRETTY_NAME", "Debian GNU/Linux")?;
    let title = site.slot.map_or(title.clone(), |slot| format!("{title} ({slot})"));
    let mut text = format!("title      {title}\nversion    {}\nsort-key   {token}\n", kernel.version);
    writeln!(text, "options    {}", site.words.join(" "))?;
    writeln!(text, "linux      {image}")?;
    if let Some(initrd) = initrd {
        writeln!(text, "initrd     {initrd}")?;
    }
    Ok(text)
}
