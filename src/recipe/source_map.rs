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
        let mut diagnostic = Diagnostic::error(message, self.span.clone());
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
        let start = first.origin_start(rendered.start);
        let end = if rendered.end <= rendered.start {
            if first.literal { start } else { first.origin.end }
        } else {
            match self.piece_at(rendered.end - 1) {
                // A loop's second round starts above the first one's end, so the order may be turned round.
                Some(last) if Arc::ptr_eq(&last.source, &first.source) => {
                    let end = last.origin_end(rendered.end);
                    if end < start { first.origin.end } else { end }
                }
                _ => first.origin.end,
            }
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
