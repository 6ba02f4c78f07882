//! Data on standard output.

use anyhow::{Context, Result};

/// Writes data to standard output.
pub fn print(text: &str) -> Result<()> {
    crate::sys::output::print(text).context("writing to standard output")
}

/// Columns of the terminal, at most 100 because longer lines are hard to read; 80 without a terminal.
pub fn width() -> usize {
    console::Term::stdout().size_checked().map_or(80, |(_, columns)| usize::from(columns)).clamp(40, 100)
}
