//! Which language a recipe's tags are in: Jinja, or Go's, as in debos's recipes.

use std::ops::Range;

use super::go::lexer::{Tag, is_word, tags};
use super::lexer::{self, TagKind};

/// A template language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Jinja, by minijinja.
    Jinja,
    /// Go's `text/template` with slim-sprig's functions.
    Go,
}

/// What the tags of a text say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Detected {
    /// There are none that belong to one language alone.
    Plain,
    Sure(Dialect),
    /// Some belong to Go alone, others to Jinja alone.
    Mixed {
        go: Range<usize>,
        jinja: Range<usize>,
    },
}

/// Looks at the tags of a text, without understanding more of them than what language they are in.
pub(super) fn detect(text: &str) -> Detected {
    let statement = statement(text);
    let (mut go, mut jinja) = (None, statement);
    for tag in tags(text) {
        match language(text, &tag) {
            Some(Dialect::Go) => go = go.or(Some(tag.range)),
            Some(Dialect::Jinja) if jinja.as_ref().is_none_or(|first| first.start > tag.range.start) => {
                jinja = Some(tag.range);
            }
            _ => {}
        }
    }
    match (go, jinja) {
        (Some(go), Some(jinja)) => Detected::Mixed { go, jinja },
        (Some(_), None) => Detected::Sure(Dialect::Go),
        (None, Some(_)) => Detected::Sure(Dialect::Jinja),
        (None, None) => Detected::Plain,
    }
}

/// Statements of Jinja.
const STATEMENTS: &[&str] = &[
    "autoescape",
    "block",
    "break",
    "call",
    "continue",
    "do",
    "elif",
    "else",
    "endblock",
    "endcall",
    "endfilter",
    "endfor",
    "endif",
    "endmacro",
    "endset",
    "endwith",
    "extends",
    "filter",
    "for",
    "from",
    "if",
    "import",
    "include",
    "macro",
    "raw",
    "set",
    "with",
];

/// The first `{% … %}` or `{# … #}`. Shell has `${#name}` and `${name%%…}`, which are neither.
fn statement(text: &str) -> Option<Range<usize>> {
    let expressions = tags(text);
    let found = lexer::tags(text).into_iter().find(|tag| {
        let in_expression =
            expressions.iter().any(|other| other.range.start < tag.range.start && tag.range.end <= other.range.end);
        match tag.kind {
            TagKind::Expression => false,
            TagKind::Statement => !in_expression && STATEMENTS.contains(&tag.word(text)),
            TagKind::Comment => !in_expression && !text[..tag.range.start].ends_with('$'),
        }
    });
    found.map(|tag| tag.range)
}

/// The language that a tag is in, where it can be in only one.
fn language(text: &str, tag: &Tag) -> Option<Dialect> {
    if tag.comment {
        return Some(Dialect::Go);
    }
    let inner = tag.text(text);
    let word = tag.word(text);
    let rest = &inner[word.len()..];
    match word {
        "end" if rest.trim().is_empty() => return Some(Dialect::Go),
        "else" | "break" | "continue" if rest.trim().is_empty() => return Some(Dialect::Go),
        "if" | "range" | "with" | "define" | "template" | "block" | "else" if rest.starts_with(char::is_whitespace) => {
            return Some(Dialect::Go);
        }
        _ => {}
    }
    of_tokens(&tokens(inner))
}

/// A part of an expression, as far as it tells the languages apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A name, and whether what follows stands right after it.
    Word {
        name: String,
        tight: bool,
    },
    /// `.name` after white space, or `$name`: only Go has them.
    Go,
    /// What only Jinja has.
    Jinja,
    /// A literal.
    Literal,
    Open,
    Close,
    Pipe,
    Other,
}

/// Words that Jinja has between or before operands.
const OPERATORS: &[&str] =
    &["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"];

fn of_tokens(tokens: &[Token]) -> Option<Dialect> {
    if tokens.contains(&Token::Go) {
        return Some(Dialect::Go);
    }
    if tokens.contains(&Token::Jinja) {
        return Some(Dialect::Jinja);
    }
    for (index, token) in tokens.iter().enumerate() {
        let Token::Word { name, tight } = token else { continue };
        let next = tokens.get(index + 1);
        let named = |token: Option<&Token>| matches!(token, Some(Token::Word { name, .. }) if !OPERATORS.contains(&name.as_str()));
        if OPERATORS.contains(&name.as_str()) {
            // `or "a" "b"`: two operands one after the other.
            if matches!(name.as_str(), "and" | "or") && index == 0 {
                return Some(Dialect::Go);
            }
            continue;
        }
        match next {
            // `name(`: a call. Go has white space between a function and a parenthesis.
            Some(Token::Open) => return Some(if *tight { Dialect::Jinja } else { Dialect::Go }),
            // `upper "x"`, `add 1 2`, `upper name`: only Go puts arguments beside a function.
            Some(Token::Literal) => return Some(Dialect::Go),
            next if named(next) => return Some(Dialect::Go),
            _ => {}
        }
    }
    // A name alone is a variable to Jinja; to Go it is a function, and few do without arguments. After `|` both
    // have one.
    let alone = tokens.iter().enumerate().find_map(|(index, token)| match token {
        Token::Word { name, .. } if !OPERATORS.contains(&name.as_str()) => {
            (index == 0 || tokens[index - 1] != Token::Pipe).then_some(name.as_str())
        }
        _ => None,
    });
    match alone {
        Some("now" | "list" | "dict") => Some(Dialect::Go),
        Some(_) => Some(Dialect::Jinja),
        None => None,
    }
}

fn tokens(inner: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = inner;
    let mut spaced = true;
    while let Some(c) = rest.chars().next() {
        let (token, length) = match c {
            c if c.is_whitespace() => {
                spaced = true;
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '"' | '\'' | '`' => {
                let length = super::go::lexer::quoted_length(rest).unwrap_or(rest.len());
                // A text in single quotes is Jinja's; in Go it is one character.
                let one = rest[..length].chars().count() == 3 || rest.starts_with("'\\");
                let token = match c {
                    '`' => Token::Go,
                    '\'' if !one => Token::Jinja,
                    _ => Token::Literal,
                };
                (token, length)
            }
            '$' => (Token::Go, 1),
            ':' if rest.starts_with(":=") => (Token::Go, 2),
            '=' if rest.starts_with("==") => (Token::Jinja, 2),
            '!' if rest.starts_with("!=") => (Token::Jinja, 2),
            '.' if spaced || matches!(found.last(), None | Some(Token::Open)) => (Token::Go, 1),
            '~' | '[' | '{' | '<' | '>' | '*' | '%' => (Token::Jinja, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Pipe, 1),
            c if c.is_ascii_digit() => {
                (Token::Literal, rest.find(|c: char| !is_word(c) && c != '.').unwrap_or(rest.len()))
            }
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let tight = !rest[length..].starts_with(char::is_whitespace);
                (Token::Word { name: rest[..length].to_owned(), tight }, length)
            }
            '.' => {
                let length = 1 + rest[1..].find(|c| !is_word(c)).unwrap_or(rest.len() - 1);
                // A part of what stands before it, in both languages.
                spaced = false;
                rest = &rest[length..];
                continue;
            }
            c => (Token::Other, c.len_utf8()),
        };
        found.push(token);
        rest = &rest[length..];
        spaced = false;
    }
    found
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("{{ .arch }}")]
    #[case("{{- $x := or .arch \"amd64\" -}}")]
    #[case("{{$x}}")]
    #[case("{{ if eq .a \"b\" }}")]
    #[case("{{else}}")]
    #[case("{{- end -}}")]
    #[case("{{/* a comment */}}")]
    #[case("{{ or \"\" \"x\" }}")]
    #[case("{{ printf \"%s\" `x` }}")]
    #[case("{{ \"x\" | printf \"%q\" }}")]
    #[case("{{ add 1 2 }}")]
    #[case("{{ upper (lower \"X\") }}")]
    #[case("{{ not .x }}")]
    #[case("{{ template \"x\" . }}")]
    #[case("{{ now | date \"2006\" }}")]
    #[case("command: echo ${#x} ${y%%z}\n{{ .z }} ${y%\"%}\"}")]
    #[case("{{ \"{% if %}\" | print .x }}")]
    fn go_is_known(#[case] text: &str) {
        assert_eq!(detect(text), Detected::Sure(Dialect::Go), "{text}");
    }

    #[rstest]
    #[case("{{ arch }}")]
    #[case("{{arch}}")]
    #[case("{{ arch | default(\"amd64\") }}")]
    #[case("{{ uuid5(\"dns\", name) }}")]
    #[case("{% if a == 'b' %}")]
    #[case("{# a comment #}")]
    #[case("{{ a.b }}")]
    #[case("{{ a ~ \"-\" ~ b }}")]
    #[case("{{ \"x\" if y else \"z\" }}")]
    #[case("{{ not x }}")]
    #[case("{{ 'amd64' }}")]
    #[case("{{ \"a\" | upper ~ b }}")]
    #[case("{{ a or b }}")]
    #[case("{{ loop.index }}")]
    #[case("{{ x is defined }}")]
    #[case("{{ packages | join(\" \") }}")]
    #[case("{{ a[0] }}")]
    fn jinja_is_known(#[case] text: &str) {
        assert_eq!(detect(text), Detected::Sure(Dialect::Jinja), "{text}");
    }

    #[rstest]
    #[case("architecture: amd64")]
    #[case("{{ \"x\" }}{{ 1 }}")]
    #[case("command: x=${#y}; echo ${z%#}")]
    #[case("command: awk '{print}' | sed 's/{%/x/'")]
    fn what_has_no_tags_is_plain(#[case] text: &str) {
        assert_eq!(detect(text), Detected::Plain, "{text}");
    }

    #[test]
    fn both_places_of_a_mix_are_found() {
        let text = "{{ .a }} {{ b }} {% if c %}";
        let Detected::Mixed { go, jinja } = detect(text) else { panic!("no mix") };
        assert_eq!((&text[go], &text[jinja]), ("{{ .a }}", "{{ b }}"));
    }
}
