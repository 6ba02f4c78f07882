//! One choice of a menu: its files, its root, and what the kernel needs to get there.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::drivers::{self, Drivers, Has};
use super::place::{Named, named, shown};
use super::{Finding, Look, System};
use crate::build::packages::DATABASES;
use crate::image::{FilesystemKind, Partition};
use crate::inspect::initrd::Initrd;
use crate::inspect::menu::Choice;
use crate::inspect::tree::{Entry, EntryKind};

/// Programs that a kernel and its initramfs try to start, where the command line names none.
const INITS: [&str; 3] = ["sbin/init", "etc/init", "bin/init"];

/// How names of kernels begin in Debian.
const KERNEL_NAMES: [&str; 3] = ["vmlinuz-", "vmlinux-", "kernel-"];

/// What sets up a deployment of OSTree in an initramfs.
const OSTREE: &str = "lib/ostree/ostree-prepare-root";

impl Look<'_> {
    /// Looks at a choice of this deploy; the system that it starts, unless that cannot be told.
    pub(super) fn check_choice(&mut self, choice: &Choice) -> Result<Option<System>> {
        // A tester of memory and the like has no root.
        let root = choice.value("root").map(str::to_owned);
        let starts_system = root.is_some() || !choice.initrds.is_empty();
        let Some(on) = self.partition_for(choice).map(|partition| partition.name.clone()) else { return Ok(None) };
        let Some(kernel) = self.file(choice, &on, &choice.kernel)? else { return Ok(None) };
        let mut archives = Vec::new();
        for path in &choice.initrds {
            archives.extend(self.file(choice, &on, path)?);
        }
        if let Some(path) = &choice.device_tree {
            self.file(choice, &on, path)?;
        }
        if !starts_system || archives.len() < choice.initrds.len() {
            return Ok(None);
        }
        let initrd = self.initrd(&archives)?;
        let Some(top) = self.system(choice)? else { return Ok(None) };
        let version = self.version(&top, &kernel, initrd.as_ref())?;
        if let (Some(version), Some(initrd)) = (&version, &initrd)
            && !initrd.kernels().is_empty()
            && !initrd.kernels().contains(version.as_str())
        {
            let (of, name) = (initrd.kernels().into_iter().collect::<Vec<_>>().join(", "), choice.kernel.display());
            self.add(Finding::new(
                format!("{} starts {name} with the initramfs of {of}", shown(&choice.file)),
                "the initramfs must have the modules of the kernel that it is started with: `update-initramfs -u -k all` makes those of all kernels",
            ));
        }
        let system = System { top, kernel: version };
        let drivers = match &system.kernel {
            Some(kernel) => Drivers::of(self.tree(), &system.top, kernel, initrd.as_ref())?,
            None => Drivers::default(),
        };
        let has_initrd = !choice.initrds.is_empty();
        let on_disk = self.check_root(choice, root.as_deref(), &system, &drivers, initrd.as_ref(), has_initrd);
        if let Some(initrd) = &initrd {
            if on_disk {
                self.check_disk(choice, &system, &drivers);
            }
            if choice.value("ostree").is_some() && !initrd.has(OSTREE) {
                self.add(Finding::new(
                    format!("the initramfs of {} cannot set up OSTree's deployment", known(&system)),
                    "`ostree-prepare` makes one that can, from dracut and ostree-boot",
                ));
            }
        }
        self.check_init(choice, &system)?;
        Ok(Some(system))
    }

    /// Whether a choice starts another deploy's root.
    pub(super) fn is_anothers(&self, choice: &Choice) -> bool {
        let Some(Named::Partition(partition)) = choice.value("root").map(|root| named(self.spec, root)) else {
            return false;
        };
        !self.is_mounted(&partition.name)
            && self.spec.mounts.iter().any(|mount| mount.partition == partition.name && mount.path == "/")
    }

    /// A file that a menu names, on its partition.
    fn file(&mut self, choice: &Choice, on: &str, path: &Path) -> Result<Option<Entry>> {
        if !self.is_mounted(on) {
            return Ok(None);
        }
        let found = self.on_partition(on, path)?;
        if found.as_ref().is_none_or(|entry| entry.kind != EntryKind::File) {
            self.add(Finding::new(
                format!("{} starts {}, and the partition `{on}` has no such file", shown(&choice.file), path.display()),
                "what is put there or taken away after the menu was written is not in it: let `bootloader` (or update-grub) come last",
            ));
            return Ok(None);
        }
        Ok(found)
    }

    /// What is in the initramfs archives of a choice together; `None` where there is none, or one cannot be read.
    fn initrd(&mut self, archives: &[Entry]) -> Result<Option<Initrd>> {
        let mut all: Option<Initrd> = None;
        for entry in archives {
            if !self.initrds.contains_key(&entry.path) {
                let read = Initrd::read(self.tree().open(&entry.path)?);
                if let Err(error) = &read {
                    self.found.unknown.push(format!("{} cannot be read: {error:#}", shown(&entry.path)));
                }
                self.initrds.insert(entry.path.clone(), read.ok());
            }
            let Some(Some(read)) = self.initrds.get(&entry.path) else { return Ok(None) };
            let all = all.get_or_insert_default();
            all.names.extend(read.names.iter().cloned());
            all.texts.extend(read.texts.clone());
        }
        Ok(all)
    }

    /// The directory of the system that a choice starts; `None` where it cannot be told.
    fn system(&self, choice: &Choice) -> Result<Option<PathBuf>> {
        let Some(deployment) = choice.value("ostree") else { return Ok(Some(PathBuf::new())) };
        let found = self.tree().find(deployment.trim_start_matches('/').as_ref())?;
        Ok(found.filter(|entry| entry.kind == EntryKind::Directory).map(|entry| entry.path))
    }

    /// A kernel's version: by the name of its file, where the system has modules of that version, else by the
    /// initramfs, where it has modules of one alone.
    fn version(&self, system: &Path, kernel: &Entry, initrd: Option<&Initrd>) -> Result<Option<String>> {
        let name = kernel.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(version) = KERNEL_NAMES.iter().find_map(|start| name.strip_prefix(start))
            && self.tree().find(&system.join("lib/modules").join(version))?.is_some()
        {
            return Ok(Some(version.to_owned()));
        }
        let kernels = initrd.map(Initrd::kernels).unwrap_or_default();
        Ok(kernels.first().filter(|_| kernels.len() == 1).map(|version| (*version).to_owned()))
    }

    /// Looks at `root=`; whether that is a partition of this image.
    fn check_root(
        &mut self,
        choice: &Choice,
        root: Option<&str>,
        system: &System,
        drivers: &Drivers,
        initrd: Option<&Initrd>,
        has_initrd: bool,
    ) -> bool {
        let menu = shown(&choice.file);
        let Some(root) = root else {
            // dracut and systemd may find one by its partition's type; initramfs-tools asks for it.
            let asks = initrd.is_some_and(|initrd| initrd.has("scripts/local") && !initrd.says("ROOT="));
            if asks && choice.value("boot").is_none_or(|boot| boot == "local") {
                self.add(Finding::new(
                    format!("{menu} starts {} without `root=`", known(system)),
                    "`filesystem-deploy` writes it to /etc/kernel/cmdline, where `bootloader` takes it from",
                ));
            }
            return false;
        };
        if !has_initrd && (root.starts_with("UUID=") || root.starts_with("LABEL=") || root.starts_with("/dev/disk/")) {
            self.add(Finding::new(
                format!("{menu} starts {} without an initramfs, and with `root={root}`, which only one understands", known(system)),
                "without an initramfs the kernel finds its root by `root-by: partuuid` in `filesystem-deploy`; or install initramfs-tools before the kernel",
            ));
        }
        let partition = match named(self.spec, root) {
            Named::Partition(partition) => partition.clone(),
            Named::Nothing => {
                self.add(Finding::new(
                    format!("{menu} starts a system on `root={root}`, which no partition of `{}` is", self.spec.name),
                    "leave `root=` to `filesystem-deploy`, or give the partition that UUID in `image-partition`",
                ));
                return false;
            }
            Named::Unknown => match self.by_number(root).or_else(|| self.mapped(root)) {
                Some(partition) => partition.clone(),
                None => return false,
            },
        };
        let mounted = self.spec.mounts_of(self.slot).find(|mount| mount.path == "/");
        if let Some(mount) = mounted.filter(|mount| mount.partition != partition.name) {
            let at = self.spec.mounts_of(self.slot).find(|mount| mount.partition == partition.name);
            let is = at.map_or_else(|| "mounted nowhere".to_owned(), |at| format!("mounted on {}", at.path));
            self.add(Finding::new(
                format!(
                    "{menu} starts a system on `root={root}`: that is the partition `{}`, {is}, and `/` is on `{}`",
                    partition.name, mount.partition
                ),
                "leave `root=` to `filesystem-deploy`",
            ));
            return false;
        }
        self.check_filesystem(system, drivers, initrd, &partition, has_initrd);
        true
    }

    fn check_filesystem(
        &mut self,
        system: &System,
        drivers: &Drivers,
        initrd: Option<&Initrd>,
        partition: &Partition,
        has_initrd: bool,
    ) {
        let kind = partition.contents.kind;
        let protected = self.spec.hashes_of(&partition.name).is_some();
        let names = drivers::of_filesystem(kind);
        let name = kind.fstab_type().unwrap_or("none");
        let mut missing = Vec::new();
        if !names.is_empty()
            && let Has::No(module) = drivers.early_any(names, has_initrd)
        {
            missing.push((module, format!("the root's partition `{}` is {name}", partition.name)));
        }
        if protected && let Has::No(module) = drivers.early("dm_verity", has_initrd) {
            missing.push((module, format!("dm-verity protects `{}`", partition.name)));
        }
        for (module, why) in missing {
            let kernel = known(system);
            if drivers.late(&module) == Has::No(module.clone()) {
                self.add(Finding::new(
                    format!("{why}, and the kernel {kernel} has no module {module}"),
                    "take another kernel, or another file system",
                ));
            } else if has_initrd {
                self.add(Finding::new(
                    format!("{why}, and the initramfs of {kernel} has no module {module}"),
                    how_to_add(initrd, &module),
                ));
            } else {
                self.add(Finding::new(
                    format!("{why}, and the kernel {kernel} has {module} as a module only, and no initramfs"),
                    "an initramfs loads it: install initramfs-tools before the kernel",
                ));
            }
        }
        if protected
            && initrd.is_some_and(|initrd| !initrd.names.iter().any(|name| name.ends_with("systemd-veritysetup")))
        {
            self.add(Finding::new(
                format!("dm-verity protects `{}`, and the initramfs of {} has no systemd-veritysetup", partition.name, known(system)),
                "dracut makes one that has: install dracut and systemd-cryptsetup (systemd, before trixie) in the place of initramfs-tools",
            ));
        }
    }

    /// Whether the initramfs has a driver for any disk at all.
    fn check_disk(&mut self, choice: &Choice, system: &System, drivers: &Drivers) {
        const DISKS: [&str; 14] = [
            "virtio_blk",
            "virtio_scsi",
            "sd_mod",
            "nvme",
            "mmc_block",
            "xen_blkfront",
            "hv_storvsc",
            "ahci",
            "ata_piix",
            "usb_storage",
            "uas",
            "ubi",
            "dasd_eckd_mod",
            "ufshcd_core",
        ];
        if let Has::No(_) = drivers.early_any(&DISKS, true) {
            self.add(Finding::new(
                format!("the initramfs of {} has no driver of any disk", known(system)),
                "for all kinds of machines: `MODULES=most` in /etc/initramfs-tools/initramfs.conf, `hostonly=no` for dracut",
            ));
            return;
        }
        // A console of virtio's, or a kernel for clouds, is for nothing else.
        let virtual_machine = choice.consoles().any(|console| console.starts_with("hvc"))
            || system.kernel.as_deref().is_some_and(|kernel| kernel.contains("cloud"));
        let missing = drivers::VIRTIO.into_iter().find_map(|name| match drivers.early(name, true) {
            Has::No(module) if drivers.late(name) == Has::Yes => Some(module),
            _ => None,
        });
        if virtual_machine && let Some(module) = missing {
            self.add(Finding::new(
                format!("it is for virtual machines, and the initramfs of {} has no module {module}", known(system)),
                "for all kinds of machines: `MODULES=most` in /etc/initramfs-tools/initramfs.conf, `hostonly=no` for dracut",
            ));
        }
    }

    fn check_init(&mut self, choice: &Choice, system: &System) -> Result<()> {
        let is_debian =
            DATABASES.iter().map(|directory| system.top.join(directory.trim_start_matches('/')).join("status"));
        let mut packages = false;
        for path in is_debian {
            packages |= self.tree().find(&path)?.is_some();
        }
        if !packages || choice.value("init").is_some() || choice.value("ostree").is_some() {
            return Ok(());
        }
        for path in INITS {
            if self.tree().find(&system.top.join(path))?.is_some() {
                return Ok(());
            }
        }
        self.add(Finding::new(
            format!("{} starts a system that has no /sbin/init", shown(&choice.file)),
            "install systemd-sysv (or sysvinit-core, …) before `filesystem-deploy`",
        ));
        Ok(())
    }

    /// The partition of `/dev/vda2`, `/dev/mmcblk0p2` and the like, by its number.
    fn by_number(&self, root: &str) -> Option<&Partition> {
        let name = root.strip_prefix("/dev/")?;
        let digits = name.len() - name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
        let (disk, number) = name.split_at(name.len() - digits);
        let is_disk = ["sd", "vd", "hd", "xvd"].iter().any(|start| {
            disk.strip_prefix(start)
                .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|it| it.is_ascii_lowercase()))
        });
        let numbered = disk.strip_suffix('p').is_some_and(|disk| {
            ["mmcblk", "nvme"].iter().any(|start| disk.starts_with(start))
                && disk.ends_with(|it: char| it.is_ascii_digit())
        });
        let number: u32 = number.parse().ok().filter(|_| is_disk || numbered)?;
        self.spec.partitions.iter().find(|partition| partition.number == number)
    }

    /// The partition behind `/dev/mapper/root`.
    fn mapped(&self, root: &str) -> Option<&Partition> {
        let mount = self.spec.mounts_of(self.slot).find(|mount| mount.path == "/")?;
        let protected = self.spec.hashes_of(&mount.partition).is_some();
        self.spec.partition(&mount.partition).filter(|_| protected && root == "/dev/mapper/root")
    }

    /// Whether a kind of file system is mounted by what the kernel has once it is up.
    pub(super) fn check_late(&mut self, kernel: &str, drivers: &Drivers, kind: FilesystemKind, path: &str) {
        let names = drivers::of_filesystem(kind);
        let all_missing = !names.is_empty() && names.iter().all(|name| matches!(drivers.late(name), Has::No(_)));
        if all_missing {
            let name = kind.fstab_type().unwrap_or("none");
            self.add(Finding::new(
                format!("{path} is {name}, and the kernel {kernel} has no module {}", names[0]),
                "take another kernel, or another file system",
            ));
        }
    }
}

fn known(system: &System) -> &str {
    system.kernel.as_deref().unwrap_or("a kernel")
}

/// What puts a module into an initramfs of this kind.
fn how_to_add(initrd: Option<&Initrd>, module: &str) -> String {
    match initrd.is_some_and(|initrd| initrd.has("scripts/local")) {
        true => format!(
            "put `{module}` into /etc/initramfs-tools/modules, then `update-initramfs -u -k all` in a `run` with `chroot: true`"
        ),
        false => format!(
            "put `add_drivers+=\" {module} \"` into a file of /etc/dracut.conf.d, then `dracut --force --regenerate-all` in a `run` with `chroot: true`"
        ),
    }
}
