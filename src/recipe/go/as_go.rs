//! What Go says: templates with what text/template of Go 1.19 and slim-sprig 3.0 make of them, or the error that
//! they end with. The table was written by these themselves.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::lexer::tags;
use super::value::Value;
use super::{Fault, Settings, exec, parse};
use crate::diagnostics::{Severity, Source};

/// A line of the table.
#[derive(Deserialize)]
struct Case {
    template: String,
    #[serde(default)]
    text: String,
    error: Option<String>,
}

/// The variables of all templates.
const VARIABLES: [(&str, &str); 4] = [("a", "x y"), ("n", "7"), ("e", ""), ("arch", "arm64")];

fn rendered(template: &str) -> Result<String, Vec<Fault>> {
    let source = Arc::new(Source { name: "t".into(), text: template.to_owned() });
    let tags = tags(template);
    let mut faults = Vec::new();
    let program = parse::parse(template, &tags, &mut faults);
    let Some(program) = program else { return Err(faults) };
    let data = Value::string_map(VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let run = exec::run(&program, &source, &tags, &data, Settings::default(), &[]);
    faults.extend(run.faults.into_iter().map(|(fault, _)| fault).filter(|fault| fault.severity == Severity::Error));
    if faults.is_empty() { Ok(run.text) } else { Err(faults) }
}

/// Go's message without what stands before it: where it is, and that it is the author's own.
fn message(error: &str) -> &str {
    let message = match error.split_once(">: ") {
        Some((before, message)) if before.contains("executing") => message,
        _ => error.splitn(3, ": ").nth(2).unwrap_or(error),
    };
    let message = message.strip_prefix("template: ").unwrap_or(message);
    message.strip_prefix("error calling fail: ").unwrap_or(message)
}

#[test]
fn templates_become_what_go_makes_of_them() {
    let table =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/recipe/go/as_go.jsonl")).unwrap();
    let mut wrong = Vec::new();
    for line in table.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let template = &case.template;
        match (rendered(template), &case.error) {
            (Ok(text), None) if text == case.text => {}
            (Ok(text), None) => wrong.push(format!("{template}\n  here: {text}\n  Go:   {}", case.text)),
            (Ok(text), Some(error)) => wrong.push(format!("{template}\n  here: {text}\n  Go:   error: {error}")),
            (Err(faults), None) => {
                let said: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
                wrong.push(format!("{template}\n  here: errors: {said:?}\n  Go:   {}", case.text));
            }
            (Err(faults), Some(error)) => {
                if faults[0].message != message(error) {
                    let said = &faults[0].message;
                    wrong.push(format!("{template}\n  here: error: {said}\n  Go:   error: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.lines().count(), wrong.join("\n"));
}
