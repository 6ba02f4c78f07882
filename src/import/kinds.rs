//! What is known of a value before the template is rendered.

use std::collections::BTreeMap;

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The element of an empty list.
    Nothing,
    /// All variables of the recipe: what `.` is at the top of a template.
    Root,
    Text,
    Int,
    Float,
    Bool,
    /// Text or a number.
    Scalar,
    List(Box<Kind>),
    /// In a list: an element that may be missing, which Go leaves out where it makes text of a list.
    Gap(Box<Kind>),
    /// What `split` gives: a list to Jinja, to Go a map with the keys `_0`, `_1`, …
    Parts,
    /// With the keys that are known.
    Map(BTreeMap<String, Field>),
    /// A map of keys that are not known.
    OpenMap,
    Unknown,
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) kind: Kind,
    /// Whether every such map has it.
    pub(super) always: bool,
}

impl Kind {
    /// What may be one or the other.
    pub(super) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, kind) | (kind, Self::Nothing) => kind,
            (one, other) if one == other => one,
            (Self::Gap(kind), other) | (other, Self::Gap(kind)) => {
                Self::Gap(Box::new(kind.join(other.without_gap().0)))
            }
            (Self::Text | Self::Int | Self::Scalar, Self::Text | Self::Int | Self::Scalar) => Self::Scalar,
            (Self::List(one), Self::List(other)) => Self::List(Box::new(one.join(*other))),
            (Self::Map(one), Self::Map(other)) => Self::Map(join_fields(one, other)),
            (Self::Map(_) | Self::OpenMap, Self::Map(_) | Self::OpenMap) => Self::OpenMap,
            _ => Self::Unknown,
        }
    }

    /// What it is where it is there, and whether it may be missing.
    pub(super) fn without_gap(self) -> (Self, bool) {
        match self {
            Self::Gap(kind) => (*kind, true),
            kind => (kind, false),
        }
    }

    /// How a person calls it.
    pub(super) fn called(&self) -> &'static str {
        match self {
            Self::Nothing | Self::Unknown => "a value that is not known here",
            Self::Gap(kind) => kind.called(),
            Self::Root => "the map of all variables",
            Self::Text => "text",
            Self::Int => "a number",
            Self::Float => "a number with a fraction",
            Self::Bool => "true or false",
            Self::Scalar => "text or a number",
            Self::List(_) => "a list",
            Self::Parts | Self::Map(_) | Self::OpenMap => "a map",
        }
    }
}

fn join_fields(mut one: BTreeMap<String, Field>, other: BTreeMap<String, Field>) -> BTreeMap<String, Field> {
    for (name, field) in &mut one {
        field.always &= other.contains_key(name);
    }
    for (name, field) in other {
        let joined = match one.remove(&name) {
            Some(first) => Field { kind: first.kind.join(field.kind), always: first.always && field.always },
            None => Field { always: false, ..field },
        };
        one.insert(name, joined);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: &[&str]) -> Kind {
        let field = Field { kind: Kind::Text, always: true };
        Kind::Map(keys.iter().map(|key| ((*key).to_owned(), field.clone())).collect())
    }

    #[test]
    fn a_key_that_one_map_lacks_may_be_missing() {
        let Kind::Map(fields) = map(&["a", "b"]).join(map(&["b", "c"])) else { panic!() };
        let always: Vec<(&str, bool)> = fields.iter().map(|(name, field)| (name.as_str(), field.always)).collect();
        assert_eq!(always, [("a", false), ("b", true), ("c", false)]);
    }

    #[test]
    fn an_empty_list_takes_the_kind_of_what_is_added() {
        let list = |kind| Kind::List(Box::new(kind));
        assert_eq!(list(Kind::Nothing).join(list(Kind::Text)), list(Kind::Text));
        assert_eq!(Kind::Text.join(Kind::Int), Kind::Scalar);
        assert_eq!(Kind::Text.join(Kind::Bool), Kind::Unknown);
    }
}
