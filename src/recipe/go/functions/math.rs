//! slim-sprig's arithmetic and conversions of numbers.

use super::Param::{Any, Float, Int, String as Text};
use super::{Error, Function, MAX_SIZE, Result, function, text, variadic};
use crate::recipe::go::value::{List, Of, Value};

pub(super) const TABLE: &[Function] = &[
    function("atoi", &[Text], |_, given| Ok(Value::Int(atoi(given[0].str())))),
    function("int64", &[Any], |_, given| Ok(Value::Int64(to_int64(&given[0])))),
    function("int", &[Any], |_, given| Ok(Value::Int(to_int64(&given[0])))),
    function("float64", &[Any], |_, given| Ok(Value::Float(to_float64(&given[0])))),
    function("toDecimal", &[Any], |_, given| {
        Ok(Value::Int64(i64::from_str_radix(&given[0].to_string(), 8).unwrap_or(0)))
    }),
    variadic("seq", &[], Int, |_, given| text(seq(given)?)),
    function("until", &[Int], |_, given| {
        let count = given[0].int();
        Ok(ints(until_step(0, count, if count < 0 { -1 } else { 1 })?))
    }),
    function("untilStep", &[Int, Int, Int], |_, given| {
        Ok(ints(until_step(given[0].int(), given[1].int(), given[2].int())?))
    }),
    function("add1", &[Any], |_, given| Ok(Value::Int64(to_int64(&given[0]).wrapping_add(1)))),
    variadic("add", &[], Any, |_, given| Ok(Value::Int64(given.iter().map(to_int64).fold(0, i64::wrapping_add)))),
    function("sub", &[Any, Any], |_, given| Ok(Value::Int64(to_int64(&given[0]).wrapping_sub(to_int64(&given[1]))))),
    function("div", &[Any, Any], |_, given| Ok(Value::Int64(to_int64(&given[0]).wrapping_div(divisor(&given[1])?)))),
    function("mod", &[Any, Any], |_, given| Ok(Value::Int64(to_int64(&given[0]).wrapping_rem(divisor(&given[1])?)))),
    variadic("mul", &[Any], Any, |_, given| Ok(Value::Int64(given.iter().map(to_int64).fold(1, i64::wrapping_mul)))),
    variadic("max", &[Any], Any, |_, given| Ok(Value::Int64(given.iter().map(to_int64).max().unwrap_or(0)))),
    variadic("biggest", &[Any], Any, |_, given| Ok(Value::Int64(given.iter().map(to_int64).max().unwrap_or(0)))),
    variadic("min", &[Any], Any, |_, given| Ok(Value::Int64(given.iter().map(to_int64).min().unwrap_or(0)))),
    variadic("maxf", &[Any], Any, |_, given| {
        Ok(Value::Float(extreme(given, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })))
    }),
    variadic("minf", &[Any], Any, |_, given| {
        Ok(Value::Float(extreme(given, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) })))
    }),
    function("ceil", &[Any], |_, given| Ok(Value::Float(to_float64(&given[0]).ceil()))),
    function("floor", &[Any], |_, given| Ok(Value::Float(to_float64(&given[0]).floor()))),
    variadic("round", &[Any, Int], Float, |_, given| {
        Ok(Value::Float(round(to_float64(&given[0]), given[1].int(), given.get(2).map_or(0.5, Value::float))))
    }),
];

/// sprig's `toInt64`: 0 where it is no number.
pub(super) fn to_int64(value: &Value) -> i64 {
    match value {
        Value::String(text) => parse_int(text).unwrap_or(0),
        #[allow(clippy::cast_possible_truncation)] // As Go converts.
        Value::Float(value) => *value as i64,
        Value::Bool(value) => i64::from(*value),
        other => other.integer().unwrap_or(0),
    }
}

/// sprig's `toFloat64`.
fn to_float64(value: &Value) -> f64 {
    match value {
        Value::String(text) => parse_float(text).unwrap_or(0.0),
        Value::Float(value) => *value,
        Value::Bool(value) => f64::from(u8::from(*value)),
        #[allow(clippy::cast_precision_loss)] // As Go converts.
        other => other.integer().unwrap_or(0) as f64,
    }
}

/// `strconv.ParseFloat`: digits may be told apart by `_`; what is too large is none.
fn parse_float(text: &str) -> Option<f64> {
    let digits = text.replace('_', "");
    let value: f64 = digits.parse().ok()?;
    let spelled = text.trim_start_matches(['+', '-']).to_ascii_lowercase().starts_with("inf");
    (value.is_finite() || value.is_nan() || spelled).then_some(value)
}

/// Decimal digits with a sign before them.
fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// `strconv.Atoi` without its error, which leaves the nearest number where one is too large.
fn atoi(text: &str) -> i64 {
    parse_int(text).unwrap_or_else(|| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true if text.starts_with('-') => i64::MIN,
            true => i64::MAX,
            false => 0,
        }
    })
}

fn divisor(value: &Value) -> Result<i64> {
    match to_int64(value) {
        0 => Err("runtime error: integer divide by zero".into()),
        divisor => Ok(divisor),
    }
}

fn extreme(given: &[Value], choose: fn(f64, f64) -> f64) -> f64 {
    given[1..].iter().map(to_float64).fold(to_float64(&given[0]), choose)
}

fn round(value: f64, places: i64, round_on: f64) -> f64 {
    let power = 10f64.powi(i32::try_from(places).unwrap_or(i32::MAX));
    let digit = power * value;
    let rounded = if digit.fract() >= round_on { digit.ceil() } else { digit.floor() };
    rounded / power
}

fn ints(values: Vec<i64>) -> Value {
    Value::List(std::rc::Rc::new(List { of: Of::Int, items: values.into_iter().map(Value::Int).collect() }))
}

fn until_step(start: i64, stop: i64, step: i64) -> Result<Vec<i64>> {
    let mut values = Vec::new();
    let goes_on = |at: i64| if stop < start { at > stop } else { at < stop };
    if (stop < start && step >= 0) || (stop >= start && step <= 0) {
        return Ok(values);
    }
    let mut at = start;
    while goes_on(at) {
        if values.len() * size_of::<Value>() > MAX_SIZE {
            return Err(Error::from("the list is too long"));
        }
        values.push(at);
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    Ok(values)
}

fn seq(given: &[Value]) -> Result<String> {
    let numbers: Vec<i64> = given.iter().map(Value::int).collect();
    let (start, step, end) = match numbers.as_slice() {
        [end] => (1, if *end < 1 { -1 } else { 1 }, *end),
        [start, end] => (*start, if end < start { -1 } else { 1 }, *end),
        [start, step, end] if end < start && *step > 0 => return Ok(String::new()),
        [start, step, end] => (*start, *step, *end),
        _ => return Ok(String::new()),
    };
    let beyond = end.saturating_add(if end < start { -1 } else { 1 });
    let values = until_step(start, beyond, step)?;
    Ok(values.iter().map(i64::to_string).collect::<Vec<_>>().join(" "))
}
