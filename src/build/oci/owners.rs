//! Which source package a file of a root is from, by dpkg's database.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::files::RootFiles;
use crate::build::inside::Inside;
use crate::build::packages;
use crate::debian::dpkg::Diversion;
use crate::debian::{deb822, sbom};

/// The files of a root by their source packages.
#[derive(Default)]
pub(super) struct Owners {
    sources: Vec<String>,
    files: HashMap<PathBuf, usize>,
    /// dpkg's database, relative to the root.
    pub database: Option<PathBuf>,
}

impl Owners {
    /// Reads the database; a root without one has no packages.
    pub(super) fn of_root(root: &Path) -> Result<Self> {
        let files = RootFiles::open(root)?;
        let Some((directory, status)) = packages::database(&files)? else { return Ok(Self::default()) };
        let inside = Inside::open(root)?;
        let mut owners = Self { database: Some(inside.resolve(Path::new(directory))?), ..Self::default() };
        let diversions = files.text(&format!("{directory}/diversions"))?.unwrap_or_default();
        let diversions = Diversion::parse_all(&diversions).context("reading dpkg's diversions")?;
        let mut reader = Lists { inside: &inside, directories: HashMap::new(), diversions };
        let sources = owners.sources(&status)?;
        let info = format!("{directory}/info");
        let database = inside.resolve(Path::new(&info)).unwrap_or_default();
        for name in files.names(&info)? {
            // `libc6:amd64.md5sums`: whose it is, and what.
            let Some((package, extension)) = name.rsplit_once('.') else { continue };
            let plain = package.split(':').next().unwrap_or(package);
            let Some(source) = sources.get(package).or_else(|| sources.get(plain)).copied() else { continue };
            owners.files.insert(database.join(&name), source);
            if extension == "list" {
                for file in reader.read(&format!("{info}/{name}"), plain)? {
                    owners.files.entry(file).or_insert(source);
                }
            }
        }
        Ok(owners)
    }

    /// Numbers of the sources of all packages, by the packages' names in the database.
    fn sources(&mut self, status: &str) -> Result<BTreeMap<String, usize>> {
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut packages = BTreeMap::new();
        for stanza in deb822::parse(status).context("reading dpkg's status")? {
            let Some(package) = stanza.get("Package") else { continue };
            let (source, _) = sbom::source_of(&stanza);
            let number = *numbers.entry(source.clone()).or_insert_with(|| {
                self.sources.push(source);
                self.sources.len() - 1
            });
            if let Some(architecture) = stanza.get("Architecture") {
                packages.insert(format!("{package}:{architecture}"), number);
            }
            packages.entry(package.to_owned()).or_insert(number);
        }
        Ok(packages)
    }

    /// The source of a file, by its path relative to the root.
    pub(super) fn source(&self, path: &Path) -> Option<&str> {
        let owner = self.files.get(path);
        let owner = owner.or_else(|| self.files.get(&script_of(path)?)).or_else(|| self.files.get(&kernel_of(path)?));
        owner.map(|number| self.sources[*number].as_str())
    }
}

/// The Python file that a byte-compiled one was made from: `a/__pycache__/b.cpython-313.pyc` is from `a/b.py`.
fn script_of(path: &Path) -> Option<PathBuf> {
    let cache = path.parent().filter(|parent| parent.file_name() == Some(OsStr::new("__pycache__")))?;
    let name = path.file_name()?.to_str()?.strip_suffix(".pyc")?;
    Some(cache.parent()?.join(format!("{}.py", name.split('.').next()?)))
}

/// The kernel in /boot that files beside its modules belong to: a copy of it, and what depmod writes. An initramfs is
/// made of many packages.
fn kernel_of(path: &Path) -> Option<PathBuf> {
    let modules = ["usr/lib/modules", "lib/modules"].iter().find_map(|top| path.strip_prefix(top).ok())?;
    let mut parts = modules.iter();
    let (version, name) = (parts.next()?, parts.next()?);
    (name != "initramfs.img").then(|| Path::new("boot").join(format!("vmlinuz-{}", version.to_string_lossy())))
}

/// Reads lists of files.
struct Lists<'a> {
    inside: &'a Inside,
    /// Where directories are that links may lead to: `bin` is `usr/bin`.
    directories: HashMap<PathBuf, Option<PathBuf>>,
    diversions: Vec<Diversion>,
}

impl Lists<'_> {
    fn read(&mut self, list: &str, package: &str) -> Result<Vec<PathBuf>> {
        let mut bytes = Vec::new();
        self.inside.read(Path::new(list))?.read_to_end(&mut bytes).with_context(|| format!("reading {list}"))?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.filter_map(|line| self.place(OsString::from_vec(line.to_vec()), package)).collect())
    }

    /// Where a file of a list is, relative to the root.
    fn place(&mut self, listed: OsString, package: &str) -> Option<PathBuf> {
        let diverted = self.diversions.iter().find(|diversion| {
            diversion.from.as_bytes() == listed.as_bytes() && diversion.by.as_deref() != Some(package)
        });
        let path = PathBuf::from(diverted.map_or(listed, |diversion| diversion.to.clone().into()));
        let (parent, name) = (path.parent()?, path.file_name()?);
        let directory = match self.directories.get(parent) {
            Some(known) => known.clone(),
            None => {
                let found = self.inside.resolve(parent).ok();
                self.directories.insert(parent.to_owned(), found.clone());
                found
            }
        };
        Some(directory?.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_found_through_links_and_diversions() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("usr/bin")).unwrap();
        symlink("usr/bin", at("bin")).unwrap();
        fs::create_dir_all(at("var/lib/dpkg/info")).unwrap();
        let status = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\nPackage: libx\nStatus: install ok installed\nArchitecture: amd64\nSource: x (2)\nVersion: 2+b1\n";
        fs::write(at("var/lib/dpkg/status"), status).unwrap();
        fs::write(at("var/lib/dpkg/diversions"), "/bin/sh\n/bin/sh.old\nlibx\n").unwrap();
        fs::write(at("var/lib/dpkg/info/libx:amd64.list"), "/usr/bin/x\n/bin/sh\n/usr/bin/x.py\n").unwrap();
        fs::write(at("var/lib/dpkg/info/libx:amd64.md5sums"), "").unwrap();
        fs::create_dir(at("boot")).unwrap();
        fs::write(at("var/lib/dpkg/info/bash.list"), "/.\n/bin\n/bin/bash\n/bin/sh\n/boot/vmlinuz-6.1\n").unwrap();
        let owners = Owners::of_root(root.path()).unwrap();
        let of = |path: &str| owners.source(Path::new(path));
        assert_eq!(of("usr/bin/bash"), Some("bash"));
        assert_eq!(of("usr/bin/sh"), Some("x"));
        assert_eq!(of("usr/bin/sh.old"), Some("bash"));
        assert_eq!(of("usr/bin/__pycache__/x.cpython-313.pyc"), Some("x"));
        assert_eq!(of("var/lib/dpkg/info/libx:amd64.md5sums"), Some("x"));
        assert_eq!(of("usr/lib/modules/6.1/vmlinuz"), Some("bash"));
        assert_eq!(of("usr/lib/modules/6.1/modules.dep"), Some("bash"));
        assert_eq!(of("usr/lib/modules/6.1/initramfs.img"), None);
        assert_eq!(of("etc/passwd"), None);
        assert_eq!(owners.database.as_deref(), Some(Path::new("var/lib/dpkg")));
    }

    #[test]
    fn a_root_without_dpkg_has_no_packages() {
        let root = tempfile::tempdir().unwrap();
        assert!(Owners::of_root(root.path()).unwrap().sources.is_empty());
    }
}
