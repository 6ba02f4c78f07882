//! Programs that make file systems, and who runs them.

use std::path::PathBuf;

use anyhow::Result;

use crate::sandbox::Uniform;

/// A program to be run on the host's side, reading trees and writing images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tool {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables beside the fixed environment (`SOURCE_DATE_EPOCH` is among that).
    pub environment: Vec<(String, String)>,
    /// What it reads from standard input.
    pub input: Option<String>,
    /// Directories whose contents it must not see: what is mounted there belongs to another file
    /// system. Absolute; the directories themselves stay, with owner and mode.
    pub hidden: Vec<PathBuf>,
    /// Files that it sees in the place of others: (seen as, really).
    pub replaced: Vec<(PathBuf, PathBuf)>,
    /// A tree that it is to see the same on every host.
    pub uniform: Option<Uniform>,
    /// Files and directories that it writes, beside the scratch directory.
    pub writable: Vec<PathBuf>,
}

impl Tool {
    /// A program with its arguments.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// Runs programs: in the sandbox of a build, or plainly in a test.
pub trait Tools {
    /// Runs one and returns its standard output; what it prints goes to the log. `doing` starts the
    /// fault when it fails: "making the file system `root`".
    fn run(&self, tool: &Tool, doing: &str) -> Result<String>;

    /// Says what is being done now.
    fn progress(&self, _message: &str) {}
}
