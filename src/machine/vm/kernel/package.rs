//! Kernels from Debian packages: fetched into the store and unpacked there, without installing anything.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Kernel, Kind, by_version, libraries, newest, program, release_of};
use crate::build::apt::{Trust, pick};
use crate::build::interrupted;
use crate::debian::deb::Deb;
use crate::debian::deb822::Paragraph;
use crate::debian::dpkg::relations;
use crate::debian::sources::Source;
use crate::debian::{Architecture, host};
use crate::diagnostics::{Fault, FaultKind};
use crate::store::{EntryId, StateDir, Store};

/// Raised when the same package comes to be unpacked otherwise.
const VERSION: u32 = 1;

/// Debian's releases whose kernels are known to work, besides the one that is the last here.
const RELEASES: [&str; 3] = ["bookworm", "forky", "trixie"];

/// Releases whose user-mode-linux works, the fastest first; that of trixie does not.
pub(super) const UML_RELEASES: [&str; 2] = ["forky", "bookworm"];

/// The package with the loader and the C library that a UML was built with. Those of this machine may be older,
/// so it is given its own.
const LIBC: &str = "libc6";

/// Those two, beside each other and beside the program.
const LOADER: &str = "ld-linux-x86-64.so.2";
const LIBRARY: &str = "libc.so.6";

/// Where Debian's package has the program.
const UML: &str = "usr/bin/linux.uml";

/// Modules that UML has no use for besides: what they drive is not there, and its network is built in.
const UML_LEFT_OUT: [&str; 3] = ["drivers/net", "drivers/scsi", "net"];

/// Modules that no virtual machine has a use for: two thirds of all their bytes.
const LEFT_OUT: [&str; 21] = [
    "drivers/bluetooth",
    "drivers/comedi",
    "drivers/gpu",
    "drivers/hwmon",
    "drivers/iio",
    "drivers/infiniband",
    "drivers/input",
    "drivers/isdn",
    "drivers/leds",
    "drivers/media",
    "drivers/mfd",
    "drivers/net/can",
    "drivers/net/ethernet",
    "drivers/net/usb",
    "drivers/net/wireless",
    "drivers/platform",
    "drivers/power",
    "drivers/staging",
    "drivers/usb",
    "net/bluetooth",
    "sound",
];

/// What a package is known by once it was found, so that later runs ask nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    package: String,
    version: String,
    sha256: String,
    /// Where it stands below `mirror`.
    filename: String,
    mirror: String,
}

/// The kernel of a release of Debian, from the store or fetched into it.
pub(super) fn fetch(
    kind: Kind,
    architecture: Architecture,
    release: &str,
    store: &Store,
    progress: &mut dyn FnMut(&str),
) -> Result<Kernel> {
    let fact = fact(kind, architecture, release);
    let known: Option<Vec<Known>> = store.recall(&fact).and_then(|fact| serde_json::from_value(fact).ok());
    if let Some(known) = &known
        && let Ok(kernel) = unpacked(kind, known, store, progress)
    {
        return Ok(kernel);
    }
    if interrupted() {
        return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
    }
    // It was evicted, and the mirror has another one by now.
    let mirror = host::default_mirror()?;
    let found = look_up(kind, architecture, release, &mirror, store, progress)?;
    store.remember(&fact, &serde_json::to_value(&found)?);
    unpacked(kind, &found, store, progress)
}

/// Whether a kernel was fetched into the store before.
pub(super) fn is_known(kind: Kind, architecture: Architecture, release: &str, store: &Store) -> bool {
    store.recall(&fact(kind, architecture, release)).is_some()
}

/// Under which key it is kept which packages were found.
fn fact(kind: Kind, architecture: Architecture, release: &str) -> String {
    format!("kernel\0{VERSION}\0{kind:?}\0{architecture}\0{release}")
}

/// The release of Debian to take a kernel of machines from: the host's, where it is one.
pub(super) fn release() -> &'static str {
    let [.., newest] = RELEASES;
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    RELEASES.into_iter().find(|known| *known == codename.trim_matches('"')).unwrap_or(newest)
}

/// Debian's name of the kernel that runs on all machines of an architecture.
pub(super) fn flavour(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Armel => "rpi",
        Architecture::Armhf => "armmp-lpae",
        Architecture::I386 => "686-pae",
        Architecture::Mips64el => "5kc-malta",
        Architecture::Mipsel => "4kc-malta",
        Architecture::Ppc64el => "powerpc64le",
        other => other.name(),
    }
}

fn look_up(
    kind: Kind,
    architecture: Architecture,
    release: &str,
    mirror: &str,
    store: &Store,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Known>> {
    let source = Source::new(mirror, release, &["main"]);
    // A testing release says until when it holds, and mirrors that stand still are of use too: what an old state
    // of one has is an old kernel.
    let trust = Trust { expired: true, ..Trust::new(Vec::new()) };
    let all = pick::packages(
        store,
        &source,
        architecture,
        &trust,
        &|name| match kind {
            Kind::Uml => ["user-mode-linux", LIBC].contains(&name),
            Kind::Linux => name.starts_with("linux-image-"),
        },
        progress,
    )?;
    let packages = match kind {
        Kind::Uml => vec![named(&all, "user-mode-linux"), named(&all, LIBC)],
        Kind::Linux => vec![real_image(&all, &format!("linux-image-{}", flavour(architecture)))],
    };
    let known = |package: Option<&Paragraph>| {
        let package = package.with_context(|| format!("Debian {release} has no such package for {architecture}"))?;
        Known::of(package, mirror)
    };
    packages.into_iter().map(known).collect()
}

impl Known {
    fn of(package: &Paragraph, mirror: &str) -> Result<Self> {
        let field =
            |name: &str| package.get(name).map(str::to_owned).with_context(|| format!("its package has no {name}"));
        Ok(Self {
            package: field("Package")?,
            version: field("Version")?,
            sha256: field("SHA256")?.to_ascii_lowercase(),
            filename: field("Filename")?,
            mirror: mirror.to_owned(),
        })
    }
}

/// The newest package of a name.
fn named<'a>(all: &'a [Paragraph], name: &str) -> Option<&'a Paragraph> {
    let version = |package: &Paragraph| package.get("Version").unwrap_or_default().to_owned();
    all.iter()
        .filter(|package| package.get("Package") == Some(name))
        .max_by(|a, b| by_version(&version(a), &version(b)))
}

/// The package that a metapackage stands for.
fn real_image<'a>(all: &'a [Paragraph], metapackage: &str) -> Option<&'a Paragraph> {
    let meta = named(all, metapackage)?;
    let needed = relations(meta, "Depends").into_iter().flatten().find(|name| name.starts_with("linux-image-"));
    // On some architectures the image itself has the general name.
    needed.map_or(Some(meta), |name| named(all, &name))
}

/// The kernel of a package and what comes with it, unpacked in the store.
fn unpacked(kind: Kind, known: &[Known], store: &Store, progress: &mut dyn FnMut(&str)) -> Result<Kernel> {
    let digests: Vec<&str> = known.iter().map(|known| known.sha256.as_str()).collect();
    let key = blake3::hash(format!("{VERSION}\0{kind:?}\0{}", digests.join("\0")).as_bytes());
    let kept = store.state_dir("kernel", &EntryId(key.to_hex().to_string()), &mut |dir| {
        for known in known {
            let deb = fetch_deb(known, store, progress)?;
            progress(&format!("unpacking {}", known.package));
            unpack(&Deb::open(&deb)?, dir)
                .with_context(|| format!("unpacking {}", known.package))
                .map_err(|error| store.explain_work(error))?;
        }
        if kind == Kind::Uml {
            // It starts itself again by its own name, so that it cannot be started by way of a loader.
            program::set_interpreter(&dir.join(UML), LOADER)?;
        }
        Ok(())
    })?;
    kernel_in(kind, kept, known.first().context("a kernel without a package")?)
}

fn fetch_deb(known: &Known, store: &Store, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let mut package = Paragraph::default();
    for (name, value) in [
        ("Package", &known.package),
        ("Version", &known.version),
        ("SHA256", &known.sha256),
        ("Filename", &known.filename),
    ] {
        package.set(name, value);
    }
    let mut told = None;
    pick::fetch(store, &known.mirror, &package, &Trust::default(), &mut |done, total| {
        let megabytes = |bytes: u64| bytes / 1_000_000;
        if told != Some(megabytes(done)) {
            told = Some(megabytes(done));
            let of = total.map(|total| format!("/{}", megabytes(total))).unwrap_or_default();
            progress(&format!("fetching {}: {}{of} MB", known.package, megabytes(done)));
        }
    })
}

/// Finds the parts of an unpacked package.
fn kernel_in(kind: Kind, kept: StateDir, known: &Known) -> Result<Kernel> {
    let dir = &kept.path;
    let (image, modules) = match kind {
        Kind::Uml => (dir.join(UML), newest(&dir.join("usr/lib/uml/modules"), |_| true)),
        Kind::Linux => {
            let images = fs::read_dir(dir.join("boot")).into_iter().flatten().flatten().map(|entry| entry.path());
            let image = images.filter(|path| release_of(path).is_some()).max();
            (image.context("the package has no kernel")?, newest(&dir.join("lib/modules"), |_| true))
        }
    };
    let modules = modules.context("the package has no modules")?;
    let description = format!("{} {}", known.package, known.version);
    let libraries = libraries(&image);
    Ok(Kernel { libraries, kept: vec![kept], ..Kernel::new(description, image, Some(modules)) })
}

/// Lays the kernel and the modules of a package into a directory. No owners, links or devices: an ordinary
/// user does it, and nothing of it is installed anywhere.
fn unpack(deb: &Deb, into: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(deb.data()?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if interrupted() {
            return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(place) = place(&entry.path()?)? else { continue };
        let path = into.join(place);
        let writing = || format!("writing {}", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(writing)?;
        }
        let mut file = File::create_new(&path).with_context(writing)?;
        io::copy(&mut entry, &mut file).with_context(writing)?;
        let mode = if entry.header().mode()? & 0o111 == 0 { 0o644 } else { 0o755 };
        file.set_permissions(fs::Permissions::from_mode(mode)).with_context(writing)?;
    }
    Ok(())
}

/// Where a member of a package goes; nowhere if it is of no use.
fn place(member: &Path) -> Result<Option<PathBuf>> {
    let member = member.strip_prefix(".").unwrap_or(member);
    if !member.components().all(|part| matches!(part, Component::Normal(_))) {
        bail!("the package has a file `{}`", member.display());
    }
    let is_image = member.parent() == Some(Path::new("boot")) && release_of(member).is_some();
    if is_image || member == Path::new(UML) {
        return Ok(Some(member.to_owned()));
    }
    if let Some(name) = member.file_name().filter(|name| [LOADER, LIBRARY].iter().any(|known| name == known)) {
        return Ok(Some(Path::new(UML).with_file_name(name)));
    }
    let is_wanted = |below: &Path, left_out: &[&str]| {
        let mut parts = below.components();
        parts.next();
        let kernel = parts.as_path().strip_prefix("kernel").unwrap_or(Path::new(""));
        !LEFT_OUT.iter().chain(left_out).any(|part| kernel.starts_with(part))
    };
    if let Ok(below) = member.strip_prefix("usr/lib/uml/modules") {
        return Ok(is_wanted(below, &UML_LEFT_OUT).then(|| member.to_owned()));
    }
    // Newer packages have no /lib.
    let member = member.strip_prefix("usr").unwrap_or(member);
    let below = member.strip_prefix("lib/modules").ok().filter(|below| is_wanted(below, &[]));
    Ok(below.map(|_| member.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::deb822;

    #[test]
    fn a_metapackage_leads_to_the_image() {
        let index = "Package: linux-image-amd64\nVersion: 6.1\nDepends: linux-image-6.1.0-9-amd64 (= 6.1)\n\n\
                     Package: linux-image-6.1.0-9-amd64\nVersion: 6.1\n\nPackage: linux-image-6.1.0-8-amd64\nVersion: 6.0\n\n\
                     Package: linux-image-6.1.0-9-amd64\nVersion: 6.1.2\n\nPackage: linux-image-rpi\nVersion: 1\n";
        let all = deb822::parse(index).unwrap();
        assert_eq!(real_image(&all, "linux-image-amd64").unwrap().get("Version"), Some("6.1.2"));
        assert_eq!(real_image(&all, "linux-image-rpi").unwrap().get("Version"), Some("1"));
        assert!(real_image(&all, "linux-image-arm64").is_none());
    }

    #[test]
    fn only_what_a_guest_needs_is_unpacked() {
        let at = |member: &str| place(Path::new(member)).unwrap().map(|path| path.display().to_string());
        assert_eq!(at("./boot/vmlinuz-6.1"), Some("boot/vmlinuz-6.1".into()));
        assert_eq!(at("./boot/System.map-6.1"), None);
        assert_eq!(
            at("./usr/lib/modules/6.1/kernel/fs/ext4/ext4.ko.xz"),
            Some("lib/modules/6.1/kernel/fs/ext4/ext4.ko.xz".into())
        );
        assert_eq!(at("./lib/modules/6.1/modules.builtin"), Some("lib/modules/6.1/modules.builtin".into()));
        assert_eq!(at("./lib/modules/6.1/kernel/sound/core/snd.ko"), None);
        assert_eq!(at("./usr/bin/linux.uml"), Some("usr/bin/linux.uml".into()));
        let modules = "./usr/lib/uml/modules/7.2/kernel";
        let overlay = format!("{modules}/fs/overlayfs/overlay.ko");
        assert_eq!(at(&overlay), Some(overlay.trim_start_matches("./").into()));
        assert_eq!(at(&format!("{modules}/net/x25/x25.ko")), None);
        for from in ["./lib/x86_64-linux-gnu/libc.so.6", "./usr/lib/x86_64-linux-gnu/libc.so.6"] {
            assert_eq!(at(from), Some("usr/bin/libc.so.6".into()));
        }
        assert_eq!(at("./usr/lib/x86_64-linux-gnu/libm.so.6"), None);
        assert_eq!(at("./usr/share/doc/x"), None);
        assert!(place(Path::new("./boot/../../etc/passwd")).is_err());
        assert!(place(Path::new("/boot/vmlinuz-1")).is_err());
    }
}
