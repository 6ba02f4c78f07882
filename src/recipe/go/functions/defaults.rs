//! slim-sprig's functions about what is empty.

use super::Param::{Any, Bool};
use super::{Function, function, variadic};
use crate::recipe::go::value::Value;

pub(super) const TABLE: &[Function] = &[
    variadic("default", &[Any], Any, |_, given| {
        Ok(given[1..].first().filter(|value| value.is_true()).unwrap_or(&given[0]).clone())
    }),
    function("empty", &[Any], |_, given| Ok(Value::Bool(!given[0].is_true()))),
    variadic("coalesce", &[], Any, |_, given| {
        Ok(given.iter().find(|value| value.is_true()).cloned().unwrap_or(Value::Nil))
    }),
    variadic("all", &[], Any, |_, given| Ok(Value::Bool(given.iter().all(Value::is_true)))),
    variadic("any", &[], Any, |_, given| Ok(Value::Bool(given.iter().any(Value::is_true)))),
    function("ternary", &[Any, Any, Bool], |_, given| Ok(given[usize::from(!given[2].bool())].clone())),
];
