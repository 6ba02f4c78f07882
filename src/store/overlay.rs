//! Roots mounted from layers.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::trees::PendingTree;

/// The root of a build, mounted from its layers; unmounted when dropped.
#[derive(Debug)]
pub struct MountedRoot {
    /// Where the files are.
    pub path: PathBuf,
    mounted: bool,
}

impl MountedRoot {
    /// Mounts `upper` on top of `lower` (bottom first) at the directory `at`, durable writes left
    /// to the kernel (`volatile`) where it can. With no layers below, this is a bind mount.
    pub fn overlay(lower: &[&Path], upper: &PendingTree, at: &Path, userxattr: bool) -> Result<Self> {
        let Some(top) = lower.last() else { return Self::bind(&upper.path, at, false) };
        // The merged root shows the top directory of the upper layer: it starts as it was below.
        copy_attributes(top, &upper.path)?;
        Self::mount_overlay(lower, Some(upper), at, userxattr)
    }

    /// Mounts layers to be looked at, read-only. With one layer this is a bind mount.
    pub fn read_only(lower: &[&Path], at: &Path, userxattr: bool) -> Result<Self> {
        match lower {
            [] => bail!("there are no layers to mount"),
            [only] => Self::bind(only, at, true),
            _ => Self::mount_overlay(lower, None, at, userxattr),
        }
    }

    fn bind(from: &Path, at: &Path, read_only: bool) -> Result<Self> {
        let none = None::<&str>;
        mount(Some(from), at, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("binding {} to {}", from.display(), at.display()))?;
        let root = Self { path: at.to_owned(), mounted: true };
        if read_only {
            // In a user namespace the flags of the mount that it comes from cannot be taken away.
            let kept = nix::sys::statvfs::statvfs(at)?.flags().bits() as libc::c_ulong & LOCKED.bits();
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, at, none, flags | MsFlags::from_bits_truncate(kept), none)
                .with_context(|| format!("making {} read-only", at.display()))?;
        }
        Ok(root)
    }

    fn mount_overlay(lower: &[&Path], upper: Option<&PendingTree>, at: &Path, userxattr: bool) -> Result<Self> {
        let mut layers = Vec::new();
        // Top first, as overlay wants it.
        for path in lower.iter().rev() {
            layers.push(open_path(path)?);
        }
        let upper = upper.map(|tree| Ok::<_, anyhow::Error>((open_path(&tree.path)?, open_path(&tree.work)?)));
        let upper = upper.transpose()?;
        let mut refused = Errno::EINVAL;
        for extra in option_sets(upper.is_some()) {
            let mut options = Vec::new();
            let names: Vec<String> = layers.iter().map(|file| file.as_raw_fd().to_string()).collect();
            options.push(format!("lowerdir={}", names.join(":")));
            if let Some((upper, work)) = &upper {
                options.push(format!("upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd()));
            }
            options.extend(extra.iter().map(|option| (*option).to_owned()));
            if userxattr {
                options.push("userxattr".into());
            }
            match mount_at_descriptors(at, &options.join(",")) {
                Ok(()) => return Ok(Self { path: at.to_owned(), mounted: true }),
                // An option that this kernel does not know.
                Err(Errno::EINVAL) => refused = Errno::EINVAL,
                Err(error) => {
                    refused = error;
                    break;
                }
            }
        }
        Err(refused).with_context(|| format!("mounting an overlay of {} layers at {}", lower.len(), at.display()))
    }

    /// Unmounts, reporting what goes wrong (dropping does the same silently).
    pub fn unmount(mut self) -> Result<()> {
        self.mounted = false;
        for attempt in 0.. {
            match umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW) {
                // The last process in it may be just about to be gone.
                Err(Errno::EBUSY) if attempt < 20 => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => {
                    self.mounted = true;
                    return Err(error).with_context(|| format!("unmounting {}", self.path.display()));
                }
                Ok(()) => break,
            }
        }
        Ok(())
    }
}

impl Drop for MountedRoot {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
        }
    }
}

/// Flags of a mount that a remount in a user namespace has to repeat.
const LOCKED: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NOATIME)
    .union(MsFlags::MS_NODIRATIME);

/// Options to try, the best first. Whatever the kernel's defaults are, layers must not carry
/// redirects, indexes or metadata-only copies, which mean something only on the very stack that
/// they were made on.
fn option_sets(writable: bool) -> Vec<Vec<&'static str>> {
    let plain = vec!["redirect_dir=nofollow", "metacopy=off", "index=off", "xino=off"];
    let mut sets = vec![plain.clone(), vec!["redirect_dir=nofollow", "index=off"], vec![]];
    if writable {
        // Linux 5.10. Without it, unmounting writes the whole file system back to the disk.
        sets.insert(0, [plain, vec!["volatile"]].concat());
    }
    sets
}

/// Mounts an overlay whose directories are named by descriptor numbers: the option string is
/// limited to a page, which full paths of a long chain of layers exceed.
fn mount_at_descriptors(at: &Path, options: &str) -> nix::Result<()> {
    let at = if at.is_absolute() { at.to_owned() } else { std::env::current_dir().unwrap_or_default().join(at) };
    // The working directory belongs to the process, unless a thread has its own.
    let thread = std::thread::scope(|scope| {
        let mounting = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir("/proc/self/fd")?;
            mount(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(options))
        });
        mounting.join()
    });
    thread.unwrap_or(Err(Errno::EIO))
}

fn open_path(path: &Path) -> Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
        .with_context(|| format!("opening the layer {}", path.display()))
}

fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("copying the attributes of {}", from.display());
    let stat = std::fs::metadata(from).with_context(context)?;
    let now = std::fs::metadata(to).with_context(context)?;
    if (stat.uid(), stat.gid()) != (now.uid(), now.gid()) {
        std::os::unix::fs::chown(to, Some(stat.uid()), Some(stat.gid())).with_context(context)?;
    }
    std::fs::set_permissions(to, PermissionsExt::from_mode(stat.mode() & 0o7777)).with_context(context)?;
    for name in xattr::list(from).into_iter().flatten() {
        let text = name.to_string_lossy();
        // Not overlay's own marks, which say how that one layer lies on those below it, nor
        // labels, which the running system gives.
        let ours = text.starts_with("user.") && !text.starts_with("user.overlay.");
        if !ours && !text.starts_with("system.posix_acl_") {
            continue;
        }
        if let Some(value) = xattr::get(from, &name).with_context(context)? {
            xattr::set(to, &name, &value).with_context(context)?;
        }
    }
    let mtime = filetime::FileTime::from_last_modification_time(&stat);
    filetime::set_file_mtime(to, mtime).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Begun, EntryId, IdMap, Store, Tree, TreeRecord};

    fn pending(store: &Store, number: usize) -> PendingTree {
        let id = EntryId(format!("{number:064x}"));
        match store.begin(&IdMap("root".into()), &id, &mut |_| {}).unwrap() {
            Begun::Pending(tree) => tree,
            Begun::Sealed(_) => panic!("sealed already"),
        }
    }

    fn layer(store: &Store, number: usize, fill: impl FnOnce(&Path)) -> Tree {
        let tree = pending(store, number);
        fill(&tree.path);
        tree.seal(TreeRecord::default()).unwrap()
    }

    /// Whether overlays can be mounted here, in a mount namespace of this thread's own.
    fn alone() -> bool {
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            eprintln!("skipped: no mount namespace without privileges");
            return false;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        true
    }

    /// Whether this is a user namespace, as when the tests run behind `unshare -Urm`.
    fn mapped() -> bool {
        !std::fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295")
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn two_hundred_layers_are_one_root() {
        if !alone() {
            return;
        }
        // Long enough that the paths of the layers do not fit into a page.
        let dir = tempfile::Builder::new().prefix(&"long".repeat(40)).tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layers: Vec<Tree> = (0..200)
            .map(|number| {
                layer(&store, number, |path| {
                    std::fs::write(path.join(format!("file{number}")), number.to_string()).unwrap();
                    std::fs::write(path.join("last"), number.to_string()).unwrap();
                })
            })
            .collect();
        let lower: Vec<&Path> = layers.iter().map(|tree| tree.path.as_path()).collect();
        let upper = pending(&store, 1000);
        let scratch = store.scratch().unwrap();
        let root = MountedRoot::overlay(&lower, &upper, &scratch.path, mapped()).unwrap();
        assert_eq!(names(&root.path).len(), 201);
        assert_eq!(std::fs::read(root.path.join("last")).unwrap(), b"199");
        std::fs::write(root.path.join("mine"), "").unwrap();
        root.unmount().unwrap();
        assert_eq!(names(&upper.path), ["mine"]);
    }

    #[test]
    fn deletions_replacements_and_the_top_directory_are_part_of_a_layer() {
        if !alone() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let base = layer(&store, 1, |path| {
            std::fs::create_dir(path.join("kept")).unwrap();
            std::fs::create_dir(path.join("replaced")).unwrap();
            for file in ["gone", "kept/a", "replaced/old"] {
                std::fs::write(path.join(file), file).unwrap();
            }
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o750)).unwrap();
        });
        let upper = pending(&store, 2);
        let scratch = store.scratch().unwrap();
        let root = MountedRoot::overlay(&[&base.path], &upper, &scratch.path, mapped()).unwrap();
        std::fs::remove_file(root.path.join("gone")).unwrap();
        std::fs::remove_dir_all(root.path.join("replaced")).unwrap();
        std::fs::create_dir(root.path.join("replaced")).unwrap();
        std::fs::write(root.path.join("replaced/new"), "").unwrap();
        root.unmount().unwrap();
        let second = upper.seal(TreeRecord::default()).unwrap();
        let seen = MountedRoot::read_only(&[&base.path, &second.path], &scratch.path, mapped()).unwrap();
        assert_eq!(names(&seen.path), ["kept", "replaced"]);
        assert_eq!(names(&seen.path.join("replaced")), ["new"]);
        assert_eq!(std::fs::metadata(&seen.path).unwrap().mode() & 0o7777, 0o750);
        assert!(std::fs::write(seen.path.join("no"), "").is_err());
        seen.unmount().unwrap();
        let one = MountedRoot::read_only(&[&base.path], &scratch.path, mapped()).unwrap();
        assert_eq!(std::fs::write(one.path.join("no"), "").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    #[test]
    fn a_writable_root_is_volatile_where_the_kernel_can() {
        if !alone() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let base = layer(&store, 1, |_| {});
        let upper = pending(&store, 2);
        let scratch = store.scratch().unwrap();
        let root = MountedRoot::overlay(&[&base.path], &upper, &scratch.path, mapped()).unwrap();
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(root.path.to_str().unwrap())).unwrap();
        assert!(line.contains("volatile"), "{line}");
    }
}
