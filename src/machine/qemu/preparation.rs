//! What has to be there before a machine starts: done, or printed for a shell.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::diagnostics::Fault;

/// A step before a machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparation {
    /// A short command that has nothing to say.
    Command(Vec<String>),
    /// A sparse file that has a few bytes somewhere.
    File {
        /// Where it is made.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// Where the bytes stand.
        at: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl Preparation {
    /// A command by its words, paths among them.
    pub fn command<'a>(words: impl IntoIterator<Item = &'a Path>) -> Self {
        Self::Command(words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect())
    }

    /// Does it.
    pub fn carry_out(&self) -> Result<()> {
        match self {
            Self::Command(words) => run(words),
            Self::File { path, size, at, bytes } => File::create(path)
                .and_then(|file| file.set_len(*size).and_then(|()| file.write_all_at(bytes, *at)))
                .with_context(|| format!("writing {}", path.display())),
        }
    }

    /// The lines that do it in a shell.
    pub fn shell(&self) -> String {
        match self {
            Self::Command(words) => shell_line(words),
            Self::File { path, size, at, bytes } => {
                let (of, size) = (format!("of={}", path.display()), size.to_string());
                let seek = format!("seek={at}");
                let truncate = shell_line(&["truncate", "-s", &size, &path.to_string_lossy()]);
                let dd = shell_line(&["dd", &of, "oflag=seek_bytes", &seek, "conv=notrunc", "status=none"]);
                format!("{truncate}\nprintf '{}' | {dd}", octal(bytes))
            }
        }
    }
}

/// Bytes as printf takes them, letters and digits as they are.
fn octal(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b if b.is_ascii_alphabetic() || b"_ ".contains(b) => char::from(*b).to_string(),
        b => format!("\\{b:03o}"),
    };
    bytes.iter().map(shown).collect()
}

fn run(words: &[String]) -> Result<()> {
    let [program, arguments @ ..] = words else { return Ok(()) };
    let output = Command::new(program).args(arguments).output().map_err(|error| {
        let fault = Fault::machine(format!("{program} did not start: {error}"));
        if program == "qemu-img" { fault.hint("sudo apt install qemu-utils") } else { fault }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let tail = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    Err(Fault::failed(format!("{program} failed ({})", output.status)).tail(tail).into())
}

/// A command as a shell reads it.
pub fn shell_line<S: AsRef<str>>(words: &[S]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    let quoted = words.iter().map(AsRef::as_ref).map(|word| match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_wants_it() {
        assert_eq!(shell_line(&["a", "b c", "it's"]), r"a 'b c' 'it'\''s'");
    }

    #[test]
    fn a_shell_makes_the_same_file() {
        let top = tempfile::tempdir().unwrap();
        let file = |name: &str| Preparation::File {
            path: top.path().join(name),
            size: 1 << 20,
            at: 0x1_2345,
            bytes: b"'VB\\%d 7\0\xff\n".to_vec(),
        };
        file("done").carry_out().unwrap();
        let status = Command::new("sh").arg("-ec").arg(file("printed").shell()).status().unwrap();
        assert!(status.success());
        let read = |name: &str| std::fs::read(top.path().join(name)).unwrap();
        assert_eq!(read("done").len(), 1 << 20);
        assert!(read("done")[0x1_2345..].starts_with(b"'VB\\%d 7\0\xff\n"));
        assert!(read("done") == read("printed"), "{}", file("printed").shell());
    }
}
