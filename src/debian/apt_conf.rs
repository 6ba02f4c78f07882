//! apt's configuration files (apt.conf(5)).

use anyhow::{Result, bail};

/// Settings in their order: names in lower case, as apt compares them, and values. `#clear` has taken effect; of a list
/// each value stands under a name that ends in `::`.
pub type Setting = (String, String);

/// Reads a file's text after what `settings` has already, which `#clear` may take away.
pub fn read(text: &str, settings: &mut Vec<Setting>) -> Result<()> {
    let mut scopes: Vec<String> = Vec::new();
    let mut statement: Vec<String> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { break };
        let line = rest.lines().next().unwrap_or_default();
        if rest.starts_with("/*") {
            let Some((_, after)) = rest.split_once("*/") else { bail!("a comment has no end") };
            rest = after;
        } else if rest.starts_with("//") {
            rest = &rest[line.len()..];
        } else if first == '#' {
            match line.split_whitespace().next() {
                // It ends where a statement does.
                Some("#clear") => {
                    let (names, after) =
                        rest["#clear".len()..].split_once(';').unwrap_or((&line["#clear".len()..], ""));
                    let after = if names.contains('\n') { &rest[line.len()..] } else { after };
                    let names = names.lines().next().unwrap_or_default();
                    names.split_whitespace().for_each(|name| clear(settings, &full(&scopes, name.trim_matches('"'))));
                    rest = after;
                }
                Some("#include") => bail!("it includes another file, which is not looked into"),
                _ => rest = &rest[line.len()..],
            }
        } else if first == '"' {
            let Some((word, after)) = rest[1..].split_once('"') else { bail!("a quotation has no end") };
            statement.push(decoded(word));
            rest = after;
        } else {
            match first {
                '{' => {
                    scopes.push(full(&scopes, &statement.first().cloned().unwrap_or_default()));
                    statement.clear();
                }
                '}' => {
                    add(settings, &scopes, std::mem::take(&mut statement));
                    // apt minds one too many as little.
                    scopes.pop();
                }
                ';' => add(settings, &scopes, std::mem::take(&mut statement)),
                _ => {
                    let end = end_of_word(rest);
                    statement.push(decoded(&rest[..end].replace('"', "")));
                    rest = &rest[end..];
                    continue;
                }
            }
            rest = &rest[1..];
        }
    }
    // The options of a command have no end of their own.
    add(settings, &scopes, statement);
    if scopes.is_empty() { Ok(()) } else { bail!("a `{{` has no end") }
}

/// Where a word without quotes ends; parts of a name may be quoted (`Acquire::"http"::Proxy`).
fn end_of_word(text: &str) -> usize {
    let mut quoted = false;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '"' if quoted => quoted = false,
            '"' if before == ':' => quoted = true,
            _ if quoted => {}
            '"' | '{' | '}' | ';' => return at,
            letter if letter.is_whitespace() => return at,
            _ => {}
        }
        before = letter;
    }
    text.len()
}

/// apt's word for yes or no; `None` for another.
pub fn flag(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "yes" | "true" | "with" | "on" | "enable" | "1" => Some(true),
        "no" | "false" | "without" | "off" | "disable" | "0" => Some(false),
        _ => None,
    }
}

/// Whether apt reads a file of this name in a directory of such.
pub fn is_part(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    !name.starts_with('.') && name.bytes().all(plain) && matches!(extension, None | Some("conf"))
}

fn full(scopes: &[String], name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match scopes.last() {
        Some(scope) => format!("{scope}::{name}"),
        None => name,
    }
}

fn add(settings: &mut Vec<Setting>, scopes: &[String], statement: Vec<String>) {
    let mut words = statement.into_iter();
    match (words.next(), words.next()) {
        (Some(name), Some(value)) => settings.push((full(scopes, &name), value)),
        // In a scope, a value of a list.
        (Some(value), None) if !scopes.is_empty() => settings.push((full(scopes, ""), value)),
        _ => {}
    }
}

fn clear(settings: &mut Vec<Setting>, name: &str) {
    let name = name.to_ascii_lowercase();
    let below = format!("{}::", name.trim_end_matches("::"));
    settings.retain(|(known, _)| *known != name && !known.starts_with(&below));
}

/// A quoted text, in which `%` and two hex digits stand for a byte.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        read(text, &mut all).unwrap();
        all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn reads_what_apt_reads() {
        let text = "// a comment\n# another {\nAcquire::Check-Valid-Until \"false\"; // one more\nAcquire { http { Proxy \"http://a.example:3142/%22\"; }; By-Hash no; };\n/* not\n this; */ APT::NeverAutoRemove { \"^linux\"; \"x\"; };\nDPkg::Pre-Invoke:: \"true; false\";";
        assert_eq!(
            settings(text),
            [
                "acquire::check-valid-until=false",
                "acquire::http::proxy=http://a.example:3142/\"",
                "acquire::by-hash=no",
                "apt::neverautoremove::=^linux",
                "apt::neverautoremove::=x",
                "dpkg::pre-invoke::=true; false",
            ]
        );
        assert_eq!(settings("Acquire::By-Hash \"no\""), ["acquire::by-hash=no"]);
        assert_eq!(settings("A::B \"1\"; #clear A::B; A::\"C\"::D \"2\"; }\nA::E%20F 3;"), ["a::c::d=2", "a::e f=3"]);
        assert_eq!(settings("A::B \"1\"; A::BC \"2\";\n#clear A::B\nA::D \"3\";"), ["a::bc=2", "a::d=3"]);
    }

    #[test]
    fn refuses_what_apt_refuses() {
        for text in ["A { B \"x\";", "A \"x", "/* x", "#include \"/etc/x\";"] {
            assert!(read(text, &mut Vec::new()).is_err(), "{text}");
        }
    }

    #[test]
    fn knows_which_files_are_parts() {
        for (name, part) in [("00a", true), ("b.conf", true), ("c.bak", false), (".d", false), ("e~", false)] {
            assert_eq!(is_part(name), part, "{name}");
        }
    }
}
