//! A file of any form as plain bytes.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Window;
use crate::build::archive::Compression;
use crate::build::interrupted;
use crate::diagnostics::{Fault, FaultKind};
use crate::image::sparse;
use crate::store::Scratch;

/// Packs the files of a file system: the directory of both, the image's name in it, as mount(8) calls the kind,
/// and the archive's name.
pub type TakeOut<'a> = dyn Fn(&Path, &str, &str, &str) -> Result<()> + 'a;

/// A scratch directory that is made when something first needs it.
pub struct Workplace<'a> {
    make: Box<dyn Fn() -> Result<Scratch> + 'a>,
    /// How to get at files that only a kernel reads.
    pub take_out: Option<Box<TakeOut<'a>>>,
    made: OnceCell<Scratch>,
}

impl<'a> Workplace<'a> {
    /// With what makes the directory.
    pub fn new(make: impl Fn() -> Result<Scratch> + 'a) -> Self {
        Self { make: Box::new(make), take_out: None, made: OnceCell::new() }
    }

    /// The same with a way to files that only a kernel reads.
    #[must_use]
    pub fn taking_out(self, take_out: impl Fn(&Path, &str, &str, &str) -> Result<()> + 'a) -> Self {
        Self { take_out: Some(Box::new(take_out)), ..self }
    }

    /// The directory.
    pub fn path(&self) -> Result<&Path> {
        if self.made.get().is_none() {
            let _ = self.made.set((self.make)()?);
        }
        Ok(self.made.get().map_or(Path::new(""), |scratch| &scratch.path))
    }

    /// A path in the directory that nothing has yet.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path()?;
        let mut number = 1;
        loop {
            let path = dir.join(format!("{number}-{name}"));
            if path.symlink_metadata().is_err() {
                return Ok(path);
            }
            number += 1;
        }
    }
}

/// How the bytes of a disk lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Format {
    /// One after the other.
    Raw,
    Qcow2,
    Vmdk,
    Vdi,
    Vhdx,
    Vhd,
}

impl Format {
    /// By the first bytes (and the last, of a fixed VHD).
    pub fn of(file: &Window) -> Self {
        let magic: [(u64, &[u8], Self); 6] = [
            (0, b"QFI\xfb", Self::Qcow2),
            (0, b"KDMV", Self::Vmdk),
            (0, b"# Disk DescriptorFile", Self::Vmdk),
            (0x40, b"\x7f\x10\xda\xbe", Self::Vdi),
            (0, b"vhdxfile", Self::Vhdx),
            (file.len().saturating_sub(512), b"conectix", Self::Vhd),
        ];
        magic.iter().find(|(at, magic, _)| file.has(*at, magic)).map_or(Self::Raw, |(.., format)| *format)
    }

    /// qemu's name of it.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vpc",
        }
    }
}

/// A file that can be looked into.
pub struct Source {
    /// As it was named.
    pub path: PathBuf,
    /// How it is compressed.
    pub compression: Compression,
    /// What it is, unpacked.
    pub format: Format,
    /// The file without its compression; the same as `path` where it had none.
    pub unpacked: PathBuf,
    /// The bytes of the disk, file system or archive.
    pub bytes: Window,
}

impl Source {
    /// A layout directory of OCI images: its index.
    pub(super) fn of_layout(path: &Path) -> Result<Self> {
        Self::of_plain_file(path, &path.join("index.json"))
    }

    /// A file that stands for what has another name.
    pub(super) fn of_plain_file(path: &Path, file: &Path) -> Result<Self> {
        let file = File::open(file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self {
            path: path.to_owned(),
            compression: Compression::None,
            format: Format::Raw,
            unpacked: path.to_owned(),
            bytes: Window::whole(file)?,
        })
    }

    /// Opens a file, and writes its bytes out in the workplace where they do not lie plainly in it.
    pub fn open(path: &Path, workplace: &Workplace<'_>) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        let file =
            File::open(path).map_err(|error| Fault::recipe(format!("{} cannot be opened: {error}", path.display())))?;
        if file.metadata().with_context(reading)?.is_dir() {
            return Err(Fault::recipe(format!("{} is a directory", path.display())).into());
        }
        let mut unpacked = path.to_owned();
        let mut bytes = Window::whole(file).with_context(reading)?;
        let compression = compression_of(&bytes);
        if compression != Compression::None {
            unpacked = workplace.fresh("unpacked")?;
            let length = bytes.len();
            let file = bytes.file().try_clone().with_context(reading)?;
            let mut reader = compression.reader(file, length)?;
            let to = File::options().read(true).write(true).create_new(true).open(&unpacked)?;
            write_sparse(&mut reader, &to).with_context(|| format!("unpacking {}", path.display()))?;
            bytes = Window::whole(to)?;
        }
        let format = Format::of(&bytes);
        if format != Format::Raw {
            bytes = Window::whole(File::open(converted(&unpacked, format, workplace)?)?)?;
        }
        Ok(Self { path: path.to_owned(), compression, format, unpacked, bytes })
    }
}

fn compression_of(bytes: &Window) -> Compression {
    let mut start = [0; 16];
    let mut reader = bytes.part(0, 16);
    let read = reader.read(&mut start).unwrap_or(0);
    match Compression::by_content(&start[..read]) {
        // Too short a sign to be trusted with disks.
        Some(Compression::Lzma) | None => Compression::None,
        Some(compression) => compression,
    }
}

/// Writes all that a reader has into an empty file, zeros as holes.
pub(super) fn write_sparse(reader: &mut dyn Read, to: &File) -> Result<()> {
    let mut ended = false;
    let written = sparse::write_data(reader, to, 0, || {
        ended = interrupted();
        if ended { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    if ended {
        return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
    }
    let at = written?;
    to.set_len(at)?;
    (&mut &*to).seek(SeekFrom::Start(0))?;
    Ok(())
}

/// The raw form of a virtual machine's disk.
fn converted(path: &Path, format: Format, workplace: &Workplace<'_>) -> Result<PathBuf> {
    let raw = workplace.fresh("raw")?;
    let output = Command::new("qemu-img")
        .args(["convert", "-f", format.qemu(), "-O", "raw", "--"])
        .arg(path)
        .arg(&raw)
        .output()
        .map_err(|error| {
            Fault::machine(format!("qemu-img, which reads {} files, did not start: {error}", format.qemu()))
                .hint("sudo apt install qemu-utils")
        })?;
    if !output.status.success() {
        let tail = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
        return Err(Fault::failed(format!("qemu-img could not read {}", path.display())).tail(tail).into());
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_become_holes() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 3 << 20];
        bytes[2 << 20] = 1;
        write_sparse(&mut &*bytes, &file).unwrap();
        let stat = file.metadata().unwrap();
        assert_eq!(stat.len(), 3 << 20);
        assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
        let mut back = Vec::new();
        (&mut &file).read_to_end(&mut back).unwrap();
        assert!(back == bytes);
    }
}
