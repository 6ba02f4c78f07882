//! slim-sprig's functions on URLs, which Go takes apart by RFC 3986 as they stand: nothing is added or resolved.

use std::collections::BTreeMap;

use super::Param::{Dict, String as Text};
use super::{Context, Error, Function, Result, function, text};
use crate::recipe::go::format::quote;
use crate::recipe::go::value::Value;

pub(super) const TABLE: &[Function] = &[function("urlParse", &[Text], parse), function("urlJoin", &[Dict], join)];

fn parse(_: Context, given: &[Value]) -> Result {
    let whole = given[0].str();
    let refused = |why: &str| Error::Failed(format!("unable to parse url: parse {}: {why}", quote(whole)));
    if whole.chars().any(|c| c.is_ascii_control()) {
        return Err(refused("net/url: invalid control character in URL"));
    }
    let (before, fragment) = whole.split_once('#').unwrap_or((whole, ""));
    let (scheme, rest) = scheme(before).ok_or_else(|| refused("missing protocol scheme"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut opaque, mut userinfo, mut host, mut path) = ("", String::new(), String::new(), rest);
    if !scheme.is_empty() && !rest.starts_with('/') {
        (opaque, path) = (rest, "");
    } else if let Some(after) = rest.strip_prefix("//").filter(|_| !rest.starts_with("///") || !scheme.is_empty()) {
        let (authority, after) = after.split_at(after.find('/').unwrap_or(after.len()));
        let (user, name) = authority.rsplit_once('@').map_or(("", authority), |(user, name)| (user, name));
        userinfo = user.to_owned();
        host = unescape(name).ok_or_else(|| refused("invalid URL escape"))?;
        path = after;
    } else if scheme.is_empty() && path.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err(refused("first path segment in URL cannot contain colon"));
    }
    let path = unescape(path).ok_or_else(|| refused("invalid URL escape"))?;
    let fragment = unescape(fragment).ok_or_else(|| refused("invalid URL escape"))?;
    let hostname = hostname(&host).to_owned();
    let parts = [
        ("scheme", scheme.to_lowercase()),
        ("opaque", opaque.to_owned()),
        ("userinfo", userinfo),
        ("host", host),
        ("hostname", hostname),
        ("path", path),
        ("query", query.to_owned()),
        ("fragment", fragment),
    ];
    let parts = parts.into_iter().map(|(name, part)| (name.to_owned(), Value::string(part)));
    Ok(Value::dict(parts.collect::<BTreeMap<_, _>>()))
}

/// The scheme and what follows it; none where a colon comes before any.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    match end {
        Some(0) if text.starts_with(':') => None,
        Some(end) if text[end..].starts_with(':') && text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Some((&text[..end], &text[end + 1..]))
        }
        _ => Some(("", text)),
    }
}

fn hostname(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

fn escape(text: &str, allowed: &str) -> String {
    let kept = |byte: u8| {
        byte.is_ascii_alphanumeric() || "-_.~".contains(char::from(byte)) || allowed.contains(char::from(byte))
    };
    text.bytes().map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn join(_: Context, given: &[Value]) -> Result {
    let part = |name: &str| match given[0].map().and_then(|map| map.get(name)) {
        None => Ok(String::new()),
        Some(Value::String(part)) => Ok(part.to_string()),
        Some(Value::Nil) => Err(Error::from("runtime error: invalid memory address or nil pointer dereference")),
        Some(other) => Err(Error::Failed(format!(
            "unable to parse {name} key, must be of type string, but {} found",
            other.kind()
        ))),
    };
    let (scheme, opaque, userinfo, host) = (part("scheme")?, part("opaque")?, part("userinfo")?, part("host")?);
    let (path, query, fragment) = (part("path")?, part("query")?, part("fragment")?);
    let mut out = String::new();
    if !scheme.is_empty() {
        out += &format!("{scheme}:");
    }
    if opaque.is_empty() {
        if !scheme.is_empty() || !host.is_empty() || !userinfo.is_empty() {
            if !host.is_empty() || !path.is_empty() || !userinfo.is_empty() {
                out += "//";
            }
            if !userinfo.is_empty() {
                out += &format!("{}@", escape(&userinfo, "$&+,;=:%"));
            }
            out += &escape(&host, "!$&'()*+,;=:[]<>\"");
        }
        let path = escape(&path, "$&+,/:;=@");
        if !path.is_empty() && !path.starts_with('/') && !host.is_empty() {
            out.push('/');
        }
        if out.is_empty() && path.split('/').next().is_some_and(|first| first.contains(':')) {
            out += "./";
        }
        out += &path;
    } else {
        out += &opaque;
    }
    if !query.is_empty() {
        out += &format!("?{query}");
    }
    if !fragment.is_empty() {
        out += &format!("#{}", escape(&fragment, "$&+,/:;=?@!()*"));
    }
    text(out)
}
