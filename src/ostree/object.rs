//! Objects of a repository (ostree-core.h; <https://ostreedev.github.io/ostree/formats/>).

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use flate2::read::DeflateDecoder;

use super::gvariant::{array, big_endian, string, tuple_ends};
use super::repository::{Mode, Repository};

/// What a commit says: type `(a{sv}aya(say)sstayay)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The commit before it.
    pub parent: Option<String>,
    /// One line of text.
    pub subject: String,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Checksum of the top directory's names.
    pub tree: String,
    /// Checksum of the top directory's owner and mode.
    pub meta: String,
}

impl Commit {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let (ends, end) = tuple_ends(bytes, 6)?;
        let part = |from: usize, to: usize| bytes.get(from..to).context("a part of the commit is missing");
        let parent = part(ends[0], ends[1])?;
        let time = ends[4].next_multiple_of(8);
        let seconds = part(time, time + 8)?.try_into().map(u64::from_be_bytes)?;
        Ok(Self {
            parent: (!parent.is_empty()).then(|| hex::encode(parent)),
            subject: string(part(ends[2], ends[3])?)?.to_owned(),
            timestamp: seconds,
            tree: checksum(part(time + 8, ends[5])?)?,
            meta: checksum(part(ends[5], end)?)?,
        })
    }
}

/// The names in a directory: type `(a(say)a(sayay))`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// Files and links: name, checksum.
    pub files: Vec<(String, String)>,
    /// Directories: name, checksum of its names, checksum of its owner and mode.
    pub directories: Vec<(String, String, String)>,
}

impl Directory {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let (ends, end) = tuple_ends(bytes, 1)?;
        let mut directory = Self::default();
        for element in array(&bytes[..ends[0]], 1)? {
            let (ends, end) = tuple_ends(element, 1)?;
            directory.files.push((string(&element[..ends[0]])?.to_owned(), checksum(&element[ends[0]..end])?));
        }
        for element in array(&bytes[ends[0]..end], 1)? {
            let (ends, end) = tuple_ends(element, 2)?;
            directory.directories.push((
                string(&element[..ends[0]])?.to_owned(),
                checksum(&element[ends[0]..ends[1]])?,
                checksum(&element[ends[1]..end])?,
            ));
        }
        Ok(directory)
    }
}

fn checksum(bytes: &[u8]) -> Result<String> {
    ensure!(bytes.len() == 32, "a checksum has {} bytes", bytes.len());
    Ok(hex::encode(bytes))
}

/// Extended attributes: name, value.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Owner, mode and attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Kind and permissions as in `st_mode`.
    pub mode: u32,
    /// Extended attributes.
    pub attributes: Attributes,
}

impl Meta {
    /// Of a directory, by its checksum: type `(uuua(ayay))`.
    pub fn of_directory(repository: &Repository, checksum: &str) -> Result<Self> {
        Self::parse(&repository.read(checksum, "dirmeta")?)
            .with_context(|| format!("reading the attributes of a directory, {checksum}"))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let number = |index: usize| big_endian(bytes, index * 4);
        Ok(Self {
            uid: number(0)?,
            gid: number(1)?,
            mode: number(2)?,
            attributes: attributes(bytes.get(12..).unwrap_or_default())?,
        })
    }
}

/// Type `a(ayay)`.
fn attributes(bytes: &[u8]) -> Result<Attributes> {
    array(bytes, 1)?
        .into_iter()
        .map(|element| {
            let (ends, end) = tuple_ends(element, 1)?;
            let name = &element[..ends[0]];
            Ok((name.strip_suffix(&[0]).unwrap_or(name).to_vec(), element[ends[0]..end].to_vec()))
        })
        .collect()
}

/// A file or link of a repository.
pub struct File {
    /// Its owner, mode and attributes.
    pub meta: Meta,
    /// Where a link leads.
    pub target: Option<String>,
    /// Bytes of a regular file.
    pub size: u64,
    contents: Box<dyn Read>,
}

impl File {
    /// By its checksum.
    pub fn open(repository: &Repository, checksum: &str) -> Result<Self> {
        let doing = || format!("reading the file {checksum} of {}", repository.path.display());
        match repository.mode {
            Mode::Archive => Self::archived(repository, checksum).with_context(doing),
            mode => Self::bare(repository, checksum, mode).with_context(doing),
        }
    }

    /// `.filez`: the length of a header, the header `(tuuuusa(ayay))`, and the contents, deflated.
    fn archived(repository: &Repository, checksum: &str) -> Result<Self> {
        let mut file = fs::File::open(repository.object(checksum, "filez"))?;
        let mut start = [0; 8];
        file.read_exact(&mut start)?;
        let length = big_endian(&start, 0)? as usize;
        ensure!(length < 1 << 24, "its header is too long");
        let mut header = vec![0; length];
        file.read_exact(&mut header)?;
        let (ends, end) = tuple_ends(&header, 1)?;
        let size = header.get(..8).and_then(|part| part.try_into().ok()).map(u64::from_be_bytes);
        let target = string(header.get(24..ends[0]).context("its header is too short")?)?;
        Ok(Self {
            meta: Meta {
                uid: big_endian(&header, 8)?,
                gid: big_endian(&header, 12)?,
                mode: big_endian(&header, 16)?,
                attributes: attributes(&header[ends[0]..end])?,
            },
            target: (!target.is_empty()).then(|| target.to_owned()),
            size: size.context("its header has no size")?,
            contents: Box::new(DeflateDecoder::new(file)),
        })
    }

    /// `.file`: the file itself; where the repository is a user's, with its attributes aside and links as files.
    fn bare(repository: &Repository, checksum: &str, mode: Mode) -> Result<Self> {
        let path = repository.object(checksum, "file");
        let stat = path.symlink_metadata()?;
        let meta = match mode {
            Mode::BareUser => Meta::parse(&xattr::get(&path, "user.ostreemeta")?.context("it has no attributes")?)?,
            _ => Meta { uid: stat.uid(), gid: stat.gid(), mode: stat.mode(), attributes: Vec::new() },
        };
        if stat.is_symlink() {
            let target = Some(String::from_utf8_lossy(fs::read_link(&path)?.as_os_str().as_bytes()).into_owned());
            return Ok(Self { meta, target, size: 0, contents: Box::new(std::io::empty()) });
        }
        if meta.mode & 0o170_000 == 0o120_000 {
            let target = fs::read_to_string(&path)?.trim_end_matches('\0').to_owned();
            return Ok(Self { meta, target: Some(target), size: 0, contents: Box::new(std::io::empty()) });
        }
        Ok(Self { meta, target: None, size: stat.len(), contents: Box::new(fs::File::open(&path)?) })
    }

    /// All its bytes.
    pub fn contents(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.contents.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Its bytes, one after the other.
    pub fn reader(self) -> impl Read {
        self.contents
    }
}
