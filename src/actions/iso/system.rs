//! What a root must have to run from a live image.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::boot_check;
use crate::build::inside::{Inside, Kind};
use crate::debian::Architecture;
use crate::diagnostics::Fault;
use crate::image::FilesystemKind;

/// Kernel and initrd of a root.
pub(super) struct System {
    /// As in `/boot/vmlinuz-VERSION`.
    pub(super) version: String,
    kernel: File,
    initrd: File,
    /// Why it is not known whether the initrd can mount the live root.
    pub(super) unknown: Option<String>,
}

/// Links of Debian's linux-update-symlinks to the newest kernel.
const LINKS: [&str; 3] = ["/vmlinuz", "/vmlinux", "/boot/vmlinuz"];

/// What the names of kernels begin with.
const PREFIXES: [&str; 2] = ["vmlinuz-", "vmlinux-"];

/// The part of live-boot that puts the rest of it into initrds.
const LIVE_HOOK: &str = "/usr/share/initramfs-tools/hooks/live";

/// Modules that initramfs-tools is told to put into initrds.
const MODULES: &str = "/etc/initramfs-tools/modules";

impl System {
    /// Finds kernel and initrd in the root that is at `top` of this machine; the fault names all packages that are missing.
    pub(super) fn find(root: &Inside, top: &Path, architecture: Architecture, erofs: bool) -> Result<Self> {
        let mut missing: Vec<(&str, String)> = Vec::new();
        let kernel = kernel(root)?;
        if kernel.is_none() {
            let flavour = match architecture {
                Architecture::I386 => "686".to_owned(),
                Architecture::Armhf => "armmp".to_owned(),
                other => other.name().to_owned(),
            };
            missing.push(("a kernel", format!("linux-image-{flavour}")));
        }
        if root.kind(Path::new(LIVE_HOOK))? != Some(Kind::File) {
            missing.push(("live-boot", "live-boot".to_owned()));
        }
        let has_init = ["/sbin/init", "/lib/systemd/systemd", "/bin/init"]
            .into_iter()
            .any(|path| matches!(root.kind(Path::new(path)), Ok(Some(Kind::File))));
        if !has_init {
            missing.push(("an init", "systemd-sysv".to_owned()));
        }
        let Some((path, version)) = kernel.filter(|_| missing.is_empty()) else {
            let what: Vec<&str> = missing.iter().map(|(what, _)| *what).collect();
            let packages: Vec<&str> = missing.iter().map(|(_, package)| package.as_str()).collect();
            return Err(Fault::failed(format!("the root cannot run from a live image: it lacks {}", what.join(", ")))
                .hint(format!("install before this action: `apt` with `packages: [{}]`", packages.join(", ")))
                .into());
        };
        let initrd = Path::new("/boot").join(format!("initrd.img-{version}"));
        if root.kind(&initrd)? != Some(Kind::File) {
            return Err(Fault::failed(format!("the kernel {version} has no initrd: {} is missing", initrd.display()))
                .hint("`initramfs-tools` makes it when the kernel is installed; `update-initramfs -c -k all` in a `run` with `chroot: true` makes it afterwards")
                .into());
        }
        let kind = if erofs { FilesystemKind::Erofs } else { FilesystemKind::Squashfs };
        let missing = boot_check::missing_module(top, &version, &initrd, kind);
        let unknown = missing.as_ref().err().map(|error| format!("{} cannot be read: {error:#}", initrd.display()));
        if let Ok(Some(module)) = missing {
            return Err(Fault::failed(format!("the initrd has no module {module}, and could not mount the live root"))
                .hint(format!("add the line `{module}` to {MODULES} by an `overlay` or `run` before the kernel is installed, or run `update-initramfs -u` after it; or use `filesystem: squashfs`"))
                .into());
        }
        let open = |path: &Path| root.read(path).with_context(|| format!("opening {}", path.display()));
        Ok(Self { kernel: open(&path)?, initrd: open(&initrd)?, version, unknown })
    }

    /// Copies both into a directory.
    pub(super) fn copy(&self, to: &Path) -> Result<()> {
        for (mut file, name) in [(&self.kernel, "vmlinuz"), (&self.initrd, "initrd.img")] {
            let mut copy = File::create(to.join(name)).with_context(|| format!("writing {name}"))?;
            std::io::copy(&mut file, &mut copy).with_context(|| format!("copying {name}"))?;
        }
        Ok(())
    }
}

/// The newest kernel of a root and its version.
fn kernel(root: &Inside) -> Result<Option<(PathBuf, String)>> {
    for link in LINKS {
        if root.kind(Path::new(link))? == Some(Kind::File) {
            let path = Path::new("/").join(root.resolve(Path::new(link))?);
            if let Some(version) = path.file_name().and_then(|name| version(name.to_str()?)) {
                return Ok(Some((path, version)));
            }
        }
    }
    if root.kind(Path::new("/boot"))? != Some(Kind::Directory) {
        return Ok(None);
    }
    let (_open, boot) = root.host_path(Path::new("/boot"))?;
    let names = fs::read_dir(boot).context("reading /boot")?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<std::io::Result<Vec<OsString>>>().context("reading /boot")?;
    let kernels = names.iter().filter_map(|name| Some((name, version(name.to_str()?)?)));
    let newest = kernels.max_by_key(|(_, version)| in_order(version));
    Ok(newest.map(|(name, version)| (Path::new("/boot").join(name), version)))
}

fn version(name: &str) -> Option<String> {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).map(str::to_owned)
}

/// A version's numbers and texts, to be compared: 6.9 is older than 6.12.
fn in_order(version: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let text_end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(text_end);
        let number_end = after.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(number_end);
        parts.push((0, text.to_owned()));
        parts.push((number.parse().unwrap_or(0), String::new()));
        rest = after;
    }
    parts
}

/// What tells an image from all others, from the files in its directory `live` and its menu.
pub(super) fn id(live: &Path, menu: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for name in ["filesystem.squashfs", "vmlinuz", "initrd.img"] {
        hasher.update_mmap_rayon(live.join(name)).with_context(|| format!("reading {name}"))?;
    }
    hasher.update(menu.as_bytes());
    Ok(crate::image::Spec::derived_uuid(&hasher.finalize().to_hex(), "iso").to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::inspect::initrd::tests::archive;

    fn root(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        root
    }

    #[test]
    fn the_newest_kernel_is_that_of_the_highest_numbers_or_of_the_link() {
        let root = root(&["boot/vmlinuz-6.9.1-amd64", "boot/vmlinuz-6.12.3-amd64", "boot/config-7"]);
        let version = || kernel(&Inside::open(root.path()).unwrap()).unwrap().unwrap().1;
        assert_eq!(version(), "6.12.3-amd64");
        symlink("boot/vmlinuz-6.9.1-amd64", root.path().join("vmlinuz")).unwrap();
        assert_eq!(version(), "6.9.1-amd64");
    }

    #[test]
    fn a_root_without_anything_is_told_all_that_it_lacks() {
        let root = root(&["etc/hostname"]);
        let error =
            System::find(&Inside::open(root.path()).unwrap(), root.path(), Architecture::Amd64, false).err().unwrap();
        let fault = crate::diagnostics::fault_of(&error);
        assert!(fault.message.contains("it lacks a kernel, live-boot, an init"), "{}", fault.message);
        assert!(fault.hints[0].contains("[linux-image-amd64, live-boot, systemd-sysv]"), "{:?}", fault.hints);
    }

    #[test]
    fn a_kernel_without_an_initrd_and_an_initrd_without_erofs_are_told() {
        let files = ["boot/vmlinuz-6.1", "sbin/init", "usr/share/initramfs-tools/hooks/live"];
        let root = root(&files);
        let find = |erofs| System::find(&Inside::open(root.path()).unwrap(), root.path(), Architecture::Amd64, erofs);
        assert!(find(false).err().unwrap().to_string().contains("/boot/initrd.img-6.1 is missing"));
        fs::write(root.path().join("boot/initrd.img-6.1"), "x").unwrap();
        assert_eq!(find(false).unwrap().version, "6.1");
        assert!(find(false).unwrap().unknown.unwrap().contains("/boot/initrd.img-6.1 cannot be read"));
        let initrd = archive(&[("usr/lib/modules/6.1/modules.builtin", "kernel/fs/squashfs/squashfs.ko\n")]);
        fs::write(root.path().join("boot/initrd.img-6.1"), initrd).unwrap();
        assert_eq!(find(false).unwrap().unknown, None);
        assert!(find(true).err().unwrap().to_string().contains("no module erofs"));
    }
}
