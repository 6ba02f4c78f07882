//! Addresses as people and files may see them: without what they let in with.

use std::ops::Range;

/// Words in the name of a query's parameter whose value signs or lets in: of tokens, and of the signed addresses that
/// object stores redirect to.
const TELLING: [&str; 8] = ["token", "secret", "signature", "passw", "credential", "apikey", "api_key", "access_key"];

/// Such names that are no part of other words.
const WHOLE: [&str; 5] = ["auth", "key", "pass", "pwd", "sig"];

/// Whether an address in a text holds a login.
pub fn has_login(text: &str) -> bool {
    secrets(text).iter().any(|(_, kind)| *kind == Kind::Login) || text.split_whitespace().any(is_let_in)
}

/// Whether clients, which read addresses more leniently than people write them, would log in with this one.
fn is_let_in(word: &str) -> bool {
    const SCHEMES: [&str; 6] = ["http:", "https:", "ftp:", "socks:", "socks5:", "ssh:"];
    let lower = word.to_ascii_lowercase();
    SCHEMES.iter().any(|scheme| lower.starts_with(scheme))
        && url::Url::parse(word).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}

/// A text whose addresses let nobody in: logins are left out, and the values of parameters that sign are `…`.
pub fn redacted(text: &str) -> String {
    let mut out = text.to_owned();
    for (range, kind) in secrets(text).into_iter().rev() {
        out.replace_range(range, if kind == Kind::Login { "" } else { "…" });
    }
    out
}

/// The same with as many bytes as before, each of a secret a `*`.
pub(super) fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    for (range, _) in secrets(text) {
        let stars = "*".repeat(range.len());
        out.replace_range(range, &stars);
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `user:password@`.
    Login,
    /// What stands after `name=`.
    Value,
}

/// What is secret in the addresses of a text, in order.
fn secrets(text: &str) -> Vec<(Range<usize>, Kind)> {
    let mut found = Vec::new();
    for (at, separator) in text.match_indices("://") {
        let start = at + separator.len();
        if !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric()) {
            continue;
        }
        let end = |from: usize, stops: &dyn Fn(char) -> bool| {
            let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'`<>|\\".contains(c) || stops(c);
            text[from..].find(ends).map_or(text.len(), |length| from + length)
        };
        // A password may have what else ends an address; then the login counts, rather than what it ends.
        let wide = |c: char| c.is_whitespace() || c.is_control() || "/?#".contains(c);
        let widest = text[start..].find(wide).map_or(text.len(), |length| start + length);
        let narrow = end(start, &|c| "/?#".contains(c));
        let host_end =
            if text[narrow..widest].contains('@') && !text[start..narrow].contains('.') { widest } else { narrow };
        if let Some(login) = text[start..host_end].rfind('@') {
            found.push((start..start + login + 1, Kind::Login));
        }
        let path_end = end(host_end, &|c| "?#".contains(c));
        if !text[path_end..].starts_with('?') {
            continue;
        }
        let mut from = path_end + 1;
        let query_end = end(from, &|c| "#)".contains(c));
        while from < query_end {
            let part_end = text[from..query_end].find('&').map_or(query_end, |length| from + length);
            if let Some(name) = text[from..part_end].find('=').filter(|length| tells(&text[from..from + length])) {
                let value = from + name + 1..part_end;
                if !value.is_empty() {
                    found.push((value, Kind::Value));
                }
            }
            from = part_end + 1;
        }
    }
    found
}

fn tells(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WHOLE.contains(&name.as_str()) || TELLING.iter().any(|word| name.contains(word)) || name.starts_with("x-amz-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_and_signatures_are_left_out() {
        let cases = [
            ("https://user:pa55@host/x", "https://host/x"),
            ("deb [trusted=yes] http://me@a.example:80/d x main", "deb [trusted=yes] http://a.example:80/d x main"),
            ("`https://u:p@ss@h/` and 'ftp://v@i'", "`https://h/` and 'ftp://i'"),
            ("https://h/a?b=c&token=abc&d=e#f", "https://h/a?b=c&token=…&d=e#f"),
            ("https://s3/x?X-Amz-Signature=0a&X-Amz-Date=1", "https://s3/x?X-Amz-Signature=…&X-Amz-Date=…"),
        ];
        for (text, expected) in cases {
            assert_eq!(redacted(text), expected);
            assert_eq!(masked(text).len(), text.len());
            assert_eq!(redacted(expected), expected, "twice is once");
        }
        assert_eq!(masked("x http://u:p@h/"), "x http://****h/");
    }

    #[test]
    fn logins_are_found_as_clients_find_them() {
        for text in [
            "http:user:hunter2@host/f",
            "http:/user:hunter2@host/f",
            "http:///user:hunter2@host/f",
            "http://user:hun'ter2@host/f",
            "HTTPS://me@host",
        ] {
            assert!(has_login(text), "{text}");
        }
        assert_eq!(redacted("http://user:hun'ter2@host/f"), "http://host/f");
    }

    #[test]
    fn what_lets_nobody_in_is_left_alone() {
        for text in [
            "mail me@example.org",
            "https://host/@scope/pkg?monkey=1",
            "a://b",
            "://u:p@h",
            "git@host:path",
            "https://h?a=@",
            "file:///srv/a@b",
        ] {
            assert_eq!(redacted(text), text);
            assert!(!has_login(text), "{text}");
        }
    }
}
