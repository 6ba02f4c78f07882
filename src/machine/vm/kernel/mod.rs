//! Kernels that guests run: the host's own, one that was given, or one from a Debian package.

mod image;
mod package;

use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{modules, program};
use crate::debian::Architecture;
use crate::debian::host::{find_program, package_version};
use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::store::{StateDir, Store};

/// What a kernel runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Linux as a process of Linux.
    Uml,
    /// A machine of an architecture, which QEMU emulates or KVM runs.
    Linux,
}

/// A kernel with its modules.
#[derive(Debug)]
pub struct Kernel {
    /// The program (UML), or what a boot loader takes.
    pub image: PathBuf,
    /// The directory named by its release, where it has one.
    pub modules: Option<PathBuf>,
    /// What `uname -r` says in the guest; empty where that is not known.
    pub release: String,
    /// "user-mode-linux 7.2um1": for people, and to tell one kernel from another.
    pub description: String,
    /// Directory with a loader and a C library of its own, which it has to be started in.
    pub libraries: Option<PathBuf>,
    /// Why it is not the best one, and what that costs.
    pub note: Option<String>,
    /// Keeps what is in the store as long as it is used.
    kept: Vec<StateDir>,
}

/// Which kernel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The one in a file.
    Given(&'a Path),
    /// The best.
    Best,
    /// The best of those that need not be fetched.
    AtHand,
}

/// Modules without which a machine cannot see what it is given.
const NEEDED: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_net"];

/// Ways to the host's files, of which one has to be there; Debian's `cloud` kernels have no 9p.
const SHARES: [&[&str]; 2] = [&["9p", "9pnet_virtio"], &["virtiofs"]];

/// Since this release UML runs programs without ptrace(2), which takes half the time.
const SECCOMP: &str = "6.16";

/// Releases of UML that are known not to work.
const BROKEN: [&str; 1] = ["6.12"];

/// The kernel that is given, else the host's installed one, else one that is fetched as a Debian package
/// into the store. UML is fetched as well where the installed one is slow; see [`choose`].
pub fn find(
    kind: Kind,
    architecture: Architecture,
    wanted: Wanted<'_>,
    store: &Store,
    progress: &mut dyn FnMut(&str),
) -> Result<Kernel> {
    if let Wanted::Given(image) = wanted {
        return of_image(kind, image);
    }
    let installed = (architecture == Architecture::host()).then(|| installed(kind, Path::new("/"))).flatten();
    let mut fetch = |release: &str| {
        if wanted == Wanted::AtHand && !package::is_known(kind, architecture, release, store) {
            bail!("the first build fetches it");
        }
        package::fetch(kind, architecture, release, store, progress)
    };
    let found = match (kind, installed) {
        (Kind::Uml, installed) => choose(installed, &mut fetch),
        (Kind::Linux, Some(kernel)) => Ok(kernel),
        (Kind::Linux, None) => fetch(package::release()),
    };
    found.map_err(|error| unavailable(kind, architecture, &error))
}

/// The UML that is fastest of those that can be had: an installed one or one that is fetched, if it needs no
/// ptrace(2); else an older one, which says what that costs.
fn choose(installed: Option<Kernel>, fetch: &mut dyn FnMut(&str) -> Result<Kernel>) -> Result<Kernel> {
    let [fast, slow] = package::UML_RELEASES;
    let installed = match installed {
        Some(kernel) if has_seccomp(&kernel.release) => return Ok(kernel),
        other => other.filter(|kernel| !is_broken(&kernel.release)),
    };
    let fault = match fetch(fast) {
        Ok(kernel) => return Ok(kernel),
        Err(error) => fault_of(&error),
    };
    if fault.kind == FaultKind::Interrupted {
        return Err(fault.into());
    }
    let why = fault.message.clone();
    let kernel = match installed.map_or_else(|| fetch(slow), Ok) {
        Ok(kernel) => kernel,
        Err(_) => return Err(fault.into()),
    };
    let note = format!("{} takes twice as long as that of Debian {fast}, which is not here: {why}", kernel.description);
    Ok(Kernel { note: Some(note), ..kernel })
}

fn has_seccomp(release: &str) -> bool {
    by_version(release, SECCOMP) != Ordering::Less
}

fn is_broken(release: &str) -> bool {
    BROKEN
        .iter()
        .any(|broken| release.strip_prefix(broken).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Whether [`find`] would find a kernel of this machine's architecture without fetching one.
pub fn is_at_hand(kind: Kind, store: &Store) -> bool {
    let is_known = |release: &&str| package::is_known(kind, Architecture::host(), release, store);
    let known = match kind {
        Kind::Uml => package::UML_RELEASES.iter().any(is_known),
        Kind::Linux => is_known(&package::release()),
    };
    known || installed(kind, Path::new("/")).is_some_and(|kernel| kind == Kind::Linux || !is_broken(&kernel.release))
}

impl Kernel {
    /// One whose release is the name of its modules' directory.
    fn new(description: String, image: PathBuf, modules: Option<PathBuf>) -> Self {
        let name = modules.as_deref().and_then(Path::file_name);
        let release = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { image, modules, release, description, libraries: None, note: None, kept: Vec::new() }
    }

    /// The same kernel with the image as QEMU starts it soonest: without its compression, where it can be
    /// taken off. What comes of it is kept in the store.
    pub fn unpacked(self, store: &Store) -> Result<Self> {
        image::unpacked(self, store)
    }
}

/// The kernel of an image that a user names. Its modules are those that belong to its file name.
fn of_image(kind: Kind, image: &Path) -> Result<Kernel> {
    let found = image
        .canonicalize()
        .and_then(|path| File::open(&path).map(|_| path))
        .map_err(|error| Fault::machine(format!("the kernel {} cannot be read: {error}", image.display())))?;
    let directory = found.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let release = release_of(&found).unwrap_or_default();
    let modules = match kind {
        Kind::Linux => ["lib/modules", "usr/lib/modules"]
            .iter()
            .flat_map(|part| [directory.join(part), Path::new("/").join(part)])
            .map(|modules| modules.join(&release))
            .find(|modules| !release.is_empty() && modules.is_dir()),
        // `linux.uml` says nothing; Debian has its modules at /usr/lib/uml.
        Kind::Uml => ["lib/uml/modules", "lib/modules", "../lib/modules"]
            .iter()
            .map(|part| directory.join(part))
            .find_map(|modules| newest(&modules, |_| true)),
    };
    let libraries = libraries(&found);
    let kernel = Kernel { libraries, ..Kernel::new(found.display().to_string(), found, modules) };
    Ok(if release.is_empty() { kernel } else { Kernel { release, ..kernel } })
}

/// The directory of a program whose loader is to be found beside it.
fn libraries(image: &Path) -> Option<PathBuf> {
    let loader = program::interpreter(image).ok().flatten().filter(|loader| loader.is_relative())?;
    image.parent().filter(|directory| directory.join(loader).is_file()).map(Path::to_owned)
}

/// The newest kernel that is installed below `root`, that this user can read, and that can do what is needed.
fn installed(kind: Kind, root: &Path) -> Option<Kernel> {
    match kind {
        Kind::Uml => {
            let modules = newest(&root.join("usr/lib/uml/modules"), |_| true)?;
            let image = match root.parent() {
                None => find_program("linux.uml")?,
                Some(_) => root.join("usr/bin/linux.uml"),
            };
            File::open(&image).ok()?;
            let release = modules.file_name()?.to_string_lossy().into_owned();
            let version = package_version("user-mode-linux").unwrap_or_else(|| release.clone());
            Some(Kernel::new(format!("user-mode-linux {version}"), image, Some(modules)))
        }
        Kind::Linux => {
            let mut images: Vec<(String, PathBuf)> = fs::read_dir(root.join("boot"))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| Some((release_of(&entry.path())?, entry.path())))
                .collect();
            images.sort_by(|(a, _), (b, _)| by_version(b, a));
            images.into_iter().find_map(|(release, image)| {
                File::open(&image).ok()?;
                let directories = ["lib/modules", "usr/lib/modules"].map(|part| root.join(part).join(&release));
                let modules = directories.into_iter().find(|modules| can_do_what_is_needed(modules))?;
                let package = format!("linux-image-{release}");
                let description = match package_version(&package) {
                    Some(version) => format!("{package} {version}"),
                    None => format!("Linux {release}"),
                };
                Some(Kernel::new(description, image, Some(modules)))
            })
        }
    }
}

fn can_do_what_is_needed(modules: &Path) -> bool {
    let has = |names: &[&str]| modules::closure(modules, names).is_ok_and(|found| found.missing.is_empty());
    modules.is_dir() && has(&NEEDED) && SHARES.iter().any(|names| has(names))
}

/// The release in the name of an image: `vmlinuz-6.12.1-amd64`, and `vmlinux-` on some architectures.
fn release_of(image: &Path) -> Option<String> {
    let name = image.file_name()?.to_str()?;
    let release = name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"))?;
    (!release.is_empty()).then(|| release.to_owned())
}

/// The directory of the newest release among those in a directory.
fn newest(directory: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().is_dir() && fits(&entry.file_name().to_string_lossy()))
        .max_by(|a, b| by_version(&a.file_name().to_string_lossy(), &b.file_name().to_string_lossy()))
        .map(|entry| entry.path())
}

/// Orders releases as people do: numbers in them by value.
fn by_version(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(bool, u64, String)> {
        text.split(['.', '-', '+'])
            .map(|part| match part.parse() {
                Ok(number) => (true, number, String::new()),
                Err(_) => (false, 0, part.to_owned()),
            })
            .collect()
    };
    parts(a).cmp(&parts(b))
}

/// The fault where there is no kernel and none can be had.
fn unavailable(kind: Kind, architecture: Architecture, error: &anyhow::Error) -> anyhow::Error {
    let why = fault_of(error);
    let (what, package) = match kind {
        Kind::Uml => ("user-mode Linux".to_owned(), "user-mode-linux".to_owned()),
        Kind::Linux => {
            (format!("an {architecture} machine"), format!("linux-image-{}", package::flavour(architecture)))
        }
    };
    if why.kind == FaultKind::Interrupted {
        return why.into();
    }
    let mut fault = Fault::machine(format!("there is no kernel for {what}, and none can be fetched: {}", why.message));
    if architecture == Architecture::host() {
        fault = fault.hint(format!("sudo apt install {package}"));
    }
    fault.hint("`--kernel PATH` names one").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, BUILTIN).unwrap();
        }
        root
    }

    /// Enough for `modules.builtin`.
    const BUILTIN: &str =
        "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_net.ko\nkernel/9p.ko\nkernel/9pnet_virtio.ko\n";

    #[test]
    fn the_newest_installed_kernel_that_can_share_files_is_taken() {
        let root = root(&[
            "boot/vmlinuz-6.1.0-9-amd64",
            "boot/vmlinuz-6.1.0-10-amd64",
            "boot/vmlinuz-6.12.0-cloud-amd64",
            "boot/vmlinuz-7.0-amd64",
            "boot/initrd.img-9.0-amd64",
            "lib/modules/6.1.0-9-amd64/modules.builtin",
            "lib/modules/6.1.0-10-amd64/modules.builtin",
            "lib/modules/6.12.0-cloud-amd64/modules.order",
        ]);
        let kernel = installed(Kind::Linux, root.path()).unwrap();
        assert_eq!(kernel.release, "6.1.0-10-amd64");
        assert_eq!(kernel.modules.unwrap(), root.path().join("lib/modules/6.1.0-10-amd64"));
        assert!(installed(Kind::Uml, root.path()).is_none());
    }

    #[test]
    fn uml_has_the_release_of_its_modules() {
        let root = root(&["usr/bin/linux.uml", "usr/lib/uml/modules/6.1.176/modules.dep"]);
        let kernel = installed(Kind::Uml, root.path()).unwrap();
        assert_eq!(kernel.release, "6.1.176");
        assert!(kernel.description.starts_with("user-mode-linux "));
    }

    #[test]
    fn the_fastest_uml_that_can_be_had_is_taken() {
        let kernel = |name: &str| Kernel { release: name.into(), ..Kernel::new(name.into(), "linux.uml".into(), None) };
        for (installed, to_be_had, taken) in [
            (Some("6.16.1"), vec!["forky"], "6.16.1"),
            (Some("6.1.176"), vec!["bookworm", "forky"], "forky"),
            (None, vec!["bookworm", "forky"], "forky"),
            (Some("6.1.176"), vec!["bookworm"], "6.1.176"),
            (Some("6.12.9"), vec!["bookworm"], "bookworm"),
            (None, vec!["bookworm"], "bookworm"),
        ] {
            let mut fetch = |release: &str| match to_be_had.contains(&release) {
                true => Ok(kernel(release)),
                false => Err(anyhow::anyhow!("no {release}")),
            };
            let chosen = choose(installed.map(kernel), &mut fetch).unwrap();
            assert_eq!(chosen.description, taken);
            assert_eq!(chosen.note.is_none(), ["forky", "6.16.1"].contains(&taken), "{:?}", chosen.note);
        }
        let error = choose(Some(kernel("6.12.9")), &mut |release| Err(anyhow::anyhow!("no {release}"))).unwrap_err();
        assert_eq!(error.to_string(), "no forky");
    }

    #[test]
    fn a_given_kernel_has_the_modules_beside_it() {
        let root =
            root(&["boot/vmlinuz-7.0-x", "usr/lib/modules/7.0-x/modules.order", "bin/linux", "lib/modules/5.5/x"]);
        std::os::unix::fs::symlink("boot/vmlinuz-7.0-x", root.path().join("vmlinuz")).unwrap();
        let top = root.path().canonicalize().unwrap();
        let kernel = of_image(Kind::Linux, &root.path().join("vmlinuz")).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.modules), ("7.0-x", Some(top.join("usr/lib/modules/7.0-x"))));
        let kernel = of_image(Kind::Uml, &root.path().join("bin/linux")).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.modules), ("5.5", Some(top.join("lib/modules/5.5"))));
        let kernel = of_image(Kind::Linux, &root.path().join("bin/linux")).unwrap();
        assert_eq!((kernel.release.as_str(), kernel.modules), ("", None));
        assert!(of_image(Kind::Linux, &root.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        for (older, newer) in
            [("6.1.0-9-amd64", "6.1.0-10-amd64"), ("6.9.1", "6.12"), ("6.12.9+deb13-amd64", "6.12.10+deb13-amd64")]
        {
            assert_eq!(by_version(older, newer), Ordering::Less, "{older} {newer}");
        }
    }

    #[test]
    fn says_how_to_get_a_kernel() {
        let error = unavailable(Kind::Uml, Architecture::host(), &anyhow::anyhow!("no network"));
        let fault = fault_of(&error);
        assert_eq!(fault.kind, FaultKind::Machine);
        assert_eq!(fault.hints, ["sudo apt install user-mode-linux", "`--kernel PATH` names one"]);
    }
}
