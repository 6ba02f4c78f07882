//! `printf` and its kin.

use super::functions::Call;
use super::jinja::Jinja;
use super::kinds::Kind;
use super::pipeline::{Result, Term};
use super::writer::Writer;

/// With more values than this, a format is easier to read than texts put together.
const MAX_CONCATENATED: usize = 3;

/// A part of a format.
#[derive(Debug, PartialEq)]
enum Part {
    Literal(String),
    /// `%…x`: what stands before the letter, and the letter.
    Verb(String, char),
}

impl Writer<'_> {
    /// The value of a call that puts texts together.
    pub(super) fn printing(&mut self, mut call: Call) -> Result<Term> {
        if call.name == "printf" {
            return self.printf(call);
        }
        let terms = std::mem::take(&mut call.arguments);
        if let Some(term) = terms.iter().find(|term| !printable(&term.kind)) {
            return Err(call.fault(format!("`{}` of {}", call.name, term.kind.called())));
        }
        let mut all: Option<Jinja> = None;
        let mut textual = true;
        for term in terms {
            // `print` puts a space between two values that are no texts, the others put one between any.
            let is_text = matches!(term.kind, Kind::Text | Kind::Scalar | Kind::Unknown);
            let space = call.name != "print" || (!textual && !is_text);
            textual = is_text;
            let value = self.text(term);
            all = Some(match all {
                Some(before) if space => before.concat(Jinja::text(" ")).concat(value),
                Some(before) => before.concat(value),
                None => value,
            });
        }
        let jinja = all.unwrap_or_else(|| Jinja::text(""));
        let jinja = if call.name == "println" { jinja.concat(Jinja::text("\n")) } else { jinja };
        Ok(call.gives(jinja, Kind::Text))
    }

    fn printf(&mut self, mut call: Call) -> Result<Term> {
        call.at_least(1)?;
        let mut arguments = std::mem::take(&mut call.arguments).into_iter();
        let Some(format) = arguments.next() else { return Err(call.count(0)) };
        let Jinja::Text(format) = format.jinja else {
            return Err(call
                .fault("`printf` with a format that is not written here")
                .hint("Jinja has `\"%s-%s\" | format(one, other)`"));
        };
        let parts = parts(&format).ok_or_else(|| call.fault(format!("the format `{format}` has no counterpart")))?;
        let verbs = parts.iter().filter(|part| matches!(part, Part::Verb(..))).count();
        if verbs != arguments.len() {
            let why = format!("the format `{format}` is given {} for {verbs}", values(arguments.len()));
            return Err(call.fault(why).hint("debos writes `%!s(MISSING)` or `%!(EXTRA …)` here"));
        }
        let terms: Vec<Term> = arguments.collect();
        for (term, part) in terms.iter().zip(parts.iter().filter(|part| matches!(part, Part::Verb(..)))) {
            if let Part::Verb(flags, verb) = part {
                suits(term, flags, *verb, &call)?;
            }
        }
        let plain = parts.iter().all(|part| match part {
            Part::Literal(_) => true,
            Part::Verb(flags, verb) => flags.is_empty() && matches!(verb, 's' | 'v' | 'd' | 't' | 'q'),
        });
        let any_bool = terms.iter().any(|term| term.kind == Kind::Bool);
        if plain && (terms.len() <= MAX_CONCATENATED || any_bool) {
            let mut terms = terms.into_iter();
            let mut all: Option<Jinja> = None;
            for part in parts {
                let next = match part {
                    Part::Literal(text) => Jinja::Text(text),
                    Part::Verb(_, verb) => {
                        let Some(term) = terms.next() else { break };
                        let value = self.text(term);
                        if verb == 'q' { value.filter("quote", []) } else { value }
                    }
                };
                all = Some(match all {
                    Some(before) => before.concat(next),
                    None => next,
                });
            }
            let jinja = match all.unwrap_or_else(|| Jinja::text("")) {
                // A number alone would stay one.
                alone @ (Jinja::Name(_) | Jinja::Int(_)) => alone.filter("string", []),
                jinja => jinja,
            };
            return Ok(call.gives(jinja, Kind::Text));
        }
        let mut values = Vec::with_capacity(terms.len());
        let mut written = String::new();
        let mut terms = terms.into_iter();
        for part in parts {
            match part {
                Part::Literal(text) => written.push_str(&text.replace('%', "%%")),
                Part::Verb(flags, verb) => {
                    let Some(term) = terms.next() else { break };
                    let value = self.text(term);
                    values.push(if verb == 'q' { value.filter("quote", []) } else { value });
                    let verb = if matches!(verb, 'v' | 'q' | 't') { 's' } else { verb };
                    written.push_str(&format!("%{flags}{verb}"));
                }
            }
        }
        Ok(call.gives(Jinja::text(written).filter("format", values), Kind::Text))
    }
}

fn values(count: usize) -> String {
    if count == 1 { "one value".into() } else { format!("{count} values") }
}

/// The parts of a format; none where it has what cannot be translated.
fn parts(format: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            literal.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = rest.next_if(|c| matches!(c, '-' | '0'..='9' | '.' | '+' | ' ')) {
            flags.push(flag);
        }
        match rest.next()? {
            '%' if flags.is_empty() => literal.push('%'),
            verb @ ('s' | 'v' | 'd' | 't' | 'q' | 'x' | 'X' | 'o') => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Verb(flags, verb));
            }
            _ => return None,
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Some(parts)
}

fn printable(kind: &Kind) -> bool {
    matches!(kind, Kind::Text | Kind::Int | Kind::Bool | Kind::Scalar | Kind::Unknown)
}

/// Whether a value is what a verb writes as it should be.
fn suits(term: &Term, flags: &str, verb: char, call: &Call) -> Result<()> {
    let good = match verb {
        's' | 'q' => matches!(term.kind, Kind::Text | Kind::Scalar | Kind::Unknown),
        'd' | 'o' => matches!(term.kind, Kind::Int | Kind::Scalar | Kind::Unknown),
        // Of texts these are the bytes, which Jinja does not write so.
        'x' | 'X' => term.kind == Kind::Int,
        't' => term.kind == Kind::Bool,
        _ => printable(&term.kind),
    };
    if !good {
        let why = format!("`%{verb}` of {}", term.kind.called());
        return Err(call.fault(why).hint(format!("debos writes `%!{verb}(…)` here")));
    }
    if !flags.is_empty() && term.kind == Kind::Bool {
        return Err(call.fault(format!("`%{flags}{verb}` of true or false")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_taken_apart() {
        let verb = |flags: &str, verb| Part::Verb(flags.into(), verb);
        assert_eq!(
            parts("a%s-%05d%%"),
            Some(vec![
                Part::Literal("a".into()),
                verb("", 's'),
                Part::Literal("-".into()),
                verb("05", 'd'),
                Part::Literal("%".into())
            ])
        );
        assert_eq!(parts("%z"), None);
        assert_eq!(parts("100%"), None);
    }
}
