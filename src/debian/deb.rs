//! Reading .deb files (deb(5)): an ar(5) archive of a version, control files and a file system archive.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::deb822::{self, Paragraph};

/// Most bytes that control files of one package may have together.
const CONTROL_LIMIT: u64 = 64 << 20;
const BUFFER: usize = 128 << 10;
/// The most memory that a member's decompression may want, in bytes.
const MEMORY: u64 = 512 << 20;

/// A .deb file whose archive was looked through.
#[derive(Debug, Clone)]
pub struct Deb {
    path: PathBuf,
    control: Member,
    data: Member,
}

/// Where a member stands in the archive.
#[derive(Debug, Clone, Copy)]
struct Member {
    offset: u64,
    size: u64,
    compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Lzma,
}

/// A file of the control archive, such as `postinst`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// Without directory.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Its bytes.
    pub contents: Vec<u8>,
}

impl Deb {
    /// Opens a .deb file and finds its members.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = || format!("reading {}", path.display());
        let mut file = File::open(path).with_context(shown)?;
        Self::find_members(path, &mut file).with_context(shown)
    }

    fn find_members(path: &Path, file: &mut File) -> Result<Self> {
        let end = file.metadata()?.len();
        let mut magic = [0; 8];
        file.read_exact(&mut magic).context("the file is too short for a .deb")?;
        ensure!(&magic == b"!<arch>\n", "it is no ar archive, so no .deb");
        let (mut control, mut data) = (None, None);
        let mut offset = 8;
        while offset + 60 <= end {
            file.seek(SeekFrom::Start(offset))?;
            let mut header = [0; 60];
            file.read_exact(&mut header)?;
            ensure!(header[58..] == *b"`\n", "a damaged ar header at byte {offset}");
            let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim_end().to_owned();
            let name = text(0..16).trim_end_matches('/').to_owned();
            let size: u64 = text(48..58).parse().context("an ar member without a size")?;
            offset += 60;
            ensure!(offset.checked_add(size).is_some_and(|member_end| member_end <= end), "`{name}` is cut off");
            if let Some(suffix) = name.strip_prefix("control.tar") {
                control = Some(Member { offset, size, compression: Compression::of_suffix(suffix)? });
            } else if let Some(suffix) = name.strip_prefix("data.tar") {
                data = Some(Member { offset, size, compression: Compression::of_suffix(suffix)? });
            }
            // Members start at even offsets.
            offset += size + size % 2;
        }
        Ok(Self {
            path: path.to_owned(),
            control: control.context("it has no control.tar")?,
            data: data.context("it has no data.tar")?,
        })
    }

    /// The file itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file system archive as it is stored: how much work its extraction is.
    pub fn data_size(&self) -> u64 {
        self.data.size
    }

    /// All control files, `control` among them.
    pub fn control_files(&self) -> Result<Vec<ControlFile>> {
        self.read_control_files().with_context(|| format!("reading the control files of {}", self.path.display()))
    }

    fn read_control_files(&self) -> Result<Vec<ControlFile>> {
        let mut archive = tar::Archive::new(self.member(self.control)?.take(CONTROL_LIMIT));
        let mut files = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path()?.into_owned();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                bail!("a control file with a name that is no UTF-8");
            };
            let (name, mode, mtime) = (name.to_owned(), entry.header().mode()? & 0o7777, entry.header().mtime()?);
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents)?;
            files.push(ControlFile { name, mode, mtime: i64::try_from(mtime)?, contents });
        }
        Ok(files)
    }

    /// The fields of its `control` file.
    pub fn control(&self) -> Result<Paragraph> {
        control_of(&self.control_files()?).with_context(|| format!("reading {}", self.path.display()))
    }

    /// The file system archive, decompressed: a tar archive.
    pub fn data(&self) -> Result<Box<dyn Read + Send>> {
        self.member(self.data)
    }

    /// Writes the same package with nothing compressed, which dpkg unpacks in a fraction of the time;
    /// all the more where it is emulated.
    pub fn write_stored(&self, to: &Path) -> Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, File::create(to)?);
        out.write_all(b"!<arch>\n")?;
        add_member(&mut out, "debian-binary", &mut &b"2.0\n"[..])?;
        add_member(&mut out, "control.tar", &mut self.member(self.control)?)?;
        add_member(&mut out, "data.tar", &mut self.member(self.data)?)?;
        out.flush().map_err(Into::into)
    }

    fn member(&self, member: Member) -> Result<Box<dyn Read + Send>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(member.offset))?;
        member.compression.decode(file.take(member.size))
    }
}

/// The fields of the `control` file among a package's control files.
pub fn control_of(files: &[ControlFile]) -> Result<Paragraph> {
    let control = files.iter().find(|file| file.name == "control").context("it has no control file")?;
    let mut paragraphs = deb822::parse(&String::from_utf8_lossy(&control.contents)).context("its control file")?;
    ensure!(paragraphs.len() == 1, "its control file has {} paragraphs instead of one", paragraphs.len());
    Ok(paragraphs.remove(0))
}

/// Appends a member to an ar archive.
fn add_member(out: &mut BufWriter<File>, name: &str, contents: &mut dyn Read) -> Result<()> {
    let header = out.stream_position()?;
    out.write_all(&[b' '; 60])?;
    let size = io::copy(contents, out)?;
    let end = out.stream_position()?;
    out.seek(SeekFrom::Start(header))?;
    writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 100_644)?;
    out.seek(SeekFrom::Start(end))?;
    if size % 2 == 1 {
        out.write_all(b"\n")?;
    }
    Ok(())
}

impl Compression {
    fn of_suffix(suffix: &str) -> Result<Self> {
        Ok(match suffix {
            "" => Self::None,
            ".gz" => Self::Gzip,
            ".xz" => Self::Xz,
            ".zst" => Self::Zstd,
            ".bz2" => Self::Bzip2,
            ".lzma" => Self::Lzma,
            other => bail!("its members are compressed in an unknown way (`{other}`)"),
        })
    }

    fn decode(self, file: Take<File>) -> Result<Box<dyn Read + Send>> {
        let input = BufReader::with_capacity(BUFFER, file);
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Lzma => {
                let stream = liblzma::stream::Stream::new_lzma_decoder(MEMORY)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, contents) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o755);
            header.set_mtime(7);
            builder.append_data(&mut header, name, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn ar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = b"!<arch>\n".to_vec();
        for (name, contents) in members {
            writeln!(archive, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", contents.len()).unwrap();
            archive.extend_from_slice(contents);
            if contents.len() % 2 == 1 {
                archive.push(b'\n');
            }
        }
        archive
    }

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_stored_package_is_the_same_package() {
        let control = tar_of(&[("./control", b"Package: a\nVersion: 1\nArchitecture: all\n")]);
        let data = tar_of(&[("./usr/bin/a", b"A"), ("./usr/bin/b", b"BB")]);
        let packed = liblzma::encode_all(&data[..], 1).unwrap();
        let deb = written(&ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.xz", &packed)]));
        let stored = tempfile::NamedTempFile::new().unwrap();
        Deb::open(deb.path()).unwrap().write_stored(stored.path()).unwrap();
        let plain = ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &data)]);
        assert!(std::fs::read(stored.path()).unwrap() == plain);
    }

    #[test]
    fn reads_each_compression() {
        let control =
            tar_of(&[("./control", b"Package: a\nVersion: 1\nArchitecture: all\n"), ("./postinst", b"#!/bin/sh\n")]);
        let data = tar_of(&[("./usr/bin/a", b"A")]);
        let xz = liblzma::encode_all(&data[..], 1).unwrap();
        let zst = zstd::encode_all(&data[..], 1).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&data).unwrap();
        let gz = gz.finish().unwrap();
        for (name, member) in [("data.tar", &data), ("data.tar.xz", &xz), ("data.tar.zst", &zst), ("data.tar.gz", &gz)]
        {
            let file = written(&ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (name, member)]));
            let deb = Deb::open(file.path()).unwrap();
            assert_eq!(deb.control().unwrap().get("Package"), Some("a"), "{name}");
            assert_eq!(deb.control_files().unwrap()[1].mode, 0o755, "{name}");
            let mut bytes = Vec::new();
            deb.data().unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, data, "{name}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let cut = {
            let mut whole = ar_of(&[("control.tar", b""), ("data.tar", b"123456")]);
            whole.truncate(whole.len() - 4);
            whole
        };
        let cases: [(&[u8], &str); 4] = [
            (b"<html>not found</html>", "no ar archive"),
            (b"", "too short"),
            (&ar_of(&[("debian-binary", b"2.0\n")]), "no control.tar"),
            (&cut, "`data.tar` is cut off"),
        ];
        for (bytes, expected) in cases {
            let file = written(bytes);
            let error = format!("{:#}", Deb::open(file.path()).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
