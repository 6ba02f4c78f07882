//! slim-sprig's functions about types.

use super::Param::{Any, String as Text};
use super::{Function, function, text};
use crate::recipe::go::value::Value;

pub(super) const TABLE: &[Function] = &[
    function("typeOf", &[Any], |_, given| text(given[0].type_name())),
    function("typeIs", &[Text, Any], |_, given| Ok(Value::Bool(given[0].str() == given[1].type_name()))),
    function("typeIsLike", &[Text, Any], |_, given| {
        let name = given[1].type_name();
        Ok(Value::Bool(given[0].str() == name || name.strip_prefix('*') == Some(given[0].str())))
    }),
    function("kindOf", &[Any], |_, given| text(given[0].kind())),
    function("kindIs", &[Text, Any], |_, given| Ok(Value::Bool(given[0].str() == given[1].kind()))),
    function("deepEqual", &[Any, Any], |_, given| Ok(Value::Bool(given[0].deep_equal(&given[1])))),
];
