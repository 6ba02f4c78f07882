//! What was said on a console, as text: without colours and movements of the cursor.

use std::collections::VecDeque;

use crate::diagnostics::Fault;

/// The end of what was said that is searched; a text that is expected is shorter.
const WINDOW: usize = 64 << 10;

/// Listens to a console.
pub(in crate::machine) struct Transcript {
    state: State,
    /// The last of the text.
    text: Vec<u8>,
    /// How much of `text` has been searched for what is expected now.
    searched: usize,
    expected: VecDeque<String>,
    /// Lines of the end that a fault shows.
    tail: usize,
}

/// Where in an escape sequence (ECMA-48) the bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    /// Until a byte from `@` on.
    Control,
    /// Until BEL or an escape.
    Title,
    /// One more byte.
    Character,
}

impl Transcript {
    pub(in crate::machine) fn new(expected: Vec<String>, tail: usize) -> Self {
        Self { state: State::Text, text: Vec::new(), searched: 0, expected: expected.into(), tail }
    }

    /// The text that is expected next.
    pub(in crate::machine) fn awaited(&self) -> Option<&str> {
        self.expected.front().map(String::as_str)
    }

    /// Takes what was said.
    pub(in crate::machine) fn hear(&mut self, said: &[u8]) {
        for &byte in said {
            self.state = match (self.state, byte) {
                (State::Text | State::Control | State::Character, 0x1b) => State::Escape,
                (State::Text, byte) => {
                    if byte != b'\r' && byte != 0 {
                        self.text.push(byte);
                    }
                    State::Text
                }
                (State::Escape, b'[') => State::Control,
                (State::Escape, b']' | b'P' | b'_' | b'^') => State::Title,
                (State::Escape, b'(' | b')' | b'#' | b'%') => State::Character,
                (State::Escape, 0x1b) => State::Escape,
                (State::Escape | State::Character, _) => State::Text,
                (State::Control, 0x40..) => State::Text,
                (State::Control, _) => State::Control,
                (State::Title, 0x07) => State::Text,
                (State::Title, 0x1b) => State::Escape,
                (State::Title, _) => State::Title,
            };
        }
        while let Some(next) = self.expected.front() {
            let Some(at) = find(&self.text[self.searched..], next.as_bytes()) else {
                // Its beginning may be there already.
                self.searched = self.text.len().saturating_sub(next.len()).max(self.searched);
                break;
            };
            self.searched += at + next.len();
            self.expected.pop_front();
        }
        if self.text.len() > 2 * WINDOW {
            let surplus = self.text.len() - WINDOW;
            self.text.drain(..surplus);
            self.searched = self.searched.saturating_sub(surplus);
        }
    }

    /// Whether a text ends in the last bytes of what was said.
    pub(in crate::machine) fn has_lately(&self, text: &str, bytes: usize) -> bool {
        let from = self.text.len().saturating_sub(text.len() + bytes);
        find(&self.text[from..], text.as_bytes()).is_some()
    }

    /// The fault of a machine that did not say what was expected.
    pub(in crate::machine) fn missed(&self, what: &str) -> Fault {
        let message = match self.awaited() {
            Some(awaited) => format!("{what} without `{awaited}` on its console"),
            None => what.to_owned(),
        };
        let text = String::from_utf8_lossy(&self.text);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(self.tail)..].iter().map(|line| (*line).to_owned()).collect();
        let fault = Fault::failed(message).tail(tail);
        if lines.is_empty() {
            return fault
                .hint("it said nothing: a kernel wants `console=ttyS0` (or the machine's own) for the serial port");
        }
        fault
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return Some(0);
    }
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(expected: &[&str], said: &[&[u8]]) -> Transcript {
        let mut transcript = Transcript::new(expected.iter().map(|text| (*text).to_owned()).collect(), 3);
        said.iter().for_each(|part| transcript.hear(part));
        transcript
    }

    #[test]
    fn texts_are_found_across_pieces_and_colours() {
        assert_eq!(heard(&["login:"], &[b"debian lo", b"g", b"in: "]).awaited(), None);
        assert_eq!(heard(&["[  OK  ] Reached"], &[b"[\x1b[0;32m  OK  \x1b", b"[0m] Reached"]).awaited(), None);
        assert_eq!(heard(&["a\nb"], &[b"a\r\nb"]).awaited(), None);
        assert_eq!(heard(&["b"], &[b"\x1b]0;b\x07a\x1b(B"]).awaited(), Some("b"));
    }

    #[test]
    fn one_text_after_the_other() {
        assert_eq!(heard(&["one", "two"], &[b"two one two"]).awaited(), None);
        assert_eq!(heard(&["one", "two"], &[b"two one"]).awaited(), Some("two"));
        assert_eq!(heard(&["aa", "aa"], &[b"aaa"]).awaited(), Some("aa"));
    }

    #[test]
    fn much_may_be_said() {
        let line = b"0123456789abcdef\n".repeat(1000);
        let mut parts: Vec<&[u8]> = vec![&line; 20];
        parts.push(b"the end");
        let transcript = heard(&["the end"], &parts);
        assert_eq!(transcript.awaited(), None);
        assert!(transcript.text.len() <= 2 * WINDOW);
    }

    #[test]
    fn the_last_lines_are_shown() {
        let fault = heard(&["x"], &[b"1\n2\n\n3\n\x1b[2J4\n"]).missed("the machine ended");
        assert_eq!(fault.message, "the machine ended without `x` on its console");
        assert_eq!(fault.tail, ["2", "3", "4"]);
        assert!(heard(&["x"], &[]).missed("it").hints[0].contains("console=ttyS0"));
    }
}
