//! Data on standard output.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes data to standard output. A reader that has gone away (`debforge actions | head`) is no fault.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(()),
    }
}

/// Columns of the terminal, at most 100 because longer lines are hard to read; 80 without a terminal.
pub fn width() -> usize {
    console::Term::stdout().size_checked().map_or(80, |(_, columns)| usize::from(columns)).clamp(40, 100)
}
