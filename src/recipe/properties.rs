//! Reads an action's properties by its schema: every fault of them is found, not the first.

use serde_json::{Map, Number, Value};

use super::document::{Entry, entries};
use super::source_map::{Origin, SourceMap};
use super::yaml::{Node, NodeKind, boolean, float, integer, old_boolean};
use crate::diagnostics::{Diagnostic, Span, Spans, suggest};

/// Deeper nesting than this comes from anchors within anchors.
const MAX_DEPTH: usize = 64;

/// Turns nodes into the values that an action is decoded from.
pub(super) struct Reader<'a> {
    /// What the user calls it: "the action `apt`".
    subject: &'a str,
    schema: &'a Value,
    map: &'a SourceMap,
    /// How many values may still be read: anchors can multiply each other without end.
    pub(super) budget: usize,
    depth: usize,
    /// Where the properties stand.
    pub(super) spans: Spans,
    /// What is wrong with them.
    pub(super) faults: Vec<Diagnostic>,
    /// Whether what debos takes and ignores is no fault.
    lenient: bool,
    /// What debos ignores.
    pub(super) ignored: Vec<Diagnostic>,
    /// Parts that were included by another way than the action itself.
    pub(super) elsewhere: Vec<Origin>,
}

impl<'a> Reader<'a> {
    /// Reads what stands at `whole` by a schema, and no more than `budget` values.
    pub(super) fn new(subject: &'a str, schema: &'a Value, map: &'a SourceMap, whole: Origin, budget: usize) -> Self {
        let spans = Spans { whole: Some(whole.span), included_from: whole.included_from, ..Spans::default() };
        Self {
            subject,
            schema,
            map,
            budget,
            depth: 0,
            spans,
            faults: Vec::new(),
            lenient: false,
            ignored: Vec::new(),
            elsewhere: Vec::new(),
        }
    }

    /// Whether unknown keys and empty values are ignored with a warning, as debos ignores them.
    pub(super) fn lenient(mut self, lenient: bool) -> Self {
        self.lenient = lenient;
        self
    }

    /// Reads the properties of the subject itself.
    pub(super) fn properties(&mut self, given: &[Entry]) -> Value {
        let schema = self.schema;
        self.object(given, schema, "", None)
    }

    fn locate(&mut self, node: &Node) -> Span {
        let origin = self.map.locate(node.range.clone());
        if origin.included_from != self.spans.included_from {
            self.elsewhere.push(origin.clone());
        }
        origin.span
    }

    fn fault(&mut self, node: &Node, message: impl Into<String>) -> &mut Diagnostic {
        let diagnostic = self.map.locate(node.range.clone()).error(message);
        self.faults.push(diagnostic);
        let last = self.faults.len() - 1;
        &mut self.faults[last]
    }

    /// `node` is the mapping, or `None` for the action as a whole.
    fn object(&mut self, given: &[Entry], schema: &'a Value, path: &str, node: Option<&Node>) -> Value {
        let known = schema["properties"].as_object();
        let mut object = Map::new();
        let mut meant = Vec::new();
        for entry in given {
            let name = spelt(entry.name());
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let inner = known.and_then(|known| known.get(name)).or_else(|| match &schema["additionalProperties"] {
                Value::Bool(false) => None,
                other => Some(other),
            });
            let Some(inner) = inner else {
                meant.extend(self.unknown(entry, known, node.is_some()));
                continue;
            };
            if self.lenient && entry.value.is_null() && !self.allows_null(inner, &entry.value) {
                let warning = self.map.locate(entry.key.range.clone()).warning(format!("`{path}` has no value"));
                self.ignored.push(warning.hint("it is taken as left out, as in debos"));
                continue;
            }
            let (key_span, value_span) = (self.locate(&entry.key), self.locate(&entry.value));
            self.spans.keys.insert(path.clone(), key_span);
            self.spans.values.insert(path.clone(), value_span);
            let value = self.value(&entry.value, Some(&entry.key), inner, &path);
            object.insert(name.to_owned(), value);
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for name in required.filter(|name| !object.contains_key(*name) && !meant.iter().any(|meant| meant == name)) {
            self.missing(name, path, node);
        }
        Value::Object(object)
    }

    /// Returns the property that was meant.
    fn unknown(&mut self, entry: &Entry, known: Option<&Map<String, Value>>, nested: bool) -> Option<String> {
        let name = entry.name();
        let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let close = suggest(name, names.iter().copied()).map(str::to_owned);
        let subject = self.subject;
        let label = if nested {
            "there is no such property here".to_owned()
        } else {
            format!("{subject} has no such property")
        };
        let hint = match &close {
            Some(close) => format!("did you mean `{close}`?"),
            None if nested => format!("here one can give {}", list(&names)),
            None => format!("it has {}", list(&names)),
        };
        let origin = self.map.locate(entry.key.range.clone());
        let message = format!("unknown property `{name}`");
        if self.lenient {
            self.ignored.push(origin.warning(message).label(label).hint(hint).hint("it is ignored, as in debos"));
            return None;
        }
        self.faults.push(origin.error(message).label(label).hint(hint));
        close
    }

    fn allows_null(&self, schema: &'a Value, node: &Node) -> bool {
        let types = types(choose(self.schema, schema, node));
        types.is_empty() || types.contains(&"null")
    }

    fn missing(&mut self, name: &str, path: &str, node: Option<&Node>) {
        let (message, origin) = match node {
            Some(node) => (format!("`{path}` needs the property `{name}`"), self.map.locate(node.range.clone())),
            None => {
                let Some(span) = self.spans.whole.clone() else { return };
                let origin = Origin { span, included_from: self.spans.included_from.clone() };
                (format!("{} needs the property `{name}`", self.subject), origin)
            }
        };
        self.faults.push(origin.error(message));
    }

    fn value(&mut self, node: &Node, key: Option<&Node>, schema: &'a Value, path: &str) -> Value {
        if self.budget == 0 || self.depth >= MAX_DEPTH {
            // Said once: where the budget ends, and where the depth does.
            if self.budget > 0 || self.faults.is_empty() {
                self.fault(node, "anchors make this larger than any recipe can be");
            }
            self.budget = 0;
            return Value::Null;
        }
        self.budget -= 1;
        self.depth += 1;
        let value = self.value_by(node, key, schema, path);
        self.depth -= 1;
        value
    }

    fn value_by(&mut self, node: &Node, key: Option<&Node>, schema: &'a Value, path: &str) -> Value {
        let schema = choose(self.schema, schema, node);
        let types = types(schema);
        let allows = |name: &str| types.is_empty() || types.contains(&name);
        match &node.kind {
            NodeKind::Mapping(pairs) if allows("object") => self.object(&entries(pairs), schema, path, Some(node)),
            NodeKind::Sequence(items) if allows("array") => {
                let inner = &schema["items"];
                let mut values = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let span = self.locate(item);
                    self.spans.values.insert(path.clone(), span);
                    values.push(self.value(item, None, inner, &path));
                }
                Value::Array(values)
            }
            NodeKind::Scalar { .. } if node.is_null() => {
                if !allows("null") {
                    let diagnostic = self.fault(key.unwrap_or(node), format!("`{path}` has no value"));
                    diagnostic.hints.push("give it one, or leave it out".into());
                }
                Value::Null
            }
            NodeKind::Scalar { text, plain } => match scalar(text, *plain, &types) {
                Some(value) => self.one_of(value, node, schema, path),
                None => self.wrong_type(node, &types, path),
            },
            _ => self.wrong_type(node, &types, path),
        }
    }

    fn one_of(&mut self, value: Value, node: &Node, schema: &Value, path: &str) -> Value {
        let allowed = constants(schema);
        if !allowed.is_empty() && !allowed.contains(&&value) {
            let names: Vec<&str> = allowed.iter().filter_map(|value| value.as_str()).collect();
            let given = node.text().unwrap_or_default();
            let hint = match suggest(given, names.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("it can be {}", list(&names)),
            };
            self.fault(node, format!("`{path}` cannot be `{given}`")).hints.push(hint);
        }
        let range = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        if let (Some(number), (minimum, maximum)) = (value.as_f64(), range) {
            if minimum.is_some_and(|minimum| number < minimum) {
                self.fault(node, format!("`{path}` must be at least {}", schema["minimum"]));
            } else if maximum.is_some_and(|maximum| number > maximum) {
                self.fault(node, format!("`{path}` must be at most {}", schema["maximum"]));
            }
        }
        value
    }

    fn wrong_type(&mut self, node: &Node, types: &[&str], path: &str) -> Value {
        let expected: Vec<&str> = types.iter().filter(|name| **name != "null").map(|name| called(name)).collect();
        let hint = hint(node, types, path);
        let given = match &node.kind {
            NodeKind::Mapping(_) => "a mapping",
            NodeKind::Sequence(_) => "a list",
            NodeKind::Scalar { plain: false, .. } => "text",
            NodeKind::Scalar { text, .. } if boolean(text).is_some() => "true or false",
            NodeKind::Scalar { text, .. } if integer(text).is_some() || float(text).is_some() => "a number",
            NodeKind::Scalar { .. } => "text",
        };
        let diagnostic = self.fault(node, format!("`{path}` must be {}, not {given}", expected.join(" or ")));
        diagnostic.hints.extend(hint);
        Value::Null
    }
}

/// The name of a property that may be spelt in another way too.
fn spelt(name: &str) -> &str {
    match name {
        // debos has an underscore in these two alone.
        "remote_repository" => "remote-repository",
        "gpt-gap" => "gpt_gap",
        other => other,
    }
}

/// Follows references, and picks the alternative that the node may be.
fn choose<'s>(root: &'s Value, schema: &'s Value, node: &Node) -> &'s Value {
    let mut schema = schema;
    for _ in 0..16 {
        if let Some(reference) = schema["$ref"].as_str() {
            schema =
                reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).unwrap_or(&Value::Bool(true));
            continue;
        }
        let alternatives = ["anyOf", "oneOf", "allOf"].iter().find_map(|name| schema[*name].as_array());
        let Some(alternatives) = alternatives else { return schema };
        if !constants(schema).is_empty() {
            return schema;
        }
        if node.is_null() && alternatives.iter().any(|schema| types(schema).contains(&"null")) {
            return &Value::Null;
        }
        let mut candidates = alternatives.iter().filter(|schema| types(schema) != ["null"]);
        let Some(first) = candidates.clone().next() else { return schema };
        schema = candidates.find(|schema| fits(root, schema, node)).unwrap_or(first);
    }
    schema
}

/// Whether the node is of a type that the schema allows.
fn fits(root: &Value, schema: &Value, node: &Node) -> bool {
    let schema = choose(root, schema, node);
    let types = types(schema);
    types.is_empty()
        || match &node.kind {
            NodeKind::Mapping(_) => types.contains(&"object"),
            NodeKind::Sequence(_) => types.contains(&"array"),
            NodeKind::Scalar { text, plain } => scalar(text, *plain, &types).is_some(),
        }
}

/// The types a schema allows; none for "any".
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ if schema["enum"].is_array() || !constants(schema).is_empty() => vec!["string"],
        _ => Vec::new(),
    }
}

/// The values a schema is limited to; none for "any".
fn constants(schema: &Value) -> Vec<&Value> {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().collect();
    }
    let alternatives = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
    let Some(alternatives) = alternatives else { return Vec::new() };
    let mut found = Vec::new();
    for alternative in alternatives {
        match (alternative.get("const"), alternative["enum"].as_array()) {
            (Some(value), _) => found.push(value),
            (None, Some(values)) => found.extend(values),
            (None, None) => return Vec::new(),
        }
    }
    found
}

/// A scalar as one of the types. Where text is expected, what was written is taken as it stands: a
/// mode `0644` and a suite `12` are not numbers because they look like some.
fn scalar(text: &str, plain: bool, types: &[&str]) -> Option<Value> {
    let any = types.is_empty();
    let allows = |name: &str| types.contains(&name);
    if plain {
        if (any || allows("boolean"))
            && let Some(value) =
                boolean(text).or_else(|| if allows("string") || any { None } else { old_boolean(text) })
        {
            return Some(Value::Bool(value));
        }
        if (any || allows("integer") || allows("number"))
            && let Some(value) = integer(text)
            // Where anything goes, `0x10` and `010` keep the form they were written in.
            && (!any || value.to_string() == text)
        {
            return Some(Value::from(value));
        }
        if allows("number")
            && let Some(value) = float(text).and_then(Number::from_f64)
        {
            return Some(Value::Number(value));
        }
    }
    (any || allows("string")).then(|| Value::String(text.to_owned()))
}

fn called(name: &str) -> &'static str {
    match name {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    }
}

fn hint(node: &Node, types: &[&str], path: &str) -> Option<String> {
    let name = path.rsplit('.').next().unwrap_or(path);
    match &node.kind {
        NodeKind::Scalar { text, .. } if types.contains(&"array") && text.len() < 40 && !text.contains('\n') => {
            let quoted = if text.contains([',', '[', ']', ':']) { format!("\"{text}\"") } else { text.clone() };
            Some(format!("write it as a list: `{name}: [{quoted}]`"))
        }
        NodeKind::Scalar { text, plain: false }
            if (types.contains(&"boolean") && boolean(text).is_some())
                || (types.contains(&"integer") && integer(text).is_some()) =>
        {
            Some(format!("without quotes: `{name}: {text}`"))
        }
        NodeKind::Sequence(items) if types.contains(&"string") && items.len() == 1 => {
            Some("it takes a single one: leave the list out".to_owned())
        }
        NodeKind::Mapping(_) if types.contains(&"string") => {
            Some("text that starts with `{`, or has `: ` in it, needs quotes".to_owned())
        }
        _ => None,
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
