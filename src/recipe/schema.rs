//! The JSON Schema of a recipe, for editors.

use serde_json::{Map, Value, json};

use crate::actions::{self, Kind};
use crate::debian::Architecture;

/// The JSON Schema (2020-12) of a whole recipe as it is after rendering. It is strict: what it does
/// not know is an error, as it is to [`load`](super::load).
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let alternatives: Vec<Value> = actions::KINDS.iter().map(|kind| action(kind, &mut definitions)).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "debforge recipe",
        "type": "object",
        "required": ["architecture", "actions"],
        "properties": {
            "architecture": {
                "description": "What is built.",
                "anyOf": [
                    { "enum": Architecture::ALL.map(Architecture::name) },
                    { "type": "string", "pattern": "\\{[{%]" }
                ]
            },
            "sectorsize": { "description": "Of disk images, in bytes.", "enum": [512, 1024, 2048, 4096], "default": 512 },
            "machine": {
                "description": "`required` where the build needs a machine of its own (UML, QEMU).",
                "enum": ["auto", "required"],
                "default": "auto"
            },
            "memory": { "description": "The least memory of such a machine, such as 4GiB.", "type": "string" },
            "actions": {
                "description": "What is done, in order.",
                "type": "array",
                "minItems": 1,
                "items": { "oneOf": alternatives }
            }
        },
        "patternProperties": { "^\\.": true },
        "additionalProperties": false,
        "$defs": definitions
    })
}

/// The schema of one action with the keys that every action has; what it refers to goes into `definitions`.
fn action(kind: &Kind, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = (kind.schema)().to_value();
    // Two actions may call different things by one name.
    let prefix = format!("{}.", kind.name);
    rename_references(&mut schema, &prefix);
    widen_text(&mut schema);
    let Some(object) = schema.as_object_mut() else { return schema };
    if let Some(Value::Object(own)) = object.remove("$defs") {
        definitions.extend(own.into_iter().map(|(name, definition)| (format!("{prefix}{name}"), definition)));
    }
    object.remove("$schema");
    object.insert("title".into(), json!(kind.name));
    object.insert("type".into(), json!("object"));
    object.insert("additionalProperties".into(), json!(false));
    let mut properties = Map::new();
    properties.insert("action".into(), json!({ "const": kind.name }));
    properties.insert("description".into(), json!({ "description": "Your own words.", "type": ["string", "null"] }));
    properties.insert(
        "when".into(),
        json!({ "description": "Jinja expression; where it is false, the action is left out.", "type": ["string", "boolean"] }),
    );
    if let Some(Value::Object(own)) = object.remove("properties") {
        properties.extend(own);
    }
    object.insert("properties".into(), Value::Object(properties));
    let mut required = vec![json!("action")];
    if let Some(Value::Array(own)) = object.remove("required") {
        required.extend(own);
    }
    object.insert("required".into(), Value::Array(required));
    schema
}

/// Where text is expected, a plain number or truth value is taken as it was written.
fn widen_text(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let limited = ["enum", "const", "pattern", "format"].iter().any(|name| object.contains_key(*name));
            if !limited && object.get("type").is_some_and(|types| *types == json!("string")) {
                object.insert("type".into(), json!(["string", "number", "boolean"]));
            } else if !limited && object.get("type").is_some_and(|types| *types == json!(["string", "null"])) {
                object.insert("type".into(), json!(["string", "number", "boolean", "null"]));
            }
            object.values_mut().for_each(widen_text);
        }
        Value::Array(items) => items.iter_mut().for_each(widen_text),
        _ => {}
    }
}

fn rename_references(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::String(reference) if name == "$ref" => {
                        *reference = reference.replacen("#/$defs/", &format!("#/$defs/{prefix}"), 1);
                    }
                    other => rename_references(other, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, prefix)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema = schema();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(schema.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_action_is_an_alternative() {
        let schema = schema();
        let names: Vec<_> = schema["properties"]["actions"]["items"]["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|action| action["properties"]["action"]["const"].as_str().unwrap())
            .collect();
        assert_eq!(names, actions::KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>());
    }
}
