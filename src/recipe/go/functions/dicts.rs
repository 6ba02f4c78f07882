//! slim-sprig's functions on dictionaries. `set` and `unset` change the one they are handed. Where Go hands out
//! keys and values in another order each time, they come here in the order of the keys.

use std::collections::BTreeMap;

use super::Param::{Any, Dict, String as Text};
use super::strings::shown;
use super::{Context, Function, Result, function, variadic};
use crate::recipe::go::value::Value;

pub(super) const TABLE: &[Function] = &[
    variadic("dict", &[], Any, |_, given| {
        let pairs = given.chunks(2);
        let pairs = pairs.map(|pair| (shown(&pair[0]), pair.get(1).cloned().unwrap_or_else(|| Value::string(""))));
        Ok(Value::dict(pairs.collect()))
    }),
    function("get", &[Dict, Text], |_, given| Ok(find(&given[0], given[1].str()).unwrap_or_else(|| Value::string("")))),
    function("set", &[Dict, Text, Any], |_, given| match given[0].map() {
        Some(map) => {
            map.entries.borrow_mut().insert(given[1].str().to_owned(), given[2].clone());
            Ok(given[0].clone())
        }
        None => Err("assignment to entry in nil map".into()),
    }),
    function("unset", &[Dict, Text], |_, given| {
        if let Some(map) = given[0].map() {
            map.entries.borrow_mut().remove(given[1].str());
        }
        Ok(given[0].clone())
    }),
    function("hasKey", &[Dict, Text], |_, given| Ok(Value::Bool(find(&given[0], given[1].str()).is_some()))),
    variadic("pluck", &[Text], Dict, |_, given| {
        Ok(Value::list(given[1..].iter().filter_map(|dict| find(dict, given[0].str())).collect()))
    }),
    variadic("keys", &[], Dict, |_, given| Ok(Value::strings(given.iter().flat_map(|dict| copy(dict).into_keys())))),
    variadic("pick", &[Dict], Text, |_, given| Ok(Value::dict(chosen(given, true)))),
    variadic("omit", &[Dict], Text, |_, given| Ok(Value::dict(chosen(given, false)))),
    function("values", &[Dict], |_, given| Ok(Value::list(copy(&given[0]).into_values().collect()))),
    variadic("dig", &[], Any, dig),
];

fn find(dict: &Value, key: &str) -> Option<Value> {
    dict.map().and_then(|map| map.get(key))
}

fn copy(dict: &Value) -> BTreeMap<String, Value> {
    dict.map().map(|map| map.entries.borrow().clone()).unwrap_or_default()
}

fn chosen(given: &[Value], named: bool) -> BTreeMap<String, Value> {
    let mut all = copy(&given[0]);
    all.retain(|key, _| given[1..].iter().any(|name| name.str() == key) == named);
    all
}

fn dig(_: Context, given: &[Value]) -> Result {
    let [keys @ .., default, dict] = given else { return Err("dig needs at least three arguments".into()) };
    if keys.is_empty() {
        return Err("dig needs at least three arguments".into());
    }
    let mut at = dict.clone();
    for key in keys {
        let Value::Map(map) = &at else { return Err(converted(&at, "map[string]interface {}").into()) };
        let Value::String(key) = key else { return Err(converted(key, "string").into()) };
        at = match map.get(key) {
            Some(value) => value,
            None => return Ok(default.clone()),
        };
    }
    Ok(at)
}

/// What Go says of a value that is not of the type it was taken for.
fn converted(value: &Value, wanted: &str) -> String {
    let is = match value {
        Value::Nil => "nil",
        other => other.type_name(),
    };
    format!("interface conversion: interface {{}} is {is}, not {wanted}")
}
