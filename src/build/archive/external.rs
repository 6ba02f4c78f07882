//! Compressions that only a host program does.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::FileExt;
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
    /// Where in the file it began.
    start: u64,
    /// What is done to the file when the program is done.
    after: Option<After>,
    program: &'static str,
}

/// Changes what a program wrote to a file from an offset on.
type After = fn(&File, u64) -> io::Result<()>;

/// Takes the time out of lzop's header: of what it reads from a pipe it keeps when that was, whatever its options
/// say. The header has 25 bytes before the time's eight, then a name of the length that the next byte says, then
/// the Adler-32 sum of all from the ninth byte on (lzop's conf.h and file.c).
pub(super) fn undate_lzop(file: &File, start: u64) -> io::Result<()> {
    let mut head = [0; 34];
    file.read_exact_at(&mut head, start)?;
    let mut name = vec![0; usize::from(head[33])];
    file.read_exact_at(&mut name, start + 34)?;
    head[25..33].fill(0);
    let sum = adler32(head[9..].iter().chain(&name));
    file.write_all_at(&head, start)?;
    file.write_all_at(&sum.to_be_bytes(), start + 34 + name.len() as u64)
}

/// RFC 1950, 8.2.
fn adler32<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
    let (low, high) = bytes.into_iter().fold((1_u32, 0_u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
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
        let mut output = file.try_clone().context("opening the archive once more")?;
        let begins = output.stream_position().context("looking where the archive begins")?;
        let mut child = start(program, package, arguments, Stdio::piped(), output.into())?;
        let input = child.stdin.take();
        Ok(Self { child, input, file, start: begins, after: None, program })
    }

    /// The same with something done to the file at the end.
    pub(super) fn after(mut self, after: After) -> Self {
        self.after = Some(after);
        self
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
        if let Some(after) = self.after {
            after(&self.file, self.start)?;
        }
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
