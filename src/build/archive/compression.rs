//! Compressions: their names, how they are recognised, both directions.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use liblzma::stream::{CONCATENATED, Check, LzmaOptions, MtStreamBuilder, Stream};

use super::external;
use super::parallel;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// bzip2.
    Bzip2,
    /// gzip.
    Gz,
    /// lzip.
    Lzip,
    /// The format before xz.
    Lzma,
    /// lzop.
    Lzop,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// Not at all.
    None,
}

/// Bytes of input that are compressed independently of all others, so that several threads can work
/// and the result does not depend on how many do.
const XZ_BLOCK: u64 = 24 << 20;

/// What the command line tools take where they are not told.
const XZ_PRESET: u32 = 6;
const GZ_LEVEL: u32 = 6;
const BZIP2_LEVEL: u32 = 9;
const ZSTD_LEVEL: i32 = 3;
/// What one thread compresses at a time; each holds several of these in memory.
const ZSTD_JOB: u32 = 4 << 20;

/// Windows of up to 2 GiB, as written by `zstd --long=31`.
const ZSTD_LARGEST_WINDOW: u32 = 31;

const MEMORY_LIMIT: u64 = u64::MAX;

/// How a file is to be compressed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effort {
    /// One of [`Compression::levels`]; `None` for what the command line tools take.
    pub level: Option<u32>,
    /// How many compress at a time.
    pub threads: usize,
    /// Bytes to come, where that is known; formats that can say so do.
    pub size: Option<u64>,
}

/// Takes bytes, and the end of them.
pub(super) trait Sink: Write {
    /// Writes what is left and returns the file.
    fn finish(self: Box<Self>) -> io::Result<File>;
}

impl Compression {
    /// All, by their names in a recipe.
    pub const ALL: [(&'static str, Self); 8] = [
        ("bzip2", Self::Bzip2),
        ("gz", Self::Gz),
        ("lzip", Self::Lzip),
        ("lzma", Self::Lzma),
        ("lzop", Self::Lzop),
        ("none", Self::None),
        ("xz", Self::Xz),
        ("zstd", Self::Zstd),
    ];

    /// By its name in a recipe.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, compression)| *compression)
    }

    /// What names of files that are compressed so end in, without the dot.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Bzip2 => "bz2",
            Self::Gz => "gz",
            Self::Lzip => "lz",
            Self::Lzma => "lzma",
            Self::Lzop => "lzo",
            Self::Xz => "xz",
            Self::Zstd => "zst",
            Self::None => "",
        }
    }

    /// How hard it can try, from fast to small, where one can choose.
    pub fn levels(self) -> Option<RangeInclusive<u32>> {
        match self {
            Self::Bzip2 | Self::Gz => Some(1..=9),
            Self::Xz => Some(0..=9),
            Self::Zstd => Some(1..=22),
            Self::Lzip | Self::Lzma | Self::Lzop | Self::None => None,
        }
    }

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, compression)| *compression == self).map_or("", |(name, _)| name)
    }

    /// By the ending of a file's name, as tar's `--auto-compress` has it; not compressed where it is
    /// none of those.
    pub fn by_ending(file_name: &str) -> Self {
        let ending = file_name.rsplit_once('.').map_or("", |(_, ending)| ending);
        match ending {
            "gz" | "tgz" | "taz" => Self::Gz,
            "bz2" | "tbz" | "tbz2" | "tz2" => Self::Bzip2,
            "lz" => Self::Lzip,
            "lzma" | "tlz" => Self::Lzma,
            "lzo" => Self::Lzop,
            "xz" | "txz" => Self::Xz,
            "zst" | "tzst" => Self::Zstd,
            _ => Self::None,
        }
    }

    /// By the first bytes of a file; `None` where they are those of no compression.
    pub fn by_content(start: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Compression); 7] = [
            (b"\x1f\x8b", Compression::Gz),
            (b"BZh", Compression::Bzip2),
            (b"LZIP", Compression::Lzip),
            (b"\x89LZO\x00\r\n\x1a\n", Compression::Lzop),
            (b"\xfd7zXZ\x00", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            // No magic number, but so begins every file of its usual settings (lc=3, lp=0, pb=2).
            (b"\x5d\x00\x00", Compression::Lzma),
        ];
        let skippable_zstd_frame = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == *b"\x2a\x4d\x18";
        if skippable_zstd_frame {
            return Some(Self::Zstd);
        }
        MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, compression)| *compression)
    }

    /// The host program that does it and its package, where no library does.
    pub fn program(self, reading: bool) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Lzop => Some(("lzop", "lzop")),
            Self::Lzip if !reading => Some(("lzip", "lzip")),
            _ => None,
        }
    }

    /// Reads `length` bytes of a file (or to its end) that are compressed so.
    pub fn reader(self, file: File, length: u64) -> Result<Box<dyn Read>> {
        if self == Self::Lzop {
            return Ok(Box::new(external::Reader::start("lzop", "lzop", &["-dc"], file)?));
        }
        let file = BufReader::with_capacity(1 << 16, file.take(length));
        let xz = |stream: Result<Stream, liblzma::stream::Error>, file| -> Result<Box<dyn Read>> {
            let stream = stream.context("starting the decompression")?;
            Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(file, stream)))
        };
        Ok(match self {
            Self::None | Self::Lzop => Box::new(file),
            Self::Gz => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
            Self::Lzip => xz(Stream::new_lzip_decoder(MEMORY_LIMIT, CONCATENATED), file)?,
            Self::Lzma => xz(Stream::new_lzma_decoder(MEMORY_LIMIT), file)?,
            Self::Xz => xz(Stream::new_stream_decoder(MEMORY_LIMIT, CONCATENATED), file)?,
            Self::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(file).context("starting the decompression")?;
                decoder.window_log_max(ZSTD_LARGEST_WINDOW).context("starting the decompression")?;
                Box::new(decoder)
            }
        })
    }

    /// Compresses into a file, the same bytes whatever the number of threads.
    pub(super) fn writer(self, file: File, effort: Effort) -> Result<Box<dyn Sink>> {
        let (level, threads) = (effort.level, effort.threads.max(1));
        let starting = "starting the compression";
        Ok(match self {
            Self::None => Box::new(BufWriter::with_capacity(1 << 20, file)),
            Self::Gz => Box::new(
                parallel::Writer::<parallel::Gz>::new(file, level.unwrap_or(GZ_LEVEL), threads).context(starting)?,
            ),
            Self::Bzip2 => {
                let level = level.unwrap_or(BZIP2_LEVEL);
                Box::new(parallel::Writer::<parallel::Bzip2>::new(file, level, threads).context(starting)?)
            }
            Self::Zstd => {
                let level = level.map_or(ZSTD_LEVEL, u32::cast_signed);
                let mut encoder = zstd::stream::write::Encoder::new(file, level).context(starting)?;
                encoder.set_pledged_src_size(effort.size).context(starting)?;
                // Without any worker zstd cuts its blocks elsewhere.
                encoder.multithread(u32::try_from(threads).unwrap_or(1)).context(starting)?;
                encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB)).context(starting)?;
                encoder.include_checksum(true).context(starting)?;
                Box::new(encoder)
            }
            Self::Xz => {
                let preset = level.unwrap_or(XZ_PRESET);
                let stream = MtStreamBuilder::new()
                    .threads(u32::try_from(threads).unwrap_or(1))
                    // Three dictionaries, as xz has it; those of the presets above 6 are 16 to 64 MiB.
                    .block_size(XZ_BLOCK << preset.saturating_sub(XZ_PRESET))
                    .preset(preset)
                    .check(Check::Crc64)
                    .encoder()
                    .context(starting)?;
                Box::new(liblzma::write::XzEncoder::new_stream(file, stream))
            }
            Self::Lzma => {
                let options = LzmaOptions::new_preset(XZ_PRESET).context(starting)?;
                let stream = Stream::new_lzma_encoder(&options).context(starting)?;
                Box::new(liblzma::write::XzEncoder::new_stream(file, stream))
            }
            Self::Lzip => Box::new(external::Writer::start("lzip", "lzip", &["-c", "-6"], file)?),
            Self::Lzop => {
                let writer = external::Writer::start("lzop", "lzop", &["-c", "--no-name", "--no-time"], file)?;
                Box::new(writer.after(external::undate_lzop))
            }
        })
    }
}

impl Sink for BufWriter<File> {
    fn finish(self: Box<Self>) -> io::Result<File> {
        self.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Sink for zstd::stream::write::Encoder<'static, File> {
    fn finish(self: Box<Self>) -> io::Result<File> {
        (*self).finish()
    }
}

impl Sink for liblzma::write::XzEncoder<File> {
    fn finish(self: Box<Self>) -> io::Result<File> {
        (*self).finish()
    }
}
