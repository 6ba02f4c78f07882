//! Waiting for servers, which may say nothing for long, so that Ctrl-C ends it at once.
//!
//! A thread of its own waits for the server; it is left behind, to end with the process, when the
//! build is cancelled.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lock::check_cancelled;

/// How often a waiting fetch looks whether its build was cancelled.
const POLL: Duration = Duration::from_millis(40);

/// Bytes of a piece, and how many may wait to be taken.
const PIECE: usize = 128 * 1024;
const PIECES: usize = 4;

/// What the work comes to, unless the build is cancelled before.
pub(super) fn unless_cancelled<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = sync_channel(1);
    Builder::new().spawn(move || sender.send(work())).context("starting a thread")?;
    next(&receiver)?.context("a thread that fetches ended")
}

/// The next of what a thread sends; `None` after the last.
fn next<T>(receiver: &Receiver<T>) -> Result<Option<T>> {
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(sent) => return Ok(Some(sent)),
            Err(RecvTimeoutError::Timeout) => check_cancelled()?,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// What a server sends, piece by piece.
pub(super) struct Pieces(Receiver<std::io::Result<Vec<u8>>>);

impl Pieces {
    pub(super) fn of(mut reader: impl Read + Send + 'static) -> Result<Self> {
        let (sender, receiver) = sync_channel(PIECES);
        let read = move || {
            loop {
                let mut piece = vec![0; PIECE];
                let read = reader.read(&mut piece).map(|count| {
                    piece.truncate(count);
                    piece
                });
                let last = read.as_ref().map_or(true, Vec::is_empty);
                if sender.send(read).is_err() || last {
                    return;
                }
            }
        };
        Builder::new().spawn(read).context("starting a thread")?;
        Ok(Self(receiver))
    }

    /// The next piece, empty at the end. The outer error is that the build was cancelled, the inner
    /// one the connection's.
    pub(super) fn next(&self) -> Result<std::io::Result<Vec<u8>>> {
        Ok(next(&self.0)?.unwrap_or_else(|| Ok(Vec::new())))
    }
}
