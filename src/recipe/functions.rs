//! What a template can call beside Jinja's own filters and functions.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::build::command::shell_word;

/// Adds everything of this file to an environment.
pub(super) fn add_to(env: &mut Environment<'_>) {
    env.add_function("sector", sector);
    env.add_function("uuid5", uuid5);
    env.add_function("escape", escape);
    env.add_function("fail", fail);
    // Jinja's own `escape` is for HTML, which no recipe is.
    env.add_filter("escape", escape);
    env.add_filter("e", escape);
    env.add_filter("shellquote", escape);
    env.add_filter("quote", quote);
    env.add_filter("sector", sector);
    env.add_filter("basename", |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned());
    env.add_filter("dirname", dirname);
    env.add_filter("removeprefix", |text: &str, prefix: &str| text.strip_prefix(prefix).unwrap_or(text).to_owned());
    env.add_filter("removesuffix", |text: &str, suffix: &str| text.strip_suffix(suffix).unwrap_or(text).to_owned());
    env.add_filter("sha256", |text: &str| hex::encode(Sha256::digest(text.as_bytes())));
    env.add_filter("repeat", repeat);
    env.add_filter("b64encode", |text: &str| BASE64.encode(text));
    env.add_filter("b64decode", b64decode);
    env.add_filter("ternary", |condition: &Value, yes: Value, no: Value| if condition.is_true() { yes } else { no });
}

/// Bytes of a number of 512-byte sectors, as debos has it.
fn sector(count: u64) -> Result<u64, Error> {
    count.checked_mul(512).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "that many sectors are no disk"))
}

/// The UUID that a namespace (a UUID, or `dns`, `url`, `oid`, `x500`) and a text always yield: RFC 9562, version 5.
fn uuid5(namespace: &str, text: &str) -> Result<String, Error> {
    let namespace = match namespace {
        "dns" => Uuid::NAMESPACE_DNS,
        "url" => Uuid::NAMESPACE_URL,
        "oid" => Uuid::NAMESPACE_OID,
        "x500" => Uuid::NAMESPACE_X500,
        other => Uuid::parse_str(other).map_err(|_| {
            Error::new(
                ErrorKind::InvalidOperation,
                format!("the namespace `{other}` is neither a UUID nor one of dns, url, oid, x500"),
            )
        })?,
    };
    Ok(Uuid::new_v5(&namespace, text.as_bytes()).to_string())
}

/// The text as one word of a shell command.
fn escape(text: &Value) -> Result<String, Error> {
    if text.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(shell_word(&text.to_string()))
}

/// The text in double quotes, as YAML and JSON read it.
fn quote(text: &Value) -> Result<String, Error> {
    if text.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    serde_json::to_string(&text.to_string()).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Ends the rendering with the author's own message.
fn fail(message: &str, kwargs: Kwargs) -> Result<Value, Error> {
    kwargs.assert_all_used()?;
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

fn dirname(path: &str) -> String {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/".into(),
        Some((directory, _)) => directory.to_owned(),
        None if path.starts_with('/') => "/".into(),
        None => ".".into(),
    }
}

fn b64decode(text: &str) -> Result<String, Error> {
    let bytes = BASE64.decode(text).map_err(|error| error.to_string());
    let decoded = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
    decoded.map_err(|why| Error::new(ErrorKind::InvalidOperation, format!("`{text}` is not text in base64: {why}")))
}

fn repeat(state: &State, text: &str, times: u32) -> Result<String, Error> {
    // Before the memory is taken, not after.
    state.consume_fuel(text.len() as u64 * u64::from(times))?;
    Ok(text.repeat(times as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> String {
        let mut env = Environment::new();
        add_to(&mut env);
        env.render_str(template, ()).unwrap()
    }

    #[test]
    fn a_shell_word_survives_the_shell() {
        for (text, expected) in [("a/b-c_d", "a/b-c_d"), ("a b", "'a b'"), ("", "''"), ("it's", r#"'it'"'"'s'"#)] {
            assert_eq!(shell_word(text), expected);
        }
        assert_eq!(render("{{ escape('a b') }} {{ '$x'|escape }}"), "'a b' '$x'");
    }

    #[test]
    fn uuid5_is_that_of_the_standard() {
        // The example of RFC 9562, appendix A.4.
        assert_eq!(render("{{ uuid5('dns', 'www.example.com') }}"), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
        let spelled_out = render("{{ uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com') }}");
        assert_eq!(spelled_out, "2ed6657d-e927-568b-95e1-2665a8aea6a2");
    }

    #[test]
    fn the_helpers_do_what_they_are_called() {
        for (template, expected) in [
            ("{{ sector(64) }}", "32768"),
            ("{{ 'a/b/c.deb'|basename }}", "c.deb"),
            ("{{ 'a/b/c.deb'|dirname }}", "a/b"),
            ("{{ '/x'|dirname }}{{ 'x'|dirname }}", "/."),
            ("{{ 'v1.2'|removeprefix('v') }}", "1.2"),
            ("{{ 'x.img'|removesuffix('.img') }}", "x"),
            ("{{ 'ab'|repeat(3) }}", "ababab"),
            ("{{ 'ä'|b64encode }} {{ 'w6Q='|b64decode }}", "w6Q= ä"),
            ("{{ (1 == 1)|ternary('y', 'n') }}", "y"),
            ("{{ 'say \"hi\"'|quote }}", "\"say \\\"hi\\\"\""),
            ("{{ ''|sha256 }}", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ] {
            assert_eq!(render(template), expected, "{template}");
        }
    }
}
