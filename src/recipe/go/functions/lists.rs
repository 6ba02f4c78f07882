//! slim-sprig's functions on lists.

use std::rc::Rc;

use super::Param::{Any, Int};
use super::math::to_int64;
use super::{Context, Error, Function, MAX_SIZE, Result, function, variadic};
use crate::recipe::go::value::{List, Of, Value};

pub(super) const TABLE: &[Function] = &[
    variadic("list", &[], Any, |_, given| Ok(Value::list(given.to_vec()))),
    variadic("tuple", &[], Any, |_, given| Ok(Value::list(given.to_vec()))),
    function("append", &[Any, Any], push),
    function("push", &[Any, Any], push),
    function("mustAppend", &[Any, Any], push),
    function("mustPush", &[Any, Any], push),
    function("prepend", &[Any, Any], prepend),
    function("mustPrepend", &[Any, Any], prepend),
    function("first", &[Any], first),
    function("mustFirst", &[Any], first),
    function("rest", &[Any], rest),
    function("mustRest", &[Any], rest),
    function("last", &[Any], last),
    function("mustLast", &[Any], last),
    function("initial", &[Any], initial),
    function("mustInitial", &[Any], initial),
    function("reverse", &[Any], reverse),
    function("mustReverse", &[Any], reverse),
    function("compact", &[Any], compact),
    function("mustCompact", &[Any], compact),
    function("uniq", &[Any], uniq),
    function("mustUniq", &[Any], uniq),
    variadic("without", &[Any], Any, without),
    variadic("mustWithout", &[Any], Any, without),
    function("has", &[Any, Any], has),
    function("mustHas", &[Any, Any], has),
    variadic("slice", &[Any], Any, slice),
    variadic("mustSlice", &[Any], Any, slice),
    variadic("concat", &[], Any, concat),
    function("chunk", &[Int, Any], chunk),
    function("mustChunk", &[Int, Any], chunk),
];

/// The items of a list; `cannot` says what a value of another type cannot do.
fn items<'v>(value: &'v Value, cannot: &str) -> Result<&'v Rc<List>> {
    value.as_list().ok_or_else(|| match value {
        Value::Nil => Error::from("runtime error: invalid memory address or nil pointer dereference"),
        other => Error::Failed(format!("{cannot} type {}", other.kind())),
    })
}

fn push(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot push on")?;
    // A list that doubles in a loop is stopped before the memory is.
    if list.items.len() * size_of::<Value>() > MAX_SIZE {
        return Err("the list is too long".into());
    }
    Ok(Value::list(list.items.iter().chain([&given[1]]).cloned().collect()))
}

fn prepend(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot prepend on")?;
    if list.items.len() * size_of::<Value>() > MAX_SIZE {
        return Err("the list is too long".into());
    }
    Ok(Value::list([&given[1]].into_iter().chain(&list.items).cloned().collect()))
}

fn first(_: Context, given: &[Value]) -> Result {
    Ok(items(&given[0], "Cannot find first on")?.items.first().cloned().unwrap_or(Value::Nil))
}

fn last(_: Context, given: &[Value]) -> Result {
    Ok(items(&given[0], "Cannot find last on")?.items.last().cloned().unwrap_or(Value::Nil))
}

fn rest(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot find rest on")?;
    Ok(Value::list(list.items.iter().skip(1).cloned().collect()))
}

fn initial(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot find initial on")?;
    Ok(Value::list(list.items[..list.items.len().saturating_sub(1)].to_vec()))
}

fn reverse(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot find reverse on")?;
    Ok(Value::list(list.items.iter().rev().cloned().collect()))
}

fn compact(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot compact on")?;
    Ok(Value::list(list.items.iter().filter(|item| item.is_true()).cloned().collect()))
}

fn uniq(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot find uniq on")?;
    let mut found: Vec<Value> = Vec::new();
    for item in &list.items {
        if !found.iter().any(|other| other.deep_equal(item)) {
            found.push(item.clone());
        }
    }
    Ok(Value::list(found))
}

fn without(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "Cannot find without on")?;
    let kept = list.items.iter().filter(|item| !given[1..].iter().any(|other| other.deep_equal(item)));
    Ok(Value::list(kept.cloned().collect()))
}

fn has(_: Context, given: &[Value]) -> Result {
    if matches!(given[1], Value::Nil) {
        return Ok(Value::Bool(false));
    }
    let list = items(&given[1], "Cannot find has on")?;
    Ok(Value::Bool(list.items.iter().any(|item| item.deep_equal(&given[0]))))
}

/// The list stays one of its type.
fn slice(_: Context, given: &[Value]) -> Result {
    let list = items(&given[0], "list should be type of slice or array but").map_err(|error| match error {
        Error::Failed(message) => Error::Failed(message.replace("but type ", "but ")),
        other => other,
    })?;
    if list.items.is_empty() {
        return Ok(Value::Nil);
    }
    let bound = |index: usize, default: usize| match given.get(index) {
        Some(value) => usize::try_from(to_int64(value)).unwrap_or(usize::MAX),
        None => default,
    };
    let (start, end) = (bound(1, 0), bound(2, list.items.len()));
    match list.items.get(start..end) {
        Some(items) => Ok(Value::List(Rc::new(List { of: list.of, items: items.to_vec() }))),
        None => Err("reflect.Value.Slice: slice index out of bounds".into()),
    }
}

fn concat(_: Context, given: &[Value]) -> Result {
    let mut all = Vec::new();
    for value in given {
        let list = items(value, "Cannot concat").map_err(|error| match error {
            Error::Failed(message) if message.starts_with("Cannot concat") => {
                Error::Failed(format!("{message} as list"))
            }
            other => other,
        })?;
        all.extend(list.items.iter().cloned());
        if all.len() * size_of::<Value>() > MAX_SIZE {
            return Err("the list is too long".into());
        }
    }
    Ok(Value::list(all))
}

fn chunk(_: Context, given: &[Value]) -> Result {
    let list = items(&given[1], "Cannot chunk")?;
    let Some(size) = usize::try_from(given[0].int()).ok().filter(|size| *size > 0) else {
        return Err("runtime error: makeslice: len out of range".into());
    };
    let chunks = list.items.chunks(size).map(|chunk| Value::list(chunk.to_vec())).collect();
    Ok(Value::List(Rc::new(List { of: Of::Lists, items: chunks })))
}
