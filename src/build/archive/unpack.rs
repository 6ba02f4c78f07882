//! Unpacking into a directory that nothing leaves.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, makedev};

use super::acl::{self, Who};
use super::compression::Compression;
use super::tar::{self, Member, Type};
use super::{deb, zip};
use crate::build::accounts::Accounts;
use crate::build::inside::{Attributes, Inside, Kind, Slot, is_overlay_mark, shown};
use crate::build::interrupted;
use crate::diagnostics::{Fault, FaultKind};

/// What is to be unpacked.
#[derive(Debug)]
pub struct Archive<'a> {
    /// The archive, at its start.
    pub file: File,
    /// For messages, and for `.zip` and `.deb`.
    pub name: &'a str,
    /// As the recipe says; found out where it does not.
    pub compression: Option<Compression>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Members, directories among them.
    pub members: u64,
    /// Sizes of all files.
    pub bytes: u64,
    /// Device nodes of `/dev` that were left out.
    pub devices_left_out: u64,
    /// Names of attributes that the kernel does not let this build set.
    pub attributes_left_out: BTreeSet<String>,
}

/// Bytes handed on at a time.
const BUFFER: usize = 256 << 10;

/// How an archive is put together.
#[derive(Debug, PartialEq, Eq)]
enum Format {
    Tar(Compression),
    Zip,
    Deb,
}

/// Unpacks an archive below `destdir` of a root: owners by number, modes, times, extended attributes,
/// capabilities, ACLs, hard links and holes as the archive has them.
///
/// Whatever the archive holds, nothing outside of the root is written or read. Members whose names
/// have a `..` are refused. A device node in the root's /dev is left out, because the kernel fills
/// /dev when the system starts; so the result is the same for those who may not make one.
///
/// `progress` is told how much of the archive was read, in bytes, and its size.
pub fn unpack(
    archive: Archive<'_>,
    into: &Inside,
    destdir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Unpacked> {
    let Archive { file, name, compression } = archive;
    let doing = || format!("unpacking {name}");
    let size = file.metadata().with_context(doing)?.len();
    // A copy of the descriptor shares its position.
    let mut position = file.try_clone().with_context(doing)?;
    let mut tell = || progress(position.stream_position().unwrap_or(0).min(size), size);
    into.create_dir_all(destdir).with_context(doing)?;
    let mut placer = Placer::new(into, destdir);
    let unpacked = match format(&file, name, compression)? {
        Format::Tar(compression) => {
            compression.reader(file, u64::MAX).and_then(|mut reader| unpack_tar(&mut reader, &mut placer, &mut tell))
        }
        Format::Deb => unpack_deb(file, &mut placer, &mut tell),
        Format::Zip => zip::unpack(file, &mut placer, &mut tell),
    };
    unpacked.and_then(|()| placer.finish()).with_context(doing)
}

fn format(file: &File, name: &str, said: Option<Compression>) -> Result<Format> {
    let mut start = [0; tar::BLOCK];
    let mut filled = 0;
    while filled < start.len() {
        match file.read_at(&mut start[filled..], filled as u64).with_context(|| format!("reading {name}"))? {
            0 => break,
            read => filled += read,
        }
    }
    let start = &start[..filled];
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Ok(Format::Zip);
    }
    if start.starts_with(deb::MAGIC) {
        return Ok(Format::Deb);
    }
    let empty_tar = filled == tar::BLOCK && start.iter().all(|byte| *byte == 0);
    let found =
        if tar::is_header(start) || empty_tar { Some(Compression::None) } else { Compression::by_content(start) };
    let is = |compression| match compression {
        Compression::None => "not compressed".to_owned(),
        other => format!("compressed with {}", other.name()),
    };
    match (said, found) {
        (_, Some(Compression::Lzma)) if said.is_some_and(|said| said != Compression::Lzma) => {
            Ok(Format::Tar(said.unwrap_or(Compression::Lzma)))
        }
        (Some(said), Some(found)) if said != found => {
            Err(Fault::failed(format!("{name} is {}, not {}", is(found), is(said)))
                .hint("leave out `compression`: it is found out")
                .into())
        }
        (Some(said), _) => Ok(Format::Tar(said)),
        (None, Some(found)) => Ok(Format::Tar(found)),
        (None, None) if filled == 0 => Err(Fault::failed(format!("{name} is empty")).into()),
        (None, None) => {
            Err(Fault::failed(format!("{name} is no archive: neither tar (plain or compressed), zip nor deb"))
                .hint(format!("it begins with `{}`", start[..filled.min(16)].escape_ascii()))
                .into())
        }
    }
}

fn unpack_tar(from: &mut dyn Read, placer: &mut Placer<'_>, tell: &mut dyn FnMut()) -> Result<()> {
    let mut reader = tar::Reader::new(from);
    while let Some(member) = reader.next()? {
        tell();
        let path = member.path.to_string_lossy().into_owned();
        placer.place(&member, &mut reader.data()).with_context(|| format!("its member `{path}`"))?;
    }
    Ok(())
}

fn unpack_deb(mut file: File, placer: &mut Placer<'_>, tell: &mut dyn FnMut()) -> Result<()> {
    let (offset, size) = deb::data(&file)?;
    let mut start = vec![0; tar::BLOCK.min(usize::try_from(size).unwrap_or(tar::BLOCK))];
    file.read_exact_at(&mut start, offset).context("reading the package")?;
    let compression = if tar::is_header(&start) { Some(Compression::None) } else { Compression::by_content(&start) };
    let compression = compression.context("its data.tar is compressed in an unknown way")?;
    file.seek(SeekFrom::Start(offset)).context("reading the package")?;
    unpack_tar(&mut compression.reader(file, size)?, placer, tell)
}

/// Puts members in their places.
pub(super) struct Placer<'a> {
    into: &'a Inside,
    destdir: PathBuf,
    accounts: Option<Accounts>,
    /// Directories are dated when nothing is put in them any more.
    directories: Vec<(PathBuf, (i64, u32))>,
    done: Unpacked,
    buffer: Vec<u8>,
}

impl<'a> Placer<'a> {
    fn new(into: &'a Inside, destdir: &Path) -> Self {
        Self {
            into,
            destdir: shown(destdir),
            accounts: None,
            directories: Vec::new(),
            done: Unpacked::default(),
            buffer: vec![0; BUFFER],
        }
    }

    /// Puts one in its place; `data` are read as far as it needs them.
    pub(super) fn place(&mut self, member: &Member, data: &mut dyn Read) -> Result<()> {
        if interrupted() {
            return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
        }
        let relative = safe(&member.path)?;
        let path = self.destdir.join(&relative);
        if matches!(member.kind, Type::Character | Type::Block)
            && self.destdir == Path::new("/")
            && relative.starts_with("dev")
        {
            self.done.devices_left_out += 1;
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.into.create_dir_all(parent)?;
        }
        let slot = self.into.slot(&path)?;
        if member.kind == Type::HardLink {
            let target = self.into.slot(&self.destdir.join(safe(&member.link)?))?;
            if target.kind()?.is_none() {
                bail!("is a hard link to `{}`, which is not there", member.link.to_string_lossy());
            }
            slot.create_hard_link(&target)?;
            self.done.members += 1;
            return Ok(());
        }
        let attributes = self.attributes(member)?;
        match member.kind {
            Type::File => self.file(&slot, member, data)?,
            Type::Directory => {
                if !self.directory(&slot, &path)? {
                    return Ok(());
                }
                self.directories.push((path, member.modified));
            }
            Type::Link => slot.create_link(&member.link)?,
            Type::Pipe => slot.create_node(SFlag::S_IFIFO, 0)?,
            Type::Character => device(&slot, SFlag::S_IFCHR, member.device)?,
            Type::Block => device(&slot, SFlag::S_IFBLK, member.device)?,
            Type::HardLink => {}
        }
        self.apply(&slot, &attributes)?;
        self.done.members += 1;
        Ok(())
    }

    /// Makes a directory, or takes the one that is there; `false` for a link to one, which is kept as
    /// it is (`/lib` of a root with merged /usr).
    fn directory(&self, slot: &Slot, path: &Path) -> Result<bool> {
        match slot.kind()? {
            Some(Kind::Directory) => return Ok(true),
            Some(Kind::Link) if self.into.kind(path).is_ok_and(|kind| kind == Some(Kind::Directory)) => {
                return Ok(false);
            }
            Some(_) => slot.remove()?,
            None => {}
        }
        slot.create_dir()?;
        Ok(true)
    }

    fn file(&mut self, slot: &Slot, member: &Member, data: &mut dyn Read) -> Result<()> {
        let mut file = slot.create_file()?;
        match &member.sparse {
            None => self.copy(data, &mut file, member.size)?,
            Some(parts) => {
                for (offset, length) in parts {
                    file.seek(SeekFrom::Start(*offset)).context("writing a sparse file")?;
                    self.copy(data, &mut file, *length)?;
                }
                file.set_len(member.size).context("writing a sparse file")?;
            }
        }
        self.done.bytes += member.size;
        Ok(())
    }

    fn copy(&mut self, from: &mut dyn Read, to: &mut File, length: u64) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let read = match from.read(&mut self.buffer[..most]) {
                Ok(0) => bail!("the archive ends in the middle of it"),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading the archive"),
            };
            to.write_all(&self.buffer[..read]).context("writing the file")?;
            left -= read as u64;
            if interrupted() {
                return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
            }
        }
        Ok(())
    }

    fn attributes(&mut self, member: &Member) -> Result<Attributes> {
        // The greatest number means "as it is" to the kernel.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).context("its owner is no user id");
        let mut xattrs: Vec<(OsString, Vec<u8>)> =
            member.xattrs.iter().filter(|(name, _)| !is_overlay_mark(name)).cloned().collect();
        for (text, name) in member.acls.iter().zip([acl::ACCESS, acl::DEFAULT]) {
            if let Some(text) = text
                && !xattrs.iter().any(|(known, _)| known == name)
            {
                xattrs.push((name.into(), self.acl(text)?));
            }
        }
        Ok(Attributes {
            uid: id(member.uid)?,
            gid: id(member.gid)?,
            mode: member.mode,
            modified: Some(member.modified),
            xattrs,
        })
    }

    fn acl(&mut self, text: &str) -> Result<Vec<u8>> {
        if self.accounts.is_none() {
            self.accounts = Some(Accounts::of(self.into)?);
        }
        let accounts = self.accounts.as_ref();
        let lookup = |name: &str, who| match who {
            Who::User => accounts?.user(name),
            Who::Group => accounts?.group(name),
        };
        acl::from_text(text, &lookup).map_err(|part| {
            Fault::failed(format!("its ACL has `{part}`, which names nobody in the root or makes no sense")).into()
        })
    }

    /// Sets attributes. Of those that only the kernel's own modules use (SELinux's and kin), what it
    /// does not let us set is noted and left out.
    fn apply(&mut self, slot: &Slot, attributes: &Attributes) -> Result<()> {
        let (optional, needed): (Vec<_>, Vec<_>) = attributes.xattrs.iter().cloned().partition(|(name, _)| {
            let name = name.as_bytes();
            name.starts_with(b"trusted.") || (name.starts_with(b"security.") && name != b"security.capability")
        });
        let modified = attributes.modified;
        slot.apply(&Attributes { xattrs: needed, modified: None, ..*attributes })?;
        for (name, value) in optional {
            if slot.set_xattr(&name, &value).is_err() {
                self.done.attributes_left_out.insert(name.to_string_lossy().into_owned());
            }
        }
        modified.map_or(Ok(()), |(seconds, nanoseconds)| slot.set_modified(seconds, nanoseconds))
    }

    fn finish(self) -> Result<Unpacked> {
        for (path, (seconds, nanoseconds)) in self.directories.iter().rev() {
            let slot = self.into.slot(path)?;
            // A later member may have taken its place.
            if slot.kind()? == Some(Kind::Directory) {
                slot.set_modified(*seconds, *nanoseconds)?;
            }
        }
        Ok(self.done)
    }
}

fn device(slot: &Slot, kind: SFlag, (major, minor): (u64, u64)) -> Result<()> {
    if (major, minor) == (0, 0) {
        bail!("is a device 0:0, which overlayfs takes for the mark of a removed file");
    }
    slot.create_node(kind, makedev(major, minor)).map_err(|error| {
        if error.downcast_ref::<Errno>() == Some(&Errno::EPERM) {
            Fault::machine(format!("{} is a device node, which only root may make", slot.shown().display()))
                .hint("build as root, or take the node out of the archive")
                .into()
        } else {
            error
        }
    })
}

/// A member's name as a path that goes only down: `/` at its start is dropped as tar does, `..` refused.
fn safe(name: &OsStr) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => {
                return Err(Fault::failed(format!("`{}` leads out by `..`", name.to_string_lossy())).into());
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}
