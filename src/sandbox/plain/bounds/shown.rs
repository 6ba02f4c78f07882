//! What of the host a command is shown.

use std::path::{Path, PathBuf};

use crate::debian::system::{DATABASES, PROGRAMS};
use crate::sandbox::constant::{self, Answer};
use crate::sandbox::device::{DEVICES, LINKS};
use crate::sandbox::{Bind, View};

/// What the kernel and the command have of their own in the host's view.
const OWN: [&str; 5] = ["/dev", "/proc", "/sys", "/tmp", "/var/tmp"];
/// Of these, what others left there is not shown, and what the command leaves goes with it.
pub(super) const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
const SETTINGS: &str = "/etc";
/// What /dev has beside devices and links.
const BESIDE_DEVICES: [&str; 3] = ["ptmx", "pts", "shm"];

/// Paths of the host that are shown; what is nearest to a path counts, as with mounts.
pub(super) struct Shown {
    pub(super) shown: Vec<PathBuf>,
    /// In what is shown.
    pub(super) hidden: Vec<PathBuf>,
    pub(super) writable: Vec<PathBuf>,
    /// A directory with what is shown of /etc.
    pub(super) settings: PathBuf,
}

impl Shown {
    /// For a view of the host's programs.
    pub(super) fn of(view: &View, binds: &[Bind]) -> Option<Self> {
        let View::HostPrograms { root, writable, settings, hidden } = view else { return None };
        let targets = |read_only: bool| {
            binds.iter().filter(move |bind| bind.read_only == read_only).map(|bind| bind.target.clone())
        };
        let own = OWN.iter().map(PathBuf::from);
        let writable: Vec<PathBuf> =
            own.chain(root.clone()).chain(writable.iter().cloned()).chain(targets(false)).collect();
        let programs = PROGRAMS.iter().map(|name| Path::new("/").join(name));
        let others = DATABASES.iter().map(PathBuf::from);
        let shown = writable.iter().cloned().chain(programs).chain(others).chain(targets(true)).collect();
        Some(Self { shown, hidden: hidden.clone(), writable, settings: settings.clone() })
    }

    /// Paths that are opened, each with all below it, and whether they are written to.
    pub(super) fn opened(&self) -> Vec<(PathBuf, bool)> {
        let dev = Path::new("/dev");
        let devices = DEVICES.iter().map(|(name, ..)| *name).chain(BESIDE_DEVICES);
        let settings = std::fs::read_dir(&self.settings).into_iter().flatten().flatten();
        let settings = settings.map(|entry| (Path::new(SETTINGS).join(entry.file_name()), false));
        let others = self.shown.iter().filter(|path| *path != dev).map(|path| {
            let kernels = path == Path::new("/proc") || path == Path::new("/sys");
            (path.clone(), self.is_writable(path) && !kernels)
        });
        devices.map(|name| (dev.join(name), true)).chain(settings).chain(others).collect()
    }

    /// Looks what is there before the command.
    pub(super) fn begin(&mut self) {
        for directory in TEMPORARY {
            let Ok(there) = std::fs::read_dir(directory) else { continue };
            self.hidden.extend(there.flatten().map(|entry| entry.path()));
        }
        for paths in [&mut self.shown, &mut self.hidden, &mut self.writable] {
            // Also by the names that are no links.
            let real: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
            paths.extend(real);
            paths.sort();
            paths.dedup();
        }
    }

    /// Whether a path is there for the command.
    pub(super) fn has(&self, path: &Path) -> bool {
        let (shown, hidden) = (longest(path, &self.shown), longest(path, &self.hidden));
        if shown.is_some() && shown >= hidden {
            return shown > Some(2) || Self::is_kernels(path);
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

    /// Whether what lies in a directory of the kernel's is there; what lies elsewhere is.
    fn is_kernels(path: &Path) -> bool {
        if let Ok(device) = path.strip_prefix("/dev") {
            let Some(first) = device.components().next() else { return true };
            let first = first.as_os_str();
            return DEVICES.iter().any(|(name, _, _)| first == *name)
                || LINKS.iter().any(|(name, _)| first == *name)
                || BESIDE_DEVICES.iter().any(|name| first == *name);
        }
        !matches!(constant::lookup(path), Some(Answer::Nothing))
    }

    /// Whether it may be written to.
    pub(super) fn is_writable(&self, path: &Path) -> bool {
        let writable = longest(path, &self.writable);
        writable.is_some() && writable >= longest(path, &self.shown)
    }

    /// Whether it is a directory that elsewhere is the command's own, and here the machine's.
    pub(super) fn is_machines(path: &Path) -> bool {
        OWN.iter().any(|own| path == Path::new(own))
    }

    /// Whether all that a directory has is there.
    pub(super) fn is_whole(&self, directory: &Path) -> bool {
        let kernels = ["/dev", "/proc", "/sys"].iter().any(|top| directory.starts_with(top));
        let shown = longest(directory, &self.shown);
        !kernels
            && shown.is_some()
            && shown >= longest(directory, &self.hidden)
            && !self.hidden.iter().any(|path| path.parent() == Some(directory))
    }
}

/// How many parts the longest of the paths has that lead to this one.
pub(super) fn longest(path: &Path, paths: &[PathBuf]) -> Option<usize> {
    paths.iter().filter(|other| path.starts_with(other)).map(|other| other.components().count()).max()
}
