//! The values of a Go template, with the types that Go gives them.
//!
//! gotmpl has values of its own. They do not do here: a recipe asks for `typeOf` and gets `int64`, changes a
//! dictionary in place with `set`, and hands times from `toDate` to `date`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use jiff::ZonedDateTime;

/// Nesting deeper than this is a dictionary within itself.
const MAX_DEPTH: usize = 100;

/// A value of a Go template.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// nil, and what is not there.
    Nil,
    /// Stands for what could not be found out, after it was said why: nothing that follows from it is said.
    Unknown,
    /// `bool`
    Bool(bool),
    /// `int`: literals, and what counts something.
    Int(i64),
    /// `int64`: what is computed.
    Int64(i64),
    /// `uint8`: a byte of a text.
    Byte(u8),
    /// `float64`
    Float(f64),
    /// `string`
    String(Rc<str>),
    /// A slice.
    List(Rc<List>),
    /// A map from texts; those that share it see its changes.
    Map(Rc<Map>),
    /// `time.Time`
    Time(Box<ZonedDateTime>),
    /// `time.Month`, which prints as its name.
    Month(i8),
}

/// What a slice or a map holds, as its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// `interface {}`
    Any,
    /// `string`
    String,
    /// `int`
    Int,
    /// `[]interface {}`
    Lists,
}

/// See [`Value::List`].
#[derive(Debug)]
pub(super) struct List {
    pub(super) of: Of,
    pub(super) items: Vec<Value>,
}

/// See [`Value::Map`].
#[derive(Debug)]
pub(super) struct Map {
    pub(super) of: Of,
    pub(super) entries: RefCell<BTreeMap<String, Value>>,
}

impl Map {
    /// What stands under a key.
    pub(super) fn get(&self, key: &str) -> Option<Value> {
        self.entries.borrow().get(key).cloned()
    }
}

impl Value {
    pub(super) fn string(text: impl AsRef<str>) -> Self {
        Self::String(Rc::from(text.as_ref()))
    }

    /// A `[]interface {}`.
    pub(super) fn list(items: Vec<Value>) -> Self {
        Self::List(Rc::new(List { of: Of::Any, items }))
    }

    /// A `[]string`.
    pub(super) fn strings(items: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::List(Rc::new(List { of: Of::String, items: items.into_iter().map(Self::string).collect() }))
    }

    /// A `map[string]interface {}`.
    pub(super) fn dict(entries: BTreeMap<String, Value>) -> Self {
        Self::Map(Rc::new(Map { of: Of::Any, entries: RefCell::new(entries) }))
    }

    /// A `map[string]string`.
    pub(super) fn string_map(entries: impl IntoIterator<Item = (String, String)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key, Self::string(value))).collect();
        Self::Map(Rc::new(Map { of: Of::String, entries: RefCell::new(entries) }))
    }

    /// Whether `if` takes it for true: `template.IsTrue`, which is also the contrary of sprig's `empty`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::Unknown => false,
            Self::Bool(value) => *value,
            Self::Int(value) | Self::Int64(value) => *value != 0,
            Self::Byte(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::String(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.borrow().is_empty(),
            Self::Time(_) | Self::Month(_) => true,
        }
    }

    /// The name of its `reflect.Kind`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil | Self::Unknown => "invalid",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Month(_) => "int",
            Self::Int64(_) => "int64",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
            Self::Time(_) => "struct",
        }
    }

    /// Its type as `%T` prints it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil | Self::Unknown => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Int64(_) => "int64",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(list) => match list.of {
                Of::Any => "[]interface {}",
                Of::String => "[]string",
                Of::Int => "[]int",
                Of::Lists => "[][]interface {}",
            },
            Self::Map(map) if map.of == Of::String => "map[string]string",
            Self::Map(_) => "map[string]interface {}",
            Self::Time(_) => "time.Time",
            Self::Month(_) => "time.Month",
        }
    }

    /// A whole number of any type.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Int(value) | Self::Int64(value) => Some(*value),
            Self::Byte(value) => Some(i64::from(*value)),
            Self::Month(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// `reflect.DeepEqual`: of the same type, with the same parts.
    pub(super) fn deep_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) | (Self::Int64(a), Self::Int64(b)) => a == b,
            (Self::Byte(a), Self::Byte(b)) => a == b,
            (Self::Month(a), Self::Month(b)) => a == b,
            #[allow(clippy::float_cmp)] // As Go compares them.
            (Self::Float(a), Self::Float(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                a.of == b.of
                    && a.items.len() == b.items.len()
                    && a.items.iter().zip(&b.items).all(|(a, b)| a.deep_equal(b))
            }
            (Self::Map(a), Self::Map(b)) if Rc::ptr_eq(a, b) => true,
            (Self::Map(a), Self::Map(b)) => {
                let (a, b) = ((a.of, a.entries.borrow()), (b.of, b.entries.borrow()));
                a.0 == b.0
                    && a.1.len() == b.1.len()
                    && a.1.iter().zip(b.1.iter()).all(|((x, v), (y, w))| x == y && v.deep_equal(w))
            }
            (Self::Time(a), Self::Time(b)) => a == b,
            _ => false,
        }
    }

    /// Whether it nests deeper than anything but a dictionary within itself does.
    pub(super) fn is_endless(&self) -> bool {
        fn deeper(value: &Value, left: usize) -> bool {
            left == 0
                || match value {
                    Value::List(list) => list.items.iter().any(|item| deeper(item, left - 1)),
                    Value::Map(map) => map.entries.borrow().values().any(|item| deeper(item, left - 1)),
                    _ => false,
                }
        }
        deeper(self, MAX_DEPTH)
    }

    /// Whether a part of it stands for something that could not be found out.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// As `%v` prints it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("<nil>"),
            Self::Unknown => f.write_str("undefined"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) | Self::Int64(value) => write!(f, "{value}"),
            Self::Byte(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&super::format::shortest(*value, super::format::EXPONENT_FROM)),
            Self::String(text) => f.write_str(text),
            Self::List(list) => {
                f.write_str("[")?;
                for (index, item) in list.items.iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    write!(f, "{space}{item}")?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("map[")?;
                for (index, (key, value)) in map.entries.borrow().iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    write!(f, "{space}{key}:{value}")?;
                }
                f.write_str("]")
            }
            Self::Time(time) => f.write_str(&super::time::shown(time)),
            Self::Month(month) => f.write_str(super::time::month_name(*month)),
        }
    }
}
