//! zip archives: no owners, so everything is root's; modes where a Unix tool wrote it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, bail};

use super::tar::{Member, Type};
use super::unpack::Placer;
use crate::build::inside::Kind;

/// Longest target of a link (PATH_MAX).
const LONGEST_TARGET: u64 = 4096;

/// Unpacks an archive.
pub(super) fn unpack(file: File, placer: &mut Placer<'_>, tell: &mut dyn FnMut()) -> Result<()> {
    let mut archive = zip::ZipArchive::new(file).context("reading its directory")?;
    for index in 0..archive.len() {
        tell();
        let mut entry = archive.by_index(index).with_context(|| format!("reading member {}", index + 1))?;
        let name = entry.name_raw().to_vec();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let unix = entry.unix_mode();
        let kind = match unix.map(Kind::of) {
            Some(Kind::Link) => Type::Link,
            _ if entry.is_dir() => Type::Directory,
            Some(Kind::Special) if unix.is_some_and(|mode| mode & 0o170_000 != 0) => {
                bail!("its member `{shown}` is a device, pipe or socket")
            }
            _ => Type::File,
        };
        let mut link = Vec::new();
        if kind == Type::Link {
            (&mut entry).take(LONGEST_TARGET).read_to_end(&mut link).with_context(|| format!("reading `{shown}`"))?;
        }
        let member = Member {
            path: OsString::from_vec(name),
            kind,
            link: OsString::from_vec(link),
            uid: 0,
            gid: 0,
            mode: unix.map_or(if kind == Type::Directory { 0o755 } else { 0o644 }, |mode| mode & 0o7777),
            modified: (entry.last_modified().map_or(0, seconds), 0),
            size: entry.size(),
            device: (0, 0),
            xattrs: Vec::new(),
            acls: [None, None],
            sparse: None,
        };
        placer.place(&member, &mut entry).with_context(|| format!("its member `{shown}`"))?;
        // Reading to the end compares the checksum.
        std::io::copy(&mut entry, &mut std::io::sink()).with_context(|| format!("its member `{shown}`"))?;
    }
    Ok(())
}

/// A zip's times have no zone; taken as UTC they are the same on every machine.
fn seconds(time: zip::DateTime) -> i64 {
    let part = |value: u8| i8::try_from(value).unwrap_or(1);
    jiff::civil::DateTime::new(
        i16::try_from(time.year()).unwrap_or(1980),
        part(time.month()),
        part(time.day()),
        part(time.hour()),
        part(time.minute()),
        part(time.second()),
        0,
    )
    .and_then(|civil| jiff::tz::TimeZone::UTC.to_timestamp(civil))
    .map_or(0, jiff::Timestamp::as_second)
}
