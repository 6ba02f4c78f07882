//! The tags of a Go template, and what each of them says.

use std::ops::Range;

use gotmpl::parse::{Node, Parser, PipeNode};

/// A part of a template.
#[derive(Debug)]
pub(super) enum Piece {
    /// What stands outside of tags.
    Text(Range<usize>),
    /// What stands between `{{` and `}}`.
    Tag(Tag),
}

/// One `{{ … }}`.
#[derive(Debug)]
pub(super) struct Tag {
    /// With its delimiters.
    pub(super) range: Range<usize>,
    /// Without its delimiters and their signs.
    pub(super) inner: Range<usize>,
    /// Whether white space before it is taken away.
    pub(super) trims_before: bool,
    /// Whether white space after it is taken away.
    pub(super) trims_after: bool,
    /// What it says.
    pub(super) kind: TagKind,
}

/// What a tag says.
#[derive(Debug)]
pub(super) enum TagKind {
    /// `/* … */`, with the bytes between the stars.
    Comment(Range<usize>),
    /// A pipeline that is printed, or that sets a variable.
    Action(Pipe),
    If(Pipe),
    ElseIf(Pipe),
    With(Pipe),
    ElseWith(Pipe),
    Range(Pipe),
    Else,
    End,
    Define(String),
    Template(String, Option<Pipe>),
    Block(String, Option<Pipe>),
    Break,
    Continue,
    /// Not to be read, and why.
    Bad(String),
}

/// A pipeline, and what to add to its offsets to have those of the whole text.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) node: PipeNode,
    pub(super) delta: isize,
}

/// A tag that never ends, or what else makes a text no Go template.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) at: usize,
    pub(super) why: String,
}

/// White space as Go's templates have it.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The parts of a template in order.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Unreadable> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find("{{").map(|offset| at + offset) {
        if start > at {
            found.push(Piece::Text(at..start));
        }
        let tag = tag(text, start)?;
        at = tag.range.end;
        found.push(Piece::Tag(tag));
    }
    if at < text.len() {
        found.push(Piece::Text(at..text.len()));
    }
    Ok(found)
}

fn tag(text: &str, start: usize) -> Result<Tag, Unreadable> {
    let body = start + 2;
    let trims_before = text[body..].starts_with('-') && text[body + 1..].starts_with(SPACE);
    let body = if trims_before { body + 1 } else { body };
    let first = body + (text[body..].len() - text[body..].trim_start().len());
    let unclosed = || Unreadable { at: start, why: "this tag has no end".into() };
    let (inner_end, end, comment) = if text[first..].starts_with("/*") {
        let close = first + 2 + text[first + 2..].find("*/").ok_or_else(unclosed)?;
        let (inner_end, end) = closing(text, close + 2).ok_or_else(unclosed)?;
        (inner_end, end, Some(first + 2..close))
    } else {
        let (inner_end, end) = closing(text, body).ok_or_else(unclosed)?;
        (inner_end, end, None)
    };
    let trims_after = end - inner_end > 2;
    let inner = body..inner_end;
    let kind = match comment {
        Some(range) => TagKind::Comment(range),
        None => kind(text, inner.clone()),
    };
    Ok(Tag { range: start..end, inner, trims_before, trims_after, kind })
}

/// Where a tag's body and the tag end; delimiters in strings do not count.
fn closing(text: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = from;
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(b'`') if byte == b'`' => quote = None,
            Some(b'"' | b'\'') if byte == b'\\' => at += 1,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if matches!(byte, b'"' | b'\'' | b'`') => quote = Some(byte),
            None if bytes[at..].starts_with(b"}}") => {
                let signed = text[from..at].strip_suffix('-').is_some_and(|rest| rest.ends_with(SPACE));
                return Some((if signed { at - 1 } else { at }, at + 2));
            }
            None => {}
        }
        at += 1;
    }
    None
}

fn kind(text: &str, inner: Range<usize>) -> TagKind {
    let (word, rest) = word(text, inner.clone());
    let blank = text[rest.clone()].trim().is_empty();
    match word {
        "if" => pipe(text, "if", rest).map_or_else(TagKind::Bad, TagKind::If),
        "with" => pipe(text, "with", rest).map_or_else(TagKind::Bad, TagKind::With),
        "range" => pipe(text, "range", rest).map_or_else(TagKind::Bad, TagKind::Range),
        "end" if blank => TagKind::End,
        "else" if blank => TagKind::Else,
        "else" => match self::word(text, rest) {
            ("if", rest) => pipe(text, "if", rest).map_or_else(TagKind::Bad, TagKind::ElseIf),
            ("with", rest) => pipe(text, "with", rest).map_or_else(TagKind::Bad, TagKind::ElseWith),
            _ => TagKind::Bad("`else` is followed by `if`, `with` or nothing".into()),
        },
        "break" if blank => TagKind::Break,
        "continue" if blank => TagKind::Continue,
        "define" => named(text, "define", rest).map_or_else(TagKind::Bad, |(name, _)| TagKind::Define(name)),
        "template" => {
            named(text, "template", rest).map_or_else(TagKind::Bad, |(name, pipe)| TagKind::Template(name, pipe))
        }
        "block" => named(text, "block", rest).map_or_else(TagKind::Bad, |(name, pipe)| TagKind::Block(name, pipe)),
        _ => pipe(text, "", inner).map_or_else(TagKind::Bad, TagKind::Action),
    }
}

/// The first word of a tag, and what follows it.
fn word(text: &str, inner: Range<usize>) -> (&str, Range<usize>) {
    let body = &text[inner.clone()];
    let start = inner.start + (body.len() - body.trim_start().len());
    let length = text[start..inner.end].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.end - start);
    (&text[start..start + length], start + length..inner.end)
}

/// Reads one tag by itself: with its keyword, and the end that it wants.
fn parse(keyword: &str, rest: &str, end: &str) -> Result<(Vec<Node>, Vec<gotmpl::parse::DefineNode>), String> {
    let alone = format!("{{{{{keyword} {rest} }}}}{end}");
    let (list, defines) =
        Parser::new(&alone, "{{", "}}").and_then(Parser::parse).map_err(|error| reason(&error.to_string()))?;
    Ok((list.nodes, defines))
}

fn pipe(text: &str, keyword: &str, rest: Range<usize>) -> Result<Pipe, String> {
    let delta = rest.start as isize - (keyword.len() as isize + 3);
    let end = if keyword.is_empty() { "" } else { "{{end}}" };
    let (nodes, _) = parse(keyword, &text[rest], end)?;
    let node = match nodes.into_iter().next() {
        Some(Node::Action(node)) => node.pipe,
        Some(Node::If(node) | Node::With(node) | Node::Range(node)) => node.pipe,
        _ => return Err("this is nothing that a template says".into()),
    };
    Ok(Pipe { node, delta })
}

fn named(text: &str, keyword: &str, rest: Range<usize>) -> Result<(String, Option<Pipe>), String> {
    let delta = rest.start as isize - (keyword.len() as isize + 3);
    let end = if keyword == "template" { "" } else { "{{end}}" };
    let (nodes, defines) = parse(keyword, &text[rest], end)?;
    match (nodes.into_iter().next(), defines.into_iter().next()) {
        (Some(Node::Template(node)), _) => Ok((node.name.to_string(), node.pipe.map(|node| Pipe { node, delta }))),
        (_, Some(define)) => Ok((define.name.to_string(), None)),
        _ => Err("this is nothing that a template says".into()),
    }
}

/// The message of the parser without the place, which is that of the tag by itself.
fn reason(message: &str) -> String {
    let message = message.strip_prefix("template: ").unwrap_or(message);
    match message.split_once(": ") {
        Some((place, rest)) if place.chars().all(|c| c.is_ascii_digit() || c == ':') => rest.to_owned(),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Vec<Tag> {
        let tags = pieces(text).unwrap().into_iter();
        tags.filter_map(|piece| if let Piece::Tag(tag) = piece { Some(tag) } else { None }).collect()
    }

    #[test]
    fn a_tag_ends_where_no_string_is_open() {
        let text = "a {{ print \"}}\" `}}` '}' -}} b {{- /* }} */ -}} c";
        let ranges: Vec<&str> = tags(text).iter().map(|tag| &text[tag.range.clone()]).collect();
        assert_eq!(ranges, ["{{ print \"}}\" `}}` '}' -}}", "{{- /* }} */ -}}"]);
    }

    #[test]
    fn signs_need_white_space_as_go_has_it() {
        let found: Vec<(bool, bool)> =
            tags("{{- 1 -}}{{-1}}{{ 1 }}").iter().map(|tag| (tag.trims_before, tag.trims_after)).collect();
        assert_eq!(found, [(true, true), (false, false), (false, false)]);
    }

    #[test]
    fn offsets_are_those_of_the_whole_text() {
        let text = "x: {{ if eq .arch \"a\" }}{{ else if .two }}{{ end }}";
        let starts: Vec<&str> = tags(text)
            .iter()
            .filter_map(|tag| match &tag.kind {
                TagKind::If(pipe) | TagKind::ElseIf(pipe) => {
                    Some(&text[(pipe.node.pos.offset as isize + pipe.delta) as usize..][..2])
                }
                _ => None,
            })
            .collect();
        assert_eq!(starts, ["eq", ".t"]);
    }

    #[test]
    fn a_tag_without_an_end_is_found() {
        assert_eq!(pieces("a\n{{ if").unwrap_err().at, 2);
    }
}
