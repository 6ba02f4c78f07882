//! slim-sprig's functions on paths, as Go's package `path` has them. Those for the system's own paths are the same.

use super::Param::String as Text;
use super::{Function, function, text};
use crate::recipe::go::value::Value;

pub(super) const TABLE: &[Function] = &[
    function("base", &[Text], |_, given| text(base(given[0].str()))),
    function("dir", &[Text], |_, given| text(dir(given[0].str()))),
    function("clean", &[Text], |_, given| text(clean(given[0].str()))),
    function("ext", &[Text], |_, given| text(ext(given[0].str()))),
    function("isAbs", &[Text], |_, given| Ok(Value::Bool(given[0].str().starts_with('/')))),
    function("osBase", &[Text], |_, given| text(base(given[0].str()))),
    function("osDir", &[Text], |_, given| text(dir(given[0].str()))),
    function("osClean", &[Text], |_, given| text(clean(given[0].str()))),
    function("osExt", &[Text], |_, given| text(ext(given[0].str()))),
    function("osIsAbs", &[Text], |_, given| Ok(Value::Bool(given[0].str().starts_with('/')))),
];

fn base(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        _ if path.is_empty() => ".",
        None | Some("") => "/",
        Some(name) => name,
    }
}

fn dir(path: &str) -> String {
    clean(path.rfind('/').map_or("", |slash| &path[..=slash]))
}

fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, cleaned) => format!("/{cleaned}"),
        (false, cleaned) if cleaned.is_empty() => ".".into(),
        (false, cleaned) => cleaned,
    }
}

fn ext(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rfind('.').map_or("", |dot| &name[dot..])
}
