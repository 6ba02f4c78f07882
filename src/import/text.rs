//! Text outside of tags, which Jinja has to leave as it is.

/// Delimiters of Jinja that Go's templates do not know.
const OPENING: [&str; 2] = ["{%", "{#"];

/// The text as Jinja prints it unchanged: `${#list}` becomes `{% raw %}${#list}{% endraw %}`.
pub(super) fn protected(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        protect_line(line, &mut out);
    }
    out
}

/// Wraps what stands from the first word to the last that Jinja would take for a tag.
fn protect_line(line: &str, out: &mut String) {
    let opens = |from: usize| OPENING.iter().filter_map(|sign| line[from..].find(sign)).min().map(|at| from + at);
    let Some(first) = opens(0) else {
        out.push_str(line);
        return;
    };
    let last = OPENING.iter().filter_map(|sign| line.rfind(sign)).max().unwrap_or(first);
    let is_space = |c: char| c.is_whitespace();
    let start = line[..first].rfind(is_space).map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
    let end = line[last..].find(is_space).map_or(line.len(), |at| last + at);
    let inside = &line[start..end];
    out.push_str(&line[..start]);
    if inside.contains("endraw") {
        // Nothing can stand in `raw` that ends it.
        for (index, part) in split_at_openings(inside).into_iter().enumerate() {
            if index > 0 {
                out.push_str(&format!("{{{{ \"{}\" }}}}", &part[..2]));
                out.push_str(&part[2..]);
            } else {
                out.push_str(part);
            }
        }
    } else {
        out.push_str("{% raw %}");
        out.push_str(inside);
        out.push_str("{% endraw %}");
    }
    out.push_str(&line[end..]);
}

/// The text in parts, each but the first beginning with a delimiter.
fn split_at_openings(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut search = 0;
    while let Some(at) = OPENING.iter().filter_map(|sign| text[search..].find(sign)).min().map(|at| search + at) {
        parts.push(&text[from..at]);
        from = at;
        search = at + 2;
    }
    parts.push(&text[from..]);
    parts
}

/// What a comment says, without what would end it too early or be taken for a sign.
pub(super) fn comment(text: &str) -> String {
    let mut text = text.replace("#}", "# }");
    if !text.starts_with(char::is_whitespace) {
        text.insert(0, ' ');
    }
    if !text.ends_with(char::is_whitespace) {
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_tag_is_kept() {
        for (text, expected) in [
            ("a {b} c\n", "a {b} c\n"),
            ("x=${#list} y\n", "{% raw %}x=${#list}{% endraw %} y\n"),
            ("a ${#b} c ${d%%{%} e", "a {% raw %}${#b} c ${d%%{%}{% endraw %} e"),
            ("{%endraw%}", "{{ \"{%\" }}endraw%}"),
        ] {
            assert_eq!(protected(text), expected);
            let mut env = minijinja::Environment::new();
            env.set_syntax(env.syntax().to_builder().keep_trailing_newline(true).build().unwrap());
            assert_eq!(env.render_str(&protected(text), ()).unwrap(), text);
        }
    }

    #[test]
    fn a_comment_cannot_end_early() {
        assert_eq!(comment("- a #} b"), " - a # } b ");
        assert_eq!(comment(" a\n"), " a\n");
    }
}
