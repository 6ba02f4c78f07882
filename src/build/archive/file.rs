//! Single files, compressed.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result};

use super::compression::{Compression, Effort};
use crate::build::interrupted;
use crate::diagnostics::{Fault, FaultKind};

/// Compresses a file, the same bytes whatever the number of threads. `progress` is told how many bytes
/// are done, and of how many.
pub fn compress(
    mut from: &File,
    to: File,
    compression: Compression,
    level: Option<u32>,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let total = from.metadata().context("looking at it")?.len();
    let mut sink = compression.writer(to, Effort { level, threads, size: Some(total) })?;
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        if interrupted() {
            return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
        }
        let read = from.read(&mut buffer).context("reading it")?;
        if read == 0 {
            break;
        }
        sink.write_all(&buffer[..read]).context("writing what is compressed")?;
        done += read as u64;
        progress(done, total);
    }
    sink.finish().context("writing what is compressed")?;
    Ok(())
}
