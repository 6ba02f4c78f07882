//! gzip and bzip2 on several threads, with the same bytes for any number of them: the input is cut at
//! fixed places, and each part is compressed on its own.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::compression::Sink;

/// One format.
pub(super) trait Format: 'static {
    /// Bytes of input per part.
    const PART: usize;
    /// What the trailer needs to know about the parts.
    type Notes: Default + Send;

    /// What comes before the first part.
    fn header() -> Vec<u8>;
    /// Compresses a part, given the end of the one before it.
    fn part(level: u32, before: &[u8], part: &[u8], last: bool) -> io::Result<(Vec<u8>, Self::Notes)>;
    /// Adds the notes on one more part.
    fn add(notes: &mut Self::Notes, part: &Self::Notes);
    /// What comes after the last part.
    fn trailer(notes: &Self::Notes) -> Vec<u8>;
}

/// A part as its thread hands it over.
type Compressed<F> = io::Result<(Vec<u8>, <F as Format>::Notes)>;

/// Compresses into a file.
pub(super) struct Writer<F: Format> {
    file: File,
    level: u32,
    notes: F::Notes,
    part: Vec<u8>,
    before: Arc<[u8]>,
    running: VecDeque<Receiver<Compressed<F>>>,
    most: usize,
}

/// How far back deflate looks.
const WINDOW: usize = 32 << 10;

impl<F: Format> Writer<F> {
    pub(super) fn new(mut file: File, level: u32, threads: usize) -> io::Result<Self> {
        file.write_all(&F::header())?;
        Ok(Self {
            file,
            level,
            notes: F::Notes::default(),
            part: Vec::with_capacity(F::PART),
            before: Arc::new([]),
            running: VecDeque::new(),
            most: threads * 2,
        })
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        while self.running.len() >= self.most {
            self.collect()?;
        }
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(F::PART));
        let next_before: Arc<[u8]> = part[part.len().saturating_sub(WINDOW)..].into();
        let before = std::mem::replace(&mut self.before, next_before);
        let (sender, receiver) = sync_channel(1);
        let level = self.level;
        rayon::spawn(move || {
            // The receiver is gone only when the archive was given up.
            let _ = sender.send(F::part(level, &before, &part, last));
        });
        self.running.push_back(receiver);
        Ok(())
    }

    /// Writes the oldest part that is still being compressed.
    fn collect(&mut self) -> io::Result<()> {
        let Some(receiver) = self.running.pop_front() else { return Ok(()) };
        let (bytes, notes) = receiver.recv().map_err(io::Error::other)??;
        self.file.write_all(&bytes)?;
        F::add(&mut self.notes, &notes);
        Ok(())
    }
}

impl<F: Format> Write for Writer<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full part waits for more, because the last one is made differently.
        if self.part.len() == F::PART {
            self.submit(false)?;
        }
        let taken = bytes.len().min(F::PART - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Format> Sink for Writer<F> {
    fn finish(mut self: Box<Self>) -> io::Result<File> {
        self.submit(true)?;
        while !self.running.is_empty() {
            self.collect()?;
        }
        self.file.write_all(&F::trailer(&self.notes))?;
        Ok(self.file)
    }
}

/// gzip (RFC 1952): one member, its deflate stream joined from parts that end on a byte, each of
/// which may refer to the one before it.
pub(super) struct Gz;

impl Format for Gz {
    const PART: usize = 1 << 20;
    type Notes = Crc;

    fn header() -> Vec<u8> {
        // Magic, deflate, no flags, no time, no extra flags, Unix.
        vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]
    }

    fn part(level: u32, before: &[u8], part: &[u8], last: bool) -> io::Result<(Vec<u8>, Crc)> {
        let mut deflate = Compress::new(Compression::new(level), false);
        if !before.is_empty() {
            deflate.set_dictionary(before).map_err(io::Error::other)?;
        }
        let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
        let mut output = Vec::with_capacity(part.len() / 2 + 1024);
        loop {
            let taken = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
            let status = deflate.compress_vec(&part[taken..], &mut output, flush).map_err(io::Error::other)?;
            let room_left = output.len() < output.capacity();
            if status == Status::StreamEnd || (!last && room_left && deflate.total_in() == part.len() as u64) {
                break;
            }
            output.reserve(output.capacity().max(1024));
        }
        let mut crc = Crc::new();
        crc.update(part);
        Ok((output, crc))
    }

    fn add(notes: &mut Crc, part: &Crc) {
        notes.combine(part);
    }

    fn trailer(notes: &Crc) -> Vec<u8> {
        [notes.sum().to_le_bytes(), notes.amount().to_le_bytes()].concat()
    }
}

/// bzip2: a stream per part, which every reader takes as one.
pub(super) struct Bzip2;

impl Format for Bzip2 {
    const PART: usize = 900_000;
    type Notes = ();

    fn header() -> Vec<u8> {
        Vec::new()
    }

    fn part(level: u32, _before: &[u8], part: &[u8], _last: bool) -> io::Result<(Vec<u8>, ())> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(level));
        encoder.write_all(part)?;
        Ok((encoder.finish()?, ()))
    }

    fn add(_notes: &mut (), _part: &()) {}

    fn trailer(_notes: &()) -> Vec<u8> {
        Vec::new()
    }
}
