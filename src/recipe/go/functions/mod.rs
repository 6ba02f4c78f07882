//! What a Go template can call: Go's own functions, debos's, and all of slim-sprig's.
//!
//! A file per kind, each with a table. A function says the types of its parameters as Go's has them, and is
//! only called with these: whoever calls it has checked, with Go's words where something does not fit.

mod builtins;
mod dates;
mod debos;
mod defaults;
mod dicts;
mod encodings;
mod impure;
mod json;
mod lists;
mod math;
mod paths;
mod regex;
mod strings;
mod types;
mod urls;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;

use super::value::{List, Map, Value};

/// Longer texts and lists than this are no part of a recipe.
pub(super) const MAX_SIZE: usize = 8 << 20;

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    /// `interface {}`, or `reflect.Value`
    Any,
    /// `string`
    String,
    /// `int`
    Int,
    /// `float64`
    Float,
    /// `bool`
    Bool,
    /// `map[string]interface {}`
    Dict,
    /// `time.Time`
    Time,
}

impl Param {
    /// The type as Go writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float64",
            Self::Bool => "bool",
            Self::Dict => "map[string]interface {}",
            Self::Time => "time.Time",
        }
    }
}

/// Why a function gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Error {
    /// What Go would say after "error calling NAME:".
    Failed(String),
    /// The author's own message, of `fail`.
    Author(String),
    /// Its value is another one each time, and that was not allowed.
    Impure,
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Failed(message.to_owned())
    }
}

/// What a function gives.
pub(super) type Result<T = Value, E = Error> = std::result::Result<T, E>;

/// What functions may know of the world.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context {
    /// Whether values that are others each time may be used.
    pub(super) impure: bool,
}

/// A function of a template.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Of the parameters that must be given.
    pub(super) params: &'static [Param],
    /// Of further ones, as many as one likes.
    pub(super) rest: Option<Param>,
    pub(super) run: fn(Context, &[Value]) -> Result,
    /// What to do instead, where it is deprecated.
    pub(super) deprecated: Option<&'static str>,
}

/// A line of a table.
const fn function(name: &'static str, params: &'static [Param], run: fn(Context, &[Value]) -> Result) -> Function {
    Function { name, params, rest: None, run, deprecated: None }
}

/// The same with further parameters.
const fn variadic(
    name: &'static str,
    params: &'static [Param],
    rest: Param,
    run: fn(Context, &[Value]) -> Result,
) -> Function {
    Function { name, params, rest: Some(rest), run, deprecated: None }
}

/// Tables in the order in which debos adds them: a later one takes the name of an earlier.
const TABLES: [&[Function]; 15] = [
    builtins::TABLE,
    debos::TABLE,
    dates::TABLE,
    defaults::TABLE,
    dicts::TABLE,
    encodings::TABLE,
    impure::TABLE,
    json::TABLE,
    lists::TABLE,
    math::TABLE,
    paths::TABLE,
    regex::TABLE,
    strings::TABLE,
    types::TABLE,
    urls::TABLE,
];

static BY_NAME: LazyLock<BTreeMap<&'static str, &'static Function>> =
    LazyLock::new(|| TABLES.iter().flat_map(|table| table.iter()).map(|function| (function.name, function)).collect());

/// The function of a name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    BY_NAME.get(name).copied()
}

/// The names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    BY_NAME.keys().copied().chain(["and", "or"])
}

/// Functions of sprig that slim-sprig, and so debos, does not have.
const OF_SPRIG: &[&str] = &[
    "abbrev",
    "abbrevboth",
    "addf",
    "bcrypt",
    "camelcase",
    "decryptAES",
    "deepCopy",
    "derivePassword",
    "divf",
    "encryptAES",
    "genCA",
    "genPrivateKey",
    "genSelfSignedCert",
    "genSignedCert",
    "htpasswd",
    "include",
    "initials",
    "kebabcase",
    "merge",
    "mergeOverwrite",
    "mulf",
    "mustMerge",
    "nospace",
    "randAlpha",
    "randAlphaNum",
    "randAscii",
    "randBytes",
    "randNumeric",
    "required",
    "semver",
    "semverCompare",
    "sha512sum",
    "shuffle",
    "snakecase",
    "subf",
    "swapcase",
    "toYaml",
    "tpl",
    "untitle",
    "uuidv4",
    "wrap",
    "wrapWith",
];

/// Whether sprig has a function of this name that debos does not have.
pub(super) fn is_of_sprig(name: &str) -> bool {
    OF_SPRIG.contains(&name)
}

/// What functions do with the values they were handed. The types were checked; what is of another one is empty.
impl Value {
    fn str(&self) -> &str {
        match self {
            Self::String(text) => text,
            _ => "",
        }
    }

    fn int(&self) -> i64 {
        self.integer().unwrap_or(0)
    }

    fn float(&self) -> f64 {
        match self {
            Self::Float(value) => *value,
            _ => 0.0,
        }
    }

    fn bool(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    fn map(&self) -> Option<&Rc<Map>> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    fn as_list(&self) -> Option<&Rc<List>> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }
}

/// A text, unless it is longer than any recipe's.
fn text(text: impl AsRef<str>) -> Result {
    let text = text.as_ref();
    if text.len() > MAX_SIZE { Err("the text is too long".into()) } else { Ok(Value::string(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice_but_by_sprig() {
        let mut seen = std::collections::BTreeSet::new();
        for function in TABLES.iter().flat_map(|table| table.iter()) {
            assert!(seen.insert(function.name) || function.name == "slice", "{}", function.name);
        }
        assert!(OF_SPRIG.iter().all(|name| !seen.contains(name)));
    }
}
