//! The guest's file systems: a root in memory, what is shared with it, and the disk with its store.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::machine::vm::orders::{Orders, Share, Way};

/// Where the new root is put together. What the kernel started us from may be read-only, and has this in
/// any case.
const NEW: &str = "/tmp";

/// Where what is outside is mounted until its directories are in their places. The initial root of QEMU's guests
/// is in memory, so this can be made there.
const OUTSIDE: &str = "/outside";

/// Directories that a Debian system has, beside those that are shared.
const DIRECTORIES: [&str; 15] = [
    "dev", "etc", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var/lib",
    "var/tmp",
];

/// Bytes of a 9p message; small ones make many round trips.
const MESSAGE: &str = "msize=524288";

/// Puts the root together and enters it.
pub(super) fn root(orders: &Orders) -> Result<()> {
    let new = Path::new(NEW);
    fs::create_dir_all(new).with_context(|| format!("making {NEW}"))?;
    put("tmpfs", "tmpfs", new, MsFlags::empty(), "mode=755")?;
    let whole = orders.root.as_deref().map(|device| over(device, new)).transpose()?;
    let new = whole.as_deref().unwrap_or(new);
    for name in DIRECTORIES {
        fs::create_dir_all(new.join(name)).with_context(|| format!("making /{name}"))?;
    }
    for name in ["tmp", "var/tmp"] {
        fs::set_permissions(new.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    }
    for (name, target) in &orders.links {
        symlink(target, new.join(name)).with_context(|| format!("making /{name}"))?;
    }
    put("proc", "proc", &new.join("proc"), MsFlags::empty(), "")?;
    put("sysfs", "sysfs", &new.join("sys"), MsFlags::empty(), "")?;
    put("devtmpfs", "devtmpfs", &new.join("dev"), MsFlags::empty(), "mode=755")?;
    for (name, kind, options) in [("pts", "devpts", "mode=620,ptmxmode=666,gid=5"), ("shm", "tmpfs", "mode=1777")] {
        let at = new.join("dev").join(name);
        fs::create_dir_all(&at)?;
        put(kind, kind, &at, MsFlags::empty(), options)?;
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")] {
        let _ = symlink(target, new.join("dev").join(link));
    }
    let outside = orders.outside.as_deref().map(|tag| outside(tag)).transpose()?;
    for share in &orders.shares {
        attach(share, new, outside)?;
    }
    if let Some(outside) = outside {
        // Only what is shared stays, each directory at its place.
        umount2(outside, MntFlags::MNT_DETACH).context("letting go of what is outside")?;
    }
    for (path, contents) in &orders.files {
        let path = new.join(path.strip_prefix("/").unwrap_or(path));
        let _ = fs::remove_file(&path);
        fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))?;
    }
    enter(new)?;
    fs::create_dir_all(&orders.store).with_context(|| format!("making {}", orders.store.display()))?;
    put(&orders.disk.to_string_lossy(), "ext4", &orders.store, MsFlags::MS_NOATIME, "discard")
        .context("mounting the disk with the store")
}

/// Makes the root on a device one that can be written to, in memory.
fn over(device: &Path, place: &Path) -> Result<PathBuf> {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| place.join(name));
    for directory in [&lower, &upper, &work, &merged] {
        fs::create_dir(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    put(&device.to_string_lossy(), "ext4", &lower, MsFlags::MS_RDONLY, "")?;
    let [lower, upper, work] = [&lower, &upper, &work].map(|path| path.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    put("overlay", "overlay", &merged, MsFlags::empty(), &options)?;
    Ok(merged)
}

/// Mounts the virtiofs with all that is shared, beside the new root.
fn outside(tag: &str) -> Result<&'static Path> {
    let at = Path::new(OUTSIDE);
    fs::create_dir_all(at).with_context(|| format!("making {OUTSIDE}"))?;
    put(tag, "virtiofs", at, MsFlags::empty(), "")?;
    Ok(at)
}

fn attach(share: &Share, new: &Path, outside: Option<&Path>) -> Result<()> {
    let at = new.join(share.at.strip_prefix("/").unwrap_or(&share.at));
    fs::create_dir_all(&at).with_context(|| format!("making {}", share.at.display()))?;
    let flags = if share.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    // What nobody changes can be kept in memory; for the rest the other side's is what counts.
    let cache = if share.read_only { "loose" } else { "mmap" };
    match &share.way {
        Way::Hostfs(path) => put("none", "hostfs", &at, flags, &path.to_string_lossy()),
        Way::Plan9(tag) => {
            put(tag, "9p", &at, flags, &format!("trans=virtio,version=9p2000.L,cache={cache},{MESSAGE}"))
        }
        Way::Within(path) => {
            let from = outside.context("nothing is shared")?.join(path.strip_prefix("/").unwrap_or(path));
            let doing = || format!("binding {} to {}", from.display(), at.display());
            mount(Some(&from), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).with_context(doing)?;
            if share.read_only {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                mount(None::<&str>, &at, None::<&str>, flags, None::<&str>).with_context(doing)?;
            }
            Ok(())
        }
        Way::Device(device, kind) => put(&device.to_string_lossy(), kind, &at, flags, ""),
    }
}

fn put(what: &str, kind: &str, at: &Path, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(what), at, Some(kind), flags, Some(options))
        .with_context(|| format!("mounting {what} ({kind}) on {}", at.display()))
}

/// Makes the mount at `new` the root. The one that the kernel started from stays below, out of sight: the
/// first root file system cannot be let go of.
fn enter(new: &Path) -> Result<()> {
    nix::unistd::chdir(new).context("entering the root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("moving the root")?;
    nix::unistd::chroot(".").context("entering the root")?;
    nix::unistd::chdir("/").context("entering the root")
}

/// Writes the store to its disk and lets go of it.
pub(super) fn away(store: &Path) -> Result<()> {
    let store: PathBuf = store.into();
    if let Err(error) = umount2(&store, MntFlags::empty()) {
        // Something holds it; then it is at least all on the disk, and the journal does the rest.
        let open = fs::File::open(&store).with_context(|| format!("opening {}", store.display()))?;
        nix::unistd::syncfs(&open).with_context(|| format!("letting go of the store's disk ({error})"))?;
    }
    Ok(())
}
