//! What an initramfs holds.
//!
//! One archive or several, one after the other: cpio's format `newc`, each compressed or not, with zeros between
//! them (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Cursor, Read};

use anyhow::{Context, Result, bail};
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use crate::build::archive::Compression;

/// Files of an initramfs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initrd {
    /// Paths of all that is in it, without a slash at their beginning.
    pub names: BTreeSet<String>,
    /// What some small files say: lists of modules, settings.
    pub texts: BTreeMap<String, String>,
}

/// Bytes of a member's header, and of the numbers in it.
const HEADER: usize = 110;
const MAGIC: usize = 6;

/// Name of the last member.
const TRAILER: &str = "TRAILER!!!";

/// No path is longer (PATH_MAX of Linux).
const LONGEST_NAME: u64 = 4096;

/// Text files that are kept, by a part of their names: lists of modules, and initramfs-tools' settings. None is larger.
const TEXTS: [&str; 4] = ["/modules.builtin", "conf/conf.d/", "conf/param.conf", "conf/initramfs.conf"];
const LARGEST_TEXT: u64 = 1 << 20;

/// How LZ4 begins in the form that kernels read (lz4_Frame_format.md, "Legacy frame"), and the largest of its blocks.
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_BLOCK: usize = 8 << 20;

/// What a decompressor may take.
const MEMORY: u64 = 1 << 30;

impl Initrd {
    /// Reads it to its end. Fails where it is not of the kernel's form, or compressed in a way that is not known here.
    pub fn read(bytes: impl Read) -> Result<Self> {
        let mut found = Self::default();
        let mut rest: Box<dyn BufRead + '_> = Box::new(BufReader::with_capacity(1 << 16, bytes));
        found.archives(&mut rest, true)?;
        if found.names.is_empty() {
            bail!("there is no archive in it");
        }
        Ok(found)
    }

    fn archives(&mut self, mut rest: &mut (dyn BufRead + '_), decompress: bool) -> Result<()> {
        loop {
            let mut start = [0; MAGIC];
            loop {
                match rest.fill_buf()?.first() {
                    None => return Ok(()),
                    Some(0) => rest.consume(1),
                    Some(_) => break,
                }
            }
            rest.read_exact(&mut start).context("its last archive ends too early")?;
            let mut all = Cursor::new(start).chain(&mut rest);
            match Compression::by_content(&start) {
                None if decompress && start.starts_with(&LZ4_LEGACY) => {
                    let unpacked = lz4(&mut all)?;
                    self.archives(&mut &unpacked[..], false)?;
                }
                None if start.starts_with(b"07070") => self.members(&mut all)?,
                Some(how) if decompress => {
                    let decoder: Box<dyn Read + '_> = match how {
                        Compression::Gz => Box::new(flate2::bufread::GzDecoder::new(&mut all)),
                        Compression::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(&mut all)),
                        Compression::Zstd => {
                            Box::new(zstd::stream::read::Decoder::with_buffer(&mut all)?.single_frame())
                        }
                        Compression::Xz => {
                            Box::new(XzDecoder::new_stream(&mut all, Stream::new_stream_decoder(MEMORY, 0)?))
                        }
                        Compression::Lzma => {
                            Box::new(XzDecoder::new_stream(&mut all, Stream::new_lzma_decoder(MEMORY)?))
                        }
                        _ => bail!("it is compressed by {}, which is not read here", how.name()),
                    };
                    let mut inner = BufReader::with_capacity(1 << 16, decoder);
                    self.archives(&mut inner, false)?;
                    io::copy(&mut inner, &mut io::sink())?;
                }
                _ => bail!("it has a part that is no archive"),
            }
        }
    }

    /// The members of one archive.
    fn members(&mut self, archive: &mut dyn Read) -> Result<()> {
        // Where the member stands: names and contents end at multiples of four.
        let mut at = 0;
        loop {
            let mut header = [0; HEADER];
            archive.read_exact(&mut header).context("an archive ends too early")?;
            if !matches!(&header[..MAGIC], b"070701" | b"070702") {
                bail!("a member of an archive is not in the format `newc`");
            }
            // c_filesize and c_namesize are the seventh and the twelfth of the numbers.
            let (size, name_size) = (number(&header, 6)?, number(&header, 11)?);
            if name_size > LONGEST_NAME {
                bail!("a member's name has {name_size} bytes");
            }
            let mut name = Vec::new();
            archive.take(name_size).read_to_end(&mut name)?;
            at += HEADER as u64 + name_size;
            at += skip(archive, at.next_multiple_of(4) - at)?;
            while name.pop_if(|last| *last == 0).is_some() {}
            let name = String::from_utf8_lossy(&name).into_owned();
            if name == TRAILER {
                return Ok(());
            }
            let name = name.trim_start_matches("./").trim_start_matches('/').to_owned();
            if size <= LARGEST_TEXT && TEXTS.iter().any(|part| name.contains(part)) {
                let mut text = Vec::new();
                archive.take(size).read_to_end(&mut text)?;
                self.texts.insert(name.clone(), String::from_utf8_lossy(&text).into_owned());
            } else if skip(archive, size)? < size {
                bail!("an archive ends too early");
            }
            at += size;
            at += skip(archive, at.next_multiple_of(4) - at)?;
            self.names.insert(name);
        }
    }

    /// Whether a file has this path, or one below /usr.
    pub fn has(&self, path: &str) -> bool {
        self.names.contains(path) || self.names.contains(&format!("usr/{path}"))
    }

    /// The value of initramfs-tools' settings of this name, each.
    pub fn settings<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.texts.values().flat_map(|text| text.lines());
        let values = lines.filter_map(move |line| line.trim().strip_prefix(name)?.strip_prefix('='));
        values.map(|value| value.trim_matches(['"', '\'']))
    }

    /// Whether there may be modules in it that are not where the kernel's programs look for them: in images of their own,
    /// or loaded by name.
    pub fn has_modules_elsewhere(&self) -> bool {
        const IMAGES: [&str; 4] = [".img", ".squashfs", ".erofs", ".sfs"];
        self.names.iter().any(|name| {
            (module_name(name).is_some() && of_kernel(name).is_none()) || IMAGES.iter().any(|end| name.ends_with(end))
        })
    }

    /// Kernels that it has modules for.
    pub fn kernels(&self) -> BTreeSet<&str> {
        self.names.iter().filter_map(|name| of_kernel(name)).map(|(version, _)| version).collect()
    }

    /// Modules of a kernel by their names, with `_` only.
    pub fn modules(&self, kernel: &str) -> BTreeSet<String> {
        let paths = self.names.iter().filter_map(|name| of_kernel(name)).filter(|(version, _)| *version == kernel);
        paths.filter_map(|(_, path)| module_name(path)).collect()
    }

    /// What a file of a kernel's directory says.
    pub fn text_of(&self, kernel: &str, name: &str) -> Option<&str> {
        let is = |path: &str| of_kernel(path) == Some((kernel, name));
        self.texts.iter().find(|(path, _)| is(path)).map(|(_, text)| text.as_str())
    }
}

/// The name of a module by its file's, `None` for other files.
pub fn module_name(path: &str) -> Option<String> {
    let (name, ending) = path.rsplit('/').next()?.split_once(".ko")?;
    matches!(ending, "" | ".gz" | ".xz" | ".zst").then(|| name.replace('-', "_"))
}

/// The kernel of a path below lib/modules, and the path in its directory.
fn of_kernel(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("usr/").unwrap_or(name).strip_prefix("lib/modules/")?.split_once('/')
}

/// All blocks of LZ4's form for kernels, to the end of the file.
fn lz4(packed: &mut dyn Read) -> Result<Vec<u8>> {
    packed.read_exact(&mut [0; 4])?;
    let mut unpacked = Vec::new();
    loop {
        let mut size = [0; 4];
        match packed.read_exact(&mut size) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(unpacked),
            read => read?,
        }
        let length = u64::from(u32::from_le_bytes(size));
        if size == LZ4_LEGACY {
            continue;
        }
        if length == 0 || length > 2 * LZ4_BLOCK as u64 {
            return Ok(unpacked);
        }
        let mut block = Vec::new();
        packed.take(length).read_to_end(&mut block)?;
        unpacked.extend(lz4_flex::block::decompress(&block, LZ4_BLOCK).context("its LZ4 is damaged")?);
    }
}

fn number(header: &[u8; HEADER], index: usize) -> Result<u64> {
    let digits = &header[MAGIC + 8 * index..MAGIC + 8 * (index + 1)];
    let digits = std::str::from_utf8(digits).context("a member's header has no numbers")?;
    u64::from_str_radix(digits, 16).context("a member's header has no numbers")
}

fn skip(archive: &mut dyn Read, length: u64) -> io::Result<u64> {
    io::copy(&mut archive.take(length), &mut io::sink())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// An archive in the format `newc`.
    pub(crate) fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut all = Vec::new();
        for (name, contents) in files.iter().copied().chain([(TRAILER, "")]) {
            all.extend(b"070701");
            let numbers = [1, 0o100_644, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
            numbers.iter().for_each(|number| all.extend(format!("{number:08X}").bytes()));
            all.extend(name.bytes().chain([0]));
            all.resize(all.len().next_multiple_of(4), 0);
            all.extend(contents.bytes());
            all.resize(all.len().next_multiple_of(4), 0);
        }
        all
    }

    fn compressed(how: Compression, bytes: &[u8]) -> Vec<u8> {
        match how {
            Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Compression::Xz => liblzma::encode_all(bytes, 1).unwrap(),
            Compression::Gz => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => bytes.to_vec(),
        }
    }

    #[test]
    fn archives_follow_each_other_compressed_and_not() {
        let early = archive(&[
            ("kernel/x86/microcode/AuthenticAMD.bin", "micro"),
            ("./usr/lib/modules/6.1/kernel/a-b.ko", "a"),
        ]);
        let main = archive(&[
            ("usr/lib/modules/6.1/kernel/fs/ext4.ko.xz", "x"),
            ("lib/modules/6.1/modules.builtin", "kernel/fs/fat.ko\n"),
            ("init", "#!/bin/sh"),
        ]);
        for how in [Compression::None, Compression::Gz, Compression::Xz, Compression::Zstd] {
            let mut all = early.clone();
            all.resize(all.len().next_multiple_of(512), 0);
            all.extend(compressed(how, &main));
            all.extend(compressed(how, &archive(&[("last", "")])));
            all.extend([0; 100]);
            let found = Initrd::read(&all[..]).unwrap();
            assert_eq!(found.modules("6.1"), ["a_b", "ext4"].map(String::from).into());
            assert_eq!(found.kernels(), ["6.1"].into());
            assert_eq!(found.text_of("6.1", "modules.builtin"), Some("kernel/fs/fat.ko\n"));
            assert!(found.has("init") && found.has("last"), "{how:?}");
        }
    }

    #[test]
    fn what_is_no_archive_is_not_taken_for_an_empty_one() {
        let whole = archive(&[("init", "#!/bin/sh")]);
        let packed = lz4_flex::block::compress(&whole);
        let lz4 = [&LZ4_LEGACY[..], &u32::try_from(packed.len()).unwrap().to_le_bytes(), &packed].concat();
        assert!(Initrd::read(&lz4[..]).unwrap().has("init"));
        for bytes in [&b""[..], b"\0\0\0\0", b"initrd", &whole[..60], &whole[..114], b"\x02\x21\x4c\x18lz4 of old"] {
            assert!(Initrd::read(bytes).is_err(), "{bytes:?}");
        }
        assert!(Initrd::read(&[&whole[..], b"garbage"].concat()[..]).is_err());
    }
}
