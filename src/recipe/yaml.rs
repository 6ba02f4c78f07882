//! YAML text to a tree whose every node knows its place.
//!
//! Plain scalars keep the text that was written: what they mean is decided where one knows what is
//! expected (`0644` is a mode or a number, `yes` a word or a truth value).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::diagnostics::suggest;

/// Nesting deeper than this is no recipe.
const MAX_DEPTH: usize = 100;

/// A part of the document.
#[derive(Debug)]
pub(super) struct Node {
    /// Bytes of the text it stands at.
    pub(super) range: Range<usize>,
    /// What it is.
    pub(super) kind: NodeKind,
}

/// See [`Node::kind`].
#[derive(Debug)]
pub(super) enum NodeKind {
    /// Text, and whether it stands there without quotes.
    Scalar { text: String, plain: bool },
    /// `- a`, or `[a]`.
    Sequence(Vec<Arc<Node>>),
    /// `a: b`, or `{a: b}`, in the order of the text.
    Mapping(Vec<(Arc<Node>, Arc<Node>)>),
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(super) struct YamlError {
    pub(super) range: Range<usize>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl YamlError {
    fn new(range: Range<usize>, message: impl Into<String>) -> Self {
        Self { range, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether nothing was written.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// The only document of a text; `None` where there is nothing but comments.
pub(super) fn parse(text: &str) -> Result<Option<Arc<Node>>, YamlError> {
    let (root, further) = events(text, text, false).map_err(Stop::into_error)?;
    match further {
        None => Ok(root),
        Some(range) => {
            Err(YamlError::new(range, SECOND_DOCUMENT).hint("a recipe is one document; `---` may only stand before it"))
        }
    }
}

/// What is wrong with a text of several documents.
pub(super) const SECOND_DOCUMENT: &str = "a second YAML document starts here";

/// The first document of a text, and where a second one starts.
type First = (Option<Arc<Node>>, Option<Range<usize>>);

/// Lines that may stand too far to the left in one text.
const MAX_JOINED: usize = 500;

/// Reads a text as debos's libraries do: only the first document counts, tags mean nothing, and lines inside of
/// brackets and quotes may stand as far to the left as they like.
pub(super) fn parse_first(text: &str) -> Result<First, YamlError> {
    let mut joined = text.to_owned();
    for _ in 0..MAX_JOINED {
        match events(text, &joined, true) {
            Err(Stop::Indentation { at, error }) => match join(&joined, at) {
                Some(next) => joined = next,
                None => return Err(error),
            },
            done => return done.map_err(Stop::into_error),
        }
    }
    events(text, &joined, true).map_err(Stop::into_error)
}

/// Stands in a quoted text for the end of a line and the white space around it, which are one space together.
const JOINED: u8 = 1;

/// Why a text was not read.
enum Stop {
    Error(YamlError),
    /// The line that `at` stands in, or the one after it where a quoted text starts there, is not indented enough.
    Indentation {
        at: usize,
        error: YamlError,
    },
}

impl Stop {
    fn into_error(self) -> YamlError {
        match self {
            Self::Error(error) | Self::Indentation { error, .. } => error,
        }
    }
}

/// Makes one line of two, without moving a byte: of the line at `at` and the one before it, or, at a quote, of
/// the first two lines of the quoted text. A comment between them goes.
fn join(text: &str, at: usize) -> Option<String> {
    let quoted = text[at..].starts_with(['"', '\'']);
    let newline = match quoted {
        true => at + text[at..].find('\n')?,
        false => text[..at].rfind('\n')?,
    };
    let start = text[..newline].rfind('\n').map_or(0, |before| before + 1);
    let line = &text[start..newline];
    // Empty lines and escaped newlines mean something in quotes.
    let next = text[newline + 1..].lines().next().unwrap_or_default();
    if quoted && (line.ends_with('\\') || line.trim().is_empty() || next.trim().is_empty()) {
        return None;
    }
    let mut bytes = text.as_bytes().to_vec();
    if !quoted && let Some(hash) = line.find(" #") {
        bytes[start + hash..newline].fill(b' ');
    }
    if quoted {
        let end = newline + 1 + next.len() - next.trim_start().len();
        bytes[start + line.trim_end().len()..end].fill(JOINED);
    } else {
        bytes[newline] = b' ';
    }
    String::from_utf8(bytes).ok()
}

/// A quoted text whose lines were joined: a run of the signs for it is one space.
fn without_joints(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_joint = false;
    for c in text.chars() {
        let joint = c == char::from(JOINED);
        match joint {
            true if in_joint => {}
            true => out.push(' '),
            false => out.push(c),
        }
        in_joint = joint;
    }
    out
}

/// Reads `joined`, which is as long as the `text` that faults are about.
fn events(text: &str, joined: &str, lenient: bool) -> Result<First, Stop> {
    let offsets = Offsets::new(joined);
    let mut builder = Builder { lenient, ..Builder::default() };
    let mut documents = 0;
    for event in Parser::new_from_str(joined) {
        let (event, span) = event.map_err(|error| {
            let at = offsets.byte(error.marker().index());
            let fault = scan_error(text, at, error.info());
            match error.info().contains("invalid indentation") {
                true => Stop::Indentation { at, error: fault },
                false => Stop::Error(fault),
            }
        })?;
        let range = offsets.range(&span);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Ok((builder.root, Some(range)));
            }
        }
        builder.event(joined, event, range).map_err(Stop::Error)?;
    }
    Ok((builder.root, None))
}

/// Scanners speak of tokens; the commonest mistakes deserve plainer words.
fn scan_error(text: &str, at: usize, info: &str) -> YamlError {
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
    if let Some(tab) = indenting_tab(text, line_start) {
        return YamlError::new(tab..tab + 1, "a tab indents this line").hint("YAML is indented with spaces");
    }
    if info.contains("unknown anchor") {
        return unknown_anchor(text, at);
    }
    let what = info.rsplit_once(", ").map_or(info, |(_, what)| what);
    let error = YamlError::new(at..end, format!("this is not YAML: {what}"));
    let quoted = text[at..].starts_with(['"', '\'']);
    if quoted || info.contains("quoted scalar") {
        error.hint("is the quote that opens the text closed again?")
    } else if info.contains("mapping values are not allowed") {
        error.hint("text with `: ` in it needs quotes; else look at the indentation of this line")
    } else if info.contains("block") || info.contains("simple key") || info.contains("indent") {
        error.hint("look at the indentation of this line and at quotes that are not closed above it")
    } else {
        error
    }
}

/// The first tab that indents the line at `line_start`, or the next one: there the scanner stumbles.
fn indenting_tab(text: &str, line_start: usize) -> Option<usize> {
    let mut start = line_start;
    for line in text[line_start..].split_inclusive('\n').take(2) {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line[..indent].find('\t') {
            return Some(start + tab);
        }
        start += line.len();
    }
    None
}

fn unknown_anchor(text: &str, at: usize) -> YamlError {
    let is_name = |c: &char| !c.is_whitespace() && !",[]{}".contains(*c);
    let name = |at: usize| text[at..].chars().take_while(is_name).collect::<String>();
    let wanted = name(at + usize::from(text[at..].starts_with('*')));
    let error = YamlError::new(at..at + 1 + wanted.len(), format!("there is no anchor `&{wanted}` above this"));
    let known: Vec<String> =
        text[..at].match_indices('&').map(|(anchor, _)| name(anchor + 1)).filter(|name| !name.is_empty()).collect();
    match suggest(&wanted, known.iter().map(String::as_str)) {
        Some(close) => error.hint(format!("did you mean `*{close}`?")),
        None => error,
    }
}

/// Character numbers, which the parser counts in, to bytes.
struct Offsets {
    /// `None` where characters are bytes.
    bytes: Option<Vec<usize>>,
    len: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(byte, _)| byte).collect());
        Self { bytes, len: text.len() }
    }

    fn byte(&self, character: usize) -> usize {
        match &self.bytes {
            Some(bytes) => bytes.get(character).copied().unwrap_or(self.len),
            None => character.min(self.len),
        }
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}

/// A collection that is not closed yet.
struct Open {
    start: usize,
    anchor: usize,
    mapping: bool,
    items: Vec<Arc<Node>>,
}

#[derive(Default)]
struct Builder {
    /// Whether tags that mean nothing are passed over.
    lenient: bool,
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    root: Option<Arc<Node>>,
}

impl Builder {
    fn event(&mut self, text: &str, event: Event<'_>, range: Range<usize>) -> Result<(), YamlError> {
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !forces_text(tag.as_deref(), &range, self.lenient)?;
                let range = range.start..range.start + text[range.clone()].trim_end().len();
                let text = if self.lenient { without_joints(&value) } else { value.into_owned() };
                let kind = NodeKind::Scalar { text, plain };
                self.finish(Node { range, kind }, anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                forces_text(tag.as_deref(), &range, self.lenient)?;
                self.start(range, anchor, false)?;
            }
            Event::MappingStart(anchor, tag) => {
                forces_text(tag.as_deref(), &range, self.lenient)?;
                self.start(range, anchor, true)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(YamlError::new(range, "this anchor contains itself"));
                };
                self.add(node);
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, range: Range<usize>, anchor: usize, mapping: bool) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::new(range, format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.open.push(Open { start: range.start, anchor, mapping, items: Vec::new() });
        Ok(())
    }

    fn end(&mut self, range: Range<usize>) {
        let Some(open) = self.open.pop() else { return };
        // A collection in brackets ends with one; an indented one where its last part does.
        let last = open.items.last().map_or(open.start, |node| node.range.end);
        let end = if range.is_empty() { last.max(open.start) } else { range.end };
        let start = if range.is_empty() {
            open.items.first().map_or(open.start, |node| node.range.start.min(end))
        } else {
            open.start
        };
        let kind = if open.mapping {
            let mut items = open.items.into_iter();
            let mut pairs = Vec::with_capacity(items.len() / 2);
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            NodeKind::Mapping(pairs)
        } else {
            NodeKind::Sequence(open.items)
        };
        self.finish(Node { range: start.min(end)..end, kind }, open.anchor);
    }

    fn finish(&mut self, node: Node, anchor: usize) {
        let node = Arc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.add(node);
    }

    fn add(&mut self, node: Arc<Node>) {
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = self.root.take().or(Some(node)),
        }
    }
}

/// Whether a tag says that a plain scalar is text. Tags beyond YAML's own mean nothing in a recipe.
fn forces_text(tag: Option<&Tag>, range: &Range<usize>, lenient: bool) -> Result<bool, YamlError> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(true),
        Some(_) if lenient => Ok(false),
        Some(tag) => Err(YamlError::new(range.clone(), format!("the tag `{tag}` has no meaning in a recipe"))),
    }
}

/// A whole number as YAML 1.2 and Go's yaml.v3 read it: decimal, `0x`, `0o`, `0b`, and octal with a leading 0.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let cleaned = digits.replace('_', "");
    if !cleaned.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('_') {
        return None;
    }
    let (radix, body) = match cleaned.get(..2) {
        Some("0x" | "0X") => (16, &cleaned[2..]),
        Some("0o" | "0O") => (8, &cleaned[2..]),
        Some("0b" | "0B") => (2, &cleaned[2..]),
        Some(_) if cleaned.starts_with('0') => (8, &cleaned[1..]),
        _ => (10, cleaned.as_str()),
    };
    if body.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(body, radix).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

/// A number with a fraction or an exponent.
pub(super) fn float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let shaped = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if shaped { text.parse().ok() } else { None }
}

/// A truth value as YAML 1.2 has it.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// The further words that YAML 1.1, and Go's yaml.v3 where a truth value is expected, take for one.
pub(super) fn old_boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_debos_reads_them() {
        for (text, expected) in [
            ("12", Some(12)),
            ("-3", Some(-3)),
            ("0x10", Some(16)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0", Some(0)),
            ("1_000", Some(1000)),
            ("08", None),
            ("0x", None),
            ("1.5", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(integer(text), expected, "{text}");
        }
        assert_eq!(float("1e3"), Some(1000.0));
        assert_eq!(float("1.10"), Some(1.1));
        assert_eq!(float("1.2.3"), None);
        assert_eq!(float("."), None);
    }

    #[test]
    fn every_node_knows_its_bytes() {
        let text = "a: {b: 'ü', c: [1, two]}\nd:\n  - e\n  - |\n    f\n    g\nh: end\n";
        let root = parse(text).unwrap().unwrap();
        let NodeKind::Mapping(pairs) = &root.kind else { panic!("no mapping") };
        let at = |node: &Node| &text[node.range.clone()];
        assert_eq!(pairs.iter().map(|(key, _)| at(key)).collect::<Vec<_>>(), ["a", "d", "h"]);
        assert_eq!(at(&pairs[0].1), "{b: 'ü', c: [1, two]}");
        let NodeKind::Sequence(items) = &pairs[1].1.kind else { panic!("no sequence") };
        assert_eq!(at(&items[0]), "e");
        assert_eq!(at(&items[1]), "f\n    g");
        assert_eq!(items[1].text(), Some("f\ng\n"));
        assert_eq!(at(&pairs[2].1), "end");
    }

    #[test]
    fn lines_in_brackets_and_quotes_may_stand_far_to_the_left() {
        for (text, value) in [
            ("a:\n    b: [ x,\n  y,\nz # no\n, w\n]\n    c: 1\n", "x y z w"),
            ("a:\n    b: [\n\nx,\n\n{q: r}]\n    c: 1\n", "x {}"),
            ("a:\n    b: [\"x\ny\", 'z\n w']\n    c: 1\n", "x y z w"),
            ("a:\n    b: [!tag x]\n    c: 1\n", "x"),
        ] {
            assert!(parse(text).is_err(), "{text}");
            let root = parse_first(text).unwrap().0.unwrap();
            let NodeKind::Mapping(pairs) = &root.kind else { panic!("no mapping") };
            let NodeKind::Mapping(pairs) = &pairs[0].1.kind else { panic!("no mapping") };
            let NodeKind::Sequence(items) = &pairs[0].1.kind else { panic!("no sequence") };
            let shown: Vec<&str> = items.iter().map(|item| item.text().unwrap_or("{}")).collect();
            assert_eq!(shown.join(" "), value, "{text}");
            assert_eq!(&text[pairs[1].0.range.clone()], "c");
        }
        assert!(parse_first("a:\n    b: [\n").is_err());
        assert!(parse_first("a:\n    b: \"x\n").is_err());
    }

    #[test]
    fn an_alias_is_the_node_it_names() {
        let root = parse("a: &x {k: v}\nb: *x\n").unwrap().unwrap();
        let NodeKind::Mapping(pairs) = &root.kind else { panic!("no mapping") };
        assert!(Arc::ptr_eq(&pairs[0].1, &pairs[1].1));
        assert!(parse("a: &x [*x]").is_err());
        assert!(parse("a: *nowhere").is_err());
    }
}
