//! Our end of the line to the agent in the machine: a small script that runs commands for us.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The script in the machine, and the unit that starts it.
pub(super) const SCRIPT: &str = include_str!("agent.sh");
pub(super) const UNIT: &str = include_str!("agent.service");

/// What the port is called that the script looks for.
pub(super) const PORT: &str = "org.debforge.test";

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It is there.
    Hello,
    /// A command is over.
    Answer(Answer),
}

/// What a command in the machine came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its exit code.
    pub(super) code: i32,
    /// What it printed, errors included.
    pub(super) output: String,
}

pub(super) struct Agent {
    ours: UnixStream,
    /// Read, and not yet a line.
    pending: Vec<u8>,
}

impl Agent {
    /// A line, and its end for QEMU.
    pub(super) fn new() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().context("making a line to the machine")?;
        ours.set_nonblocking(true)?;
        Ok((Self { ours, pending: Vec::new() }, theirs.into()))
    }

    /// What can be waited for.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Has a shell in the machine run a command.
    pub(super) fn ask(&mut self, command: &str) -> Result<()> {
        let line = format!("{}\n", STANDARD.encode(command));
        // A few kilobytes at most, and the machine's port holds as much before anybody reads it.
        self.ours.set_nonblocking(false)?;
        let written = self.ours.write_all(line.as_bytes());
        self.ours.set_nonblocking(true)?;
        written.context("asking the machine")
    }

    /// Takes what has come; false at the end of the line.
    pub(super) fn take(&mut self) -> Result<bool> {
        let mut buffer = [0; 65536];
        match self.ours.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(read) => {
                self.pending.extend_from_slice(&buffer[..read]);
                Ok(true)
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => Ok(true),
                std::io::ErrorKind::ConnectionReset => Ok(false),
                _ => Err(error).context("listening to the machine"),
            },
        }
    }

    /// The next thing that it said, as far as that has come.
    pub(super) fn next(&mut self) -> Option<Said> {
        loop {
            let end = self.pending.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            match parse(&String::from_utf8_lossy(&line)) {
                Some(said) => return Some(said),
                None => tracing::debug!("the machine's agent said {line:?}"),
            }
        }
    }
}

fn parse(line: &str) -> Option<Said> {
    let mut words = line.split_whitespace();
    match words.next()? {
        "hello" => Some(Said::Hello),
        "answer" => {
            let code = words.next()?.parse().ok()?;
            let bytes = STANDARD.decode(words.next().unwrap_or_default()).ok()?;
            Some(Said::Answer(Answer { code, output: String::from_utf8_lossy(&bytes).into_owned() }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_code_and_what_was_printed() {
        assert_eq!(parse("hello 1234\n"), Some(Said::Hello));
        let answer = |code, output: &str| Some(Said::Answer(Answer { code, output: output.into() }));
        assert_eq!(parse("answer 0 aGVsbG8K\n"), answer(0, "hello\n"));
        assert_eq!(parse("answer 1 \n"), answer(1, ""));
        assert_eq!(parse("answer x\n"), None);
        assert_eq!(parse("noise"), None);
    }

    #[test]
    fn the_script_answers_as_we_read_it() {
        // Its loop, with a pair of pipes in the place of the port.
        let (_, body) = SCRIPT.split_once("while read").unwrap();
        let script = format!("while read{body}").replace("<&3", "").replace(">&3", "").replace("/run/", "/tmp/");
        let input = format!("{}\n{}\n", STANDARD.encode("echo one; echo two >&2"), STANDARD.encode("exit 3"));
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        let said: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(parse).collect();
        let answer = |code, output: &str| Some(Said::Answer(Answer { code, output: output.into() }));
        assert_eq!(said, [answer(0, "one\ntwo\n"), answer(3, "")]);
    }
}
