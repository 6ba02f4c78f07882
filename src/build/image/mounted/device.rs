//! Loop devices over parts of an image.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use loopdev::LoopDevice;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::diagnostics::Fault;
use crate::image::Placed;
use crate::sys;

/// Major number of loop devices (the kernel's admin-guide/devices.txt).
const MAJOR: u64 = 7;
/// How often another free device is asked for, because somebody else was faster.
const TRIES: usize = 100;
/// How long the kernel may take to let go of a device.
const PATIENCE: Duration = Duration::from_secs(60);

/// A loop device. The kernel frees it once nothing has it open and nothing on it is mounted: also when
/// this process is killed.
#[derive(Debug)]
pub struct Loop {
    number: u32,
    /// Its node.
    pub node: PathBuf,
    /// What keeps it while nothing is mounted.
    open: Option<LoopDevice>,
    /// Device and inode of the image's file.
    backing: (u64, u64),
}

/// A part of an image.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The image's file.
    pub image: &'a Path,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
    /// Whether nothing is to be written to it.
    pub read_only: bool,
    /// Of a whole disk, in bytes; 512 for a file system.
    pub sector_size: u32,
    /// Whether it is a disk with partitions that are to be devices, too.
    pub partitioned: bool,
}

impl Loop {
    /// Attaches a part of an image. Nodes that /dev does not have are made in the directory `nodes`.
    pub fn attach(part: &Part<'_>, nodes: &Path) -> Result<Self> {
        let doing = || format!("making a loop device of {}", part.image.display());
        let control = File::options().read(true).write(true).open("/dev/loop-control").map_err(|error| {
            Fault::machine(format!("there are no loop devices here (/dev/loop-control: {error})"))
                .hint("load the kernel's `loop` module, and in a container allow its devices")
        })?;
        let backing = part.image.metadata().with_context(doing)?;
        for _ in 0..TRIES {
            let number = sys::loops::free(&control).with_context(doing)?;
            let node = node(&format!("loop{number}"), makedev(MAJOR, number.into()), nodes).with_context(doing)?;
            let device = LoopDevice::open(&node).map_err(|error| {
                Fault::machine(format!("opening the loop device {}: {error}", node.display()))
                    .hint("in a container, allow it the block devices of major number 7")
            })?;
            let options = device.with().offset(part.offset).size_limit(part.length);
            match options.read_only(part.read_only).autoclear(true).attach(part.image) {
                Ok(()) => {}
                // Somebody else took it.
                Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => continue,
                Err(error) => return Err(error).with_context(doing),
            }
            if part.sector_size != 512 {
                sys::loops::set_sector_size(&device, part.sector_size).with_context(doing)?;
            }
            if part.partitioned {
                sys::loops::scan_partitions(&device).with_context(doing)?;
            }
            return Ok(Self { number, node, open: Some(device), backing: (backing.dev(), backing.ino()) });
        }
        Err(Fault::failed("other programs keep taking the loop devices that are free").into())
    }

    /// Makes a partition of the disk a device of its own, whether or not the kernel understands the table;
    /// its node. It goes with the disk.
    pub fn partition(&self, placed: &Placed, nodes: &Path) -> Result<PathBuf> {
        let device = self.open.as_ref().context("the disk was let go of")?;
        let name = format!("loop{}p{}", self.number, placed.number);
        let known = PathBuf::from(format!("/sys/block/loop{}/{name}", self.number));
        let value = |name: &str| -> Option<u64> { fs::read_to_string(known.join(name)).ok()?.trim().parse().ok() };
        let right = || value("start") == Some(placed.start / 512) && value("size") == Some(placed.length / 512);
        if !right() {
            sys::loops::add_partition(device, placed.number, placed.start, placed.length)?;
            ensure!(right(), "the kernel does not show {name}");
        }
        let numbers = fs::read_to_string(known.join("dev"))?;
        let (major, minor) = numbers.trim().split_once(':').context("a device without a number")?;
        let node = node(&name, makedev(major.parse()?, minor.parse()?), nodes)?;
        // A container may know no such devices.
        File::open(&node)?;
        Ok(node)
    }

    /// Lets go of the device: what is mounted keeps it from now on.
    pub fn release(&mut self) {
        self.open = None;
    }

    /// Lets go of it and waits until the kernel has, so that all is in the image's file.
    pub fn detach(mut self) -> Result<()> {
        self.release();
        let pause = Duration::from_millis(2);
        for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
            if !self.is_attached() {
                return Ok(());
            }
            std::thread::sleep(pause);
        }
        Err(Fault::failed(format!("the kernel does not let go of /dev/loop{}", self.number))
            .hint("a process may still use the image: `losetup --list` and `grep loop /proc/*/mountinfo` show more")
            .into())
    }

    /// Whether it still stands for our image.
    fn is_attached(&self) -> bool {
        let file = fs::read_to_string(format!("/sys/block/loop{}/loop/backing_file", self.number));
        let Ok(file) = file else { return false };
        let meta = fs::metadata(file.trim_end_matches('\n'));
        // A name that cannot be followed may be ours, seen from elsewhere.
        meta.map_or(true, |meta| (meta.dev(), meta.ino()) == self.backing)
    }
}

fn node(name: &str, device: libc::dev_t, nodes: &Path) -> Result<PathBuf> {
    let usual = Path::new("/dev").join(name);
    if usual.metadata().is_ok_and(|meta| meta.file_type().is_block_device() && meta.rdev() == device) {
        return Ok(usual);
    }
    let own = nodes.join(name);
    if own.metadata().is_ok_and(|meta| meta.rdev() != device) {
        fs::remove_file(&own).with_context(|| format!("removing the node {}", own.display()))?;
    }
    match mknod(&own, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), device) {
        Ok(()) | Err(Errno::EEXIST) => Ok(own),
        Err(error) => Err(error).with_context(|| format!("making the node {}", own.display())),
    }
}
