//! Where a template's tags are. Only that: what they mean is minijinja's affair.

use std::ops::Range;

/// What a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagKind {
    /// `{{ … }}`
    Expression,
    /// `{% … %}`
    Statement,
    /// `{# … #}`
    Comment,
}

/// A tag of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: TagKind,
    /// With its delimiters.
    pub(super) range: Range<usize>,
    /// Without its delimiters, their signs, and the white space inside them.
    pub(super) inner: Range<usize>,
    /// The sign after the opening delimiter: `-`, `+`, or nothing.
    pub(super) opening_sign: &'static str,
    /// Whether white space after the tag is taken away.
    pub(super) trims_after: bool,
}

impl Tag {
    /// The first word of a statement: `include`, `endmacro`.
    pub(super) fn word<'t>(&self, text: &'t str) -> &'t str {
        let inner = &text[self.inner.clone()];
        let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len());
        &inner[..end]
    }

    /// Whether white space before the tag is taken away.
    pub(super) fn trims_before(&self) -> bool {
        self.opening_sign == "-"
    }
}

/// The words of an expression that may be names, those in strings among them.
pub(super) fn words(expression: &str) -> impl Iterator<Item = String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    expression
        .split(move |c| !is_word(c))
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
        .map(str::to_owned)
}

/// The tags of a template in order; what stands between `{% raw %}` and `{% endraw %}` has none.
pub(super) fn tags(text: &str) -> Vec<Tag> {
    let mut found: Vec<Tag> = Vec::new();
    let mut at = 0;
    while let Some(tag) = next_tag(text, at) {
        at = tag.range.end;
        let raw = tag.kind == TagKind::Statement && &text[tag.inner.clone()] == "raw";
        found.push(tag);
        if raw {
            let Some(end) = end_of_raw(text, at) else { break };
            at = end.range.end;
            found.push(end);
        }
    }
    found
}

fn next_tag(text: &str, from: usize) -> Option<Tag> {
    let mut at = from;
    loop {
        let start = at + text[at..].find('{')?;
        let kind = match text.as_bytes().get(start + 1) {
            Some(b'{') => TagKind::Expression,
            Some(b'%') => TagKind::Statement,
            Some(b'#') => TagKind::Comment,
            _ => {
                at = start + 1;
                continue;
            }
        };
        return tag_at(text, start, kind);
    }
}

fn end_of_raw(text: &str, from: usize) -> Option<Tag> {
    let mut at = from;
    loop {
        let start = at + text[at..].find("{%")?;
        match tag_at(text, start, TagKind::Statement) {
            Some(tag) if &text[tag.inner.clone()] == "endraw" => return Some(tag),
            _ => at = start + 2,
        }
    }
}

fn tag_at(text: &str, start: usize, kind: TagKind) -> Option<Tag> {
    let sign = match text.as_bytes().get(start + 2) {
        Some(b'-') => "-",
        Some(b'+') => "+",
        _ => "",
    };
    let body = start + 2 + sign.len();
    let (body_end, end) = match kind {
        TagKind::Comment => {
            let close = body + text[body..].find("#}")?;
            (close, close + 2)
        }
        TagKind::Expression => closing(text, body, "}}")?,
        TagKind::Statement => closing(text, body, "%}")?,
    };
    let trimmed = text[body..body_end].trim_end_matches(['-', '+']);
    let trims_after = text[body..body_end].ends_with('-');
    let trimmed = trimmed.trim_end();
    let inner_start = body + (trimmed.len() - trimmed.trim_start().len());
    let inner = inner_start..(body + trimmed.len()).max(inner_start);
    Some(Tag { kind, range: start..end, inner, opening_sign: sign, trims_after })
}

/// Where a tag's body and the tag end; delimiters in strings and brackets do not count.
fn closing(text: &str, from: usize, delimiter: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut quote = None;
    let mut at = from;
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(_) if byte == b'\\' => at += 1,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if depth == 0 && bytes[at..].starts_with(delimiter.as_bytes()) => return Some((at, at + 2)),
            None => match byte {
                b'\'' | b'"' => quote = Some(byte),
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        tags(text).into_iter().map(|tag| &text[tag.inner]).collect()
    }

    #[test]
    fn tags_are_found_with_their_insides() {
        assert_eq!(found("a {{ b }} {%- if c -%} {# d #} {{- e -}}"), ["b", "if c", "d", "e"]);
        assert_eq!(
            found(r#"{{ {"a": {"b": 1}} }}{{ "}}" }}{{ '%}' ~ "\"}}" }}"#),
            [r#"{"a": {"b": 1}}"#, r#""}}""#, r#"'%}' ~ "\"}}""#]
        );
        assert_eq!(found("{ { {} {{"), [""; 0]);
        assert_eq!(found("{% raw %}{{ no }}{%- endraw -%}{{ yes }}"), ["raw", "endraw", "yes"]);
        assert_eq!(found("{%%}{{-}}"), ["", ""]);
    }

    #[test]
    fn signs_are_told_apart() {
        let signs: Vec<_> =
            tags("{%- a +%}{%+ b -%}{{ -c }}").into_iter().map(|tag| (tag.opening_sign, tag.trims_after)).collect();
        assert_eq!(signs, [("-", false), ("+", true), ("", false)]);
    }
}
