//! Expressions of Jinja, and how they are written.

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Jinja {
    Name(String),
    Text(String),
    Int(i64),
    /// As it is written.
    Float(String),
    Bool(bool),
    None,
    Attribute(Box<Jinja>, String),
    Item(Box<Jinja>, Box<Jinja>),
    Slice(Box<Jinja>, Option<Box<Jinja>>, Option<Box<Jinja>>),
    Call(String, Vec<Jinja>),
    Filter(Box<Jinja>, &'static str, Vec<Jinja>),
    /// `name=value` among the arguments.
    Named(String, Box<Jinja>),
    Test(Box<Jinja>, &'static str, Vec<Jinja>),
    Binary(Operator, Box<Jinja>, Box<Jinja>),
    Not(Box<Jinja>),
    Ternary(Box<Jinja>, Box<Jinja>, Box<Jinja>),
    List(Items<Jinja>),
    Map(Items<(Jinja, Jinja)>),
}

/// The parts of a list or a map, with the line breaks between them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Items<T> {
    /// Each with the white space before it where it stands on a line of its own.
    pub(super) all: Vec<(Option<String>, T)>,
    /// White space before the closing bracket, where that stands on a line of its own.
    pub(super) tail: Option<String>,
}

impl<T> Items<T> {
    /// On one line.
    pub(super) fn plain(all: impl IntoIterator<Item = T>) -> Self {
        Self { all: all.into_iter().map(|item| (None, item)).collect(), tail: None }
    }
}

/// What stands between two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Add,
    Subtract,
    Concat,
    Multiply,
    FloorDivide,
    Remainder,
}

/// How tightly expressions hold together in minijinja, the loosest first.
mod tight {
    pub(super) const TERNARY: u8 = 0;
    pub(super) const OR: u8 = 1;
    pub(super) const AND: u8 = 2;
    pub(super) const NOT: u8 = 3;
    pub(super) const COMPARE: u8 = 4;
    pub(super) const ADD: u8 = 5;
    pub(super) const CONCAT: u8 = 6;
    pub(super) const MULTIPLY: u8 = 7;
    pub(super) const UNARY: u8 = 8;
    pub(super) const FILTER: u8 = 9;
    pub(super) const PRIMARY: u8 = 10;
}

impl Operator {
    fn sign(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::NotIn => "not in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Concat => "~",
            Self::Multiply => "*",
            Self::FloorDivide => "//",
            Self::Remainder => "%",
        }
    }

    fn tightness(self) -> u8 {
        match self {
            Self::Or => tight::OR,
            Self::And => tight::AND,
            Self::Equal
            | Self::Unequal
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::In
            | Self::NotIn => tight::COMPARE,
            Self::Add | Self::Subtract => tight::ADD,
            Self::Concat => tight::CONCAT,
            Self::Multiply | Self::FloorDivide | Self::Remainder => tight::MULTIPLY,
        }
    }

    /// What is true where this is false.
    fn opposite(self) -> Option<Self> {
        match self {
            Self::Equal => Some(Self::Unequal),
            Self::Unequal => Some(Self::Equal),
            Self::In => Some(Self::NotIn),
            Self::NotIn => Some(Self::In),
            _ => None,
        }
    }
}

impl Jinja {
    pub(super) fn name(name: impl Into<String>) -> Self {
        Self::Name(name.into())
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn binary(self, operator: Operator, right: Self) -> Self {
        Self::Binary(operator, Box::new(self), Box::new(right))
    }

    pub(super) fn filter(self, name: &'static str, arguments: impl IntoIterator<Item = Self>) -> Self {
        Self::Filter(Box::new(self), name, arguments.into_iter().collect())
    }

    pub(super) fn test(self, name: &'static str, arguments: impl IntoIterator<Item = Self>) -> Self {
        Self::Test(Box::new(self), name, arguments.into_iter().collect())
    }

    pub(super) fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::List(Items::plain(items))
    }

    /// What stands under a key, as an attribute where the key can be one.
    pub(super) fn under(self, key: &str) -> Self {
        if is_name(key) {
            Self::Attribute(Box::new(self), key.to_owned())
        } else {
            Self::Item(Box::new(self), Box::new(Self::text(key)))
        }
    }

    /// What is true where this is false.
    pub(super) fn negated(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            Self::Binary(operator, left, right) if operator.opposite().is_some() => {
                Self::Binary(operator.opposite().unwrap_or(operator), left, right)
            }
            other => Self::Not(Box::new(other)),
        }
    }

    /// The texts of both, put together; constants become one.
    pub(super) fn concat(self, right: Self) -> Self {
        match (self, right) {
            (Self::Text(one), Self::Text(other)) => Self::Text(one + &other),
            (Self::Binary(Operator::Concat, left, middle), Self::Text(other)) if matches!(*middle, Self::Text(_)) => {
                left.binary(Operator::Concat, middle.concat(Self::Text(other)))
            }
            (left, right) => left.binary(Operator::Concat, right),
        }
    }

    /// As it is written in a tag.
    pub(super) fn written(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, tight::TERNARY);
        out
    }

    /// As it is written where an `if` after it would mean something else: in the tags of conditions and loops.
    pub(super) fn written_whole(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, tight::OR);
        out
    }

    fn tightness(&self) -> u8 {
        match self {
            Self::Ternary(..) => tight::TERNARY,
            Self::Binary(operator, ..) => operator.tightness(),
            Self::Not(_) => tight::NOT,
            Self::Int(number) if *number < 0 => tight::UNARY,
            Self::Filter(..) | Self::Test(..) => tight::FILTER,
            _ => tight::PRIMARY,
        }
    }

    fn write(&self, out: &mut String, at_least: u8) {
        let brackets = self.tightness() < at_least;
        if brackets {
            out.push('(');
        }
        match self {
            Self::Name(name) => out.push_str(name),
            Self::Text(text) => quote(text, out),
            Self::Int(number) => out.push_str(&number.to_string()),
            Self::Float(text) => out.push_str(text),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::None => out.push_str("none"),
            Self::Attribute(of, name) => {
                of.write(out, tight::PRIMARY);
                out.push('.');
                out.push_str(name);
            }
            Self::Item(of, key) => {
                of.write(out, tight::PRIMARY);
                out.push('[');
                key.write(out, tight::TERNARY);
                out.push(']');
            }
            Self::Slice(of, from, to) => {
                of.write(out, tight::PRIMARY);
                out.push('[');
                if let Some(from) = from {
                    from.write(out, tight::OR);
                }
                out.push(':');
                if let Some(to) = to {
                    to.write(out, tight::OR);
                }
                out.push(']');
            }
            Self::Call(name, arguments) => {
                out.push_str(name);
                write_arguments(arguments, out);
            }
            Self::Filter(of, name, arguments) => {
                of.write(out, tight::FILTER);
                out.push_str(" | ");
                out.push_str(name);
                if !arguments.is_empty() {
                    write_arguments(arguments, out);
                }
            }
            Self::Named(name, value) => {
                out.push_str(name);
                out.push('=');
                value.write(out, tight::TERNARY);
            }
            Self::Test(of, name, arguments) => {
                of.write(out, tight::FILTER);
                out.push_str(" is ");
                out.push_str(name);
                if !arguments.is_empty() {
                    write_arguments(arguments, out);
                }
            }
            Self::Binary(operator, left, right) => {
                let tightness = operator.tightness();
                // Comparisons do not chain as they are meant here.
                left.write(out, if tightness == tight::COMPARE { tightness + 1 } else { tightness });
                out.push(' ');
                out.push_str(operator.sign());
                out.push(' ');
                let associative = matches!(operator, Operator::Or | Operator::And | Operator::Concat);
                right.write(out, if associative { tightness } else { tightness + 1 });
            }
            Self::Not(inner) => {
                out.push_str("not ");
                inner.write(out, tight::NOT);
            }
            Self::Ternary(yes, condition, no) => {
                yes.write(out, tight::OR);
                out.push_str(" if ");
                condition.write(out, tight::OR);
                out.push_str(" else ");
                no.write(out, tight::TERNARY);
            }
            Self::List(items) => items.write(out, ['[', ']'], |item, out| item.write(out, tight::TERNARY)),
            Self::Map(items) => items.write(out, ['{', '}'], |(key, value), out| {
                key.write(out, tight::TERNARY);
                out.push_str(": ");
                value.write(out, tight::TERNARY);
            }),
        }
        if brackets {
            out.push(')');
        }
    }
}

impl<T> Items<T> {
    fn write(&self, out: &mut String, brackets: [char; 2], write: impl Fn(&T, &mut String)) {
        out.push(brackets[0]);
        for (index, (lead, item)) in self.all.iter().enumerate() {
            match lead {
                Some(lead) => {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(lead);
                }
                None => out.push_str(if index > 0 { ", " } else { "" }),
            }
            write(item, out);
        }
        out.push_str(self.tail.as_deref().unwrap_or_default());
        out.push(brackets[1]);
    }
}

fn write_arguments(arguments: &[Jinja], out: &mut String) {
    out.push('(');
    for (index, argument) in arguments.iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        argument.write(out, tight::TERNARY);
    }
    out.push(')');
}

/// Whether a key can be written as `.key`.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_stand_where_they_are_needed() {
        let name = Jinja::name;
        for (expression, expected) in [
            (name("a").binary(Operator::Or, name("b")).binary(Operator::And, name("c")), "(a or b) and c"),
            (name("a").binary(Operator::Or, name("b").binary(Operator::And, name("c"))), "a or b and c"),
            (
                name("a").filter("default", [Jinja::text("x")]).binary(Operator::Equal, Jinja::text("b")),
                "a | default(\"x\") == \"b\"",
            ),
            (
                name("a").binary(Operator::Concat, name("b")).filter("default", [Jinja::text("")]),
                "(a ~ b) | default(\"\")",
            ),
            (name("a").binary(Operator::Equal, name("b")).negated(), "a != b"),
            (name("a").negated().negated(), "a"),
            (name("a").binary(Operator::Subtract, name("b").binary(Operator::Subtract, name("c"))), "a - (b - c)"),
            (name("l").filter("split", [Jinja::text(",")]).under("x"), "(l | split(\",\")).x"),
            (Jinja::text("a").concat(Jinja::text("b")), "\"ab\""),
            (name("d").under("a-b"), "d[\"a-b\"]"),
        ] {
            assert_eq!(expression.written(), expected);
        }
    }

    #[test]
    fn line_breaks_of_a_list_are_kept() {
        let items = Items {
            all: vec![
                (Some("\n    ".into()), Jinja::Int(1)),
                (None, Jinja::Int(2)),
                (Some("\n    ".into()), Jinja::Int(3)),
            ],
            tail: Some("\n".into()),
        };
        assert_eq!(Jinja::List(items).written(), "[\n    1, 2,\n    3\n]");
    }
}
