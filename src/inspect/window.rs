//! A part of a file, read as if it were a file of its own.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a file from `start` on. Writing to it fails: some libraries only take what could be written.
#[derive(Debug, Clone)]
pub struct Window {
    file: Arc<File>,
    start: u64,
    length: u64,
    at: u64,
}

impl Window {
    /// The whole of a file.
    pub fn whole(file: File) -> Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), start: 0, length, at: 0 })
    }

    /// Bytes of a file, from an offset on and so many.
    pub fn part_of((file, start, length): (File, u64, u64)) -> Result<Self> {
        Ok(Self::whole(file)?.part(start, length))
    }

    /// A part of this, cut where this ends.
    #[must_use]
    pub fn part(&self, start: u64, length: u64) -> Self {
        let start = start.min(self.length);
        let length = length.min(self.length - start);
        Self { file: self.file.clone(), start: self.start + start, length, at: 0 }
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Where it starts in the file.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The file that it is a part of.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `into` from a place.
    pub fn read_exact_at(&self, into: &mut [u8], at: u64) -> Result<()> {
        if at.checked_add(into.len() as u64).is_none_or(|end| end > self.length) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(into, self.start + at)
    }

    /// `N` bytes at a place; `None` beyond the end.
    pub fn array_at<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }

    /// Whether these bytes stand at a place.
    pub fn has(&self, at: u64, magic: &[u8]) -> bool {
        let mut bytes = vec![0; magic.len()];
        self.read_exact_at(&mut bytes, at).is_ok() && bytes == magic
    }
}

impl Read for Window {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let wanted = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut into[..wanted], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Write for Window {
    fn write(&mut self, _: &[u8]) -> Result<usize> {
        Err(Error::new(ErrorKind::ReadOnlyFilesystem, "this is only read"))
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_where_the_whole_does() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut part = Window::whole(file).unwrap().part(2, 6).part(3, 100);
        let mut text = String::new();
        part.read_to_string(&mut text).unwrap();
        assert_eq!(text, "567");
        assert!(part.has(1, b"67") && !part.has(2, b"78"));
        assert_eq!(part.seek(SeekFrom::End(-1)).unwrap(), 2);
        assert!(part.write(b"x").is_err());
    }
}
