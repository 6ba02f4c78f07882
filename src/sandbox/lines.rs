//! Output cut into lines.

/// Longest line that is kept together, in bytes; a tool that never ends its line must not fill memory.
const LONGEST: usize = 64 * 1024;

/// Bytes of a line that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
    after_return: bool,
}

impl Lines {
    /// Takes in more output. A line ends with `\n`, `\r` (progress that is drawn over itself) or both.
    pub(super) fn push(&mut self, mut bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.pending.extend_from_slice(&bytes[..end]);
            self.emit(on_line);
            let returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if returned {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() > LONGEST {
            self.emit(on_line);
        }
    }

    /// Passes on a last line without an end.
    pub(super) fn finish(&mut self, on_line: &mut dyn FnMut(&str)) {
        if !self.pending.is_empty() {
            self.emit(on_line);
        }
    }

    fn emit(&mut self, on_line: &mut dyn FnMut(&str)) {
        on_line(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, &mut |line| all.push(line.to_owned()));
        }
        lines.finish(&mut |line| all.push(line.to_owned()));
        all
    }

    #[test]
    fn a_line_may_come_in_pieces_and_end_in_any_way() {
        assert_eq!(
            cut(&[b"one\ntw", b"o\r\nthree\r", b"\nfour\r10%\r20%"]),
            ["one", "two", "three", "four", "10%", "20%"]
        );
    }

    #[test]
    fn empty_lines_are_kept_and_wrong_bytes_replaced() {
        assert_eq!(cut(&[b"a\n\nb\xff\n"]), ["a", "", "b\u{fffd}"]);
    }

    #[test]
    fn an_endless_line_is_cut() {
        assert_eq!(cut(&[&[b'x'; LONGEST], b"yz", b"end"]).len(), 2);
    }
}
