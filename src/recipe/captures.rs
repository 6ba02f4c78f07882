//! Where the text came from that a template caught before it printed it: in macros, `{% set %}`,
//! `{% call %}` and `{% filter %}` blocks.
//!
//! minijinja says of such text only which expression printed it in the end. So the template is
//! rendered once more with marks in these blocks. The marks never reach a recipe: the text of the
//! first rendering is the truth, and a mark counts only where that text is, byte for byte, what the
//! author wrote at the mark's place.

use std::ops::Range;
use std::sync::Arc;

use super::lexer::{Tag, TagKind, tags};
use super::source_map::Piece;
use crate::diagnostics::{Source, Span};

/// Around a mark's number; characters for private use, that no recipe has.
const OPEN: char = '\u{f8f0}';
const CLOSE: char = '\u{f8f1}';

/// The digits of a mark's number: no filter for letters or numbers changes them.
const DIGITS: [char; 10] = [
    '\u{f8e0}', '\u{f8e1}', '\u{f8e2}', '\u{f8e3}', '\u{f8e4}', '\u{f8e5}', '\u{f8e6}', '\u{f8e7}', '\u{f8e8}',
    '\u{f8e9}',
];

/// What stands at a mark.
#[derive(Debug, Clone)]
struct Mark {
    source: Arc<Source>,
    /// Of a literal text, from the mark to its end; of an expression, the expression.
    range: Range<usize>,
    literal: bool,
}

/// The marks of one rendering.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<Mark>);

/// Whether a template has blocks whose text is caught.
pub(super) fn has_captures(text: &str) -> bool {
    tags(text).iter().any(|tag| captures(tag, text))
}

/// Whether a text has a character of the marks in it.
pub(super) fn clashes(text: &str) -> bool {
    text.contains(|c| ('\u{f8e0}'..='\u{f8f1}').contains(&c))
}

fn captures(tag: &Tag, text: &str) -> bool {
    tag.kind == TagKind::Statement
        && match tag.word(text) {
            "macro" | "call" | "filter" => true,
            // `{% set a = 1 %}` is no block.
            "set" => !text[tag.inner.clone()].contains('='),
            _ => false,
        }
}

fn ends_capture(tag: &Tag, text: &str) -> bool {
    tag.kind == TagKind::Statement && matches!(tag.word(text), "endmacro" | "endcall" | "endfilter" | "endset")
}

impl Marks {
    fn add(&mut self, source: &Arc<Source>, range: Range<usize>, literal: bool) -> String {
        let number = self.0.len();
        self.0.push(Mark { source: source.clone(), range, literal });
        let digits = number.to_string().bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect::<String>();
        format!("{OPEN}{digits}{CLOSE}")
    }

    /// The template with marks where a line of caught text starts, and before each expression in it.
    pub(super) fn mark(&mut self, source: &Arc<Source>) -> String {
        let text = &source.text;
        let mut out = String::with_capacity(text.len() * 2);
        let mut depth = 0usize;
        let mut at = 0;
        let mut trimmed = false;
        for tag in tags(text) {
            self.literal(source, at..tag.range.start, trimmed, tag.trims_before(), depth > 0, &mut out);
            if depth > 0 && tag.kind == TagKind::Expression && !tag.inner.is_empty() {
                let mark = self.add(source, tag.inner.clone(), false);
                out.push_str(&format!("{{{{{} \"{mark}\" }}}}", tag.opening_sign));
            }
            out.push_str(&text[tag.range.clone()]);
            if captures(&tag, text) {
                depth += 1;
            } else if ends_capture(&tag, text) {
                depth = depth.saturating_sub(1);
            }
            trimmed = tag.trims_after;
            at = tag.range.end;
        }
        out.push_str(&text[at..]);
        out
    }

    /// A mark must not come between a tag and the white space that it takes away.
    fn literal(
        &mut self,
        source: &Arc<Source>,
        range: Range<usize>,
        trimmed: bool,
        trims: bool,
        caught: bool,
        out: &mut String,
    ) {
        let text = &source.text[range.clone()];
        if !caught {
            out.push_str(text);
            return;
        }
        let from = if trimmed { text.len() - text.trim_start().len() } else { 0 };
        let to = if trims { text.trim_end().len() } else { text.len() };
        if from >= to {
            out.push_str(text);
            return;
        }
        out.push_str(&text[..from]);
        let mut start = range.start + from;
        for line in text[from..to].split_inclusive('\n') {
            let mark = self.add(source, start..start + line.len(), true);
            out.push_str(&mark);
            out.push_str(line);
            start += line.len();
        }
        out.push_str(&text[to..]);
    }

    /// Splits the pieces that printed caught text where that text came from, given what the marked
    /// templates rendered to. Leaves them as they are if the marks changed what was rendered.
    pub(super) fn refine(
        &self,
        truth: &str,
        marked: &str,
        pieces: Vec<Piece>,
        chains: &mut Vec<Vec<Span>>,
    ) -> Vec<Piece> {
        let Some((stripped, places)) = strip(marked) else { return pieces };
        if stripped != truth || places.is_empty() {
            return pieces;
        }
        let mut refined = Vec::with_capacity(pieces.len() + places.len());
        for piece in pieces {
            let first = places.partition_point(|(at, _)| *at < piece.rendered.start);
            let after = places.partition_point(|(at, _)| *at < piece.rendered.end);
            if piece.literal || first >= after {
                refined.push(piece);
                continue;
            }
            let mut links = vec![Span::new(&piece.source, piece.origin.start, piece.origin.end)];
            links.extend(chains.get(piece.chain).into_iter().flatten().cloned());
            chains.push(links);
            self.split(truth, &piece, &places[first..after], chains.len() - 1, &mut refined);
        }
        refined
    }

    fn split(&self, truth: &str, piece: &Piece, places: &[(usize, usize)], chain: usize, refined: &mut Vec<Piece>) {
        let mut push = |rendered: Range<usize>, part: Option<(&Arc<Source>, Range<usize>, bool)>| {
            if rendered.is_empty() {
                return;
            }
            refined.push(match part {
                Some((source, origin, literal)) => Piece { rendered, source: source.clone(), origin, literal, chain },
                None => Piece { rendered, ..piece.clone() },
            });
        };
        push(piece.rendered.start..places[0].0, None);
        for (index, (start, number)) in places.iter().enumerate() {
            let end = places.get(index + 1).map_or(piece.rendered.end, |(next, _)| *next);
            let Some(mark) = self.0.get(*number) else {
                push(*start..end, None);
                continue;
            };
            if !mark.literal {
                push(*start..end, Some((&mark.source, mark.range.clone(), false)));
                continue;
            }
            let same = common_prefix(&truth[*start..end], &mark.source.text[mark.range.clone()]);
            let origin = mark.range.start..mark.range.start + same;
            push(*start..start + same, Some((&mark.source, origin, true)));
            push(start + same..end, None);
        }
    }
}

/// The text without marks, and (offset in it, number) of each; `None` where a mark is broken.
fn strip(marked: &str) -> Option<(String, Vec<(usize, usize)>)> {
    let mut text = String::with_capacity(marked.len());
    let mut places = Vec::new();
    let mut rest = marked;
    while let Some(open) = rest.find(OPEN) {
        text.push_str(&rest[..open]);
        let inside = &rest[open + OPEN.len_utf8()..];
        let close = inside.find(CLOSE)?;
        let mut number = 0usize;
        for digit in inside[..close].chars() {
            let digit = DIGITS.iter().position(|known| *known == digit)?;
            number = number.checked_mul(10)?.checked_add(digit)?;
        }
        places.push((text.len(), number));
        rest = &inside[close + CLOSE.len_utf8()..];
    }
    text.push_str(rest);
    Some((text, places))
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str) -> String {
        let source = Arc::new(Source { name: "a".into(), text: text.into() });
        Marks::default().mark(&source)
    }

    #[test]
    fn only_caught_text_is_marked() {
        let text = "a {{ b }}\n{% set c = 1 %}\n{% if d %}e{% endif %}\n";
        assert_eq!(marked(text), text);
        assert!(!has_captures(text));
        let text = "a{% macro m() %}b{% endmacro %}c";
        let marked = marked(text);
        assert_eq!(strip(&marked).unwrap(), (text.to_owned(), vec![("a{% macro m() %}".len(), 0)]));
    }

    #[test]
    fn a_mark_keeps_away_from_white_space_that_is_taken_away() {
        let marked = marked("{% set x -%}\n  a\n  b\n  {%- endset %}");
        let (_, places) = strip(&marked).unwrap();
        assert_eq!(places, [("{% set x -%}\n  ".len(), 0), ("{% set x -%}\n  a\n".len(), 1)]);
    }

    #[test]
    fn a_broken_mark_is_no_mark() {
        assert!(strip(&format!("{OPEN}1{CLOSE}")).is_none());
        assert!(strip(&format!("{OPEN}")).is_none());
    }
}
