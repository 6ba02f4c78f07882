//! slim-sprig's functions whose values are others each time, or on another machine.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::ToSocketAddrs;
use std::sync::OnceLock;

use jiff::ZonedDateTime;

use super::Param::{Int, String as Text};
use super::{Context, Error, Function, Result, function, text};
use crate::recipe::go::value::Value;

pub(super) const TABLE: &[Function] = &[
    function("now", &[], |cx, _| Ok(Value::Time(Box::new(now(cx)?)))),
    function("env", &[Text], |cx, given| text(variable(allowed(cx)?, given[0].str()))),
    function("expandenv", &[Text], |cx, given| text(expanded(allowed(cx)?, given[0].str()))),
    function("randInt", &[Int, Int], |cx, given| {
        let (least, beyond) = (given[0].int(), given[1].int());
        let range = beyond.checked_sub(least).and_then(|range| u64::try_from(range).ok()).filter(|range| *range > 0);
        let Some(range) = range else { return Err("invalid argument to Intn".into()) };
        allowed(cx)?;
        Ok(Value::Int(least.wrapping_add(i64::try_from(random() % range).unwrap_or(0))))
    }),
    function("getHostByName", &[Text], |cx, given| {
        allowed(cx)?;
        let found = (given[0].str(), 0).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        match found {
            Some(address) => text(address.ip().to_string()),
            None => Err(format!("there is no host `{}`", given[0].str()).into()),
        }
    }),
];

fn allowed(cx: Context) -> Result<Context> {
    if cx.impure { Ok(cx) } else { Err(Error::Impure) }
}

/// When this program first asked: a recipe that is rendered twice says the same twice.
pub(super) fn now(cx: Context) -> Result<ZonedDateTime> {
    static NOW: OnceLock<ZonedDateTime> = OnceLock::new();
    allowed(cx)?;
    Ok(NOW.get_or_init(ZonedDateTime::now).clone())
}

fn variable(_: Context, name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// `os.ExpandEnv`: `$name` and `${name}` become values.
fn expanded(cx: Context, text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(inner) = after.strip_prefix('{') {
            match inner.find('}') {
                Some(end) => {
                    out.push_str(&variable(cx, &inner[..end]));
                    rest = &inner[end + 1..];
                }
                None => rest = inner,
            }
        } else {
            let length = match after.chars().next() {
                Some(c) if "*#$@!?-0123456789".contains(c) => 1,
                _ => after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len()),
            };
            if length == 0 {
                out.push('$');
            } else {
                out.push_str(&variable(cx, &after[..length]));
            }
            rest = &after[length..];
        }
    }
    out + rest
}

/// A number nobody can tell beforehand, from the keys that the standard library draws for its maps.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
