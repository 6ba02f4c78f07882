//! Compressions that only a host program does.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};

use super::compression::Sink;
use crate::diagnostics::Fault;

/// Reads what a program makes of a file.
pub(super) struct Reader {
    child: Child,
    output: ChildStdout,
    program: &'static str,
}

/// Writes to a file through a program.
pub(super) struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    file: File,
    program: &'static str,
}

fn start(program: &'static str, package: &str, arguments: &[&str], input: Stdio, output: Stdio) -> Result<Child> {
    Command::new(program).args(arguments).stdin(input).stdout(output).spawn().map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            Fault::machine(format!("this archive needs the program `{program}`, which is not installed"))
                .hint(format!("apt install {package}"))
                .into()
        } else {
            anyhow::Error::new(error).context(format!("starting `{program}`"))
        }
    })
}

fn ended(program: &str, child: &mut Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{program}` failed: {status}"))) }
}

impl Reader {
    pub(super) fn start(program: &'static str, package: &str, arguments: &[&str], file: File) -> Result<Self> {
        let mut child = start(program, package, arguments, file.into(), Stdio::piped())?;
        let output = child.stdout.take().with_context(|| format!("starting `{program}`"))?;
        Ok(Self { child, output, program })
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.output.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            ended(self.program, &mut self.child)?;
        }
        Ok(read)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Writer {
    pub(super) fn start(program: &'static str, package: &str, arguments: &[&str], file: File) -> Result<Self> {
        let output = file.try_clone().context("opening the archive once more")?;
        let mut child = start(program, package, arguments, Stdio::piped(), output.into())?;
        let input = child.stdin.take();
        Ok(Self { child, input, file, program })
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.input {
            Some(input) => input.write(bytes),
            None => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Sink for Writer {
    fn finish(mut self: Box<Self>) -> io::Result<File> {
        drop(self.input.take());
        ended(self.program, &mut self.child)?;
        self.file.try_clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
