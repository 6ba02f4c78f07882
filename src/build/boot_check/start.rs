//! One choice of a menu: its files, its root, and what the kernel needs to get there.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::drivers::{self, Drivers, Has};
use super::place::{File, Named, named, shown};
use super::{Finding, Look, System};
use crate::build::packages::DATABASES;
use crate::image::{FilesystemKind, Partition};
use crate::inspect::initrd::Initrd;
use crate::inspect::menu::Choice;
use crate::inspect::tree::{Entry, EntryKind};

/// What a kernel has until its root is mounted.
#[derive(Debug, PartialEq, Eq)]
enum Early {
    /// This initramfs.
    Initrd(Initrd),
    /// Itself alone.
    Kernel,
    /// Nobody knows: an initramfs that cannot be read, or one that is in the kernel.
    Unknown,
}

/// Programs that a kernel and its initramfs try to start, where the command line names none.
const INITS: [&str; 3] = ["sbin/init", "etc/init", "bin/init"];

/// How names of kernels begin in Debian.
const KERNEL_NAMES: [&str; 3] = ["vmlinuz-", "vmlinux-", "kernel-"];

/// What sets up a deployment of OSTree in an initramfs.
const OSTREE: &str = "lib/ostree/ostree-prepare-root";

impl Look<'_> {
    /// Looks at a choice of this deploy; the system that it starts, unless that cannot be told.
    pub(super) fn check_choice(&mut self, choice: &Choice) -> Result<Option<System>> {
        let Some(on) = self.partition_for(choice).cloned() else { return Ok(None) };
        let kernel = self.file(choice, &on, &choice.kernel)?;
        let mut archives = Vec::new();
        for path in &choice.initrds {
            archives.extend(self.file(choice, &on, path)?);
        }
        if let Some(path) = &choice.device_tree {
            self.file(choice, &on, path)?;
        }
        let Some(kernel) = kernel.filter(|_| archives.len() == choice.initrds.len()) else { return Ok(None) };
        let initrd = self.initrd(&archives)?;
        let Some(top) = self.system(choice)? else { return Ok(None) };
        let version = self.version(&top, &kernel, initrd.as_ref())?;
        let system = System { top, kernel: version };
        let drivers = match &system.kernel {
            Some(kernel) => Drivers::of(self.tree(), &system.top, kernel, initrd.as_ref())?,
            None => Drivers::default(),
        };
        let early = match (choice.initrds.is_empty(), initrd) {
            (false, Some(initrd)) => Early::Initrd(initrd),
            (false, None) => Early::Unknown,
            (true, _) if self.has_no_initramfs(choice, &system)? => Early::Kernel,
            (true, _) => Early::Unknown,
        };
        if self.check_root(choice, &system, &drivers, &early)? {
            self.check_disk(&system, &drivers, &early);
            self.check_init(choice, &system)?;
        }
        if let Early::Initrd(initrd) = &early
            && choice.value("ostree").is_some()
            && !initrd.has_modules_elsewhere()
            && !initrd.has(OSTREE)
        {
            self.add(Finding::new(
                format!("the initramfs of {} cannot set up OSTree's deployment", known(&system)),
                "`ostree-prepare` makes one that can, from dracut and ostree-boot",
            ));
        }
        Ok(Some(system))
    }

    /// A file that a menu names; `None` where it is not there, or not known to be.
    fn file(&mut self, choice: &Choice, on: &Partition, path: &Path) -> Result<Option<Entry>> {
        let (menu, name) = (shown(&choice.file), &on.name);
        match self.on_partition(on, path)? {
            File::There(entry) => return Ok(Some(entry)),
            File::Unknown => {}
            File::Missing => self.add(Finding::new(
                format!("{menu} starts {}, and the partition `{name}` has no such file", path.display()),
                "what is put there or taken away after the menu was written is not in it: let `bootloader` (or update-grub) come last",
            )),
        }
        Ok(None)
    }

    /// Whether a choice starts another deploy's root.
    pub(super) fn is_anothers(&self, choice: &Choice) -> bool {
        let Some(Named::Partition(partition)) = choice.value("root").map(|root| named(self.spec, root)) else {
            return false;
        };
        !self.is_mounted(&partition.name)
            && self.spec.mounts.iter().any(|mount| mount.partition == partition.name && mount.path == "/")
    }

    /// Whether a kernel that is started alone has no initramfs in itself, as its configuration says.
    fn has_no_initramfs(&self, choice: &Choice, system: &System) -> Result<bool> {
        let Some(text) = self.kernel_config(system)? else { return Ok(false) };
        let given = text
            .lines()
            .any(|line| line.starts_with("CONFIG_INITRAMFS_SOURCE=") && line != "CONFIG_INITRAMFS_SOURCE=\"\"");
        Ok(!given && choice.value("initrd").is_none())
    }

    fn kernel_config(&self, system: &System) -> Result<Option<String>> {
        let Some(kernel) = &system.kernel else { return Ok(None) };
        match self.tree().text(Path::new("boot").join(format!("config-{kernel}")))? {
            Some(text) => Ok(Some(text)),
            None => self.tree().text(system.top.join("lib/modules").join(kernel).join("config")),
        }
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

    /// Looks at `root=`; whether that is the partition of this image that the system is on.
    fn check_root(&mut self, choice: &Choice, system: &System, drivers: &Drivers, early: &Early) -> Result<bool> {
        let menu = shown(&choice.file);
        let Some(root) = choice.value("root") else {
            // dracut and systemd may find one by its partition's type; initramfs-tools asks for it.
            if let Early::Initrd(initrd) = early
                && asks_for_root(initrd, choice)
                && self.kernel_config(system)?.is_some_and(|text| !has_own_words(&text))
            {
                self.add(Finding::new(
                    format!("{menu} starts {} without `root=`", known(system)),
                    "`filesystem-deploy` writes it to /etc/kernel/cmdline, where `bootloader` takes it from",
                ));
            }
            return Ok(false);
        };
        if *early == Early::Kernel && ["UUID=", "LABEL=", "/dev/disk/"].iter().any(|start| root.starts_with(start)) {
            self.add(Finding::new(
                format!("{menu} starts {} without an initramfs, and with `root={root}`, which only one understands", known(system)),
                "without an initramfs the kernel finds its root by `root-by: partuuid` in `filesystem-deploy`; or install initramfs-tools before the kernel",
            ));
        }
        let partition = match named(self.spec, root) {
            Named::Partition(partition) => Some(partition),
            Named::Nothing => {
                self.add(Finding::new(
                    format!("{menu} starts a system on `root={root}`, which no partition of `{}` is", self.spec.name),
                    "leave `root=` to `filesystem-deploy`, or give the partition that UUID in `image-partition`",
                ));
                None
            }
            Named::Unknown => self.by_number(root).or_else(|| self.mapped(root)),
        };
        // Another may be a system of its own, as for rescue.
        let mounted = self.spec.mounts_of(self.slot).find(|mount| mount.path == "/");
        let Some(partition) = partition.filter(|it| mounted.is_some_and(|mount| mount.partition == it.name)).cloned()
        else {
            return Ok(false);
        };
        self.check_filesystem(system, drivers, early, &partition);
        Ok(true)
    }

    fn check_filesystem(&mut self, system: &System, drivers: &Drivers, early: &Early, partition: &Partition) {
        let kind = partition.contents.kind;
        let protected = self.spec.hashes_of(&partition.name).is_some();
        let names = drivers::of_filesystem(kind);
        let name = kind.fstab_type().unwrap_or("none");
        let with_initrd = match early {
            Early::Initrd(_) => true,
            Early::Kernel => false,
            Early::Unknown => return,
        };
        let mut missing = Vec::new();
        if !names.is_empty()
            && let Has::No(module) = drivers.early_any(names, with_initrd)
        {
            missing.push((module, format!("the root's partition `{}` is {name}", partition.name)));
        }
        if protected && let Has::No(module) = drivers.early("dm_verity", with_initrd) {
            missing.push((module, format!("dm-verity protects `{}`", partition.name)));
        }
        for (module, why) in missing {
            let kernel = known(system);
            if drivers.late(&module) == Has::No(module.clone()) {
                self.add(Finding::new(
                    format!("{why}, and the kernel {kernel} has no module {module}"),
                    "take another kernel, or another file system",
                ));
            } else if let Early::Initrd(initrd) = early {
                let others: Vec<&str> = initrd.kernels().into_iter().filter(|it| *it != kernel).collect();
                let of =
                    if others.is_empty() { String::new() } else { format!(" (it has those of {})", others.join(", ")) };
                self.add(Finding::new(
                    format!("{why}, and the initramfs of {kernel} has no module {module}{of}"),
                    how_to_add(initrd, &module),
                ));
            } else {
                self.add(Finding::new(
                    format!("{why}, and the kernel {kernel} has {module} as a module only, and no initramfs"),
                    "an initramfs loads it: install initramfs-tools before the kernel",
                ));
            }
        }
        if let Early::Initrd(initrd) = early
            && protected
            && !initrd.has_modules_elsewhere()
            && !initrd.names.iter().any(|name| name.contains("veritysetup"))
        {
            self.add(Finding::new(
                format!("dm-verity protects `{}`, and the initramfs of {} has no veritysetup", partition.name, known(system)),
                "dracut makes one that has: install dracut and systemd-cryptsetup (systemd, before trixie) in the place of initramfs-tools",
            ));
        }
    }

    /// Whether the initramfs has a driver for any disk at all.
    fn check_disk(&mut self, system: &System, drivers: &Drivers, early: &Early) {
        if matches!(early, Early::Initrd(_)) && drivers.any_disk() == Some(false) {
            self.add(Finding::new(
                format!("the initramfs of {} has no driver of any disk", known(system)),
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
        if !packages || ["init", "rdinit", "ostree"].iter().any(|word| choice.value(word).is_some()) {
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

/// Whether an initramfs is one of initramfs-tools, and has no root from its settings.
fn asks_for_root(initrd: &Initrd, choice: &Choice) -> bool {
    let local = |value: &str| value == "local" || value.is_empty();
    initrd.has("scripts/local")
        && choice.value("boot").is_none_or(local)
        && !choice.words.iter().any(|word| word == "bootconfig")
        && initrd.settings("BOOT").all(local)
        && initrd.settings("ROOT").all(str::is_empty)
}

/// Whether a kernel has a command line of its own.
fn has_own_words(config: &str) -> bool {
    config.lines().any(|line| line.starts_with("CONFIG_CMDLINE=") && line != "CONFIG_CMDLINE=\"\"")
}

/// What puts a module into an initramfs of this kind.
fn how_to_add(initrd: &Initrd, module: &str) -> String {
    match initrd.has("scripts/local") {
        true => format!(
            "put `{module}` into /etc/initramfs-tools/modules, then `update-initramfs -u -k all` in a `run` with `chroot: true`"
        ),
        false => format!(
            "put `add_drivers+=\" {module} \"` into a file of /etc/dracut.conf.d, then `dracut --force --regenerate-all` in a `run` with `chroot: true`"
        ),
    }
}
