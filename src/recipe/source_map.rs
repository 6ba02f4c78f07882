//! Which part of which file each part of a rendered text came from.

use std::ops::Range;
use std::sync::Arc;

use crate::diagnostics::{Diagnostic, Source, Span};

/// A place in the author's files, and how one got there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The text itself.
    pub(super) span: Span,
    /// Includes and nested recipes that led to its file, innermost first.
    pub(super) included_from: Vec<Span>,
}

impl Origin {
    /// An error here.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.place(Diagnostic::error(message, self.span.clone()))
    }

    /// A warning here.
    pub(super) fn warning(&self, message: impl Into<String>) -> Diagnostic {
        self.place(Diagnostic::warning(message, self.span.clone()))
    }

    fn place(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        diagnostic.included_from.clone_from(&self.included_from);
        diagnostic
    }
}

/// A run of rendered text with one origin.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Bytes of the rendered text.
    pub(super) rendered: Range<usize>,
    /// The template they came from.
    pub(super) source: Arc<Source>,
    /// Bytes of that template.
    pub(super) origin: Range<usize>,
    /// Whether the text was copied as it is, byte for byte; else it is the value of the expression at `origin`.
    pub(super) literal: bool,
    /// Index into [`SourceMap::chains`].
    pub(super) chain: usize,
}

impl Piece {
    fn origin_start(&self, rendered: usize) -> usize {
        if self.literal {
            self.origin.start + (rendered.saturating_sub(self.rendered.start)).min(self.origin.len())
        } else {
            self.origin.start
        }
    }

    fn origin_end(&self, rendered: usize) -> usize {
        if self.literal { self.origin_start(rendered) } else { self.origin.end }
    }
}

/// A rendered text with the origin of each of its parts.
#[derive(Debug)]
pub(super) struct SourceMap {
    text: String,
    /// In the text's order, without overlaps.
    pieces: Vec<Piece>,
    chains: Vec<Vec<Span>>,
    /// For a text without any piece: the recipe itself.
    whole: Span,
}

impl SourceMap {
    pub(super) fn new(text: String, pieces: Vec<Piece>, chains: Vec<Vec<Span>>, whole: Span) -> Self {
        Self { text, pieces, chains, whole }
    }

    /// The rendered text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The origin of a part of the rendered text: of what is copied, the very bytes; of what an
    /// expression printed, the expression.
    pub(super) fn locate(&self, rendered: Range<usize>) -> Origin {
        let Some(first) = self.piece_at(rendered.start) else {
            return Origin { span: self.whole.clone(), included_from: self.chain(0) };
        };
        let last = self.piece_at(rendered.end.saturating_sub(1).max(rendered.start)).unwrap_or(first);
        let alone = std::ptr::eq(first, last);
        let text = first.source.text.as_str();
        let mut start = first.origin_start(rendered.start);
        if !first.literal && !alone {
            start = before_delimiter(text, start);
        }
        let end = if rendered.is_empty() && first.literal {
            start
        } else if Arc::ptr_eq(&last.source, &first.source) {
            let end = last.origin_end(rendered.end);
            let end = if last.literal || alone { end } else { after_delimiter(text, end) };
            // A loop's second round starts above the first one's end, so the order may be turned round.
            if end < start { first.origin.end } else { end }
        } else {
            first.origin.end
        };
        Origin { span: Span::new(&first.source, start, end), included_from: self.chain(first.chain) }
    }

    fn piece_at(&self, rendered: usize) -> Option<&Piece> {
        let after = self.pieces.partition_point(|piece| piece.rendered.start <= rendered);
        self.pieces.get(after.saturating_sub(1))
    }

    fn chain(&self, index: usize) -> Vec<Span> {
        self.chains.get(index).cloned().unwrap_or_default()
    }
}

/// The start of the `{{` before an expression.
fn before_delimiter(text: &str, start: usize) -> usize {
    let before = text[..start].trim_end().trim_end_matches(['-', '+']);
    before.strip_suffix("{{").map_or(start, str::len)
}

/// The end of the `}}` after an expression.
fn after_delimiter(text: &str, end: usize) -> usize {
    let after = text[end..].trim_start().trim_start_matches(['-', '+']);
    after.strip_prefix("}}").map_or(end, |rest| text.len() - rest.len())
}
