//! Where the tags of a Go template are. Only that: what they mean is the parser's affair.

use std::ops::Range;

/// `{{ … }}`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::recipe) struct Tag {
    /// With its delimiters.
    pub(in crate::recipe) range: Range<usize>,
    /// Without its delimiters, their signs, and the white space inside them.
    pub(in crate::recipe) inner: Range<usize>,
    /// Whether it is `{{/* … */}}`.
    pub(in crate::recipe) comment: bool,
}

impl Tag {
    /// What stands in it.
    pub(in crate::recipe) fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.inner.clone()]
    }

    /// Its first word: `if`, `end`, the name of a function.
    pub(in crate::recipe) fn word<'t>(&self, text: &'t str) -> &'t str {
        let inner = self.text(text);
        &inner[..inner.find(|c: char| !is_word(c)).unwrap_or(inner.len())]
    }
}

/// Whether a name may have this character.
pub(in crate::recipe) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The tags of a template in order. One that is not closed ends the search: the parser says why.
pub(in crate::recipe) fn tags(text: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find("{{").map(|found| at + found) {
        let Some(tag) = tag_at(text, start) else { break };
        at = tag.range.end;
        found.push(tag);
    }
    found
}

fn tag_at(text: &str, start: usize) -> Option<Tag> {
    let bytes = text.as_bytes();
    let mut body = start + 2;
    if bytes.get(body) == Some(&b'-') && bytes.get(body + 1).is_some_and(|byte| is_space(*byte)) {
        body += 1;
    }
    let first = body + text[body..].len() - text[body..].trim_start().len();
    let comment = text[first..].starts_with("/*");
    let (inner_end, end) = if comment {
        let close = first + text[first..].find("*/")? + 2;
        (close, close + text[close..].find("}}")? + 2)
    } else {
        let close = closing(text, body)?;
        let inner = &text[body..close];
        let trims = inner.strip_suffix('-').is_some_and(|rest| rest.as_bytes().last().is_some_and(|b| is_space(*b)));
        (close - usize::from(trims), close + 2)
    };
    let trimmed = text[body..inner_end.max(body)].trim();
    let inner = if trimmed.is_empty() { body..body } else { first..first + trimmed.len() };
    Some(Tag { range: start..end, inner, comment })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Where the `}}` of a tag is; those in strings do not count.
fn closing(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'`' | b'\'') => at = end_of_quoted(bytes, at, quote)?,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// The byte after a quoted text that starts at `start`.
pub(super) fn end_of_quoted(bytes: &[u8], start: usize, quote: u8) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'\\' if quote != b'`' => at += 2,
            b'\n' if quote != b'`' => return None,
            byte if *byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// How long the quoted text is that a text starts with.
pub(in crate::recipe) fn quoted_length(text: &str) -> Option<usize> {
    end_of_quoted(text.as_bytes(), 0, *text.as_bytes().first()?)
}

/// Where the operand that starts at `start` ends: a name, a path of fields, a literal, or what is in parentheses.
pub(super) fn operand_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start;
    let mut depth = 0usize;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'`' | b'\'') => match end_of_quoted(bytes, at, quote) {
                Some(end) => at = end,
                None => break,
            },
            b'(' => {
                depth += 1;
                at += 1;
            }
            b')' if depth == 0 => break,
            b')' => {
                depth -= 1;
                at += 1;
            }
            b'}' if bytes.get(at + 1) == Some(&b'}') => break,
            byte if depth == 0 && (is_space(byte) || matches!(byte, b'|' | b',' | b'=')) => break,
            b':' if depth == 0 && bytes.get(at + 1) == Some(&b'=') => break,
            _ => at += 1,
        }
    }
    at.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        tags(text).iter().map(|tag| tag.text(text)).collect()
    }

    #[test]
    fn tags_are_found_with_their_insides() {
        assert_eq!(
            found("a {{ .b }} {{- if .c -}} {{/* d }} */}} {{- \"}}\" -}}"),
            [".b", "if .c", "/* d }} */", "\"}}\""]
        );
        assert_eq!(found("{{`}}`}}{{ '}' }}{{}}{{ \"a\\\"}}\" }}"), ["`}}`", "'}'", "", "\"a\\\"}}\""]);
        assert_eq!(found("{{-3}}{{ 3 -}}{{3-}}"), ["-3", "3", "3-"]);
        assert_eq!(found("{{ open"), [""; 0]);
    }

    #[test]
    fn an_operand_ends_before_what_is_no_part_of_it() {
        for (text, expected) in [
            (".a.b | c", ".a.b"),
            ("(printf \"%s )\" .a).b c", "(printf \"%s )\" .a).b"),
            ("\"a b\" c", "\"a b\""),
            ("$x}}", "$x"),
            ("$x := 1", "$x"),
            (".a) .b", ".a"),
        ] {
            assert_eq!(&text[..operand_end(text, 0)], expected);
        }
    }
}
