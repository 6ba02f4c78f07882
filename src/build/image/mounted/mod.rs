//! Images whose file systems are mounted, for steps that need a device.

mod device;
mod fill;
mod named;
mod support;

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::FsFlags;

pub use self::device::{Loop, Part};
pub(super) use self::fill::{fill, is_copied};
pub use self::support::{mounts, refused};
use crate::build::inside::{Inside, Kind};
use crate::diagnostics::Fault;
use crate::image::{FilesystemKind, Layout, Mount, Placed, Spec, table};

/// How long a file system may stay busy with what has just ended.
const PATIENCE: usize = 50;

/// An image whose file systems are mounted; unmounted when dropped.
#[derive(Debug)]
pub struct MountedImage {
    /// Where the root of the deploy is.
    pub path: PathBuf,
    /// For steps that open it.
    pub disk: Disk,
    /// In the order in which they were mounted.
    mounts: Vec<Mounted>,
    loops: Vec<Loop>,
}

/// An image as a block device.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its node.
    pub node: PathBuf,
    /// Numbers and nodes of its partitions.
    pub partitions: Vec<(u32, PathBuf)>,
    /// Where its file systems are mounted that are written to.
    written: Vec<PathBuf>,
}

impl Disk {
    /// Mounts file systems for writing again that a command left read-only.
    pub fn write_again(&self) -> Result<()> {
        for at in &self.written {
            let doing = || format!("mounting {} for writing again", at.display());
            let now = nix::sys::statvfs::statvfs(at).with_context(doing)?.flags();
            if !now.contains(FsFlags::ST_RDONLY) {
                continue;
            }
            let kept = [
                (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
                (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
                (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
                (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
                (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
                (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
            ];
            let kept = kept.into_iter().filter(|(now_set, _)| now.contains(*now_set));
            let flags = kept.fold(MsFlags::MS_REMOUNT, |flags, (_, flag)| flags | flag);
            mount(None::<&str>, at, None::<&str>, flags, None::<&str>).with_context(doing)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Mounted {
    at: PathBuf,
    /// Whether the directory was made for it.
    made: bool,
}

impl MountedImage {
    /// Mounts the file systems of a deploy at the directory `at`. `scratch` is an empty directory for
    /// device nodes.
    pub fn mount(
        spec: &Spec,
        slot: Option<&str>,
        image: &Path,
        at: &Path,
        scratch: &Path,
        read_only: bool,
    ) -> Result<Self> {
        let layout = layout_of(spec, image)?;
        let sector_size = spec.sector_size;
        let disk = Part { image, offset: 0, length: layout.size, read_only, sector_size, partitioned: true };
        let disk = Loop::attach(&disk, scratch)?;
        let shown = Disk { node: disk.node.clone(), partitions: Vec::new(), written: Vec::new() };
        let mut mounted = Self { path: at.into(), disk: shown, mounts: Vec::new(), loops: vec![disk] };
        for placed in &layout.partitions {
            let doing = || format!("making a device of `{}`", placed.name);
            let node = mounted.partition(image, placed, scratch, read_only).with_context(doing)?;
            mounted.disk.partitions.push((placed.number, node));
        }
        for point in spec.mounts_of(slot).filter(|point| point.path.starts_with('/')) {
            let doing = || format!("mounting `{}` on {}", point.partition, point.path);
            let partition = spec.partition(&point.partition).with_context(doing)?;
            let Some(kind) = partition.contents.kind.fstab_type() else { continue };
            let device = mounted.disk.partitions.iter().find(|(number, _)| *number == partition.number);
            let (_, device) = device.cloned().with_context(doing)?;
            let made = point.path != "/" && mounted.directory(&point.path)?;
            let target = at.join(Inside::open(at)?.resolve(Path::new(&point.path))?);
            let options = Options::of(point, partition.contents.kind, read_only);
            options.mount(&device, &target, kind).with_context(doing)?;
            if !options.flags.contains(MsFlags::MS_RDONLY) {
                mounted.disk.written.push(target.clone());
            }
            mounted.mounts.push(Mounted { at: target, made: made && point.build_time });
        }
        Ok(mounted)
    }

    /// A partition's node: that of the disk's own, or where such devices are not allowed, a device over the
    /// same bytes.
    fn partition(&mut self, image: &Path, placed: &Placed, scratch: &Path, read_only: bool) -> Result<PathBuf> {
        let disk = self.loops.first().context("a disk without a device")?;
        match disk.partition(placed, scratch) {
            Ok(node) => return Ok(node),
            Err(error) => tracing::debug!("partition {} of the disk: {error:#}", placed.number),
        }
        let (offset, length) = (placed.start, placed.length);
        let part = Part { image, offset, length, read_only, sector_size: 512, partitioned: false };
        let device = Loop::attach(&part, scratch)?;
        let node = device.node.clone();
        self.loops.push(device);
        Ok(node)
    }

    /// Makes a mount point that is not there; whether it was made.
    fn directory(&self, path: &str) -> Result<bool> {
        let inside = Inside::open(&self.path)?;
        if inside.kind(Path::new(path))? == Some(Kind::Directory) {
            return Ok(false);
        }
        inside.create_dir_all(Path::new(path))?;
        Ok(true)
    }

    /// The directories that something is mounted on.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        self.mounts.iter().map(|mounted| mounted.at.as_path())
    }

    /// Unmounts everything, the last first, and waits until all is in the image.
    pub fn unmount(mut self) -> Result<()> {
        while let Some(mounted) = self.mounts.last() {
            unmount(&mounted.at)?;
            if mounted.made {
                fs::remove_dir(&mounted.at).with_context(|| format!("removing {}", mounted.at.display()))?;
            }
            self.mounts.pop();
        }
        while let Some(device) = self.loops.pop() {
            device.detach()?;
        }
        Ok(())
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        while let Some(mounted) = self.mounts.pop() {
            let _ = umount2(&mounted.at, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
        }
    }
}

/// Unmounts a file system; a busy one is given a moment.
fn unmount(at: &Path) -> Result<()> {
    for attempt in 0.. {
        match umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(Errno::EBUSY) if attempt < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                return Err(Fault::failed(format!("unmounting {}: {}", at.display(), error.desc()))
                    .hint("a process of the step may still use it; nothing was removed")
                    .into());
            }
        }
    }
    Ok(())
}

/// The layout of an image that was written.
fn layout_of(spec: &Spec, image: &Path) -> Result<Layout> {
    let file = File::open(image).with_context(|| format!("opening {}", image.display()))?;
    table::layout_of(&file, spec)
}

/// mount(8)'s words as mount(2) takes them.
struct Options {
    flags: MsFlags,
    /// Those of the file system.
    data: Vec<String>,
    /// Better with these, where the file system can.
    wished: &'static str,
}

impl Options {
    fn of(point: &Mount, kind: FilesystemKind, read_only: bool) -> Self {
        use FilesystemKind::{Btrfs, Exfat, Ext2, Ext3, Ext4, F2fs, Fat12, Fat16, Fat32, Nilfs2, Xfs};
        let mut options = Self { flags: MsFlags::empty(), data: Vec::new(), wished: "" };
        for word in &point.build_options {
            match flag(word) {
                Some((flag, true)) => options.flags.insert(flag),
                Some((flag, false)) => options.flags.remove(flag),
                None if matches!(word.as_str(), "defaults" | "rw" | "auto" | "noauto" | "nofail") => {}
                None => options.data.push(word.clone()),
            }
        }
        if read_only || kind.is_read_only() {
            options.flags.insert(MsFlags::MS_RDONLY);
        }
        if let Some(subvolume) = &point.subvolume {
            options.data.push(format!("subvol={subvolume}"));
        }
        if kind == Xfs {
            // The same image may be mounted by another build just now.
            options.data.push("nouuid".into());
        }
        // What is deleted leaves holes in the image again.
        if matches!(kind, Ext2 | Ext3 | Ext4 | Xfs | Btrfs | F2fs | Fat12 | Fat16 | Fat32 | Exfat | Nilfs2)
            && !options.flags.contains(MsFlags::MS_RDONLY)
        {
            options.wished = "discard";
        }
        options
    }

    fn mount(&self, device: &Path, at: &Path, kind: &str) -> Result<()> {
        let wished = Some(self.wished).filter(|wished| !wished.is_empty());
        let mut refused = Errno::EINVAL;
        for extra in [wished, None] {
            let data: Vec<&str> = self.data.iter().map(String::as_str).chain(extra).collect();
            let data = data.join(",");
            let mounted = named::under_its_name(device, at, |device| {
                mount(Some(device), at, Some(kind), self.flags, Some(data.as_str()))
            });
            match mounted {
                Ok(()) => return Ok(()),
                Err(error) => refused = error,
            }
            if extra.is_none() || refused != Errno::EINVAL {
                break;
            }
        }
        let fault = Fault::failed(format!("the kernel does not mount it as {kind}: {}", refused.desc()));
        Err(match refused {
            Errno::ENODEV => fault.hint(format!("load the kernel's module for {kind}")),
            Errno::EINVAL => {
                fault.hint("`dmesg` says more; an option in `build-options` may be unknown to this kernel")
            }
            _ => fault,
        }
        .into())
    }
}

/// A word that is a flag of mount(2), and whether it sets or clears it.
fn flag(word: &str) -> Option<(MsFlags, bool)> {
    Some(match word {
        "ro" => (MsFlags::MS_RDONLY, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "lazytime" => (MsFlags::MS_LAZYTIME, true),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        _ => return None,
    })
}

/// A directory that nobody else looks into.
fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path).with_context(|| format!("making {}", path.display()))
}
