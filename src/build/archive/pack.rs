//! Writing a tree as a tar archive: the same bytes for the same tree, on any machine.
//!
//! Members come in the order of a walk that sorts each directory's names, named `./etc/hostname` as
//! by `tar -C root .`; owners are numbers without names; what a ustar header cannot hold stands in a
//! pax header (xattrs, capabilities, ACLs, long names, large numbers). Files are read ahead on
//! several threads while others are compressed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, bail};
use nix::sys::stat::{major, minor};
use rayon::prelude::*;

use super::compression::{Compression, Effort, Sink};
use super::sparse::{self, Part};
use super::tar::BLOCK;
use super::{acl, pax};
use crate::build::inside::xattrs;
use crate::build::interrupted;
use crate::diagnostics::{Fault, FaultKind};

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Members of the archive.
    pub members: u64,
    /// Size of the archive, in bytes.
    pub size: u64,
}

/// Files up to this size are read ahead.
const AHEAD: u64 = 4 << 20;
/// How much is read ahead at a time.
const BATCH: u64 = 4 << 20;
/// And how many files.
const BATCH_FILES: usize = 1024;

/// GNU tar fills archives up to this.
const RECORD: u64 = 20 * BLOCK as u64;

/// Largest numbers that fit the octal fields of a header.
const LARGEST_ID: u64 = 0o7_777_777;
const LARGEST_SIZE: u64 = 0o77_777_777_777;
const LONGEST_NAME: usize = 100;

/// A file of the tree.
struct Entry {
    /// Below the tree's top; empty for the top.
    path: PathBuf,
    meta: Metadata,
    /// The first name of a file that has several.
    linked: Option<PathBuf>,
}

/// A member ready to be written.
struct Ready {
    header: Vec<u8>,
    contents: Contents,
}

enum Contents {
    Nothing,
    Read(Vec<u8>),
    /// To be read while it is written; all of it, or the parts of a sparse file.
    Later {
        file: File,
        path: PathBuf,
        parts: Vec<Part>,
    },
}

/// Packs a directory into a file. `progress` is told how many bytes of files are done, and of how many.
pub fn pack(
    tree: &Path,
    to: File,
    compression: Compression,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Packed> {
    let entries = scan(tree)?;
    let total = entries.iter().map(|entry| entry.meta.len()).sum();
    let mut sink = compression.writer(to, Effort { threads, ..Effort::default() })?;
    let mut done = 0;
    let mut written = 0;
    let (sender, receiver) = sync_channel::<Vec<Result<Ready>>>(1);
    std::thread::scope(|scope| {
        let entries = &entries;
        scope.spawn(move || {
            for batch in batches(entries) {
                let ready = batch.par_iter().map(|entry| prepare(tree, entry)).collect();
                // The receiver is gone when writing failed.
                if sender.send(ready).is_err() {
                    return;
                }
            }
        });
        let mut buffer = vec![0; 1 << 20];
        for batch in receiver {
            for ready in batch {
                if interrupted() {
                    return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
                }
                let (header, contents) = write(sink.as_mut(), ready?, &mut buffer)?;
                written += header + contents;
                done += contents;
                progress(done.min(total), total);
            }
        }
        anyhow::Ok(())
    })?;
    // Two empty blocks, and a whole record.
    let end = (written + 2 * BLOCK as u64).next_multiple_of(RECORD) - written;
    let zeros = vec![0; usize::try_from(end).context("filling the archive up")?];
    sink.write_all(&zeros).context("writing the archive")?;
    let file = sink.finish().context("writing the archive")?;
    let size = file.metadata().context("looking at the archive")?.len();
    Ok(Packed { members: entries.len() as u64, size })
}

/// The tree's files, each directory before what is in it, names in order of their bytes.
fn scan(tree: &Path) -> Result<Vec<Entry>> {
    let meta = fs::symlink_metadata(tree).with_context(|| format!("looking at {}", tree.display()))?;
    if !meta.is_dir() {
        bail!("{} is not a directory", tree.display());
    }
    let mut entries = Vec::new();
    let mut first_names = HashMap::new();
    add(tree, Entry { path: PathBuf::new(), meta, linked: None }, &mut first_names, &mut entries)?;
    Ok(entries)
}

fn add(
    tree: &Path,
    mut entry: Entry,
    first_names: &mut HashMap<(u64, u64), PathBuf>,
    all: &mut Vec<Entry>,
) -> Result<()> {
    let meta = &entry.meta;
    // A socket is nothing without the process that listens.
    if meta.file_type().is_socket() {
        return Ok(());
    }
    if !meta.is_dir() {
        if meta.nlink() > 1 {
            entry.linked = match first_names.entry((meta.dev(), meta.ino())) {
                std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(entry.path.clone());
                    None
                }
            };
        }
        all.push(entry);
        return Ok(());
    }
    let directory = tree.join(&entry.path);
    let path = entry.path.clone();
    all.push(entry);
    let doing = || format!("reading the directory /{}", path.display());
    let mut found: Vec<(OsString, Metadata)> = Vec::new();
    for child in fs::read_dir(&directory).with_context(doing)? {
        let child = child.with_context(doing)?;
        found.push((child.file_name(), child.metadata().with_context(doing)?));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, meta) in found {
        add(tree, Entry { path: path.join(name), meta, linked: None }, first_names, all)?;
    }
    Ok(())
}

/// Cuts the list so that each part is read in one go.
fn batches(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take(BATCH_FILES)
            .take_while(|entry| {
                let fits = bytes == 0 || bytes < BATCH;
                bytes += if entry.meta.len() <= AHEAD { entry.meta.len() } else { 0 };
                fits
            })
            .count();
        let (batch, later) = rest.split_at(count);
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Reads all that there is to say about a file, and the file if it is not too large.
fn prepare(tree: &Path, entry: &Entry) -> Result<Ready> {
    let path = tree.join(&entry.path);
    let doing = || format!("reading /{}", entry.path.display());
    let mut header = Header::new(entry);
    if let Some(first) = &entry.linked {
        header.link(b'1', &member_name(first, false));
        return Ok(Ready { header: header.finish(0), contents: Contents::Nothing });
    }
    for (name, value) in xattrs(&path).with_context(doing)? {
        header.xattr(&name, &value);
    }
    let kind = entry.meta.file_type();
    if kind.is_dir() {
        header.kind(b'5');
    } else if kind.is_symlink() {
        header.link(b'2', fs::read_link(&path).with_context(doing)?.as_os_str().as_bytes());
    } else if kind.is_file() {
        return file(header, &path, &entry.meta).with_context(doing);
    } else if kind.is_char_device() {
        header.device(b'3', entry.meta.rdev());
    } else if kind.is_block_device() {
        header.device(b'4', entry.meta.rdev());
    } else if kind.is_fifo() {
        header.kind(b'6');
    }
    Ok(Ready { header: header.finish(0), contents: Contents::Nothing })
}

fn file(mut header: Header, path: &Path, meta: &Metadata) -> Result<Ready> {
    let size = meta.len();
    let file = File::open(path)?;
    if size <= AHEAD {
        let mut contents = Vec::with_capacity(usize::try_from(size)? + 1);
        (&file).take(size + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 != size {
            bail!("it changed while it was read");
        }
        return Ok(match sparse::parts_of(&contents) {
            None => Ready { header: header.finish(size), contents: Contents::Read(contents) },
            Some(parts) => {
                let mut data = sparse::map_1_0(&parts, size);
                for (offset, length) in parts {
                    data.extend_from_slice(&contents[usize::try_from(offset)?..usize::try_from(offset + length)?]);
                }
                header.sparse(size);
                Ready { header: header.finish(data.len() as u64), contents: Contents::Read(data) }
            }
        });
    }
    let path = path.to_owned();
    Ok(match sparse::parts(&file, size)? {
        None => Ready { header: header.finish(size), contents: Contents::Later { file, path, parts: vec![(0, size)] } },
        Some(parts) => {
            let map = sparse::map_1_0(&parts, size);
            header.sparse(size);
            let data: u64 = parts.iter().map(|(_, length)| length).sum();
            let mut header = header.finish(map.len() as u64 + data);
            header.extend_from_slice(&map);
            Ready { header, contents: Contents::Later { file, path, parts } }
        }
    })
}

/// Writes a member; returns the bytes of its header and of its contents.
fn write(sink: &mut dyn Sink, ready: Ready, buffer: &mut [u8]) -> Result<(u64, u64)> {
    let doing = "writing the archive";
    sink.write_all(&ready.header).context(doing)?;
    let length = match ready.contents {
        Contents::Nothing => 0,
        Contents::Read(contents) => {
            sink.write_all(&contents).context(doing)?;
            contents.len() as u64
        }
        Contents::Later { file, path, parts } => {
            let mut sum = 0;
            for (offset, length) in parts {
                let (mut at, end) = (offset, offset + length);
                while at < end {
                    let want = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
                    let part = &mut buffer[..want];
                    file.read_exact_at(part, at).with_context(|| format!("reading {}", path.display()))?;
                    sink.write_all(part).context(doing)?;
                    at += want as u64;
                    if interrupted() {
                        return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
                    }
                }
                sum += length;
            }
            sum
        }
    };
    let padding = length.wrapping_neg() % BLOCK as u64;
    sink.write_all(&[0; BLOCK][..usize::try_from(padding)?]).context(doing)?;
    Ok((ready.header.len() as u64, length + padding))
}

/// `./etc/hostname`; a directory ends in `/`.
fn member_name(path: &Path, directory: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend_from_slice(path.as_os_str().as_bytes());
    if directory && !path.as_os_str().is_empty() {
        name.push(b'/');
    }
    name
}

/// A member's headers in the making: a ustar header, and before it a pax header if it needs one.
struct Header {
    block: [u8; BLOCK],
    pax: Vec<u8>,
    name: Vec<u8>,
}

impl Header {
    fn new(entry: &Entry) -> Self {
        let meta = &entry.meta;
        let mut header = Self { block: [0; BLOCK], pax: Vec::new(), name: member_name(&entry.path, meta.is_dir()) };
        header.kind(b'0');
        header.block[257..265].copy_from_slice(b"ustar\x0000");
        header.octal(100..108, u64::from(meta.mode() & 0o7777));
        header.number(108..116, "uid", meta.uid().into(), LARGEST_ID);
        header.number(116..124, "gid", meta.gid().into(), LARGEST_ID);
        // Whole seconds: not every file system keeps more.
        match u64::try_from(meta.mtime()) {
            Ok(seconds) => header.number(136..148, "mtime", seconds, LARGEST_SIZE),
            Err(_) => {
                header.octal(136..148, 0);
                header.record("mtime", meta.mtime().to_string().as_bytes());
            }
        }
        header
    }

    fn kind(&mut self, kind: u8) {
        self.block[156] = kind;
    }

    fn link(&mut self, kind: u8, target: &[u8]) {
        self.kind(kind);
        if target.len() > LONGEST_NAME {
            self.record("linkpath", target);
        }
        let short = &target[..target.len().min(LONGEST_NAME)];
        self.block[157..157 + short.len()].copy_from_slice(short);
    }

    fn device(&mut self, kind: u8, device: u64) {
        self.kind(kind);
        self.octal(329..337, major(device));
        self.octal(337..345, minor(device));
    }

    /// ACLs are written twice: as text for those who unpack with `tar --acls`, and as the kernel has
    /// them for those who take all xattrs.
    fn xattr(&mut self, name: &OsStr, value: &[u8]) {
        let key = if name == acl::ACCESS { pax::ACL_ACCESS } else { pax::ACL_DEFAULT };
        if (name == acl::ACCESS || name == acl::DEFAULT)
            && let Some(text) = acl::to_text(value)
        {
            self.record(key, text.as_bytes());
        }
        pax::push(&mut self.pax, &[pax::XATTR.as_bytes(), name.as_bytes()].concat(), value);
    }

    /// Turns it into a sparse file of pax format 1.0, its map at the head of its data.
    fn sparse(&mut self, size: u64) {
        self.record("GNU.sparse.major", b"1");
        self.record("GNU.sparse.minor", b"0");
        let name = self.name.clone();
        self.record("GNU.sparse.name", &name);
        self.record("GNU.sparse.realsize", size.to_string().as_bytes());
        let cut = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        self.name = [&name[..cut], b"GNUSparseFile.0/", &name[cut..]].concat();
    }

    fn record(&mut self, key: &str, value: &[u8]) {
        pax::push(&mut self.pax, key.as_bytes(), value);
    }

    fn octal(&mut self, field: std::ops::Range<usize>, value: u64) {
        let width = field.len() - 1;
        let digits = format!("{value:0width$o}");
        self.block[field.start..field.end - 1].copy_from_slice(digits.as_bytes());
    }

    /// A number that may need a pax record.
    fn number(&mut self, field: std::ops::Range<usize>, key: &str, value: u64, largest: u64) {
        if value > largest {
            self.record(key, value.to_string().as_bytes());
        }
        self.octal(field, value.min(largest));
    }

    /// The bytes of all headers, for a member with so many bytes of data.
    fn finish(mut self, size: u64) -> Vec<u8> {
        self.number(124..136, "size", size, LARGEST_SIZE);
        let name = std::mem::take(&mut self.name);
        if name.len() > LONGEST_NAME {
            self.record("path", &name);
        }
        self.set_name(&name);
        let mut all = Vec::new();
        if !self.pax.is_empty() {
            let mut extension = Self { block: [0; BLOCK], pax: Vec::new(), name: Vec::new() };
            extension.kind(b'x');
            extension.block[257..265].copy_from_slice(b"ustar\x0000");
            extension.octal(100..108, 0o644);
            extension.octal(108..116, 0);
            extension.octal(116..124, 0);
            extension.octal(124..136, self.pax.len() as u64);
            extension.octal(136..148, 0);
            extension.set_name(
                &[b"./PaxHeaders/", name.rsplit(|b| *b == b'/').find(|p| !p.is_empty()).unwrap_or(b"")].concat(),
            );
            extension.set_checksum();
            all.extend_from_slice(&extension.block);
            all.extend_from_slice(&self.pax);
            all.resize(all.len().next_multiple_of(BLOCK), 0);
        }
        self.set_checksum();
        all.extend_from_slice(&self.block);
        all
    }

    fn set_name(&mut self, name: &[u8]) {
        let short = &name[..name.len().min(LONGEST_NAME)];
        self.block[..short.len()].copy_from_slice(short);
    }

    fn set_checksum(&mut self) {
        self.block[148..156].fill(b' ');
        let sum: u32 = self.block.iter().map(|byte| u32::from(*byte)).sum();
        self.block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}
