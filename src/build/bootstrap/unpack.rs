//! Many packages' files into one root at once, with the result that dpkg would leave.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use md5::{Digest, Md5};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use tar::{Entry, EntryType};

use super::package::Package;
use super::rules::Rules;
use crate::build::inside::{Inside, Kind};
use crate::debian::dpkg::Conffile;

const BUFFER: usize = 128 << 10;

/// What one package's extraction left to be written into dpkg's database.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// The paths that it ships, in its order: the lines of its `.list`.
    pub list: Vec<Vec<u8>>,
    /// Its configuration files.
    pub conffiles: Vec<Conffile>,
}

/// A root that packages are extracted into, from any number of threads.
///
/// Paths are resolved inside the root, so no link of a package leads out of it. Directories get the owner, mode and time that the first package in
/// order has for them, whichever thread was first to make them; of two packages with the same file the one that `Replaces` the
/// other wins: the result does not depend on how the threads run.
pub struct Unpacker<'a> {
    root: Inside,
    packages: &'a [Package],
    rules: &'a Rules,
    /// Top-level links into /usr, for telling that two paths are the same file.
    aliases: &'a [String],
    owners: &'a Mutex<Owners>,
    directories: Mutex<BTreeMap<PathBuf, Directory>>,
    lost: Mutex<Vec<Lost>>,
}

/// A path that a package ships but another one replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost {
    /// Database name of the package.
    pub package: String,
    /// As in its list.
    pub path: Vec<u8>,
}

/// Which package, by name, has a path; links and files only.
pub type Owners = HashMap<PathBuf, String>;

/// A directory that this unpacking made.
struct Directory {
    package: usize,
    owner: Ownership,
}

#[derive(Debug, Clone, Copy)]
struct Ownership {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
}

/// Whether an entry is made.
#[derive(PartialEq, Eq)]
enum Claim {
    /// Nothing of ours is there.
    Free,
    /// A file that another package has gives way.
    Replaces,
    /// The other package's file stays.
    Yields,
}

/// A directory kept open for the entries that follow.
struct Parent {
    path: PathBuf,
    fd: OwnedFd,
}

impl<'a> Unpacker<'a> {
    /// Opens a root.
    pub fn new(
        root: &Path,
        packages: &'a [Package],
        rules: &'a Rules,
        aliases: &'a [String],
        owners: &'a Mutex<Owners>,
    ) -> Result<Self> {
        Ok(Self {
            root: Inside::open(root)?,
            packages,
            rules,
            aliases,
            owners,
            directories: Mutex::default(),
            lost: Mutex::default(),
        })
    }

    /// Extracts one package; the position is its place in the order.
    pub fn unpack(&self, position: usize) -> Result<Unpacked> {
        let package = &self.packages[position];
        self.unpack_data(position, package).with_context(|| format!("unpacking {}", package.deb.path().display()))
    }

    fn unpack_data(&self, position: usize, package: &Package) -> Result<Unpacked> {
        let mut archive = tar::Archive::new(package.deb.data()?);
        let mut unpacked = Unpacked::default();
        let mut digests: HashMap<String, String> = HashMap::new();
        let mut parent = None;
        let mut buffer = vec![0; BUFFER];
        for entry in archive.entries()? {
            let mut entry = entry?;
            let shipped = shipped_path(&entry.path_bytes())?;
            unpacked.list.push(if shipped.as_os_str().is_empty() {
                b"/.".to_vec()
            } else {
                [b"/", shipped.as_os_str().as_bytes()].concat()
            });
            if shipped.as_os_str().is_empty() {
                continue;
            }
            let shown = format!("/{}", shipped.display());
            let kind = entry.header().entry_type();
            if self.rules.excludes(&shown, matches!(kind, EntryType::Directory | EntryType::Symlink)) {
                continue;
            }
            let conffile = package.conffiles.iter().any(|(path, removed)| *path == shown && !removed);
            self.extract(position, &shown, &mut entry, conffile, &mut parent, &mut buffer)
                .map(|digest| {
                    if let Some(digest) = digest {
                        digests.insert(shown.clone(), digest);
                    }
                })
                .with_context(|| format!("extracting `{shown}`"))?;
        }
        unpacked.conffiles = package
            .conffiles
            .iter()
            .filter_map(|(path, removed)| match removed {
                // As dpkg has it of a file that was never there.
                true => Some((path.clone(), "newconffile remove-on-upgrade".to_owned())),
                false => digests.remove_entry(path),
            })
            .map(|(path, digest)| Conffile { path, digest })
            .collect();
        Ok(unpacked)
    }

    /// Makes one entry; gives the digest of a configuration file.
    fn extract(
        &self,
        position: usize,
        shipped: &str,
        entry: &mut Entry<'_, impl Read>,
        conffile: bool,
        parent: &mut Option<Parent>,
        buffer: &mut [u8],
    ) -> Result<Option<String>> {
        let package = &self.packages[position];
        let path = PathBuf::from(self.rules.diverted(shipped, &package.name).trim_start_matches('/'));
        let name = path.file_name().context("a path without a name")?.to_owned();
        let directory = self.parent(path.parent().unwrap_or(Path::new("")), parent)?;
        let owner = self.ownership(shipped, entry)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            self.make_directory(position, &path, &name, directory, owner)?;
            return Ok(None);
        }
        match self.claim(package, &path)? {
            Claim::Yields => return Ok(None),
            Claim::Replaces => remove(directory, &name)?,
            Claim::Free => {}
        }
        if kind.is_file() || kind == EntryType::Continuous {
            return self.make_file(package, &path, &name, directory, owner, entry, conffile, buffer);
        }
        let link = entry.link_name_bytes().map(|bytes| bytes.into_owned());
        self.make_special(kind, &path, &name, directory, owner, entry, link, package)?;
        Ok(None)
    }

    fn ownership(&self, shipped: &str, entry: &Entry<'_, impl Read>) -> Result<Ownership> {
        let header = entry.header();
        let mtime = i64::try_from(header.mtime()?)?;
        if let Some(set) = self.rules.set_for(shipped) {
            return Ok(Ownership { uid: set.uid, gid: set.gid, mode: set.mode, mtime });
        }
        Ok(Ownership {
            uid: self.rules.uid(header.username().ok().flatten(), u32::try_from(header.uid()?)?),
            gid: self.rules.gid(header.groupname().ok().flatten(), u32::try_from(header.gid()?)?),
            mode: header.mode()? & 0o7777,
            mtime,
        })
    }

    /// The directory that a path stands in, made where no package ships it.
    fn parent<'p>(&self, path: &Path, kept: &'p mut Option<Parent>) -> Result<&'p OwnedFd> {
        if kept.as_ref().is_none_or(|parent| parent.path != path) {
            *kept = Some(Parent { path: path.to_owned(), fd: self.open_directory(path)? });
        }
        kept.as_ref().map(|parent| &parent.fd).context("no directory is open")
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        match self.root.directory(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => {
                let above = self.open_directory(path.parent().context("the root is gone")?)?;
                match mkdirat(&above, path.file_name().context("a path without a name")?, Mode::from_bits_retain(0o755))
                {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error).with_context(|| format!("making /{}", path.display())),
                }
                self.root.directory(path, OFlag::O_PATH).with_context(|| format!("opening /{}", path.display()))
            }
            other => other.with_context(|| format!("opening /{}", path.display())),
        }
    }

    fn make_directory(
        &self,
        position: usize,
        path: &Path,
        name: &OsStr,
        parent: &OwnedFd,
        owner: Ownership,
    ) -> Result<()> {
        let key = self.canonical(path);
        let mut made = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        match mkdirat(parent, name, Mode::from_bits_retain(0o755)) {
            Ok(()) => {
                made.insert(key, Directory { package: position, owner });
            }
            Err(Errno::EEXIST) => {
                if let Some(directory) = made.get_mut(&key) {
                    if directory.package > position {
                        *directory = Directory { package: position, owner };
                    }
                } else {
                    let kind = Kind::of(fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode);
                    ensure!(matches!(kind, Kind::Directory | Kind::Link), "in the place of the directory is {kind}");
                }
            }
            Err(error) => return Err(error).context("making the directory"),
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn make_file(
        &self,
        package: &Package,
        path: &Path,
        name: &OsStr,
        directory: &OwnedFd,
        owner: Ownership,
        entry: &mut Entry<'_, impl Read>,
        conffile: bool,
        buffer: &mut [u8],
    ) -> Result<Option<String>> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = |name: &OsStr| openat(directory, name, flags, Mode::from_bits_retain(0o600));
        let mut undecided = false;
        let fd = match create(name) {
            // What is there belongs to no package. Of a configuration file dpkg decides which to keep.
            Err(Errno::EEXIST) if conffile => {
                undecided = true;
                let beside = [name.as_bytes(), b".dpkg-new"].concat();
                create(OsStr::from_bytes(&beside))
            }
            Err(Errno::EEXIST) => {
                if !self.owns(package, path) {
                    return Ok(None);
                }
                remove(directory, name)?;
                create(name)
            }
            other => other,
        }
        .context("creating the file")?;
        let mut file = File::from(fd);
        let mut digest = conffile.then(Md5::new);
        loop {
            let read = entry.read(buffer)?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read])?;
            if let Some(digest) = &mut digest {
                digest.update(&buffer[..read]);
            }
        }
        // The owner first: changing it clears setuid and setgid.
        fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).context("setting the owner")?;
        fchmod(&file, Mode::from_bits_retain(owner.mode)).context("setting the mode")?;
        let time = TimeSpec::new(owner.mtime, 0);
        futimens(&file, &time, &time)?;
        Ok(digest.map(|digest| if undecided { "newconffile".to_owned() } else { hex::encode(digest.finalize()) }))
    }

    #[allow(clippy::too_many_arguments)]
    fn make_special(
        &self,
        kind: EntryType,
        path: &Path,
        name: &OsStr,
        directory: &OwnedFd,
        owner: Ownership,
        entry: &Entry<'_, impl Read>,
        link: Option<Vec<u8>>,
        package: &Package,
    ) -> Result<()> {
        let target = || link.as_deref().context("a link without a target");
        let hard_link = if kind == EntryType::Link {
            let shipped = format!("/{}", shipped_path(target()?)?.display());
            let path = PathBuf::from(self.rules.diverted(&shipped, &package.name).trim_start_matches('/'));
            let name = path.file_name().context("a link to nothing")?.to_owned();
            Some((self.open_directory(path.parent().unwrap_or(Path::new("")))?, name, shipped))
        } else {
            None
        };
        let make = || -> Result<(), Errno> {
            let mode = Mode::from_bits_retain(owner.mode);
            match kind {
                EntryType::Symlink => {
                    symlinkat(OsStr::from_bytes(link.as_deref().unwrap_or_default()), directory, name)
                }
                EntryType::Link => match &hard_link {
                    Some((from, linked, _)) => linkat(from, linked.as_os_str(), directory, name, AtFlags::empty()),
                    None => Err(Errno::EINVAL),
                },
                EntryType::Fifo => mknodat(directory, name, SFlag::S_IFIFO, mode, 0),
                EntryType::Char | EntryType::Block => {
                    let flag = if kind == EntryType::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
                    let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or_default().into();
                    let device = makedev(number(entry.header().device_major()), number(entry.header().device_minor()));
                    mknodat(directory, name, flag, mode, device)
                }
                _ => Err(Errno::EOPNOTSUPP),
            }
        };
        match make() {
            Err(Errno::EEXIST) => {
                // dpkg keeps a directory that a link would take the place of.
                if kind == EntryType::Symlink && is_directory(directory, name)? {
                    return Ok(());
                }
                if !self.owns(package, path) {
                    return Ok(());
                }
                remove(directory, name)?;
                make()
            }
            other => other,
        }
        .with_context(|| match &hard_link {
            Some((_, _, shipped)) => format!("linking it to `{shipped}`"),
            None => format!("making it ({kind:?})"),
        })?;
        if kind == EntryType::Link {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        fchownat(directory, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).context("setting the owner")?;
        if kind != EntryType::Symlink {
            fchmodat(directory, name, Mode::from_bits_retain(owner.mode), FchmodatFlags::FollowSymlink)?;
        }
        let time = TimeSpec::new(owner.mtime, 0);
        utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    /// Notes that a package has a path, and settles it with the one that has it already.
    fn claim(&self, package: &Package, path: &Path) -> Result<Claim> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.canonical(path);
        let other = match owners.get(&key) {
            None => {
                owners.insert(key, package.database_name());
                return Ok(Claim::Free);
            }
            Some(other) if *other == package.database_name() => return Ok(Claim::Replaces),
            Some(other) => self
                .packages
                .iter()
                .find(|package| package.database_name() == *other)
                .ok_or_else(|| anyhow!("it is also in the package {other}"))?,
        };
        if package.replaces(other) {
            self.lose(other, path);
            owners.insert(key, package.database_name());
            Ok(Claim::Replaces)
        } else if package.is_multi_arch_same() && package.name == other.name {
            Ok(Claim::Yields)
        } else if other.replaces(package) {
            self.lose(package, path);
            Ok(Claim::Yields)
        } else {
            bail!("it is also in the package {}, and neither replaces the other", other.name)
        }
    }

    fn lose(&self, package: &Package, path: &Path) {
        let path = [b"/", path.as_os_str().as_bytes()].concat();
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(Lost { package: package.database_name(), path });
    }

    fn owns(&self, package: &Package, path: &Path) -> bool {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(&self.canonical(path)).is_some_and(|owner| *owner == package.database_name())
    }

    /// See [`canonical`].
    fn canonical(&self, path: &Path) -> PathBuf {
        canonical(self.aliases, path)
    }

    /// Gives the directories that were made their owners, modes and times, the innermost first, and
    /// returns what packages lost to others.
    pub fn finish(self) -> Result<Vec<Lost>> {
        let made = self.directories.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, Directory { owner, .. }) in made.into_iter().rev() {
            let doing = || format!("finishing the directory /{}", path.display());
            let directory = self.root.directory(&path, OFlag::O_RDONLY).with_context(doing)?;
            fchown(&directory, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).with_context(doing)?;
            fchmod(&directory, Mode::from_bits_retain(owner.mode)).with_context(doing)?;
            let time = TimeSpec::new(owner.mtime, 0);
            futimens(&directory, &time, &time).with_context(doing)?;
        }
        Ok(self.lost.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A path as it is behind top-level links into /usr.
pub(super) fn canonical(aliases: &[String], path: &Path) -> PathBuf {
    let mut components = path.components();
    match components.next().and_then(|first| first.as_os_str().to_str()) {
        Some(first) if components.next().is_some() && aliases.iter().any(|alias| alias == first) => {
            Path::new("usr").join(path)
        }
        _ => path.to_owned(),
    }
}

/// Whether a package has a symbolic link at a path.
pub fn ships_link(package: &Package, path: &Path) -> Result<bool> {
    let mut archive = tar::Archive::new(package.deb.data()?);
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.header().entry_type() == EntryType::Symlink && shipped_path(&entry.path_bytes())? == path {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_directory(directory: &OwnedFd, name: &OsStr) -> Result<bool> {
    Ok(Kind::of(fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode) == Kind::Directory)
}

fn remove(directory: impl AsFd, name: &OsStr) -> Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).context("removing what is in its place"),
    }
}

/// A path of an archive, relative to the root and without anything that leads elsewhere.
fn shipped_path(bytes: &[u8]) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => bail!("the path `{}` leads out of the root", String::from_utf8_lossy(bytes)),
        }
    }
    Ok(path)
}
