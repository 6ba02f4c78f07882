//! What a command finds and what it may change where no mount can say so: what a view does not show is not there,
//! and what it shows read-only cannot be written to.
//!
//! Only paths are looked at, as a command comes by them: names in a directory's listing stay, and who means harm may
//! get around it. It is there so that a step reads the same in a container as anywhere else.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::Pid;

use super::answer::{follows, how};
use super::calls::{self, Act};
use super::resolve::{absolute, directory};
use crate::debian::system::{DATABASES, PROGRAMS};
use crate::sandbox::supervisor::{Caller, Handler, Verdict, Wanted};
use crate::sandbox::view::held;
use crate::sandbox::{Command, View};
use crate::sys::notify::Call;

/// What the kernel and the command have of their own in the host's view.
const OWN: [&str; 5] = ["/dev", "/proc", "/sys", "/tmp", "/var/tmp"];
/// Of these, what others left there is not shown.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
const SETTINGS: &str = "/etc";

/// Keeps a command within its view.
pub(in crate::sandbox) struct Bounds {
    /// Of the processes that are watched.
    root: PathBuf,
    opened: Option<OwnedFd>,
    rule: Rule,
}

enum Rule {
    /// Of the host, this alone.
    Shown(Shown),
    /// Everything, but these directories of the root are read-only.
    ReadOnly(Vec<PathBuf>),
}

struct Shown {
    shown: Vec<PathBuf>,
    /// In what is shown.
    hidden: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    /// A directory with what is shown of /etc.
    settings: PathBuf,
}

impl Bounds {
    /// For a command; `None` where its view has none.
    pub(in crate::sandbox) fn new(command: &Command) -> Option<Self> {
        let (root, rule) = match &command.view {
            View::Chroot { root } => {
                let read_only = command.binds.iter().filter(|bind| bind.read_only);
                let read_only: Vec<PathBuf> = read_only.map(|bind| bind.target.clone()).collect();
                (root.clone(), Rule::ReadOnly(Some(read_only).filter(|paths| !paths.is_empty())?))
            }
            View::Host { .. } => return None,
            View::HostPrograms { root, writable, settings, hidden } => {
                let binds = command.binds.iter().filter(|bind| !bind.read_only).map(|bind| bind.target.clone());
                let given = root.iter().chain(writable).cloned().chain(binds);
                let writable: Vec<PathBuf> = OWN.iter().map(PathBuf::from).chain(given).collect();
                let programs = PROGRAMS.iter().map(|name| Path::new("/").join(name));
                let others = DATABASES.iter().map(PathBuf::from);
                let binds = command.binds.iter().map(|bind| bind.target.clone());
                let shown = writable.iter().cloned().chain(programs).chain(others).chain(binds).collect();
                let rule = Shown { shown, hidden: hidden.clone(), writable, settings: settings.clone() };
                ("/".into(), Rule::Shown(rule))
            }
        };
        Some(Self { root, opened: None, rule })
    }

    /// Where a path leads, and whether there is something: without links, from the root. `None` where not even the
    /// directory is there that it would be in.
    fn place(&self, path: &Path, follow: bool) -> Option<(PathBuf, bool)> {
        let root = self.opened.as_ref()?;
        let relative = path.strip_prefix("/").unwrap_or(path);
        if relative.as_os_str().is_empty() {
            return Some(("/".into(), true));
        }
        let last = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | last).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        if let Ok(found) = openat2(root, relative, how) {
            return Some((self.inside(&found)?, true));
        }
        let parent = directory(root, path.parent()?).ok()?;
        Some((self.inside(&parent)?.join(path.file_name()?), false))
    }

    fn inside(&self, file: &OwnedFd) -> Option<PathBuf> {
        let path = fs::read_link(held(file)).ok()?;
        Some(Path::new("/").join(path.strip_prefix(&self.root).ok()?))
    }

    fn judge(&self, place: &Path, exists: bool, deed: Deed) -> Result<(), Errno> {
        let writable = match &self.rule {
            Rule::ReadOnly(paths) => longest(place, paths).is_none(),
            Rule::Shown(shown) => {
                if !shown.has(place) {
                    let makes = matches!(deed, Deed::Make | Deed::Write { makes: true } | Deed::Open { makes: true });
                    let beside = place.parent().is_some_and(|parent| shown.has(parent));
                    return Err(if makes && beside { Errno::EROFS } else { Errno::ENOENT });
                }
                // As with mounts, what is nearest counts.
                longest(place, &shown.writable) >= longest(place, &shown.shown)
            }
        };
        let changes = match deed {
            Deed::Look => false,
            Deed::Make => !exists,
            Deed::Change => exists,
            Deed::Write { makes } => exists || makes,
            Deed::Open { makes } => !exists && makes,
        };
        if changes && !writable { Err(Errno::EROFS) } else { Ok(()) }
    }
}

impl Shown {
    fn has(&self, path: &Path) -> bool {
        let (shown, hidden) = (longest(path, &self.shown), longest(path, &self.hidden));
        if shown > hidden {
            return true;
        }
        if hidden.is_none()
            && let Ok(name) = path.strip_prefix(SETTINGS)
        {
            return self.settings.join(name).symlink_metadata().is_ok();
        }
        // Directories at the top are there, and empty.
        if hidden.is_none() && path.parent() == Some(Path::new("/")) {
            return true;
        }
        // On the way to something that is shown.
        self.shown.iter().any(|other| other.starts_with(path))
    }
}

/// How many parts the longest of the paths has that lead to this one.
fn longest(path: &Path, paths: &[PathBuf]) -> Option<usize> {
    paths.iter().filter(|other| path.starts_with(other)).map(|other| other.components().count()).max()
}

/// Also by the names that are no links.
fn resolved(paths: &mut Vec<PathBuf>) {
    let real: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    paths.extend(real);
    paths.sort();
    paths.dedup();
}

impl Handler for Bounds {
    fn calls(&self) -> Vec<Wanted> {
        let mut all = calls::wanted();
        all.extend(CHANGES.iter().map(|(number, _)| Wanted::all(*number)));
        all
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        let doing = || format!("opening the root {}", self.root.display());
        let root = self.root.canonicalize().with_context(doing)?;
        self.opened = Some(File::open(&root).with_context(doing)?.into());
        self.root = root;
        if let Rule::Shown(shown) = &mut self.rule {
            for directory in TEMPORARY {
                let Ok(there) = fs::read_dir(directory) else { continue };
                shown.hidden.extend(there.flatten().map(|entry| entry.path()));
            }
            [&mut shown.shown, &mut shown.hidden, &mut shown.writable].into_iter().for_each(resolved);
        }
        Ok(())
    }

    fn required(&self) -> bool {
        true
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let own = caller.as_itself(|| fs::read_link(format!("/proc/{}/root", caller.pid())));
        if own.is_ok_and(|own| own != self.root) {
            // In the target, say.
            return Ok(Verdict::Pass);
        }
        for target in Target::all(call, caller) {
            let Ok(path) = caller.path(call.arguments[target.path]) else { continue };
            if path.as_os_str().is_empty() {
                continue;
            }
            let Some(path) = absolute(&self.root, call, caller, target.directory, path) else { continue };
            let Some((place, exists)) = self.place(&path, target.follow) else { continue };
            self.judge(&place, exists, target.deed)?;
        }
        Ok(Verdict::Pass)
    }
}

/// What is done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Look,
    /// Something new.
    Make,
    /// What is there is changed or taken away.
    Change,
    /// It is opened to be written to; where nothing is there, it is made or not.
    Write {
        makes: bool,
    },
    /// It is opened to be read, and made where it is not there.
    Open {
        makes: bool,
    },
}

impl Deed {
    fn of_flags(flags: i32) -> Self {
        let makes = flags & libc::O_CREAT != 0;
        let kind = flags & libc::O_ACCMODE;
        let writes = kind == libc::O_WRONLY || kind == libc::O_RDWR || flags & libc::O_TRUNC != 0;
        match writes && flags & libc::O_PATH == 0 {
            true => Self::Write { makes },
            false => Self::Open { makes },
        }
    }
}

/// One path of a call.
#[derive(Debug, Clone, Copy)]
struct Target {
    directory: Option<usize>,
    path: usize,
    follow: bool,
    deed: Deed,
}

impl Target {
    fn all(call: &Call, caller: &Caller<'_>) -> Vec<Self> {
        if let Some((_, changes)) = CHANGES.iter().find(|(number, _)| *number == call.number) {
            return changes.to_vec();
        }
        let Some(asked) = calls::asked(call.number) else { return Vec::new() };
        let follow = follows(call, caller, asked);
        let deed = match asked.act {
            Act::Open(flags) => Deed::of_flags(call.arguments[flags] as i32),
            Act::OpenHow(at) => how(caller, call.arguments[at]).map_or(Deed::Look, |how| Deed::of_flags(how[0] as i32)),
            Act::Mode(_) | Act::Owner(..) | Act::Times(_) | Act::Length(_) => Deed::Change,
            Act::SetAttribute | Act::RemoveAttribute => Deed::Change,
            Act::Link(to, name) => {
                let of = Self { directory: asked.directory, path: asked.path, follow, deed: Deed::Look };
                return vec![of, at(to, name, Deed::Make)];
            }
            _ => Deed::Look,
        };
        vec![Self { directory: asked.directory, path: asked.path, follow, deed }]
    }
}

const fn at(directory: usize, path: usize, deed: Deed) -> Target {
    Target { directory: Some(directory), path, follow: false, deed }
}

const fn plain(path: usize, deed: Deed) -> Target {
    Target { directory: None, path, follow: false, deed }
}

/// Calls beside those of [`calls`] that change something.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const CHANGES: &[(libc::c_long, &[Target])] = &[
    (libc::SYS_mkdirat, &[at(0, 1, Deed::Make)]),
    (libc::SYS_mknodat, &[at(0, 1, Deed::Make)]),
    (libc::SYS_unlinkat, &[at(0, 1, Deed::Change)]),
    (libc::SYS_symlinkat, &[at(1, 2, Deed::Make)]),
    (libc::SYS_renameat2, &[at(0, 1, Deed::Change), at(2, 3, Deed::Write { makes: true })]),
    (libc::SYS_lsetxattr, &[plain(0, Deed::Change)]),
    (libc::SYS_lremovexattr, &[plain(0, Deed::Change)]),
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    (libc::SYS_renameat, &[at(0, 1, Deed::Change), at(2, 3, Deed::Write { makes: true })]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, &[plain(0, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, &[plain(0, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, &[plain(1, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, &[plain(0, Deed::Look), plain(1, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, &[plain(0, Deed::Change), plain(1, Deed::Write { makes: true })]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, &[plain(0, Deed::Write { makes: true })]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utime, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utimes, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_futimesat, &[at(0, 1, Deed::Change)]),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const CHANGES: &[(libc::c_long, &[Target])] = &[];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn bounds(root: &Path, rule: Rule) -> Bounds {
        Bounds { root: root.canonicalize().unwrap(), opened: Some(File::open(root).unwrap().into()), rule }
    }

    #[test]
    fn what_is_not_shown_is_not_there_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["usr/bin", "opt/tool", "home/recipe/.git", "home/recipe/out", "settings", "etc"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        symlink("/opt/tool", dir.path().join("usr/bin/tool")).unwrap();
        fs::write(dir.path().join("settings/passwd"), "").unwrap();
        let path = |name: &str| PathBuf::from(name);
        let shown = Shown {
            shown: vec![path("/usr"), path("/home/recipe"), path("/home/recipe/.git/work")],
            hidden: vec![path("/home/recipe/.git")],
            writable: vec![path("/home/recipe/out")],
            settings: dir.path().join("settings"),
        };
        let bounds = bounds(dir.path(), Rule::Shown(shown));
        let try_it = |name: &str, deed: Deed| {
            let (place, exists) = bounds.place(Path::new(name), true).unwrap();
            bounds.judge(&place, exists, deed)
        };
        for there in
            ["/", "/usr/bin", "/home", "/opt", "/home/recipe/none", "/etc", "/etc/passwd", "/home/recipe/.git/work"]
        {
            assert_eq!(try_it(there, Deed::Look), Ok(()), "{there}");
        }
        for gone in ["/opt/tool", "/usr/bin/tool", "/home/other", "/home/recipe/.git/HEAD", "/etc/shadow"] {
            assert_eq!(try_it(gone, Deed::Look), Err(Errno::ENOENT), "{gone}");
        }
        assert_eq!(try_it("/home/recipe/out/new", Deed::Make), Ok(()));
        for (name, deed) in [
            ("/home/recipe/new", Deed::Make),
            ("/home/new", Deed::Make),
            ("/opt/tool", Deed::Make),
            ("/home/recipe", Deed::Change),
            ("/home/recipe/new", Deed::Write { makes: true }),
            ("/home/recipe/new", Deed::Open { makes: true }),
        ] {
            assert_eq!(try_it(name, deed), Err(Errno::EROFS), "{name} {deed:?}");
        }
        // As the kernel has it: that it is there, or not there, comes first.
        for (name, deed) in [
            ("/home/recipe", Deed::Make),
            ("/home/recipe/none", Deed::Change),
            ("/home/recipe/none", Deed::Write { makes: false }),
            ("/home/recipe", Deed::Open { makes: true }),
        ] {
            assert_eq!(try_it(name, deed), Ok(()), "{name} {deed:?}");
        }
    }

    #[test]
    fn flags_say_what_is_done() {
        assert_eq!(Deed::of_flags(libc::O_RDONLY | libc::O_CLOEXEC), Deed::Open { makes: false });
        assert_eq!(Deed::of_flags(libc::O_RDONLY | libc::O_TRUNC), Deed::Write { makes: false });
        assert_eq!(Deed::of_flags(libc::O_WRONLY | libc::O_CREAT), Deed::Write { makes: true });
        assert_eq!(Deed::of_flags(libc::O_RDWR | libc::O_PATH), Deed::Open { makes: false });
    }
}
