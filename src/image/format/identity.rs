//! Ids and dates that qemu-img makes up, replaced by such as follow from the contents, so that the same
//! image is the same file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

use crate::image::Spec;

/// Formats of virtual machines with something random in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// VMware: a content id in its descriptor, which also has the file's name.
    Vmdk,
    /// VirtualBox: UUIDs of the image and of its last snapshot.
    Vdi,
    /// Hyper-V: GUIDs and numbers in both headers, the page 83 id, a used log.
    Vhdx,
    /// Virtual PC and Azure: a date and a UUID in the footer and its copy.
    Vhd,
}

/// Replaces what is random in an image that qemu-img has just written. `name` is what the file will be
/// called, `epoch` is in seconds since 1970; the rest follows from the image's contents.
pub fn settle(image: &File, format: Format, name: &str, epoch: i64) -> Result<()> {
    let parts = Parts { image, name, epoch };
    parts.write(format, None)?;
    let mut hasher = blake3::Hasher::new();
    let mut reader = BufReader::with_capacity(1 << 20, Reader { file: image, at: 0 });
    std::io::copy(&mut reader, &mut hasher).context("reading the image")?;
    parts.write(format, Some(&hasher.finalize().to_hex()))
}

/// Reads a file whose position others may move.
struct Reader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct Parts<'a> {
    image: &'a File,
    name: &'a str,
    epoch: i64,
}

impl Parts<'_> {
    /// Writes ids made from `seed`, or zeros.
    fn write(&self, format: Format, seed: Option<&str>) -> Result<()> {
        let id = |what: &str| seed.map_or(Uuid::nil(), |seed| Spec::derived_uuid(seed, what));
        match format {
            Format::Vmdk => self.vmdk(id("content").as_fields().0),
            Format::Vdi => self.vdi(id("image"), id("snapshot")),
            Format::Vhdx => self.vhdx([id("file"), id("data"), id("page83")]),
            Format::Vhd => self.vhd(id("disk")),
        }
    }

    fn read<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.image.read_exact_at(&mut bytes, at).context("reading the image's header")?;
        Ok(bytes)
    }

    fn put(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.image.write_all_at(bytes, at).context("writing the image's header")
    }

    /// VMware's "Virtual Disk Format 5.0": the header of a sparse extent names the place of the
    /// descriptor, a text.
    fn vmdk(&self, content: u32) -> Result<()> {
        let header: [u8; 512] = self.read(0)?;
        ensure!(header.starts_with(b"KDMV"), "this is no sparse vmdk");
        let sectors = |at| Ok::<_, anyhow::Error>(u64::from_le_bytes(header[at..at + 8].try_into()?));
        let (offset, size) = (sectors(28)? * 512, sectors(36)? * 512);
        ensure!((1..1 << 20).contains(&size), "the descriptor of the vmdk has {size} bytes");
        let mut descriptor = vec![0; size as usize];
        self.image.read_exact_at(&mut descriptor, offset).context("reading the vmdk's descriptor")?;
        let end = descriptor.iter().position(|byte| *byte == 0).unwrap_or(descriptor.len());
        let text = std::str::from_utf8(&descriptor[..end]).context("reading the vmdk's descriptor")?;
        let mut found = false;
        let mut settled = String::with_capacity(text.len() + 8);
        for line in text.split_inclusive('\n') {
            if line.starts_with("CID=") {
                found = true;
                settled.push_str(&format!("CID={content:08x}\n"));
            } else if let Some((extent, _)) = line.split_once(" SPARSE \"") {
                settled.push_str(&format!("{extent} SPARSE \"{}\"\n", self.name.replace('"', "_")));
            } else {
                settled.push_str(line);
            }
        }
        ensure!(found, "the descriptor of the vmdk has no CID");
        let mut bytes = settled.into_bytes();
        ensure!(bytes.len() <= descriptor.len(), "the descriptor of the vmdk has no room");
        bytes.resize(descriptor.len(), 0);
        self.put(&bytes, offset)
    }

    /// Offsets as in QEMU's block/vdi.c.
    fn vdi(&self, image: Uuid, snapshot: Uuid) -> Result<()> {
        ensure!(self.read(0x40)? == 0xbeda_107f_u32.to_le_bytes(), "this is no vdi");
        self.put(&image.to_bytes_le(), 0x188)?;
        self.put(&snapshot.to_bytes_le(), 0x198)
    }

    /// [MS-VHDX] 2.2 and 2.6: two headers of 4 KiB, of which the one with the larger number counts;
    /// the log; and the metadata region, found by the region table.
    fn vhdx(&self, ids: [Uuid; 3]) -> Result<()> {
        const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
        const REGIONS: u64 = 192 << 10;
        let mut headers = [self.read::<4096>(HEADERS[0])?, self.read::<4096>(HEADERS[1])?];
        let number = |header: &[u8; 4096]| Ok::<_, anyhow::Error>(u64::from_le_bytes(header[8..16].try_into()?));
        let second_counts = number(&headers[1])? > number(&headers[0])?;
        for (index, header) in headers.iter_mut().enumerate() {
            ensure!(header.starts_with(b"head"), "this is no vhdx");
            ensure!(header[48..64] == [0; 16], "the vhdx was not closed: its log is in use");
            header[8..16].copy_from_slice(&u64::from((index == 1) == second_counts).to_le_bytes());
            header[16..32].copy_from_slice(&ids[0].to_bytes_le());
            header[32..48].copy_from_slice(&ids[1].to_bytes_le());
            header[4..8].fill(0);
            let sum = crc32c::crc32c(header.as_slice());
            header[4..8].copy_from_slice(&sum.to_le_bytes());
            self.put(header, HEADERS[index])?;
        }
        // What is in the log was done, and is not read again without a log GUID.
        let log_length = u32::from_le_bytes(headers[0][68..72].try_into()?);
        let log_offset = u64::from_le_bytes(headers[0][72..80].try_into()?);
        ensure!(log_length <= 64 << 20, "the log of the vhdx has {log_length} bytes");
        self.put(&vec![0; log_length as usize], log_offset)?;
        let metadata = self.entry(REGIONS, 16, "8b7ca206-4790-4b9a-b8fe-575f050f886e", |entry| {
            Ok(u64::from_le_bytes(entry[16..24].try_into()?))
        })?;
        let page83 = self.entry(metadata, 32, "beca12ab-b2e6-4523-93ef-c309e000c746", |entry| {
            Ok(metadata + u64::from(u32::from_le_bytes(entry[16..20].try_into()?)))
        })?;
        self.put(&ids[2].to_bytes_le(), page83)
    }

    /// Finds an entry by its GUID in a table whose entries of 32 bytes begin at `first`.
    fn entry(&self, table: u64, first: u64, guid: &str, read: impl Fn(&[u8; 32]) -> Result<u64>) -> Result<u64> {
        const MOST: u64 = 2047;
        let guid = Uuid::parse_str(guid)?.to_bytes_le();
        for index in 0..MOST {
            let entry: [u8; 32] = self.read(table + first + index * 32)?;
            if entry[..16] == guid {
                return read(&entry);
            }
            if entry[..16] == [0; 16] {
                break;
            }
        }
        bail!("a table of the vhdx lacks an entry")
    }

    /// Microsoft's "Virtual Hard Disk Image Format Specification": the footer is the last sector, and of
    /// dynamic disks the first as well. Seconds count from 2000.
    fn vhd(&self, id: Uuid) -> Result<()> {
        const YEAR_2000: i64 = 946_684_800;
        let last = self.image.metadata().context("looking at the image")?.len().saturating_sub(512);
        let mut footer: [u8; 512] = self.read(last)?;
        ensure!(footer.starts_with(b"conectix"), "this is no vhd");
        let copied = self.read::<512>(0)? == footer;
        let seconds = u32::try_from((self.epoch - YEAR_2000).max(0)).unwrap_or(u32::MAX);
        footer[24..28].copy_from_slice(&seconds.to_be_bytes());
        footer[68..84].copy_from_slice(id.as_bytes());
        footer[64..68].fill(0);
        let sum = footer.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
        self.put(&footer, last)?;
        if copied { self.put(&footer, 0) } else { Ok(()) }
    }
}
