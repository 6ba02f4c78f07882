//! slim-sprig's regular expressions: Go's syntax, run by the crate `regex`, which is built like Go's own.

use ::regex::{NoExpand, Regex, RegexBuilder};

use super::Param::{Int, String as Text};
use super::{Context, Error, Function, Result, function, text};
use crate::recipe::go::format::quote;
use crate::recipe::go::value::Value;

/// Bytes that a compiled expression may take.
const MAX_COMPILED: usize = 4 << 20;

pub(super) const TABLE: &[Function] = &[
    function("regexMatch", &[Text, Text], |cx, given| Ok(matches(cx, given).unwrap_or(Value::Bool(false)))),
    function("mustRegexMatch", &[Text, Text], matches),
    function("regexFindAll", &[Text, Text, Int], find_all),
    function("mustRegexFindAll", &[Text, Text, Int], find_all),
    function("regexFind", &[Text, Text], find),
    function("mustRegexFind", &[Text, Text], find),
    function("regexReplaceAll", &[Text, Text, Text], replace),
    function("mustRegexReplaceAll", &[Text, Text, Text], replace),
    function("regexReplaceAllLiteral", &[Text, Text, Text], replace_literal),
    function("mustRegexReplaceAllLiteral", &[Text, Text, Text], replace_literal),
    function("regexSplit", &[Text, Text, Int], split),
    function("mustRegexSplit", &[Text, Text, Int], split),
    function("regexQuoteMeta", &[Text], |_, given| {
        let mut out = String::new();
        for c in given[0].str().chars() {
            if r"\.+*?()|[]{}^$".contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
        text(out)
    }),
];

fn compiled(given: &[Value]) -> Result<Regex> {
    let expression = given[0].str();
    RegexBuilder::new(&translated(expression)).size_limit(MAX_COMPILED).build().map_err(|error| {
        let why = match &error {
            ::regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        Error::Failed(format!("regexp: Compile({}): {why}", quote(expression)))
    })
}

/// An expression of Go as the crate reads it: `\d` and its kin are of ASCII, a brace or a bracket may stand for
/// itself, and what is escaped without need is not.
fn translated(expression: &str) -> String {
    let mut out = String::new();
    let mut chars = expression.char_indices().peekable();
    let mut class = 0usize;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((start, 'Q')) => {
                    let literal = &expression[start + 1..];
                    let literal = &literal[..literal.find("\\E").unwrap_or(literal.len())];
                    out.push_str(&::regex::escape(literal));
                    let end = start + 1 + literal.len() + 2;
                    while chars.next_if(|(at, _)| *at < end).is_some() {}
                }
                // The name of a class, or a number.
                Some((start, named @ ('p' | 'P' | 'x'))) if expression[start + 1..].starts_with('{') => {
                    let end = expression[start..].find('}').map_or(expression.len(), |end| start + end + 1);
                    out.extend(['\\', named]);
                    out.push_str(&expression[start + 1..end]);
                    while chars.next_if(|(at, _)| *at < end).is_some() {}
                }
                Some((_, escaped)) => out.push_str(&escape(escaped, class > 0)),
                None => out.push('\\'),
            },
            '[' if class == 0 => {
                class = 1;
                out.push('[');
                if chars.next_if(|(_, c)| *c == '^').is_some() {
                    out.push('^');
                }
                if chars.next_if(|(_, c)| *c == ']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' if expression[at..].starts_with("[:") => {
                let end = expression[at..].find(":]").map_or(at, |end| at + end + 2);
                out.push_str(&expression[at..end.max(at + 1)]);
                while chars.next_if(|(at, _)| *at < end).is_some() {}
            }
            '[' => out.push_str("\\["),
            ']' if class == 1 => {
                class = 0;
                out.push(']');
            }
            ']' => out.push_str("\\]"),
            '&' | '~' if class == 1 => out.extend(['\\', c]),
            '{' if class == 0 && !is_repetition(&expression[at..]) => out.push_str("\\{"),
            '}' if class == 0 && !closes_repetition(&expression[..at]) => out.push_str("\\}"),
            c => out.push(c),
        }
    }
    out
}

fn escape(c: char, in_class: bool) -> String {
    let set = |inner: &str, negated: bool| match (in_class, negated) {
        (true, false) => inner.to_owned(),
        (true, true) => format!("[^{inner}]"),
        (false, false) => format!("[{inner}]"),
        (false, true) => format!("[^{inner}]"),
    };
    match c {
        'd' | 'D' => set("0-9", c == 'D'),
        'w' | 'W' => set("0-9A-Za-z_", c == 'W'),
        's' | 'S' => set(r"\t\n\x0C\r ", c == 'S'),
        'b' | 'B' => format!("(?-u:\\{c})"),
        '<' | '>' | '_' | '"' | '\'' | '/' | ',' | ':' | ';' | '=' | '@' | '!' | '%' | '`' => c.to_string(),
        c => format!("\\{c}"),
    }
}

/// Whether a brace starts `{2}`, `{2,}` or `{2,3}`.
fn is_repetition(text: &str) -> bool {
    let Some(end) = text.find('}') else { return false };
    let inner = &text[1..end];
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// Whether a brace ends one.
fn closes_repetition(before: &str) -> bool {
    before.rfind('{').is_some_and(|open| is_repetition(&format!("{}}}", &before[open..])))
}

fn matches(_: Context, given: &[Value]) -> Result {
    Ok(Value::Bool(compiled(given)?.is_match(given[1].str())))
}

fn find(_: Context, given: &[Value]) -> Result {
    text(compiled(given)?.find(given[1].str()).map_or("", |found| found.as_str()))
}

fn find_all(_: Context, given: &[Value]) -> Result {
    let limit = usize::try_from(given[2].int()).unwrap_or(usize::MAX);
    Ok(Value::strings(compiled(given)?.find_iter(given[1].str()).take(limit).map(|found| found.as_str())))
}

fn replace(_: Context, given: &[Value]) -> Result {
    text(compiled(given)?.replace_all(given[1].str(), given[2].str()))
}

fn replace_literal(_: Context, given: &[Value]) -> Result {
    text(compiled(given)?.replace_all(given[1].str(), NoExpand(given[2].str())))
}

/// `Regexp.Split`
fn split(_: Context, given: &[Value]) -> Result {
    let (whole, count) = (given[1].str(), given[2].int());
    let expression = compiled(given)?;
    if count == 0 {
        return Ok(Value::strings([""; 0]));
    }
    if !given[0].str().is_empty() && whole.is_empty() {
        return Ok(Value::strings([""]));
    }
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    let (mut parts, mut start, mut end) = (Vec::new(), 0, 0);
    for found in expression.find_iter(whole) {
        if parts.len() + 1 >= limit {
            break;
        }
        end = found.start();
        if found.end() != 0 {
            parts.push(&whole[start..end]);
        }
        start = found.end();
    }
    if end != whole.len() {
        parts.push(&whole[start..]);
    }
    Ok(Value::strings(parts))
}
