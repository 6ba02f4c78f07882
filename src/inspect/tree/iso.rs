//! ISO 9660 with Rock Ridge (ECMA-119; IEEE P1282, "Rock Ridge Interchange Protocol").

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::catalogue::Catalogue;
use super::{Entry, EntryKind, Tree};
use crate::inspect::Window;

/// Bytes of a sector.
const SECTOR: u64 = 2048;

/// Directories below each other beyond which an image is not taken seriously.
const DEPTH: usize = 32;

/// Directories larger than this are not, either.
const LARGEST_DIRECTORY: u64 = 16 << 20;

/// The files of an ISO image.
pub struct Iso {
    bytes: Window,
    files: Catalogue<(u64, u64)>,
}

/// A directory record and what Rock Ridge says of it.
struct Record {
    start: u64,
    length: u64,
    directory: bool,
    name: Vec<u8>,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    link: Option<PathBuf>,
}

impl Iso {
    /// Reads its directories.
    pub fn open(bytes: Window) -> Result<Self> {
        let root: [u8; 34] = bytes.array_at(16 * SECTOR + 156).context("reading the ISO image")?;
        let mut iso = Self { bytes, files: Catalogue::new() };
        let root = iso.record(&root).context("reading the ISO image's top directory")?;
        iso.add(&root, Path::new(""), DEPTH)?;
        Ok(iso)
    }

    /// The part of the image that a file's contents are: for file systems in it.
    pub fn window(&self, file: &Path) -> Option<Window> {
        let (entry, (start, length)) = self.files.get(file)?;
        (entry.kind == EntryKind::File).then(|| self.bytes.part(*start, *length))
    }

    fn add(&mut self, directory: &Record, path: &Path, depth: usize) -> Result<()> {
        ensure!(depth > 0, "the ISO image's directories never end");
        ensure!(directory.length <= LARGEST_DIRECTORY, "a directory of the ISO image is too large");
        let mut bytes = vec![0; directory.length as usize];
        self.bytes.read_exact_at(&mut bytes, directory.start).context("reading a directory of the ISO image")?;
        let mut found: Vec<Record> = Vec::new();
        // A record does not cross the end of a sector.
        for sector in bytes.chunks(SECTOR as usize) {
            let mut at = 0;
            while at < sector.len() && sector[at] >= 34 && at + usize::from(sector[at]) <= sector.len() {
                let record = &sector[at..at + usize::from(sector[at])];
                at += record.len();
                let Some(record) = self.record(record) else { continue };
                // Itself, and the one above.
                if record.name == [0] || record.name == [1] {
                    continue;
                }
                match found.last_mut() {
                    // Files of 4 GiB and more have several extents, which lie one behind the other.
                    Some(last) if last.name == record.name && last.start + last.length == record.start => {
                        last.length += record.length;
                    }
                    _ => found.push(record),
                }
            }
        }
        for record in found {
            let path = path.join(OsString::from_vec(record.name.clone()));
            let kind = match &record.link {
                Some(target) => EntryKind::Link(target.clone()),
                None if record.directory => EntryKind::Directory,
                None => EntryKind::File,
            };
            let mode = record.mode.unwrap_or(if record.directory { 0o755 } else { 0o644 });
            let size = if kind == EntryKind::File { record.length } else { 0 };
            let entry = Entry { path: path.clone(), kind, mode: mode & 0o7777, owner: record.owner, size };
            self.files.add(entry, (record.start, record.length));
            if record.directory {
                self.add(&record, &path, depth - 1)?;
            }
        }
        Ok(())
    }

    fn record(&self, bytes: &[u8]) -> Option<Record> {
        let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let name_length = usize::from(*bytes.get(32)?);
        let plain = bytes.get(33..33 + name_length)?;
        let mut record = Record {
            start: u64::from(number(2)?) * SECTOR,
            length: u64::from(number(10)?),
            directory: bytes[25] & 2 != 0,
            name: plain_name(plain),
            mode: None,
            owner: None,
            link: None,
        };
        let system_use = bytes.get(33 + name_length + usize::from(name_length.is_multiple_of(2))..).unwrap_or_default();
        let mut rock = Rock::default();
        rock.read(system_use, &self.bytes, 8);
        if !rock.name.is_empty() && plain != [0] && plain != [1] {
            record.name = rock.name;
        }
        (record.mode, record.owner, record.link) = (rock.mode, rock.owner, rock.link.map(link_target));
        Some(record)
    }
}

/// `VMLINUZ.;1` is vmlinuz.
fn plain_name(name: &[u8]) -> Vec<u8> {
    if name == [0] || name == [1] {
        return name.to_vec();
    }
    let name = name.split(|byte| *byte == b';').next().unwrap_or_default();
    name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase()
}

/// What Rock Ridge says of a file.
#[derive(Default)]
struct Rock {
    name: Vec<u8>,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    /// Parts of the target of a link, with the flags of each.
    link: Option<Vec<(u8, Vec<u8>)>>,
}

impl Rock {
    fn read(&mut self, mut fields: &[u8], disk: &Window, continued: usize) {
        while let [a, b, length, _version, ..] = *fields {
            let length = usize::from(length);
            if length < 4 || length > fields.len() {
                break;
            }
            let data = &fields[4..length];
            let number = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
            match &[a, b] {
                b"NM" if data.len() > 1 => self.name.extend(&data[1..]),
                b"PX" => {
                    self.mode = number(0);
                    self.owner = number(16).zip(number(24));
                }
                b"SL" => {
                    let parts = self.link.get_or_insert_default();
                    let mut rest = data.get(1..).unwrap_or_default();
                    while let [flags, length, ..] = *rest {
                        let end = (2 + usize::from(length)).min(rest.len());
                        parts.push((flags, rest[2..end].to_vec()));
                        rest = &rest[end..];
                    }
                }
                b"CE" if continued > 0 => {
                    if let (Some(block), Some(offset), Some(size)) = (number(0), number(8), number(16)) {
                        let mut more = vec![0; (size as usize).min(SECTOR as usize)];
                        let at = u64::from(block) * SECTOR + u64::from(offset);
                        if disk.read_exact_at(&mut more, at).is_ok() {
                            self.read(&more, disk, continued - 1);
                        }
                    }
                }
                b"ST" => break,
                _ => {}
            }
            fields = &fields[length..];
        }
    }
}

fn link_target(parts: Vec<(u8, Vec<u8>)>) -> PathBuf {
    let mut target = PathBuf::new();
    let mut name = Vec::new();
    for (flags, part) in parts {
        match flags {
            _ if flags & 2 != 0 => target.push("."),
            _ if flags & 4 != 0 => target.push(".."),
            _ if flags & 8 != 0 => target.push("/"),
            _ => {
                name.extend(part);
                // Bit 0: the name goes on in the next part.
                if flags & 1 == 0 {
                    target.push(OsString::from_vec(std::mem::take(&mut name)));
                }
            }
        }
    }
    target
}

impl Tree for Iso {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        Ok(self.files.list(directory))
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let window = self.window(file).with_context(|| format!("{} is not in the ISO image", file.display()))?;
        Ok(Box::new(window))
    }
}
