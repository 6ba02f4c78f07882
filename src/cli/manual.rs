//! The manual of an action, from its schema: the doc comments of its struct.

use serde_json::Value;

use crate::actions::Kind;

/// What an action's schema says, in the terms of a manual.
#[derive(Debug, Clone)]
pub struct Manual {
    /// As written after `action:`.
    pub name: &'static str,
    /// First sentence of the description, without its full stop.
    pub summary: String,
    /// The whole description, in Markdown.
    pub description: String,
    /// In the order of the struct.
    pub properties: Vec<Property>,
}

/// One property of an action, or of a part of it.
#[derive(Debug, Clone)]
pub struct Property {
    /// As written in a recipe.
    pub name: String,
    /// "text", "list of texts", "number", …
    pub kind: String,
    /// Whether it has to be there.
    pub required: bool,
    /// What it is where it is left out, if that says something.
    pub default: Option<String>,
    /// Its description, in Markdown.
    pub description: String,
    /// The properties of each of its parts, where these have some.
    pub parts: Vec<Property>,
}

/// The manual of a row of the table.
pub fn manual(kind: &'static Kind) -> Manual {
    let schema = (kind.schema)();
    let schema = schema.as_value();
    let description = text(schema, "description");
    Manual {
        name: kind.name,
        summary: first_sentence(&description),
        description,
        properties: properties(schema, schema),
    }
}

/// Blocks of YAML in a text.
pub fn examples(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in markdown.lines() {
        match &mut block {
            None if line.trim() == "```yaml" => block = Some(String::new()),
            None => {}
            Some(_) if line.trim() == "```" => found.extend(block.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    found
}

fn properties(schema: &Value, whole: &Value) -> Vec<Property> {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(all) = schema["properties"].as_object() else { return Vec::new() };
    all.iter()
        .map(|(name, value)| {
            let (kind, parts) = kind_of(value, whole);
            Property {
                name: name.clone(),
                kind: kind.one,
                required: required.contains(&name.as_str()),
                default: value.get("default").and_then(default),
                description: text(value, "description"),
                parts,
            }
        })
        .collect()
}

/// What a value is called, alone and in number.
struct Words {
    one: String,
    many: String,
}

fn words(one: impl Into<String>, many: impl Into<String>) -> Words {
    Words { one: one.into(), many: many.into() }
}

fn kind_of(value: &Value, whole: &Value) -> (Words, Vec<Property>) {
    if let Some(name) = value["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        return kind_of(&whole["$defs"][name], whole);
    }
    if let Some(choices) = value["enum"].as_array() {
        return (one_of(choices.iter().filter_map(Value::as_str)), Vec::new());
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(branches) = value[key].as_array() {
            return kind_of_branches(branches, whole);
        }
    }
    let types: Vec<&str> = match &value["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    };
    match types[..] {
        ["string"] => (words("text", "texts"), Vec::new()),
        ["boolean"] => (words("true or false", "truth values"), Vec::new()),
        ["integer" | "number"] => (words("number", "numbers"), Vec::new()),
        ["array"] => {
            let (kind, parts) = kind_of(&value["items"], whole);
            (words(format!("list of {}", kind.many), format!("lists of {}", kind.many)), parts)
        }
        ["object"] if value["properties"].is_object() => (words("map", "maps"), properties(value, whole)),
        ["object"] => {
            let (kind, parts) = kind_of(&value["additionalProperties"], whole);
            (words(format!("names with {}", kind.many), format!("maps of names to {}", kind.many)), parts)
        }
        [] => (words("any value", "any values"), Vec::new()),
        _ => {
            let all: Vec<String> =
                types.iter().map(|name| kind_of(&serde_json::json!({ "type": name }), whole).0.one).collect();
            (words(all.join(" or "), all.join(" or ")), Vec::new())
        }
    }
}

/// Choices between constants are listed; `null` beside a type says only that the property may be left out.
fn kind_of_branches(branches: &[Value], whole: &Value) -> (Words, Vec<Property>) {
    let branches: Vec<&Value> = branches.iter().filter(|branch| branch["type"] != "null").collect();
    let constants: Option<Vec<&str>> = branches.iter().map(|branch| branch["const"].as_str()).collect();
    if let Some(constants) = constants {
        return (one_of(constants.into_iter()), Vec::new());
    }
    let mut names = Vec::new();
    let mut parts = Vec::new();
    for branch in branches {
        let (kind, more) = kind_of(branch, whole);
        names.push(kind);
        parts.extend(more);
    }
    let join = |pick: fn(&Words) -> &str| names.iter().map(pick).collect::<Vec<_>>().join(" or ");
    (words(join(|kind| &kind.one), join(|kind| &kind.many)), parts)
}

fn one_of<'a>(choices: impl Iterator<Item = &'a str>) -> Words {
    let list = choices.map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
    words(format!("one of {list}"), format!("values out of {list}"))
}

fn default(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Object(items) if items.is_empty() => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            Some(format!("[{}]", items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")))
        }
        other => Some(other.to_string()),
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().trim().to_owned()
}

fn first_sentence(description: &str) -> String {
    let paragraph = description.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let end = paragraph.find(". ").unwrap_or(paragraph.len());
    paragraph[..end].trim_end_matches('.').to_owned()
}

impl Property {
    /// "list of texts, required", "text, default `gz`".
    pub fn form(&self) -> String {
        match &self.default {
            _ if self.required => format!("{}, required", self.kind),
            Some(default) => format!("{}, default `{default}`", self.kind),
            None => self.kind.clone(),
        }
    }
}

impl Manual {
    /// A page of the book.
    pub fn markdown(&self) -> String {
        let mut page = format!("# {}\n\n{}\n\n## Properties\n\n", self.name, self.description);
        markdown_list(&self.properties, 0, &mut page);
        page.push_str("\nEvery action also takes [`description` and `when`](../recipes.md#actions).\n");
        page
    }

    /// The same for a terminal of so many columns.
    pub fn terminal(&self, width: usize, colour: bool) -> String {
        let bold = |text: &str| console::style(text).bold().force_styling(colour).to_string();
        let mut page = format!("{}\n\n", bold(self.name));
        page.push_str(&reflow(&self.description, "  ", width));
        page.push_str(&format!("\n{}\n", bold("properties")));
        terminal_list(&self.properties, 2, width, colour, &mut page);
        page.push_str("\nEvery action also takes `description` and `when`.\n");
        page
    }
}

fn markdown_list(properties: &[Property], depth: usize, page: &mut String) {
    let indent = "  ".repeat(depth);
    for property in properties {
        page.push_str(&format!("{indent}- **`{}`**: {}\\\n", property.name, property.form()));
        for line in property.description.lines() {
            page.push_str(format!("{indent}  {line}").trim_end());
            page.push('\n');
        }
        markdown_list(&property.parts, depth + 1, page);
    }
}

fn terminal_list(properties: &[Property], indent: usize, width: usize, colour: bool, page: &mut String) {
    let margin = " ".repeat(indent);
    for property in properties {
        let name = console::style(&property.name).cyan().force_styling(colour);
        page.push_str(&format!("{margin}{name}  ({})\n", property.form()));
        page.push_str(&reflow(&property.description, &format!("{margin}    "), width));
        terminal_list(&property.parts, indent + 4, width, colour, page);
    }
}

/// Fills paragraphs and list items to the width; blocks of code stay as they are, indented further,
/// without their fences.
fn reflow(markdown: &str, margin: &str, width: usize) -> String {
    let mut out = String::new();
    let mut paragraph = String::new();
    let mut code = false;
    for line in markdown.lines() {
        let starts_block = line.trim().is_empty() || line.trim_start().starts_with("```");
        let starts_item = line.trim_start().starts_with("- ");
        if code || starts_block || starts_item {
            fill(&paragraph, margin, width, &mut out);
            paragraph.clear();
        }
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if code {
            out.push_str(format!("{margin}    {line}").trim_end());
            out.push('\n');
        } else if starts_block {
            out.push('\n');
        } else {
            paragraph.push_str(if paragraph.is_empty() { "" } else { " " });
            paragraph.push_str(line.trim());
        }
    }
    fill(&paragraph, margin, width, &mut out);
    out
}

fn fill(paragraph: &str, margin: &str, width: usize, out: &mut String) {
    let hanging = if paragraph.starts_with("- ") { "  " } else { "" };
    let mut line = margin.to_owned();
    let mut empty = true;
    for word in paragraph.split_whitespace() {
        if !empty && console::measure_text_width(&line) + 1 + console::measure_text_width(word) > width {
            out.push_str(&line);
            out.push('\n');
            line = format!("{margin}{hanging}");
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    if !empty {
        out.push_str(&line);
        out.push('\n');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(value: &Value) -> String {
        kind_of(
            value,
            &json!({ "$defs": { "Pin": { "type": "object", "properties": { "package": { "type": "string" } } } } }),
        )
        .0
        .one
    }

    #[test]
    fn types_are_named_in_plain_words() {
        for (schema, expected) in [
            (json!({ "type": "string" }), "text"),
            (json!({ "type": ["string", "null"] }), "text"),
            (json!({ "type": ["string", "integer"] }), "text or number"),
            (json!({ "type": "array", "items": { "type": "string" } }), "list of texts"),
            (json!({ "type": "array", "items": { "$ref": "#/$defs/Pin" } }), "list of maps"),
            (json!({ "anyOf": [{ "$ref": "#/$defs/Pin" }, { "type": "null" }] }), "map"),
            (json!({ "type": "object", "additionalProperties": { "type": "string" } }), "names with texts"),
            (json!({ "enum": ["gz", "xz"] }), "one of `gz`, `xz`"),
            (json!({ "oneOf": [{ "const": "gz" }, { "const": "xz" }] }), "one of `gz`, `xz`"),
        ] {
            assert_eq!(kind(&schema), expected, "{schema}");
        }
    }

    #[test]
    fn paragraphs_are_filled_and_code_is_kept() {
        let text = "One two three\nfour five.\n\n```yaml\n- action: apt\n  packages: [a]\n```\n- item one\n  goes on\n";
        let expected = "  One two\n  three four\n  five.\n\n      - action: apt\n        packages: [a]\n  - item one\n    goes on\n";
        assert_eq!(reflow(text, "  ", 14), expected);
    }

    #[test]
    fn examples_are_found() {
        assert_eq!(examples("a\n```yaml\nx: 1\ny: 2\n```\nb\n```\nno\n```\n"), ["x: 1\ny: 2\n"]);
    }

    #[test]
    fn every_action_has_a_manual() {
        for kind in crate::actions::KINDS {
            let manual = manual(kind);
            assert!(!manual.summary.is_empty(), "{} says nothing of itself", kind.name);
            for property in &manual.properties {
                assert!(!property.description.is_empty(), "{}: {} says nothing of itself", kind.name, property.name);
            }
        }
    }
}
