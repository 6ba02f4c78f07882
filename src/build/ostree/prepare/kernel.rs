//! The kernel and its initramfs, where OSTree looks for them: /usr/lib/modules/VERSION.

use anyhow::{Context, Result};

use super::Preparation;
use crate::diagnostics::Fault;
use crate::sys::remove::remove_wholly;

const MODULES: &str = "/usr/lib/modules";

/// Read by the initramfs, so it has to be there before that is made (ostree-prepare-root(1)).
const CONFIG: &str = "/usr/lib/ostree/prepare-root.conf";

/// What has to be in the initramfs, so that it starts a deployment.
const IN_INITRAMFS: &str = "initrd-root-fs.target.wants/ostree-prepare-root.service";

/// Has exactly one kernel, with an initramfs that knows OSTree beside it, and nothing in /boot.
pub(super) fn prepare(it: &Preparation<'_>) -> Result<String> {
    let version = only_kernel(it)?;
    let directory = format!("{MODULES}/{version}");
    let image = ["vmlinuz", "vmlinux"]
        .iter()
        .map(|name| format!("/boot/{name}-{version}"))
        .find(|path| it.files.has(path))
        .with_context(|| format!("/boot has no kernel {version}"))?;
    let composefs = it.options.composefs.unwrap_or(it.abilities.composefs);
    it.files.write(CONFIG, prepare_root(it.options.composefs))?;
    let initramfs = format!("{directory}/initramfs.img");
    for (program, packages) in
        [("/usr/bin/dracut", "dracut"), ("/usr/lib/dracut/modules.d", "dracut-core, ostree-boot")]
    {
        if !it.files.has(program) && !it.files.has_directory(program) {
            return Err(missing(&format!("the root has no {program}"), packages));
        }
    }
    if !it.files.names("/usr/lib/dracut/modules.d")?.iter().any(|name| name.ends_with("ostree")) {
        return Err(missing("dracut has no module for OSTree", "ostree-boot"));
    }
    it.cx.progress("making the initramfs", None);
    let mut words: Vec<&str> = vec!["dracut", "--force", "--no-hostonly", "--reproducible", "--add", "ostree"];
    for module in &it.options.dracut_modules {
        words.extend(["--add", module.as_str()]);
    }
    if composefs {
        // What mounts the image of a deployment; dracut's module for OSTree does not ask for it.
        words.extend(["--add-drivers", "loop erofs overlay"]);
    }
    words.extend(["--kver", &version, &initramfs]);
    it.cx.chroot(words).run("making the initramfs")?;
    let look = "lsinitrd \"$1\" | grep -F \"$2\" || :";
    let found = it.cx.chroot(["sh", "-c", look, "sh", &initramfs, IN_INITRAMFS]).output("reading the initramfs")?;
    if found.trim().is_empty() {
        return Err(Fault::failed("the initramfs that dracut made does not start OSTree's deployments")
            .hint("is ostree-prepare-root.service of ostree-boot there?")
            .into());
    }
    it.files.set_readable(&initramfs)?;
    it.files.copy(&image, &format!("{directory}/vmlinuz"))?;
    device_trees(it, &version, &directory)?;
    Ok(format!("Linux {version}{}", if composefs { ", composefs" } else { "" }))
}

fn missing(what: &str, packages: &str) -> anyhow::Error {
    Fault::failed(what.to_owned())
        .hint(format!("before `ostree-prepare`: `action: apt` with `packages: [{packages}]`"))
        .into()
}

/// The one kernel; a second would be started by nobody.
fn only_kernel(it: &Preparation<'_>) -> Result<String> {
    let names = it.files.names(MODULES)?;
    let kernels: Vec<&String> = names
        .iter()
        .filter(|name| ["vmlinuz", "vmlinux"].iter().any(|image| it.files.has(&format!("/boot/{image}-{name}"))))
        .collect();
    match kernels.as_slice() {
        [one] => {
            // What is left of kernels that were removed.
            for other in names.iter().filter(|name| *name != *one) {
                it.cx.log(format!("{MODULES}/{other} has no kernel in /boot: it is removed"));
                if let Some(path) = it.files.find(&format!("{MODULES}/{other}"))? {
                    remove_wholly(&path)?;
                }
            }
            Ok((*one).clone())
        }
        [] => Err(missing("the root has no kernel", "linux-image-amd64")),
        several => {
            let names: Vec<String> = several.iter().map(|name| format!("linux-image-{name}")).collect();
            Err(Fault::failed(format!("OSTree starts one kernel, and the root has {}", several.len()))
                .hint(format!("remove all but one of {}", names.join(", ")))
                .into())
        }
    }
}

/// Debian 12 does not read it, but bootc does.
fn prepare_root(asked: Option<bool>) -> String {
    let composefs = match asked {
        Some(true) => "yes",
        // Where the OSTree that makes a deployment can, be it this machine's or the system's own.
        None => "maybe",
        Some(false) => "no",
    };
    format!(
        "# How the initramfs mounts a deployment; see ostree-prepare-root(1).\n\
         [sysroot]\nreadonly=true\n\n[composefs]\nenabled={composefs}\n"
    )
}

/// Device trees of boards, which OSTree hands to boot loaders.
fn device_trees(it: &Preparation<'_>, version: &str, directory: &str) -> Result<()> {
    let from = format!("/usr/lib/linux-image-{version}");
    if !it.files.has_directory(&from) {
        return Ok(());
    }
    let top = it.files.find(&from)?.context("the directory is gone")?;
    for entry in walkdir::WalkDir::new(&top).min_depth(1).sort_by_file_name() {
        let entry = entry.context("reading device trees")?;
        let below = entry.path().strip_prefix(&top)?.display().to_string();
        if entry.file_type().is_file() {
            it.files.copy(&format!("{from}/{below}"), &format!("{directory}/dtb/{below}"))?;
        }
    }
    Ok(())
}
