//! Printing as Go's package `fmt` does it: `printf`, `print`, `println`, and numbers everywhere.

use super::value::{List, Map, Value};

/// Longer than this no width or precision makes a text.
const MAX_WIDTH: usize = 1_000_000;

/// The power of ten from which on `%v` and `%g` write an exponent.
pub(super) const EXPONENT_FROM: i32 = 6;

/// A float by the fewest digits that tell it, with an exponent from 10^`limit` on.
pub(super) fn shortest(value: f64, limit: i32) -> String {
    if !value.is_finite() {
        return special(value);
    }
    let (digits, exponent) = shortest_digits(value);
    if exponent < -4 || exponent >= limit {
        return format!("{}{}", sign(value), scientific(&digits, exponent, 'e'));
    }
    plain(value)
}

fn special(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        value if value > 0.0 => "+Inf".into(),
        _ => "-Inf".into(),
    }
}

fn sign(value: f64) -> &'static str {
    if value.is_sign_negative() { "-" } else { "" }
}

/// Without an exponent, with as many digits as tell it.
fn plain(value: f64) -> String {
    format!("{value}")
}

/// Its digits without a point, and the power of ten of the first.
fn shortest_digits(value: f64) -> (String, i32) {
    let text = format!("{:e}", value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

fn scientific(digits: &str, exponent: i32, letter: char) -> String {
    let (first, rest) = digits.split_at(1.min(digits.len()));
    let point = if rest.is_empty() { "" } else { "." };
    let minus = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}{letter}{minus}{:02}", exponent.abs())
}

/// A text in double quotes, as Go writes it in a program: `strconv.Quote`.
pub(super) fn quote(text: &str) -> String {
    quoted(text, '"', false)
}

fn quoted(text: &str, mark: char, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for c in text.chars() {
        match c {
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if is_printable(c) && (c.is_ascii() || !ascii) => out.push(c),
            c if (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(mark);
    out
}

/// `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols, and the one space.
fn is_printable(c: char) -> bool {
    c == ' ' || (!c.is_whitespace() && !c.is_control() && (c.is_alphanumeric() || c.escape_debug().count() == 1))
}

/// As `print` puts values together: with a space between two that are no texts.
pub(super) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    let is_text = |value: &Value| matches!(value, Value::String(_));
    for (index, value) in values.iter().enumerate() {
        if index > 0 && !is_text(value) && !is_text(&values[index - 1]) {
            out.push(' ');
        }
        out.push_str(&value.to_string());
    }
    out
}

/// As `println` does: with a space between all, and a newline.
pub(super) fn sprintln(values: &[Value]) -> String {
    let mut out = values.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
    out.push('\n');
    out
}

/// As `printf` does. What does not fit stands in the text, as in Go: `%!d(string=x)`.
pub(super) fn sprintf(format: &str, values: &[Value]) -> String {
    let mut printer = Printer { out: String::new(), values, next: 0, reordered: false };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        printer.out.push_str(&rest[..at]);
        rest = printer.verb(&rest[at + 1..]);
    }
    printer.out.push_str(rest);
    printer.extra();
    printer.out
}

#[derive(Default, Clone)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Printer<'v> {
    out: String,
    values: &'v [Value],
    next: usize,
    reordered: bool,
}

impl Printer<'_> {
    /// Prints what the text after a `%` asks for, and gives the rest of it.
    fn verb<'t>(&mut self, text: &'t str) -> &'t str {
        let mut rest = text;
        let mut spec = Spec::default();
        while let Some(flag) = rest.chars().next() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        spec.zero &= !spec.minus;
        let mut good = true;
        let mut indexed;
        (rest, indexed) = self.index(rest, &mut good);
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            match self.number() {
                Some(width) => {
                    spec.minus |= width < 0;
                    spec.zero &= width >= 0;
                    spec.width = Some(usize::try_from(width.unsigned_abs()).unwrap_or(MAX_WIDTH));
                }
                None => self.out.push_str("%!(BADWIDTH)"),
            }
            indexed = false;
        } else {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                spec.width = rest[..digits].parse().ok().filter(|width| *width <= MAX_WIDTH);
                good &= !indexed;
                rest = &rest[digits..];
            }
        }
        if let Some(after) = rest.strip_prefix('.') {
            good &= !indexed;
            (rest, indexed) = self.index(after, &mut good);
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                match self.number() {
                    Some(precision) => spec.precision = usize::try_from(precision).ok(),
                    None => self.out.push_str("%!(BADPREC)"),
                }
                indexed = false;
            } else {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                spec.precision = Some(rest[..digits].parse().unwrap_or(0)).filter(|it| *it <= MAX_WIDTH);
                rest = &rest[digits..];
            }
        }
        if !indexed {
            (rest, _) = self.index(rest, &mut good);
        }
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return rest;
        };
        match self.values.get(self.next) {
            _ if verb == '%' => self.out.push('%'),
            _ if !good => self.out.push_str(&format!("%!{verb}(BADINDEX)")),
            None => self.out.push_str(&format!("%!{verb}(MISSING)")),
            Some(value) => {
                self.next += 1;
                print(&mut self.out, value, verb, &spec);
            }
        }
        &rest[verb.len_utf8()..]
    }

    /// `[2]`: the next value is that one.
    fn index<'t>(&mut self, text: &'t str, good: &mut bool) -> (&'t str, bool) {
        let Some(after) = text.strip_prefix('[') else { return (text, false) };
        self.reordered = true;
        let Some(close) = after.find(']') else {
            *good = false;
            return (after, false);
        };
        match after[..close].parse::<usize>() {
            Ok(index) if index >= 1 && index <= self.values.len() => self.next = index - 1,
            _ => *good = false,
        }
        (&after[close + 1..], true)
    }

    fn number(&mut self) -> Option<i64> {
        let number = self.values.get(self.next)?.integer();
        self.next += 1;
        number.filter(|number| number.unsigned_abs() <= MAX_WIDTH as u64)
    }

    fn extra(&mut self) {
        if self.reordered || self.next >= self.values.len() {
            return;
        }
        let shown: Vec<String> = self.values[self.next..]
            .iter()
            .map(|value| match value {
                Value::Nil => "<nil>".to_owned(),
                value => format!("{}={value}", value.type_name()),
            })
            .collect();
        self.out.push_str(&format!("%!(EXTRA {})", shown.join(", ")));
    }
}

fn print(out: &mut String, value: &Value, verb: char, spec: &Spec) {
    match (value, verb) {
        (Value::Nil, 'T') => pad(out, "<nil>", spec),
        (_, 'T') => text(out, value.type_name(), 's', spec),
        (_, 'v') if spec.sharp => source(out, value, spec),
        // `%+v` means names of fields, not signs.
        (_, 'v') => shown(out, value, 'v', &Spec { plus: false, ..spec.clone() }),
        _ => shown(out, value, verb, spec),
    }
}

fn shown(out: &mut String, value: &Value, verb: char, spec: &Spec) {
    let done = match (value, verb) {
        (Value::Nil | Value::Unknown, 'v') => return pad(out, &value.to_string(), spec),
        (Value::Bool(value), 't' | 'v') => return pad(out, if *value { "true" } else { "false" }, spec),
        (Value::Int(value) | Value::Int64(value), _) => integer(out, *value, verb, spec),
        (Value::Byte(value), _) => integer(out, i64::from(*value), verb, spec),
        (Value::Month(value), 'd' | 'b' | 'o' | 'O' | 'c' | 'U') => integer(out, i64::from(*value), verb, spec),
        (Value::Float(value), _) => float(out, *value, verb, spec),
        (Value::String(value), 'v' | 's' | 'x' | 'X' | 'q') => return text(out, value, verb, spec),
        (Value::Time(_) | Value::Month(_), 'v' | 's' | 'x' | 'X' | 'q') => {
            return text(out, &value.to_string(), verb, spec);
        }
        (Value::List(list), _) => return items(out, list, verb, spec),
        (Value::Map(map), _) => return pairs(out, map, verb, spec),
        _ => None,
    };
    if done.is_none() {
        out.push_str(&format!("%!{verb}("));
        match value {
            Value::Nil => out.push_str("<nil>"),
            value => {
                out.push_str(&format!("{}=", value.type_name()));
                shown(out, value, 'v', spec);
            }
        }
        out.push(')');
    }
}

fn items(out: &mut String, list: &List, verb: char, spec: &Spec) {
    out.push('[');
    for (index, item) in list.items.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        part(out, item, verb, spec);
    }
    out.push(']');
}

fn pairs(out: &mut String, map: &Map, verb: char, spec: &Spec) {
    out.push_str("map[");
    for (index, (key, value)) in map.entries.borrow().iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        part(out, &Value::string(key), verb, spec);
        out.push(':');
        part(out, value, verb, spec);
    }
    out.push(']');
}

/// nil inside of something is printed as such, whatever the verb.
fn part(out: &mut String, value: &Value, verb: char, spec: &Spec) {
    match value {
        Value::Nil => out.push_str("<nil>"),
        value => shown(out, value, verb, spec),
    }
}

fn pad(out: &mut String, text: &str, spec: &Spec) {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if spec.minus {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else {
        out.extend(std::iter::repeat_n(if spec.zero { '0' } else { ' ' }, missing));
        out.push_str(text);
    }
}

fn text(out: &mut String, value: &str, verb: char, spec: &Spec) {
    let value: String = match spec.precision {
        Some(precision) if !matches!(verb, 'x' | 'X') => value.chars().take(precision).collect(),
        _ => value.to_owned(),
    };
    let printed = match verb {
        'q' if spec.sharp && !value.contains(|c: char| c == '`' || (c.is_control() && c != '\t')) => {
            format!("`{value}`")
        }
        'q' => quoted(&value, '"', spec.plus),
        'x' | 'X' => hexadecimal(value.as_bytes(), verb == 'X', spec),
        _ => value,
    };
    pad(out, &printed, spec);
}

fn hexadecimal(bytes: &[u8], upper: bool, spec: &Spec) -> String {
    let bytes = &bytes[..spec.precision.unwrap_or(bytes.len()).min(bytes.len())];
    let prefix = match (spec.sharp, upper) {
        (false, _) => "",
        (true, false) => "0x",
        (true, true) => "0X",
    };
    let digits = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
    if bytes.is_empty() {
        String::new()
    } else if spec.space {
        bytes.iter().map(|byte| format!("{prefix}{}", digits(byte))).collect::<Vec<_>>().join(" ")
    } else {
        format!("{prefix}{}", bytes.iter().map(digits).collect::<String>())
    }
}

fn integer(out: &mut String, value: i64, verb: char, spec: &Spec) -> Option<()> {
    let magnitude = value.unsigned_abs();
    let (mut digits, prefix) = match verb {
        'v' | 'd' => (magnitude.to_string(), ""),
        'b' => (format!("{magnitude:b}"), if spec.sharp { "0b" } else { "" }),
        'o' => (format!("{magnitude:o}"), if spec.sharp { "0" } else { "" }),
        'O' => (format!("{magnitude:o}"), "0o"),
        'x' => (format!("{magnitude:x}"), if spec.sharp { "0x" } else { "" }),
        'X' => (format!("{magnitude:X}"), if spec.sharp { "0X" } else { "" }),
        'c' => {
            pad(out, &rune(value).to_string(), spec);
            return Some(());
        }
        'q' => {
            pad(out, &quoted(&rune(value).to_string(), '\'', spec.plus), spec);
            return Some(());
        }
        'U' => {
            let mut shown = format!("U+{magnitude:0width$X}", width = spec.precision.unwrap_or(4).max(4));
            if spec.sharp && is_printable(rune(value)) {
                shown.push_str(&format!(" '{}'", rune(value)));
            }
            pad(out, &shown, &Spec { zero: false, ..spec.clone() });
            return Some(());
        }
        _ => return None,
    };
    let signed = value < 0 || spec.plus || spec.space;
    if spec.precision == Some(0) && value == 0 {
        pad(out, "", &Spec { zero: false, ..spec.clone() });
        return Some(());
    }
    let least = match (spec.precision, spec.width) {
        (Some(precision), _) => precision,
        (None, Some(width)) if spec.zero => width - usize::from(signed).min(width),
        _ => 0,
    };
    if digits.len() < least {
        digits.insert_str(0, &"0".repeat(least - digits.len()));
    }
    let prefix = if prefix == "0" && digits.starts_with('0') { "" } else { prefix };
    let mark = match (value < 0, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    pad(out, &format!("{mark}{prefix}{digits}"), &Spec { zero: false, ..spec.clone() });
    Some(())
}

fn rune(value: i64) -> char {
    u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
}

fn float(out: &mut String, value: f64, verb: char, spec: &Spec) -> Option<()> {
    let magnitude = value.abs();
    let digits = if !value.is_finite() {
        special(value).trim_start_matches(['+', '-']).to_owned()
    } else {
        match (verb, spec.precision) {
            ('v' | 'g' | 'G', None) => shortest(magnitude, EXPONENT_FROM),
            ('v' | 'g' | 'G', Some(precision)) => general(magnitude, precision.max(1)),
            ('f' | 'F', precision) => format!("{magnitude:.*}", precision.unwrap_or(6)),
            ('e' | 'E', precision) => {
                let text = format!("{magnitude:.*e}", precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or(0);
                let minus = if exponent < 0 { '-' } else { '+' };
                format!("{mantissa}e{minus}{:02}", exponent.abs())
            }
            _ => return None,
        }
    };
    let digits = if verb.is_ascii_uppercase() && verb != 'F' { digits.to_uppercase() } else { digits };
    let mark = match value {
        value if value.is_sign_negative() && !value.is_nan() => "-",
        _ if spec.plus => "+",
        _ if spec.space => " ",
        value if value.is_infinite() => "+",
        _ => "",
    };
    if spec.zero && value.is_finite() {
        let width = spec.width.unwrap_or(0).saturating_sub(mark.len());
        out.push_str(mark);
        pad(out, &digits, &Spec { width: Some(width), ..spec.clone() });
    } else {
        pad(out, &format!("{mark}{digits}"), &Spec { zero: false, ..spec.clone() });
    }
    Some(())
}

/// `%.3g`: so many digits, without zeros at the end.
fn general(value: f64, precision: usize) -> String {
    let text = format!("{value:.*e}", precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    // As many digits as there are, where the number is whole without an exponent.
    let limit = i32::try_from(precision).unwrap_or(i32::MAX);
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let limit = if limit > count && count > exponent { count } else { limit };
    if exponent < -4 || exponent >= limit {
        return scientific(digits, exponent, 'e');
    }
    let decimals = usize::try_from((count - 1 - exponent).max(0)).unwrap_or(0);
    format!("{value:.decimals$}")
}

/// `%#v`: as a Go program would write it.
fn source(out: &mut String, value: &Value, spec: &Spec) {
    let part = |out: &mut String, value: &Value| match value {
        Value::Nil => out.push_str("interface {}(nil)"),
        value => source(out, value, spec),
    };
    match value {
        Value::String(text) => pad(out, &quote(text), spec),
        Value::Byte(byte) => pad(out, &format!("{byte:#x}"), spec),
        Value::List(list) => {
            out.push_str(&format!("{}{{", value.type_name()));
            for (index, item) in list.items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                part(out, item);
            }
            out.push('}');
        }
        Value::Map(map) => {
            out.push_str(&format!("{}{{", value.type_name()));
            for (index, (key, item)) in map.entries.borrow().iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                pad(out, &quote(key), spec);
                out.push(':');
                part(out, item);
            }
            out.push('}');
        }
        value => shown(out, value, 'v', &Spec { sharp: false, plus: false, ..spec.clone() }),
    }
}
