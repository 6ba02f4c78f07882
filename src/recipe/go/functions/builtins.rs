//! Go's own functions; `and` and `or`, which do not look at all they are given, are the executor's.

use std::cmp::Ordering;

use super::Param::{Any, String as Text};
use super::{Context, Error, Function, Result, function, text, variadic};
use crate::recipe::go::format::{sprint, sprintf, sprintln};
use crate::recipe::go::value::{Of, Value};

pub(super) const TABLE: &[Function] = &[
    function("not", &[Any], |_, given| Ok(Value::Bool(!given[0].is_true()))),
    variadic("eq", &[Any], Any, eq),
    function("ne", &[Any, Any], |cx, given| eq(cx, given).map(|equal| Value::Bool(!equal.is_true()))),
    function("lt", &[Any, Any], |_, given| ordered(given, Ordering::is_lt)),
    function("le", &[Any, Any], |_, given| ordered(given, Ordering::is_le)),
    function("gt", &[Any, Any], |_, given| ordered(given, Ordering::is_gt)),
    function("ge", &[Any, Any], |_, given| ordered(given, Ordering::is_ge)),
    function("len", &[Any], len),
    variadic("index", &[Any], Any, index),
    variadic("call", &[Any], Any, |_, given| match &given[0] {
        Value::Nil => Err("call of nil".into()),
        other => Err(format!("non-function .fn of type {}", other.type_name()).into()),
    }),
    variadic("print", &[], Any, |_, given| text(sprint(given))),
    variadic("println", &[], Any, |_, given| text(sprintln(given))),
    variadic("printf", &[Text], Any, |_, given| text(sprintf(given[0].str(), &given[1..]))),
    variadic("html", &[], Any, |_, given| text(gotmpl::html_escape(&escaped(given)))),
    variadic("js", &[], Any, |_, given| text(gotmpl::js_escape(&escaped(given)))),
    variadic("urlquery", &[], Any, |_, given| text(gotmpl::url_encode(&escaped(given)))),
];

/// What an escaper is handed, as text.
fn escaped(given: &[Value]) -> String {
    let shown: Vec<Value> = given
        .iter()
        .map(|value| match value {
            Value::Nil => Value::string("<no value>"),
            other => other.clone(),
        })
        .collect();
    sprint(&shown)
}

/// What Go compares with what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Basic {
    Bool,
    Integer,
    Float,
    String,
    Other,
}

fn basic(value: &Value) -> Basic {
    match value {
        Value::Bool(_) => Basic::Bool,
        Value::Int(_) | Value::Int64(_) | Value::Byte(_) | Value::Month(_) => Basic::Integer,
        Value::Float(_) => Basic::Float,
        Value::String(_) => Basic::String,
        _ => Basic::Other,
    }
}

fn eq(_: Context, given: &[Value]) -> Result {
    let first = &given[0];
    if given.len() < 2 {
        return Err("missing argument for comparison".into());
    }
    for other in &given[1..] {
        let equal = match (first, other) {
            (Value::Nil, Value::Nil) => true,
            (Value::Nil, _) | (_, Value::Nil) => false,
            _ if basic(first) != basic(other) => return Err("incompatible types for comparison".into()),
            (Value::List(_) | Value::Map(_), _) => {
                let (a, b) = (first, other);
                return Err(format!("non-comparable type {a}: {}, {}: {b}", a.type_name(), b.type_name()).into());
            }
            _ if basic(first) == Basic::Integer => first.integer() == other.integer(),
            _ => first.deep_equal(other),
        };
        if equal {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn ordered(given: &[Value], holds: fn(Ordering) -> bool) -> Result {
    let (a, b) = (&given[0], &given[1]);
    let invalid = || Error::from("invalid type for comparison");
    let order = match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => match a.partial_cmp(b) {
            Some(order) => order,
            None => return Ok(Value::Bool(false)),
        },
        _ if basic(a) == Basic::Integer && basic(b) == Basic::Integer => a.integer().cmp(&b.integer()),
        _ if basic(a) == Basic::Other || basic(b) == Basic::Other => return Err(invalid()),
        _ if basic(a) != basic(b) => return Err("incompatible types for comparison".into()),
        _ => return Err(invalid()),
    };
    Ok(Value::Bool(holds(order)))
}

fn len(_: Context, given: &[Value]) -> Result {
    let length = match &given[0] {
        Value::String(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.borrow().len(),
        Value::Nil => return Err("len of nil pointer".into()),
        other => return Err(format!("len of type {}", other.type_name()).into()),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(_: Context, given: &[Value]) -> Result {
    let mut value = given[0].clone();
    if matches!(value, Value::Nil) {
        return Err("index of untyped nil".into());
    }
    for at in &given[1..] {
        value = match (&value, at) {
            (Value::Nil, _) => return Err("index of nil pointer".into()),
            (Value::Map(map), Value::String(key)) => match (map.get(key), map.of) {
                (Some(value), _) => value,
                (None, Of::String) => Value::string(""),
                (None, _) => Value::Nil,
            },
            (Value::Map(_), Value::Nil) => return Err("value is nil; should be of type string".into()),
            (Value::Map(_), other) => {
                return Err(format!("value has type {}; should be string", other.type_name()).into());
            }
            (Value::List(list), at) => list.items[position(at, list.items.len())?].clone(),
            (Value::String(text), at) => Value::Byte(text.as_bytes()[position(at, text.len())?]),
            (other, _) => return Err(format!("can't index item of type {}", other.type_name()).into()),
        };
    }
    Ok(value)
}

fn position(at: &Value, length: usize) -> Result<usize> {
    let Some(index) = at.integer() else {
        return Err(match at {
            Value::Nil => "cannot index slice/array with nil".into(),
            other => format!("cannot index slice/array with type {}", other.type_name()).into(),
        });
    };
    usize::try_from(index)
        .ok()
        .filter(|index| *index < length)
        .ok_or_else(|| format!("index out of range: {index}").into())
}
