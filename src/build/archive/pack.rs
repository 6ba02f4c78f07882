//! Writing a tree as a tar archive: the same bytes for the same tree, on any machine.
//!
//! Members come in the order of a walk that sorts each directory's names, named `./etc/hostname` as
//! by `tar -C root .`; owners are numbers without names; what a ustar header cannot hold stands in a
//! pax header (xattrs, capabilities, ACLs, long names, large numbers). Files are read ahead on
//! several threads while others are compressed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use super::compression::{Compression, Effort, Sink};
use super::header::{Header, member_name};
use super::sparse::{self, Part};
use super::tar::BLOCK;
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

/// How an archive is written, beside what is in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// What names begin with: `./`, or nothing.
    pub prefix: &'static str,
    /// Whether holes of files are kept as such (pax format 1.0 of GNU tar).
    pub sparse: bool,
    /// No file is dated later, in seconds since 1970.
    pub latest: Option<i64>,
}

impl Style {
    /// As `tar -C root .` does.
    const USUAL: Self = Self { prefix: "./", sparse: true, latest: None };
}

/// A file of a tree.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Below the tree's top; empty for the top.
    pub path: PathBuf,
    pub meta: Metadata,
    /// The first name of a file that has several.
    pub linked: Option<PathBuf>,
}

/// A file to be packed: the top of its tree, and its entry.
pub(crate) type Item<'a> = (&'a Path, &'a Entry);

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
    let items: Vec<Item<'_>> = entries.iter().map(|entry| (tree, entry)).collect();
    write_items(&items, Style::USUAL, sink.as_mut(), &mut |done| progress(done.min(total), total))?;
    let file = sink.finish().context("writing the archive")?;
    let size = file.metadata().context("looking at the archive")?.len();
    Ok(Packed { members: entries.len() as u64, size })
}

/// Packs files into a file, each directory before what is in it, the first of several names before the others;
/// what the archive is without its compression goes into `uncompressed` as well. `progress` is told how many
/// bytes of files are done. The same bytes whatever the number of threads.
pub(crate) fn pack_items(
    items: &[Item<'_>],
    style: Style,
    to: File,
    (compression, level, threads): (Compression, Option<u32>, usize),
    uncompressed: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<File> {
    let mut sink = compression.writer(to, Effort { level, threads, size: None })?;
    let mut both = Both(sink.as_mut(), uncompressed);
    write_items(items, style, &mut both, progress)?;
    sink.finish().context("writing the archive")
}

/// Writes to two.
struct Both<'a>(&'a mut dyn Sink, &'a mut dyn Write);

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes a whole archive.
fn write_items(items: &[Item<'_>], style: Style, to: &mut dyn Write, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let mut done = 0;
    let mut written = 0;
    let (sender, receiver) = sync_channel::<Vec<Result<Ready>>>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for batch in batches(items) {
                let ready = batch.par_iter().map(|item| prepare(*item, style)).collect();
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
                let (header, contents) = write(to, ready?, &mut buffer)?;
                written += header + contents;
                done += contents;
                progress(done);
            }
        }
        anyhow::Ok(())
    })?;
    // Two empty blocks, and a whole record.
    let end = (written + 2 * BLOCK as u64).next_multiple_of(RECORD) - written;
    let zeros = vec![0; usize::try_from(end).context("filling the archive up")?];
    to.write_all(&zeros).context("writing the archive")
}

/// The tree's files, each directory before what is in it, names in order of their bytes.
pub(crate) fn scan(tree: &Path) -> Result<Vec<Entry>> {
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
fn batches<'i, 'e>(items: &'i [Item<'e>]) -> impl Iterator<Item = &'i [Item<'e>]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take(BATCH_FILES)
            .take_while(|(_, entry)| {
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
fn prepare((tree, entry): Item<'_>, style: Style) -> Result<Ready> {
    let path = tree.join(&entry.path);
    let doing = || format!("reading /{}", entry.path.display());
    let mut header = Header::new(style, &entry.path, &entry.meta);
    if let Some(first) = &entry.linked {
        header.link(b'1', &member_name(style, first, false));
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
        return file(header, style, &path, &entry.meta).with_context(doing);
    } else if kind.is_char_device() {
        header.device(b'3', entry.meta.rdev());
    } else if kind.is_block_device() {
        header.device(b'4', entry.meta.rdev());
    } else if kind.is_fifo() {
        header.kind(b'6');
    }
    Ok(Ready { header: header.finish(0), contents: Contents::Nothing })
}

fn file(mut header: Header, style: Style, path: &Path, meta: &Metadata) -> Result<Ready> {
    let size = meta.len();
    let file = File::open(path)?;
    if size <= AHEAD {
        let mut contents = Vec::with_capacity(usize::try_from(size)? + 1);
        (&file).take(size + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 != size {
            bail!("it changed while it was read");
        }
        return Ok(match sparse::parts_of(&contents).filter(|_| style.sparse) {
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
    Ok(match sparse::parts(&file, size)?.filter(|_| style.sparse) {
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
fn write(sink: &mut dyn Write, ready: Ready, buffer: &mut [u8]) -> Result<(u64, u64)> {
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
