//! slim-sprig's functions on texts.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::Param::{Any, Int, String as Text};
use super::{Error, Function, MAX_SIZE, Result, function, text, variadic};
use crate::recipe::go::format::quote;
use crate::recipe::go::value::{List, Value};

pub(super) const TABLE: &[Function] = &[
    function("trunc", &[Int, Text], |_, given| {
        let (count, whole) = (given[0].int(), given[1].str());
        let length = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        if count < 0 && length.saturating_add(count) > 0 {
            cut(whole, length + count, length)
        } else if count >= 0 && length > count {
            cut(whole, 0, count)
        } else {
            text(whole)
        }
    }),
    function("trim", &[Text], |_, given| text(given[0].str().trim())),
    function("upper", &[Text], |_, given| text(given[0].str().chars().map(upper).collect::<String>())),
    function("lower", &[Text], |_, given| text(given[0].str().chars().map(lower).collect::<String>())),
    function("title", &[Text], |_, given| text(title(given[0].str()))),
    function("substr", &[Int, Int, Text], |_, given| {
        let (start, end, whole) = (given[0].int(), given[1].int(), given[2].str());
        let length = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        if start < 0 {
            cut(whole, 0, end)
        } else if end < 0 || end > length {
            cut(whole, start, length)
        } else {
            cut(whole, start, end)
        }
    }),
    function("repeat", &[Int, Text], |_, given| {
        let Ok(count) = usize::try_from(given[0].int()) else {
            return Err("strings: negative Repeat count".into());
        };
        // Before the memory is taken, not after.
        if count.saturating_mul(given[1].str().len()) > MAX_SIZE {
            return Err("the text is too long".into());
        }
        text(given[1].str().repeat(if given[1].str().is_empty() { 0 } else { count }))
    }),
    function("trimall", &[Text, Text], |_, given| text(trim_all(given))),
    function("trimAll", &[Text, Text], |_, given| text(trim_all(given))),
    function("trimSuffix", &[Text, Text], |_, given| {
        text(given[1].str().strip_suffix(given[0].str()).unwrap_or(given[1].str()))
    }),
    function("trimPrefix", &[Text, Text], |_, given| {
        text(given[1].str().strip_prefix(given[0].str()).unwrap_or(given[1].str()))
    }),
    function("contains", &[Text, Text], |_, given| Ok(Value::Bool(given[1].str().contains(given[0].str())))),
    function("hasPrefix", &[Text, Text], |_, given| Ok(Value::Bool(given[1].str().starts_with(given[0].str())))),
    function("hasSuffix", &[Text, Text], |_, given| Ok(Value::Bool(given[1].str().ends_with(given[0].str())))),
    variadic("quote", &[], Any, |_, given| text(given_ones(given).map(|value| quote(&shown(value))).join_by(" "))),
    variadic("squote", &[], Any, |_, given| text(given_ones(given).map(|value| format!("'{value}'")).join_by(" "))),
    variadic("cat", &[], Any, |_, given| text(given_ones(given).map(Value::to_string).join_by(" "))),
    function("indent", &[Int, Text], |_, given| text(indent(given)?)),
    function("nindent", &[Int, Text], |_, given| text(format!("\n{}", indent(given)?))),
    function("replace", &[Text, Text, Text], |_, given| {
        let (old, new, whole) = (given[0].str(), given[1].str(), given[2].str());
        let times = if old.is_empty() { whole.len() + 1 } else { whole.matches(old).count() };
        if times.saturating_mul(new.len()) > MAX_SIZE {
            return Err("the text is too long".into());
        }
        text(whole.replace(old, new))
    }),
    function("plural", &[Text, Text, Int], |_, given| Ok(given[usize::from(given[2].int() != 1)].clone())),
    function("sha1sum", &[Text], |_, given| text(hex::encode(Sha1::digest(given[0].str().as_bytes())))),
    function("sha256sum", &[Text], |_, given| text(hex::encode(Sha256::digest(given[0].str().as_bytes())))),
    function("adler32sum", &[Text], |_, given| text(adler32(given[0].str().as_bytes()).to_string())),
    function("toString", &[Any], |_, given| text(shown(&given[0]))),
    function("split", &[Text, Text], |_, given| Ok(numbered(split(given[1].str(), given[0].str(), -1)))),
    function("splitList", &[Text, Text], |_, given| Ok(Value::strings(split(given[1].str(), given[0].str(), -1)))),
    function("splitn", &[Text, Int, Text], |_, given| {
        Ok(numbered(split(given[2].str(), given[0].str(), given[1].int())))
    }),
    function("toStrings", &[Any], |_, given| Ok(Value::strings(strings(&given[0])))),
    function("join", &[Text, Any], |_, given| text(strings(&given[1]).join(given[0].str()))),
    function("sortAlpha", &[Any], |_, given| {
        let mut sorted = match &given[0] {
            Value::List(_) => strings(&given[0]),
            other => vec![shown(other)],
        };
        sorted.sort();
        Ok(Value::strings(sorted))
    }),
];

/// Those that are not nil.
fn given_ones(given: &[Value]) -> impl Iterator<Item = &Value> {
    given.iter().filter(|value| !matches!(value, Value::Nil))
}

trait JoinBy {
    fn join_by(self, separator: &str) -> String;
}

impl<I: Iterator<Item = String>> JoinBy for I {
    fn join_by(self, separator: &str) -> String {
        self.collect::<Vec<_>>().join(separator)
    }
}

/// sprig's `strval`.
pub(super) fn shown(value: &Value) -> String {
    value.to_string()
}

/// sprig's `strslice`: a list of texts of anything.
pub(super) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::List(list) => texts(list),
        Value::Nil => Vec::new(),
        other => vec![shown(other)],
    }
}

fn texts(list: &List) -> Vec<String> {
    given_ones(&list.items).map(shown).collect()
}

/// Bytes of a text, which Go cuts wherever it is told to; a recipe is made of whole characters.
fn cut(whole: &str, start: i64, end: i64) -> Result {
    let out_of_range = |what: String| Error::Failed(format!("runtime error: slice bounds out of range [{what}"));
    let length = whole.len();
    let Some(to) = usize::try_from(end).ok().filter(|to| *to <= length) else {
        return Err(out_of_range(format!(":{end}] with length {length}")));
    };
    let Some(from) = usize::try_from(start).ok().filter(|from| *from <= to) else {
        return Err(out_of_range(format!("{start}:{end}]")));
    };
    match whole.get(from..to) {
        Some(part) => text(part),
        None => Err("this cuts a character of more than one byte in two".into()),
    }
}

/// One character for one, as Go has it: `ß` stays.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

fn title(whole: &str) -> String {
    let is_separator = |c: char| {
        if c.is_ascii() { !(c.is_ascii_alphanumeric() || c == '_') } else { !c.is_alphanumeric() && c.is_whitespace() }
    };
    let mut before = ' ';
    whole
        .chars()
        .map(|c| {
            let shown = if is_separator(before) { upper(c) } else { c };
            before = c;
            shown
        })
        .collect()
}

fn trim_all(given: &[Value]) -> String {
    let set = given[0].str();
    given[1].str().trim_matches(|c| set.contains(c)).to_owned()
}

fn indent(given: &[Value]) -> Result<String> {
    let Ok(count) = usize::try_from(given[0].int()) else {
        return Err("strings: negative Repeat count".into());
    };
    let lines = given[1].str().matches('\n').count() + 1;
    if count.saturating_mul(lines) > MAX_SIZE {
        return Err("the text is too long".into());
    }
    let pad = " ".repeat(count);
    Ok(format!("{pad}{}", given[1].str().replace('\n', &format!("\n{pad}"))))
}

/// `strings.SplitN`: into at most so many parts; all of them where that is negative.
fn split(whole: &str, separator: &str, count: i64) -> Vec<String> {
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    if limit == 0 {
        return Vec::new();
    }
    if separator.is_empty() {
        let mut parts: Vec<String> = whole.chars().map(String::from).collect();
        if parts.len() > limit {
            let rest = parts.split_off(limit - 1).concat();
            parts.push(rest);
        }
        return parts;
    }
    whole.splitn(limit, separator).map(str::to_owned).collect()
}

/// `_0`, `_1` and so on, as sprig names the parts of a text.
fn numbered(parts: Vec<String>) -> Value {
    Value::string_map(parts.into_iter().enumerate().map(|(index, part)| (format!("_{index}"), part)))
}

/// RFC 1950.
fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65_521;
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % BASE;
        (a, (b + a) % BASE)
    });
    (b << 16) | a
}
