//! Walks a Go template and writes it in Jinja.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::jinja::Jinja;
use super::pipeline::{Source, Term, Untranslatable};
use super::scope::{Boundary, Declared, Facts, Scopes};
use super::tags::{Piece, Tag, TagKind};
use super::text;

/// The state of a walk.
pub(super) struct Writer<'a> {
    pub(super) source: &'a str,
    /// Where each block that is opened ends, by where it begins.
    ends: &'a BTreeMap<usize, usize>,
    /// What the walk before this one learned.
    pub(super) before: &'a Facts,
    /// What this one learns.
    pub(super) facts: Facts,
    pub(super) scopes: Scopes,
    /// The tag that is being translated.
    pub(super) tag: Range<usize>,
    /// What to add to the offsets in its pipeline.
    pub(super) delta: isize,
    /// What `.` means.
    pub(super) dot: Term,
    /// What `$` means.
    pub(super) dollar: Term,
    /// The `define` that is being walked.
    pub(super) define: Option<String>,
    /// What is known to be there.
    pub(super) known: Vec<BTreeSet<Source>>,
    /// Variables that are written in another way than by their name.
    pub(super) stands_for: BTreeMap<Declared, Jinja>,
    /// Names of macros.
    pub(super) macros: BTreeMap<String, String>,
    pub(super) open: Vec<Block>,
    out: String,
    faults: Vec<Untranslatable>,
    notes: Vec<(Range<usize>, &'static str)>,
}

/// A block that is open.
pub(super) struct Block {
    pub(super) kind: BlockKind,
    /// `.` outside of it.
    pub(super) dot: Term,
    /// Ends that it needs beside its own.
    pub(super) more_ends: usize,
}

/// What a block becomes.
pub(super) enum BlockKind {
    If,
    Loop,
    Macro(Box<Outside>),
    /// Left as it is.
    Left,
}

/// What counts outside of a macro, and what calls it where it stands.
pub(super) struct Outside {
    pub(super) define: Option<String>,
    pub(super) dollar: Term,
    pub(super) known: Vec<BTreeSet<Source>>,
    pub(super) call: Option<String>,
}

/// A tag of Jinja without its delimiters.
pub(super) enum Written {
    Statement(String),
    Expression(String),
    Comment(String),
    /// Text in the place of the tag, where the tag takes no white space away.
    Plain(String),
}

/// What a walk gives.
pub(super) struct Walked {
    pub(super) text: String,
    pub(super) facts: Facts,
    pub(super) faults: Vec<Untranslatable>,
    /// Where the translation means something else in cases that are no recipe's.
    pub(super) notes: Vec<(Range<usize>, &'static str)>,
}

/// Walks the pieces of a template once.
pub(super) fn walk(
    source: &str,
    pieces: &[Piece],
    ends: &BTreeMap<usize, usize>,
    words: &BTreeSet<String>,
    before: &Facts,
) -> Walked {
    let root = Term::root(0..0);
    let mut writer = Writer {
        source,
        ends,
        before,
        facts: Facts::default(),
        scopes: Scopes::new(source.len(), words.clone()),
        tag: 0..0,
        delta: 0,
        dot: root.clone(),
        dollar: root,
        define: None,
        known: Vec::new(),
        stands_for: BTreeMap::new(),
        macros: BTreeMap::new(),
        open: Vec::new(),
        out: String::with_capacity(source.len() + source.len() / 8),
        faults: Vec::new(),
        notes: Vec::new(),
    };
    for piece in pieces {
        match piece {
            Piece::Text(range) => writer.out.push_str(&text::protected(&source[range.clone()])),
            Piece::Tag(tag) => writer.tag(tag),
        }
    }
    Walked { text: writer.out, facts: writer.facts, faults: writer.faults, notes: writer.notes }
}

impl Writer<'_> {
    fn tag(&mut self, tag: &Tag) {
        self.tag = tag.range.clone();
        if let TagKind::Comment(range) = &tag.kind {
            let body = text::comment(&self.source[range.clone()]);
            self.comment(tag, &body);
            return;
        }
        let left = self.open.last().is_some_and(|block| matches!(block.kind, BlockKind::Left));
        let closes = matches!(tag.kind, TagKind::End | TagKind::Else | TagKind::ElseIf(_) | TagKind::ElseWith(_));
        if left && closes {
            self.keep(tag, None);
            if matches!(tag.kind, TagKind::End) {
                self.close();
            }
            return;
        }
        let (blocks, dot, known) = (self.open.len(), self.dot.clone(), self.known.len());
        match self.translated(tag) {
            Ok(written) => self.write(tag, &written),
            Err(fault) => {
                self.known.truncate(known);
                self.dot = dot;
                self.keep(tag, Some(&fault));
                self.faults.push(fault);
                let opens = matches!(
                    tag.kind,
                    TagKind::If(_) | TagKind::With(_) | TagKind::Range(_) | TagKind::Define(_) | TagKind::Block(..)
                );
                if opens && self.open.len() == blocks {
                    self.open_block(BlockKind::Left, Boundary::None);
                }
            }
        }
    }

    /// Leaves a tag as it is, and says why.
    fn keep(&mut self, tag: &Tag, fault: Option<&Untranslatable>) {
        self.out.push_str(&self.source[tag.range.clone()]);
        if let Some(fault) = fault {
            self.out.push_str(&format!("{{#{}#}}", text::comment(&format!("not translated: {}", fault.why))));
        }
    }

    /// Writes tags where one tag was, with its signs at both ends and its white space inside.
    fn write(&mut self, tag: &Tag, written: &[Written]) {
        let inner = &self.source[tag.inner.clone()];
        let lead = &inner[..inner.len() - inner.trim_start().len()];
        let trail = &inner[inner.trim_end().len()..];
        let or_space = |space: &str| if space.is_empty() { " ".to_owned() } else { space.to_owned() };
        let last = written.len().saturating_sub(1);
        for (index, part) in written.iter().enumerate() {
            if let (Written::Plain(text), false, false) = (part, tag.trims_before, tag.trims_after) {
                self.out.push_str(text);
                continue;
            }
            let opening_sign = if index == 0 && tag.trims_before { "-" } else { "" };
            let closing_sign = if index == last && tag.trims_after { "-" } else { "" };
            let lead = if index == 0 { or_space(lead) } else { " ".to_owned() };
            let trail = if index == last { or_space(trail) } else { " ".to_owned() };
            let (open, close, body) = match part {
                Written::Statement(body) => ("{%", "%}", body.clone()),
                Written::Expression(body) => ("{{", "}}", body.clone()),
                Written::Comment(body) => ("{#", "#}", body.clone()),
                Written::Plain(text) => ("{{", "}}", Jinja::text(text.as_str()).written()),
            };
            self.out.push_str(&format!("{open}{opening_sign}{lead}{body}{trail}{closing_sign}{close}"));
        }
    }

    fn comment(&mut self, tag: &Tag, body: &str) {
        let (before, after) = (if tag.trims_before { "-" } else { "" }, if tag.trims_after { "-" } else { "" });
        self.out.push_str(&format!("{{#{before}{body}{after}#}}"));
    }

    /// Notes in what cases the translation means something else.
    pub(super) fn note(&mut self, at: Range<usize>, note: &'static str) {
        self.notes.push((at, note));
    }

    /// Where the block that the current tag opens ends.
    fn end_of_block(&self) -> usize {
        self.ends.get(&self.tag.start).copied().unwrap_or(self.source.len())
    }

    /// Opens a block at the current tag.
    pub(super) fn open_block(&mut self, kind: BlockKind, boundary: Boundary) {
        self.scopes.open(boundary, self.end_of_block());
        self.known.push(BTreeSet::new());
        self.open.push(Block { kind, dot: self.dot.clone(), more_ends: 0 });
    }

    /// Closes the innermost block.
    pub(super) fn close(&mut self) -> Option<Block> {
        let block = self.open.pop()?;
        self.scopes.close();
        self.known.pop();
        self.dot = block.dot.clone();
        Some(block)
    }

    /// Begins what stands after `else`.
    pub(super) fn restart(&mut self) {
        let until = self.source.len();
        self.scopes.close();
        self.scopes.open(Boundary::None, until);
        if let Some(known) = self.known.last_mut() {
            known.clear();
        }
        if let Some(block) = self.open.last() {
            self.dot = block.dot.clone();
        }
    }
}
