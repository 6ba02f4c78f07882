//! Headers of tar archives, written: ustar, with a pax header where that cannot hold a thing.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::pack::Style;
use super::tar::BLOCK;
use super::{acl, pax};

/// Largest numbers that fit the octal fields of a header.
const LARGEST_ID: u64 = 0o7_777_777;
const LARGEST_SIZE: u64 = 0o77_777_777_777;
const LONGEST_NAME: usize = 100;

/// `./etc/hostname` or `etc/hostname`; a directory ends in `/`.
pub(super) fn member_name(style: Style, path: &Path, directory: bool) -> Vec<u8> {
    let mut name = style.prefix.as_bytes().to_vec();
    name.extend_from_slice(path.as_os_str().as_bytes());
    if directory && !path.as_os_str().is_empty() {
        name.push(b'/');
    }
    name
}

/// A member's headers in the making: a ustar header, and before it a pax header if it needs one.
pub(super) struct Header {
    block: [u8; BLOCK],
    pax: Vec<u8>,
    name: Vec<u8>,
}

impl Header {
    pub(super) fn new(style: Style, path: &Path, meta: &Metadata) -> Self {
        let name = member_name(style, path, meta.is_dir());
        let mut header = Self { block: [0; BLOCK], pax: Vec::new(), name };
        header.kind(b'0');
        header.block[257..265].copy_from_slice(b"ustar\x0000");
        header.octal(100..108, u64::from(meta.mode() & 0o7777));
        header.number(108..116, "uid", meta.uid().into(), LARGEST_ID);
        header.number(116..124, "gid", meta.gid().into(), LARGEST_ID);
        // Whole seconds: not every file system keeps more.
        let modified = style.latest.map_or(meta.mtime(), |latest| latest.min(meta.mtime()));
        match u64::try_from(modified) {
            Ok(seconds) => header.number(136..148, "mtime", seconds, LARGEST_SIZE),
            Err(_) => {
                header.octal(136..148, 0);
                header.record("mtime", modified.to_string().as_bytes());
            }
        }
        header
    }

    pub(super) fn kind(&mut self, kind: u8) {
        self.block[156] = kind;
    }

    pub(super) fn link(&mut self, kind: u8, target: &[u8]) {
        self.kind(kind);
        if target.len() > LONGEST_NAME {
            self.record("linkpath", target);
        }
        let short = &target[..target.len().min(LONGEST_NAME)];
        self.block[157..157 + short.len()].copy_from_slice(short);
    }

    pub(super) fn device(&mut self, kind: u8, device: u64) {
        self.kind(kind);
        self.octal(329..337, major(device));
        self.octal(337..345, minor(device));
    }

    /// ACLs are written twice: as text for those who unpack with `tar --acls`, and as the kernel has
    /// them for those who take all xattrs.
    pub(super) fn xattr(&mut self, name: &OsStr, value: &[u8]) {
        let key = if name == acl::ACCESS { pax::ACL_ACCESS } else { pax::ACL_DEFAULT };
        if (name == acl::ACCESS || name == acl::DEFAULT)
            && let Some(text) = acl::to_text(value)
        {
            self.record(key, text.as_bytes());
        }
        pax::push(&mut self.pax, &[pax::XATTR.as_bytes(), name.as_bytes()].concat(), value);
    }

    /// Turns it into a sparse file of pax format 1.0, its map at the head of its data.
    pub(super) fn sparse(&mut self, size: u64) {
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
    pub(super) fn finish(mut self, size: u64) -> Vec<u8> {
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
