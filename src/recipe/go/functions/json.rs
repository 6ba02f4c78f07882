//! slim-sprig's functions that read and write JSON, as Go's package `encoding/json` does.

use std::collections::BTreeMap;

use super::Param::{Any, String as Text};
use super::{Context, Error, Function, Result, function, text};
use crate::recipe::go::format::shortest;
use crate::recipe::go::time;
use crate::recipe::go::value::Value;

/// The power of ten from which on JSON has an exponent.
const EXPONENT_FROM: i32 = 21;

pub(super) const TABLE: &[Function] = &[
    function("fromJson", &[Text], |cx, given| Ok(from_json(cx, given).unwrap_or(Value::Nil))),
    function("mustFromJson", &[Text], from_json),
    function("toJson", &[Any], |_, given| {
        written(&given[0], &Style { escape: true, indent: None }).or_else(|_| text(""))
    }),
    function("mustToJson", &[Any], |_, given| written(&given[0], &Style { escape: true, indent: None })),
    function("toPrettyJson", &[Any], |_, given| {
        written(&given[0], &Style { escape: true, indent: Some(0) }).or_else(|_| text(""))
    }),
    function("mustToPrettyJson", &[Any], |_, given| written(&given[0], &Style { escape: true, indent: Some(0) })),
    function("toRawJson", &[Any], |_, given| written(&given[0], &Style { escape: false, indent: None })),
    function("mustToRawJson", &[Any], |_, given| written(&given[0], &Style { escape: false, indent: None })),
];

fn from_json(_: Context, given: &[Value]) -> Result {
    serde_json::from_str(given[0].str()).map(value).map_err(|error| Error::Failed(error.to_string()))
}

/// Every number becomes a float, as Go has it.
fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::String(text) => Value::string(text),
        serde_json::Value::Array(items) => Value::list(items.into_iter().map(value).collect()),
        serde_json::Value::Object(entries) => {
            Value::dict(entries.into_iter().map(|(key, item)| (key, value(item))).collect::<BTreeMap<_, _>>())
        }
    }
}

#[derive(Clone, Copy)]
struct Style {
    /// Whether `<`, `>` and `&` are written so that HTML does not see them.
    escape: bool,
    /// How deep the lines are, where there are any.
    indent: Option<usize>,
}

fn written(value: &Value, style: &Style) -> Result {
    if value.is_endless() {
        return Err("json: unsupported value: encountered a cycle".into());
    }
    let mut out = String::new();
    write(&mut out, value, style)?;
    text(out)
}

fn write(out: &mut String, value: &Value, style: &Style) -> Result<()> {
    match value {
        Value::Nil | Value::Unknown => out.push_str("null"),
        Value::Bool(_) | Value::Int(_) | Value::Int64(_) | Value::Byte(_) => out.push_str(&value.to_string()),
        Value::Month(month) => out.push_str(&month.to_string()),
        Value::Float(float) if !float.is_finite() => {
            return Err(format!("json: unsupported value: {value}").into());
        }
        Value::Float(float) => out.push_str(&number(*float)),
        Value::String(text) => quoted(out, text, style.escape),
        Value::Time(at) => quoted(out, &time::format(at, "2006-01-02T15:04:05.999999999Z07:00"), style.escape),
        Value::List(list) => {
            let items = list.items.iter();
            collection(out, ('[', ']'), items, style, write)?;
        }
        Value::Map(map) => {
            let entries = map.entries.borrow();
            collection(out, ('{', '}'), entries.iter(), style, |out, (key, item), inner| {
                quoted(out, key, style.escape);
                out.push_str(if inner.indent.is_some() { ": " } else { ":" });
                write(out, item, inner)
            })?;
        }
    }
    Ok(())
}

fn collection<T>(
    out: &mut String,
    (open, close): (char, char),
    items: impl ExactSizeIterator<Item = T>,
    style: &Style,
    mut each: impl FnMut(&mut String, T, &Style) -> Result<()>,
) -> Result<()> {
    let inner = Style { indent: style.indent.map(|depth| depth + 1), ..*style };
    let line = |out: &mut String, depth: Option<usize>| {
        if let Some(depth) = depth {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
        }
    };
    out.push(open);
    let empty = items.len() == 0;
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        line(out, inner.indent);
        each(out, item, &inner)?;
    }
    if !empty {
        line(out, style.indent);
    }
    out.push(close);
    Ok(())
}

/// Go's JSON has no leading zero in an exponent: `1e-7`.
fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-6 || value.abs() >= 1e21 {
        let text = format!("{value:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    if value.abs() >= 1e-6 && value.abs() < 1e-4 { format!("{value}") } else { shortest(value, EXPONENT_FROM) }
}

fn quoted(out: &mut String, text: &str, escape: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' if escape => out.push_str(&format!("\\u{:04x}", c as u32)),
            c if (c as u32) < 0x20 || c == '\u{2028}' || c == '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
