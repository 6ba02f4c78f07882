//! The tar format, read: POSIX ustar and pax, GNU with long names and sparse files, and V7
//! (tar(5) of libarchive; GNU tar manual, "Tar Internals").

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, bail};

use super::pax;
use super::sparse::{self, Part};

/// Size of a header and the unit of everything.
pub(super) const BLOCK: usize = 512;

/// Long names and pax headers beyond this are not taken seriously.
const LARGEST_EXTENSION: u64 = 8 << 20;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    HardLink,
    Link,
    Character,
    Block,
    Directory,
    Pipe,
}

/// A member as the archive has it; nothing in it is to be trusted.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub path: OsString,
    pub kind: Type,
    /// Target of a link or hard link.
    pub link: OsString,
    pub uid: u64,
    pub gid: u64,
    pub mode: u32,
    pub modified: (i64, u32),
    /// Of the file once it is unpacked.
    pub size: u64,
    pub device: (u64, u64),
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// ACLs as text: the file's own, and a directory's default.
    pub acls: [Option<String>; 2],
    /// Parts of a sparse file; its data are theirs, one after the other.
    pub sparse: Option<Vec<Part>>,
}

/// Reads an archive's members one after the other.
pub(crate) struct Reader<'a> {
    from: &'a mut dyn Read,
    /// Data of the current member not yet read.
    left: u64,
    /// Bytes that fill up its last block.
    padding: u64,
    /// Values of global pax headers.
    global: Vec<u8>,
}

/// What extension headers say about the next member.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<u8>,
}

/// Whether a block is a header, by its checksum.
pub(crate) fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.first_chunk::<BLOCK>() else { return false };
    let sum: u64 =
        block.iter().enumerate().map(|(i, b)| u64::from(if (148..156).contains(&i) { b' ' } else { *b })).sum();
    // Ancient writers took the bytes as signed.
    let signed: i64 = block
        .iter()
        .enumerate()
        .map(|(i, b)| i64::from(if (148..156).contains(&i) { b' '.cast_signed() } else { b.cast_signed() }))
        .sum();
    number(&block[148..156]).is_ok_and(|said| i128::from(said) == i128::from(sum) || said == signed)
}

/// A numeric field: octal digits, or base 256 with the first bit set.
fn number(field: &[u8]) -> Result<i64> {
    if let Some(first) = field.first()
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        let start: i128 = if negative { -1 } else { 0 };
        let all = field.iter().enumerate().fold(start, |sum, (i, byte)| {
            let byte = if i == 0 && !negative { byte & 0x3f } else { *byte };
            sum.wrapping_shl(8) | i128::from(byte)
        });
        return i64::try_from(all).context("a number is too large");
    }
    let digits: Vec<u8> =
        field.iter().copied().skip_while(|b| *b == b' ').take_while(|b| !matches!(b, 0 | b' ')).collect();
    if digits.is_empty() {
        return Ok(0);
    }
    let digits = std::str::from_utf8(&digits).context("a number is not octal")?;
    i64::from_str_radix(digits, 8).context("a number is not octal")
}

fn unsigned(field: &[u8]) -> Result<u64> {
    u64::try_from(number(field)?).context("a number is negative")
}

fn text(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|b| *b != 0).collect()
}

impl<'a> Reader<'a> {
    pub(crate) fn new(from: &'a mut dyn Read) -> Self {
        Self { from, left: 0, padding: 0, global: Vec::new() }
    }

    /// The next member; `None` at the end, when everything has been read and so all checksums of the
    /// compression were looked at.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        self.skip()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                io::copy(self.from, &mut io::sink()).context("reading what follows the archive's end")?;
                return Ok(None);
            };
            let size = unsigned(&header[124..136]).context("in a header's size")?;
            match header[156] {
                b'L' => extensions.path = Some(text(&self.extension(size)?)),
                b'K' => extensions.link = Some(text(&self.extension(size)?)),
                b'x' | b'X' => extensions.pax = self.extension(size)?,
                b'g' => self.global = self.extension(size)?,
                // A volume's label.
                b'V' => {
                    self.starts(size);
                    self.skip()?;
                }
                _ => return self.member(&header, &extensions).map(Some),
            }
        }
    }

    /// A header; `None` at the end of the archive, marked or not.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => bail!("the archive ends in the middle of a header"),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading the archive"),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !is_header(&block) {
            bail!("a header's checksum is wrong: the archive is damaged or not a tar archive");
        }
        Ok(Some(block))
    }

    fn starts(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Goes on to the next header.
    fn skip(&mut self) -> Result<()> {
        let all = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.from.take(all), &mut io::sink()).context("reading the archive")?;
        if skipped < all { bail!("the archive ends in the middle of a member") } else { Ok(()) }
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LARGEST_EXTENSION {
            bail!("an extension header of {size} bytes is larger than any that makes sense");
        }
        self.starts(size);
        let mut data = Vec::new();
        self.data().read_to_end(&mut data).context("reading the archive")?;
        if (data.len() as u64) < size {
            bail!("the archive ends in the middle of a header");
        }
        self.skip()?;
        Ok(data)
    }

    fn member(&mut self, header: &[u8; BLOCK], extensions: &Extensions) -> Result<Member> {
        let mut path = extensions.path.clone().unwrap_or_else(|| name(header));
        let link = extensions.link.clone().unwrap_or_else(|| text(&header[157..257]));
        let kind = match header[156] {
            // V7 marks a directory by its name alone.
            0 if path.ends_with(b"/") => Type::Directory,
            0 | b'0' | b'7' | b'S' => Type::File,
            b'1' => Type::HardLink,
            b'2' => Type::Link,
            b'3' => Type::Character,
            b'4' => Type::Block,
            b'5' | b'D' => Type::Directory,
            b'6' => Type::Pipe,
            b'M' => bail!("`{}` is continued from another volume", String::from_utf8_lossy(&path)),
            other => bail!("`{}` is of the unknown type `{}`", String::from_utf8_lossy(&path), other.escape_ascii()),
        };
        let shown = String::from_utf8_lossy(&path).into_owned();
        let mut member = Member {
            path: OsString::new(),
            kind,
            link: OsString::from_vec(link),
            uid: unsigned(&header[108..116]).with_context(|| format!("in the owner of `{shown}`"))?,
            gid: unsigned(&header[116..124]).with_context(|| format!("in the group of `{shown}`"))?,
            mode: u32::try_from(
                unsigned(&header[100..108]).with_context(|| format!("in the mode of `{shown}`"))? & 0o7777,
            )?,
            modified: (number(&header[136..148]).with_context(|| format!("in the time of `{shown}`"))?, 0),
            size: unsigned(&header[124..136])?,
            device: (unsigned(&header[329..337]).unwrap_or(0), unsigned(&header[337..345]).unwrap_or(0)),
            xattrs: Vec::new(),
            acls: [None, None],
            sparse: None,
        };
        let global = std::mem::take(&mut self.global);
        let mut pax = Pax::default();
        for records in [&global, &extensions.pax] {
            pax.read(records, &mut member, &mut path).with_context(|| format!("in the pax header of `{shown}`"))?;
        }
        self.global = global;
        // Links and devices have no data, whatever their size field says.
        if !matches!(member.kind, Type::File | Type::Directory) {
            member.size = 0;
        }
        self.starts(member.size);
        if header[156] == b'S' {
            self.old_gnu_sparse(header, &mut member).with_context(|| format!("reading `{shown}`"))?;
        } else if member.kind == Type::File {
            self.pax_sparse(pax, &mut member, &mut path).with_context(|| format!("reading `{shown}`"))?;
        }
        member.path = OsString::from_vec(path);
        Ok(member)
    }

    fn pax_sparse(&mut self, pax: Pax, member: &mut Member, path: &mut Vec<u8>) -> Result<()> {
        let parts = match (pax.sparse_major, pax.sparse_parts) {
            (Some(1), _) => {
                let (parts, taken) = sparse::read_map_1_0(&mut self.from.take(self.left))?;
                self.left -= taken;
                parts
            }
            (_, parts) if !parts.is_empty() => {
                let mut pairs = parts.chunks_exact(2);
                let all = pairs.by_ref().map(|pair| (pair[0], pair[1])).collect();
                if !pairs.remainder().is_empty() {
                    bail!("the map of a sparse file makes no sense");
                }
                all
            }
            _ => return Ok(()),
        };
        let size = pax.sparse_size.context("a sparse file has no size")?;
        sparse::check(&parts, size, self.left)?;
        if let Some(name) = pax.sparse_name {
            *path = name;
        }
        (member.size, member.sparse) = (size, Some(parts));
        Ok(())
    }

    /// The map stands in the header and in further blocks behind it.
    fn old_gnu_sparse(&mut self, header: &[u8; BLOCK], member: &mut Member) -> Result<()> {
        let mut parts: Vec<Part> = Vec::new();
        let mut add = |fields: &[u8]| -> Result<()> {
            for field in fields.chunks_exact(24).take_while(|field| field[0] != 0) {
                parts.push((unsigned(&field[..12])?, unsigned(&field[12..])?));
            }
            Ok(())
        };
        add(&header[386..482])?;
        let mut extended = header[482] != 0;
        let mut block = [0; BLOCK];
        while extended {
            self.from.read_exact(&mut block).context("reading the map of a sparse file")?;
            add(&block[..504])?;
            extended = block[504] != 0;
        }
        let size = unsigned(&header[483..495])?;
        sparse::check(&parts, size, self.left)?;
        (member.size, member.sparse) = (size, Some(parts));
        Ok(())
    }

    /// The data of the member that was read last.
    pub(super) fn data(&mut self) -> Data<'_, 'a> {
        Data { reader: self }
    }
}

/// See [`Reader::data`].
pub(super) struct Data<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

impl Read for Data<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.from.take(self.reader.left).read(buffer)?;
        if read == 0 && !buffer.is_empty() && self.reader.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a member"));
        }
        self.reader.left -= read as u64;
        Ok(read)
    }
}

/// The name in a header: POSIX has a prefix where GNU has other things.
fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&header[..100]);
    let prefix = if header[257..263] == *b"ustar\0" { text(&header[345..500]) } else { Vec::new() };
    if prefix.is_empty() { name } else { [&prefix[..], b"/", &name].concat() }
}

/// What pax headers say of sparse files.
#[derive(Default)]
struct Pax {
    sparse_major: Option<u64>,
    sparse_size: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_parts: Vec<u64>,
}

impl Pax {
    /// Takes over what the records say.
    fn read(&mut self, records: &[u8], member: &mut Member, path: &mut Vec<u8>) -> Result<()> {
        let decimal = |value: &[u8]| -> Result<u64> {
            std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).context("a value is not a number")
        };
        for (key, value) in pax::parse(records)? {
            // A key without a value takes back what a global header said.
            match std::str::from_utf8(key).context("a key is not text")? {
                "path" => *path = value.to_vec(),
                "linkpath" => member.link = OsString::from_vec(value.to_vec()),
                "size" => member.size = decimal(value)?,
                "uid" => member.uid = decimal(value)?,
                "gid" => member.gid = decimal(value)?,
                "mtime" => member.modified = time(value).context("a time is not a number")?,
                "GNU.sparse.major" => self.sparse_major = Some(decimal(value)?),
                "GNU.sparse.realsize" | "GNU.sparse.size" => self.sparse_size = Some(decimal(value)?),
                "GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                "GNU.sparse.offset" | "GNU.sparse.numbytes" => self.sparse_parts.push(decimal(value)?),
                "GNU.sparse.map" => {
                    self.sparse_parts = value.split(|b| *b == b',').map(decimal).collect::<Result<_>>()?;
                }
                pax::ACL_ACCESS => member.acls[0] = Some(String::from_utf8_lossy(value).into_owned()),
                pax::ACL_DEFAULT => member.acls[1] = Some(String::from_utf8_lossy(value).into_owned()),
                other => {
                    if let Some(name) = other.strip_prefix(pax::XATTR) {
                        member.xattrs.push((name.into(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Seconds since 1970, perhaps negative, perhaps with a fraction.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let value = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    let mut nanoseconds = 0;
    for (digit, unit) in fraction.chars().zip([100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1000, 100, 10, 1]) {
        nanoseconds += digit.to_digit(10)? * unit;
    }
    Some(if negative && nanoseconds > 0 { (seconds - 1, 1_000_000_000 - nanoseconds) } else { (seconds, nanoseconds) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 512..2048)) {
            let sum: u64 = bytes[..BLOCK].iter().enumerate()
                .map(|(i, b)| u64::from(if (148..156).contains(&i) { b' ' } else { *b })).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let mut input = &bytes[..];
            let mut reader = Reader::new(&mut input);
            while let Ok(Some(_)) = reader.next() {}
        }
    }

    #[test]
    fn numbers_of_all_kinds() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\x20\0\x01").unwrap(), (0x20 << 16) + 1);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb").unwrap(), -5);
        assert!(number(b"0000698\0").is_err());
    }

    #[test]
    fn times_of_all_kinds() {
        assert_eq!(time(b"1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(time(b"-5"), Some((-5, 0)));
        assert_eq!(time(b"-5.25"), Some((-6, 750_000_000)));
        assert_eq!(time(b"soon"), None);
    }
}
