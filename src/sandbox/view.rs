//! What a command sees, built from mounts in a mount namespace of its own.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat};

use super::place::{Created, Kind, Root};
use super::{Command, Told, View, cover, device, powers};
use crate::debian::system::{DATABASES, PROGRAMS};
use crate::sys;

/// A tree of mounts taken from the host before the view covers it.
struct Taken {
    tree: OwnedFd,
    kind: Kind,
    target: PathBuf,
    /// Whether it is a device.
    device: bool,
    /// Number of a block device.
    block: Option<u64>,
}

impl Taken {
    fn from(source: &Path, target: &Path) -> Result<Self> {
        let kind = Kind::of(source)?;
        let tree = sys::mount::clone_tree(source).with_context(|| format!("binding {}", source.display()))?;
        let meta = source.metadata()?;
        let block = meta.file_type().is_block_device().then(|| meta.rdev());
        let device = block.is_some() || meta.file_type().is_char_device();
        Ok(Self { tree, kind, target: target.into(), device, block })
    }
}

/// Builds views; knows what it mounted, so that nothing made there is taken for a leftover.
struct Builder {
    /// The host's /dev.
    devices: OwnedFd,
    created: Vec<Created>,
    /// Devices of file systems that end with the command.
    private: HashSet<u64>,
    told: Told,
    /// Whether the command works on a device, and so has to find it and its mounts.
    device: bool,
    /// Whether it is one that opens no device but those that it is given.
    held: bool,
}

/// Makes `view` with its binds this process's file system. This process has a mount namespace of
/// its own. `report` is told what had to be made on file systems that outlive the command, before
/// the root is out of sight.
pub(super) fn enter(command: &Command, report: &mut dyn FnMut(&[Created])) -> Result<()> {
    let Command { view, binds, told, remounts: device, .. } = command;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("taking mounts apart from the host's")?;
    let mut taken = Vec::new();
    for bind in binds {
        let bound = Taken::from(&bind.source, &bind.target)?;
        if bind.read_only {
            sys::mount::make_read_only(&bound.tree)
                .with_context(|| format!("binding {} read-only", bind.source.display()))?;
        }
        taken.push(bound);
    }
    let devices = open("/dev", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .context("opening the host's /dev")?;
    let mut builder = Builder {
        devices,
        created: Vec::new(),
        private: HashSet::new(),
        told: *told,
        device: *device,
        held: powers::held(command),
    };
    let result = match view {
        View::Chroot { root } => builder.chroot(root, taken),
        View::Host { root, writable } => builder.host(root.as_deref(), writable, taken, false),
        View::HostPrograms { root, writable, .. } => builder.host(root.as_deref(), writable, taken, true),
    };
    builder.created.retain(|made| !builder.private.contains(&made.device()));
    report(&builder.created);
    result?;
    if let View::Chroot { root } = view {
        pivot(root)?;
    }
    Ok(())
}

impl Builder {
    fn chroot(&mut self, path: &Path, mut binds: Vec<Taken>) -> Result<()> {
        let tree = sys::mount::clone_tree(path).with_context(|| format!("binding the root {}", path.display()))?;
        // How the place of the store is mounted is not how the system will be.
        match sys::mount::allow_all(&tree) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EPERM as i32) => {
                return Err(error).with_context(|| format!("mounting the root {}", path.display()));
            }
            _ => {}
        }
        self.forbid_devices(&tree).with_context(|| format!("mounting the root {}", path.display()))?;
        sys::mount::attach(&tree, &Root::open(path)?.find(Path::new("/"))?)
            .with_context(|| format!("mounting the root {}", path.display()))?;
        let root = Root::open(path)?;
        self.furnish(&root, true)?;
        self.sys(&root)?;
        outermost_first(&mut binds);
        binds.iter().try_for_each(|bind| self.attach(&root, bind))
    }

    fn host(
        &mut self,
        root: Option<&Path>,
        writable: &[PathBuf],
        mut all: Vec<Taken>,
        programs_only: bool,
    ) -> Result<()> {
        // The root may be shown elsewhere than where it stands.
        let root_here = root.filter(|root| all.iter().all(|taken| taken.target != *root));
        for path in writable.iter().map(PathBuf::as_path).chain(root_here) {
            all.push(Taken::from(path, path)?);
        }
        for path in DATABASES.iter().map(Path::new).filter(|path| programs_only && path.is_dir()) {
            let database = Taken::from(path, path)?;
            sys::mount::make_read_only(&database.tree)
                .with_context(|| format!("binding {} read-only", path.display()))?;
            all.push(database);
        }
        outermost_first(&mut all);
        let host = Root::open(Path::new("/"))?;
        sys::mount::make_read_only(&host.find(Path::new("/"))?).context("making the host's system read-only")?;
        let had_scratch = host.find(Path::new("/var/tmp")).is_ok();
        let hidden = if programs_only { self.hide(&host)? } else { Vec::new() };
        self.furnish(&host, false)?;
        if self.told != Told::Truth && !self.device && host.find(Path::new("/sys")).is_ok() {
            self.sys(&host)?;
        }
        if had_scratch {
            self.scratch(&host, "/var/tmp")?;
        }
        for taken in &all {
            self.attach(&host, taken)?;
            if root == Some(taken.target.as_path()) {
                self.furnish(&Root::open(&taken.target)?, false)?;
            }
        }
        let flags =
            MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        for hidden in &hidden {
            mount(None::<&str>, &held(hidden), None::<&str>, flags, None::<&str>).context("closing what is hidden")?;
        }
        Ok(())
    }

    /// Covers all of the host's system but its programs and what the kernel has there; the covers are still writable.
    fn hide(&mut self, host: &Root) -> Result<Vec<OwnedFd>> {
        let mut covers = Vec::new();
        for entry in std::fs::read_dir("/").context("reading /")? {
            let entry = entry.context("reading /")?;
            let name = entry.file_name();
            let shown = PROGRAMS.iter().chain(&["dev", "proc", "sys", "tmp"]).any(|shown| name == *shown);
            if shown || !entry.file_type().context("reading /")?.is_dir() {
                continue;
            }
            let path = Path::new("/").join(&name);
            let path = path.to_str().context("a directory of / whose name is not UTF-8")?;
            covers.push(self.tmpfs(host, path, "mode=755", MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?);
        }
        Ok(covers)
    }

    fn attach(&mut self, root: &Root, taken: &Taken) -> Result<()> {
        if let (Some(number), Ok(name)) = (taken.block, taken.target.strip_prefix("/dev"))
            && name.components().count() == 1
            && device::own_block(&root.find(Path::new("/dev"))?, name, number)
        {
            return Ok(());
        }
        if !taken.device {
            self.forbid_devices(&taken.tree).with_context(|| format!("binding to {}", taken.target.display()))?;
        }
        let target = root.make(&taken.target, taken.kind, &mut self.created)?;
        sys::mount::attach(&taken.tree, &target).with_context(|| format!("binding to {}", taken.target.display()))
    }

    /// /proc, /dev and /tmp; with `complete` also where the root has no directories for them (else a
    /// bootstrap tool that wants an empty root would find one that is not).
    fn furnish(&mut self, root: &Root, complete: bool) -> Result<()> {
        let wanted = |path: &str| complete || root.find(Path::new(path)).is_ok();
        if wanted("/proc") {
            self.proc(root)?;
        }
        if wanted("/dev") {
            let fd = self.tmpfs(root, "/dev", "mode=755,size=1m", MsFlags::MS_NOSUID)?;
            if self.held {
                // Devices open on a mount that has no others; /dev itself is one on which none does.
                let devices = device::apart(&fd, &self.devices)?;
                umount2(&held(&fd), MntFlags::MNT_DETACH).context("making /dev")?;
                let fd = self.tmpfs(root, "/dev", "mode=755,size=1m", MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
                device::place(&fd, &devices)?;
                device::furnish(&fd)?;
            } else {
                device::fill(&fd, &self.devices)?;
            }
            drop(fd);
            let dev = Root::open(&root.path().join("dev"))?;
            let shm = self.tmpfs(&dev, "/shm", "mode=1777", MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
            drop(shm);
            device::terminals(&dev.find(Path::new("/pts"))?)?;
        }
        if wanted("/tmp") {
            self.scratch(root, "/tmp")?;
        }
        Ok(())
    }

    /// Whoever may make a device node could open the machine's disk by it.
    fn forbid_devices(&self, at: &OwnedFd) -> std::io::Result<()> {
        if self.held { sys::mount::forbid_devices(at) } else { Ok(()) }
    }

    fn scratch(&mut self, root: &Root, path: &str) -> Result<()> {
        self.tmpfs(root, path, "mode=1777", MsFlags::MS_NOSUID | MsFlags::MS_NODEV).map(drop)
    }

    /// Nothing of the machine but what is stated of its processors.
    fn sys(&mut self, root: &Root) -> Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let top = self.tmpfs(root, "/sys", "mode=755,size=64k", flags)?;
        cover::fill(&top, "sys").context("filling /sys")?;
        sys::mount::make_read_only(&top).context("making /sys read-only")
    }

    /// Mounts an empty tmpfs and holds its top directory.
    fn tmpfs(&mut self, root: &Root, path: &str, options: &str, flags: MsFlags) -> Result<OwnedFd> {
        let doing = || format!("mounting a tmpfs on {path} of {}", root.path().display());
        let path = Path::new(path);
        let target = root.make(path, Kind::Directory, &mut self.created)?;
        mount(Some("tmpfs"), &held(&target), Some("tmpfs"), flags, Some(options)).with_context(doing)?;
        let mounted = root.find(path).with_context(doing)?;
        self.private.insert(fstat(mounted.as_fd())?.st_dev);
        Ok(mounted)
    }

    /// The processes of this pid namespace alone, and the machine as it is stated. In a container whose /proc
    /// is partly masked the kernel refuses a fresh one, and the container's own stands in.
    fn proc(&mut self, root: &Root) -> Result<()> {
        let path = Path::new("/proc");
        let target = root.make(path, Kind::Directory, &mut self.created)?;
        let existing = sys::mount::clone_tree(path);
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if let Err(refused) = mount(Some("proc"), &held(&target), Some("proc"), flags, None::<&str>) {
            let existing = existing.context("binding /proc")?;
            sys::mount::attach(&existing, &target).with_context(|| format!("mounting /proc ({refused})"))?;
        }
        let mounts = self.device || self.told == Told::Mounts;
        match self.told {
            Told::Constant | Told::AllProcessors | Told::Mounts => {
                cover::cover(&root.find(path).context("opening /proc")?, mounts)
            }
            Told::Truth => settings_read_only(root),
        }
    }
}

/// Whoever sets kernel parameters means the system that they belong to.
fn settings_read_only(root: &Root) -> Result<()> {
    for settings in ["/proc/sys", "/proc/sysrq-trigger"] {
        let inside = root.path().join(&settings[1..]);
        if let (Ok(tree), Ok(target)) = (sys::mount::clone_tree(&inside), root.find(Path::new(settings))) {
            sys::mount::make_read_only(&tree).and_then(|()| sys::mount::attach(&tree, &target))?;
        }
    }
    Ok(())
}

/// What contains others comes first, or it would cover them.
fn outermost_first(all: &mut [Taken]) {
    all.sort_by_key(|taken| taken.target.components().count());
}

/// A name for an open file that mount(2) takes.
pub(super) fn held(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Makes the mount at `path` the root and lets go of everything else.
fn pivot(path: &Path) -> Result<()> {
    let root = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("opening the root {}", path.display()))?;
    nix::unistd::fchdir(&root)?;
    // pivot_root(2): with both names the same, the old root ends up below the new one's mount point.
    match nix::unistd::pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).context("letting go of the host's root")?,
        // The host's root is the initial ramfs, or this is a chroot already.
        Err(nix::errno::Errno::EINVAL) => {
            mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("moving the root")?;
            nix::unistd::chroot(".").context("entering the root")?;
        }
        Err(error) => bail!("entering the root {}: {error}", path.display()),
    }
    nix::unistd::chdir("/")?;
    Ok(())
}
