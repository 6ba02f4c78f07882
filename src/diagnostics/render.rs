//! How diagnostics are printed.

use std::fmt::Write;

use console::{Style, measure_text_width};

use super::secret::{masked, redacted};
use super::{Diagnostic, Severity, Span};

/// Columns of a source line that are shown at most; a recipe's line may be a whole script.
const MAX_WIDTH: usize = 100;

/// Columns that stay to the left of the marked text where a long line is cut.
const CONTEXT: usize = 30;

/// The styles of one printout.
struct Styles {
    error: Style,
    warning: Style,
    frame: Style,
    hint: Style,
    bold: Style,
}

impl Styles {
    fn new(colour: bool) -> Self {
        let style = || Style::new().force_styling(colour);
        Self {
            error: style().red().bold(),
            warning: style().yellow().bold(),
            frame: style().blue(),
            hint: style().cyan(),
            bold: style().bold(),
        }
    }

    fn of(&self, severity: Severity) -> &Style {
        match severity {
            Severity::Error => &self.error,
            Severity::Warning => &self.warning,
        }
    }
}

pub(super) fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    let styles = Styles::new(colour);
    let mut out = String::new();
    for diagnostic in diagnostics {
        one(&mut out, diagnostic, &styles);
        out.push('\n');
    }
    if !diagnostics.is_empty() {
        out.push_str(&count(diagnostics));
        out.push('\n');
    }
    out
}

fn one(out: &mut String, diagnostic: &Diagnostic, styles: &Styles) {
    let name = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let severity = styles.of(diagnostic.severity);
    line(out, format_args!("{}: {}", severity.apply_to(name), styles.bold.apply_to(clean(&diagnostic.message))));
    let margin = match &diagnostic.span {
        Some(span) => snippet(out, diagnostic, span, styles),
        None => String::from("  "),
    };
    for hint in &diagnostic.hints {
        line(
            out,
            format_args!(
                "{margin}{} {}",
                styles.frame.apply_to("="),
                styles.hint.apply_to(format!("hint: {}", clean(hint)))
            ),
        );
    }
}

/// Prints the place, the source line and its marks; returns the margin that later lines have.
fn snippet(out: &mut String, diagnostic: &Diagnostic, span: &Span, styles: &Styles) -> String {
    let place = span.place();
    let number = place.line.to_string();
    let margin = " ".repeat(number.len() + 1);
    let frame = &styles.frame;
    let mut way = String::new();
    for (index, from) in diagnostic.included_from.iter().enumerate() {
        let from = from.place();
        way.push_str(if index == 0 { " (included from " } else { ", from " });
        let _ = write!(way, "{}:{}", from.file, from.line);
    }
    if !way.is_empty() {
        way.push(')');
    }
    line(out, format_args!("{margin}{} {place}{way}", frame.apply_to("┌")));
    let shown = Shown::new(span);
    line(out, format_args!("{} {}", frame.apply_to(format!("{number} │")), shown.text));
    let marks = "^".repeat(shown.marked);
    let label = if diagnostic.label.is_empty() { String::new() } else { format!(" {}", clean(&diagnostic.label)) };
    let marks = styles.of(diagnostic.severity).apply_to(format!("{marks}{label}"));
    line(out, format_args!("{margin}{} {}{marks}", frame.apply_to("│"), " ".repeat(shown.before)));
    margin
}

/// Printing to a string cannot fail; no line ends with spaces.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let start = out.len();
    let _ = write!(out, "{text}");
    let end = out[start..].trim_end().len();
    out.truncate(start + end);
    out.push('\n');
}

/// A source line as it is printed, with the columns before the marked part and in it.
struct Shown {
    text: String,
    before: usize,
    marked: usize,
}

impl Shown {
    fn new(span: &Span) -> Self {
        // Byte for byte as long as before.
        let text = &masked(&span.source.text);
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        // What goes on over several lines is marked to the end of the first.
        let end = floor(text, span.end).clamp(start, line_end);
        let marked = text[start..end].trim_end();
        let left = visible(&text[line_start..start]);
        let middle = visible(marked);
        let right = visible(text[start + marked.len()..line_end].trim_end());
        let (left, cut) = shorten_left(&left);
        let before = measure_text_width(&left);
        let whole = format!("{left}{middle}{right}");
        let width = measure_text_width(&middle).max(1);
        let limit = MAX_WIDTH.max(before + 1);
        let text = if measure_text_width(&whole) > limit {
            console::truncate_str(&whole, limit, "…").into_owned()
        } else {
            whole
        };
        let _ = cut;
        Self { text, before, marked: width.min(limit.saturating_sub(before).max(1)) }
    }
}

/// The end of a long text before the marked part.
fn shorten_left(text: &str) -> (String, bool) {
    if measure_text_width(text) <= MAX_WIDTH - CONTEXT {
        return (text.to_owned(), false);
    }
    let tail: Vec<char> = text.chars().rev().take(CONTEXT).collect();
    (std::iter::once('…').chain(tail.into_iter().rev()).collect(), true)
}

/// Tabs as spaces, control characters as a sign for them.
fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let (c, times) = match c {
                '\t' => (' ', 4),
                c if c.is_control() => ('\u{fffd}', 1),
                c => (c, 1),
            };
            std::iter::repeat_n(c, times)
        })
        .collect()
}

/// A message on one line: it may quote what the recipe says.
fn clean(text: &str) -> String {
    redacted(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The nearest character boundary at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// "2 errors, 1 warning in board.yaml".
fn count(diagnostics: &[Diagnostic]) -> String {
    let of = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let counted = |number: usize, name: &str| match number {
        0 => None,
        1 => Some(format!("1 {name}")),
        many => Some(format!("{many} {name}s")),
    };
    let counts: Vec<String> = [counted(of(Severity::Error), "error"), counted(of(Severity::Warning), "warning")]
        .into_iter()
        .flatten()
        .collect();
    // The outermost file of any of them is the recipe that the user named.
    let file = diagnostics.iter().find_map(|diagnostic| {
        diagnostic.included_from.last().or(diagnostic.span.as_ref()).map(|span| span.source.name.as_str())
    });
    match file {
        Some(file) => format!("{} in {file}", counts.join(", ")),
        None => counts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostics::Source;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { name: "board.yaml".into(), text: text.into() })
    }

    #[test]
    fn a_fault_is_shown_in_its_line() {
        let source = source("a: 1\n    suit: trixie\n");
        let diagnostic = Diagnostic::error("unknown property `suit`", Span::new(&source, 9, 13))
            .label("the action `mmdebstrap` has no such property")
            .hint("did you mean `suite`?");
        assert_eq!(
            render(&[diagnostic], false),
            "error: unknown property `suit`\n  ┌ board.yaml:2:5\n2 │     suit: trixie\n  │     ^^^^ the action `mmdebstrap` has no such property\n  = hint: did you mean `suite`?\n\n1 error in board.yaml\n"
        );
    }

    #[test]
    fn wide_characters_and_tabs_do_not_shift_the_marks() {
        let text = "\t日本: x\n";
        let source = source(text);
        let at = text.find('x').unwrap();
        let printed = render(&[Diagnostic::warning("no", Span::new(&source, at, at + 1))], false);
        let lines: Vec<&str> = printed.lines().collect();
        let column = |line: &str, needle: &str| measure_text_width(&line[..line.find(needle).unwrap()]);
        assert_eq!(column(lines[2], "x"), column(lines[3], "^"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let source = source(&text);
        let printed = render(&[Diagnostic::error("no", Span::new(&source, 500, 504))], false);
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines[2].contains("HERE") && measure_text_width(lines[2]) < MAX_WIDTH + 10, "{printed}");
        assert!(lines[3].contains("^^^^"));
    }

    #[test]
    fn any_span_can_be_printed() {
        let source = source("ü\r\n\u{1b}[31m\n");
        for start in 0..=source.text.len() {
            for end in start..=source.text.len() {
                let printed = render(&[Diagnostic::error("no", Span::new(&source, start, end))], false);
                assert!(!printed.contains('\u{1b}'));
            }
        }
    }
}
