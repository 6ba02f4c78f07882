//! debos's recipes, Go templates, in Jinja.
//!
//! A template is cut into text and tags ([`tags`]), and walked tag by tag ([`writer`], [`blocks`]): text is copied
//! ([`text`]), a pipeline becomes an expression ([`pipeline`], [`functions`], [`lists`], [`maps`], [`printing`], [`jinja`]).
//! What variables mean, and what values may be, is learned on the way ([`scope`], [`kinds`]).

mod blocks;
mod comment_out;
mod compare;
mod files;
mod functions;
mod jinja;
mod kinds;
mod lists;
mod maps;
mod pipeline;
mod printing;
mod scope;
mod tags;
mod text;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotmpl::TemplateError;
use gotmpl::parse::Parser;

use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span};
use crate::recipe::Dialect;
pub use comment_out::comment_out;
pub use compare::{Difference, Pair, Same, Steps, Together};
pub use files::{Translated, places_below, translate_all, write};
use scope::Facts;
use tags::{Piece, TagKind};

/// Walks after which nothing new is learned of any template that a person wrote.
const MAX_WALKS: usize = 12;

/// A template in Jinja.
#[derive(Debug)]
pub struct Translation {
    /// The whole of it; tags that could not be translated stand in it as they were, with a comment each.
    pub text: String,
    /// What could not be translated, with its place in the original; as warnings, what could not be to the letter.
    pub faults: Diagnostics,
    /// How many tags there are, comments among them.
    pub tags: usize,
    /// The variables that it asks for.
    pub inputs: BTreeSet<String>,
    /// Those that have to be given: without them debos writes `<no value>`, and Jinja stops.
    pub wanted: BTreeSet<String>,
    /// What each is compared with.
    pub compared: BTreeMap<String, BTreeSet<String>>,
}

/// Writes a Go template in Jinja.
pub fn translate(source: &Arc<Source>) -> Translation {
    let text = &source.text;
    let mut faults = Diagnostics::new();
    let failed = |faults: Diagnostics| Translation {
        text: text.clone(),
        faults,
        tags: 0,
        inputs: BTreeSet::new(),
        wanted: BTreeSet::new(),
        compared: BTreeMap::new(),
    };
    if crate::recipe::language(text) == Some(Dialect::Jinja) {
        faults.push(Diagnostic::error("this recipe is in Jinja already", Span::new(source, 0, 0)));
        return failed(faults);
    }
    if let Err(error) = Parser::new(text, "{{", "}}").and_then(Parser::parse) {
        faults.push(unreadable(source, &error));
        return failed(faults);
    }
    let pieces = match tags::pieces(text) {
        Ok(pieces) => pieces,
        Err(error) => {
            let end = (error.at + 2).min(text.len());
            faults.push(Diagnostic::error(
                format!("this is no Go template: {}", error.why),
                Span::new(source, error.at, end),
            ));
            return failed(faults);
        }
    };
    let ends = ends(source, &pieces, &mut faults);
    if faults.has_errors() {
        return failed(faults);
    }
    let words = words(text, &pieces);
    let mut facts = Facts::default();
    let mut walked = writer::walk(text, &pieces, &ends, &words, &facts);
    for _ in 0..MAX_WALKS {
        if walked.facts == facts {
            break;
        }
        facts = walked.facts;
        walked = writer::walk(text, &pieces, &ends, &words, &facts);
    }
    for fault in walked.faults {
        let diagnostic = Diagnostic::error(fault.why, Span::new(source, fault.at.start, fault.at.end));
        faults.push(match fault.hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        });
    }
    for (at, note) in walked.notes {
        faults.push(Diagnostic::warning(note, Span::new(source, at.start, at.end)));
    }
    Translation {
        text: walked.text,
        faults,
        tags: pieces.iter().filter(|piece| matches!(piece, Piece::Tag(_))).count(),
        inputs: walked.facts.inputs.into_keys().collect(),
        wanted: walked.facts.wanted,
        compared: walked.facts.compared,
    }
}

/// Where each block ends, by where it begins; what does not begin or end is reported.
fn ends(source: &Arc<Source>, pieces: &[Piece], faults: &mut Diagnostics) -> BTreeMap<usize, usize> {
    let mut ends = BTreeMap::new();
    let mut open = Vec::new();
    for piece in pieces {
        let Piece::Tag(tag) = piece else { continue };
        match tag.kind {
            TagKind::If(_) | TagKind::With(_) | TagKind::Range(_) | TagKind::Define(_) | TagKind::Block(..) => {
                open.push(tag.range.clone());
            }
            TagKind::End | TagKind::Else | TagKind::ElseIf(_) | TagKind::ElseWith(_) if open.is_empty() => {
                let span = Span::new(source, tag.range.start, tag.range.end);
                faults.push(Diagnostic::error("no block is open that this could end", span));
            }
            TagKind::End => {
                if let Some(begin) = open.pop() {
                    ends.insert(begin.start, tag.range.end);
                }
            }
            _ => {}
        }
    }
    for begin in open {
        let span = Span::new(source, begin.start, begin.end);
        faults.push(Diagnostic::error("this block has no `end`", span));
    }
    ends
}

/// The names of all variables and of all that is read with a dot: names that are taken.
fn words(text: &str, pieces: &[Piece]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for piece in pieces {
        let Piece::Tag(tag) = piece else { continue };
        let inner = &text[tag.inner.clone()];
        for (at, _) in inner.match_indices(['.', '$']) {
            let rest = &inner[at + 1..];
            words.insert(rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())].to_owned());
        }
    }
    words
}

fn unreadable(source: &Arc<Source>, error: &TemplateError) -> Diagnostic {
    let (line, column, message) = match error {
        TemplateError::Parse { line, col, message, .. } | TemplateError::Lex { line, col, message, .. } => {
            (*line, *col, message.clone())
        }
        other => (1, 1, other.to_string()),
    };
    let before: usize = source.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = source.text[before..].lines().next().unwrap_or_default();
    let start = before + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at);
    let end = source.text[start..].chars().next().filter(|c| *c != '\n').map_or(start, |c| start + c.len_utf8());
    Diagnostic::error(format!("this is no Go template: {message}"), Span::new(source, start, end))
}
