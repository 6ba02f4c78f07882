//! Functions that make, change and read lists.

use super::functions::Call;
use super::jinja::{Items, Jinja, Operator};
use super::kinds::Kind;
use super::pipeline::{Result, Term};
use super::writer::Writer;

impl Writer<'_> {
    /// The value of a call of a function on lists.
    pub(super) fn lists(&mut self, mut call: Call) -> Result<Term> {
        match call.name {
            "list" | "tuple" => Ok(self.list(call)),
            "until" => {
                let [count] = call.exactly()?;
                let jinja = Jinja::Call("range".into(), vec![self.number(count, &call)?]);
                Ok(call.gives(jinja, numbers()))
            }
            "untilStep" => {
                let [from, to, step] = call.exactly()?;
                let arguments = vec![self.number(from, &call)?, self.number(to, &call)?, self.number(step, &call)?];
                Ok(call.gives(Jinja::Call("range".into(), arguments), numbers()))
            }
            "append" | "push" | "prepend" => {
                let [list, item] = call.exactly()?;
                let kind = Kind::List(Box::new(element(&list, &call)?.join(self.entry(&item))));
                let list = self.text(list);
                let item = Jinja::list([self.text(item)]);
                let (left, right) = if call.name == "prepend" { (item, list) } else { (list, item) };
                Ok(call.gives(left.binary(Operator::Add, right), kind))
            }
            "concat" => {
                call.at_least(1)?;
                let terms = std::mem::take(&mut call.arguments);
                let mut kind = Kind::Nothing;
                let mut all = Vec::with_capacity(terms.len());
                for term in terms {
                    kind = kind.join(element(&term, &call)?);
                    all.push(self.text(term));
                }
                let jinja = all.into_iter().reduce(|left, right| left.binary(Operator::Add, right));
                Ok(call.gives(jinja.unwrap_or(Jinja::None), Kind::List(Box::new(kind))))
            }
            "first" | "last" => {
                let filter = if call.name == "first" { "first" } else { "last" };
                let [list] = call.exactly()?;
                let (kind, _) = element(&list, &call)?.without_gap();
                let jinja = self.text(list).filter(filter, []);
                Ok(call.gives(jinja, kind))
            }
            "rest" | "initial" => {
                let [list] = call.exactly()?;
                let kind = Kind::List(Box::new(element(&list, &call)?));
                let list = Box::new(self.text(list));
                let jinja = match call.name {
                    "rest" => Jinja::Slice(list, Some(Box::new(Jinja::Int(1))), None),
                    _ => Jinja::Slice(list, None, Some(Box::new(Jinja::Int(-1)))),
                };
                Ok(call.gives(jinja, kind))
            }
            "reverse" | "uniq" | "compact" | "sortAlpha" => {
                let [list] = call.exactly()?;
                let mut kind = element(&list, &call)?;
                let mut list = self.text(list);
                if matches!(call.name, "compact" | "sortAlpha") {
                    (kind, list) = filled(kind, list);
                }
                let exact = Jinja::Named("case_sensitive".into(), Box::new(Jinja::Bool(true)));
                let jinja = match call.name {
                    "reverse" => list.filter("reverse", []),
                    "uniq" => list.filter("unique", [exact]),
                    "compact" => list.filter("select", []),
                    _ if kind == Kind::Text => list.filter("sort", [exact]),
                    _ => return Err(call.fault(format!("`sortAlpha` of a list of {}", kind.called()))),
                };
                Ok(call.gives(jinja, Kind::List(Box::new(kind))))
            }
            "without" => {
                call.at_least(1)?;
                let mut terms = std::mem::take(&mut call.arguments).into_iter();
                let Some(list) = terms.next() else { return Err(call.count(0)) };
                let kind = Kind::List(Box::new(element(&list, &call)?));
                let list = self.text(list);
                let unwanted: Vec<Jinja> = terms.map(|term| self.text(term)).collect();
                let jinja = list.filter("reject", [Jinja::text("in"), Jinja::list(unwanted)]);
                Ok(call.gives(jinja, kind))
            }
            "has" => {
                let [item, list] = call.exactly()?;
                element(&list, &call)?;
                let (item, list) = (self.text(item), self.text(list));
                Ok(call.gives(item.binary(Operator::In, list), Kind::Bool))
            }
            "slice" => {
                call.at_least(1)?;
                let mut terms = std::mem::take(&mut call.arguments).into_iter();
                let Some(list) = terms.next() else { return Err(call.count(0)) };
                let kind = Kind::List(Box::new(element(&list, &call)?));
                let list = Box::new(self.text(list));
                let mut ends = Vec::new();
                for term in terms {
                    ends.push(Box::new(self.number(term, &call)?));
                }
                let to = if ends.len() > 1 { ends.pop() } else { None };
                Ok(call.gives(Jinja::Slice(list, ends.pop(), to), kind))
            }
            "split" | "splitList" => {
                let [separator, value] = call.exactly()?;
                let kind = if call.name == "split" { Kind::Parts } else { Kind::List(Box::new(Kind::Text)) };
                let (separator, value) = (self.text(separator), self.text(value));
                Ok(call.gives(value.filter("split", [separator]), kind))
            }
            "join" => {
                let [separator, list] = call.exactly()?;
                if list.kind == Kind::Text {
                    // A single text stands for a list of one.
                    return Ok(call.gives(self.text(list), Kind::Text));
                }
                let kind = element(&list, &call)?;
                let (kind, list) = filled(kind, self.text(list));
                if !matches!(kind, Kind::Text | Kind::Int | Kind::Scalar | Kind::Nothing) {
                    return Err(call.fault(format!("`join` of a list of {}", kind.called())));
                }
                let separator = self.text(separator);
                Ok(call.gives(list.filter("join", [separator]), Kind::Text))
            }
            _ => {
                call.at_least(1)?;
                let mut terms = std::mem::take(&mut call.arguments).into_iter();
                let Some(mut value) = terms.next() else { return Err(call.count(0)) };
                for key in terms {
                    value = self.under(value, key, &call)?;
                }
                Ok(value)
            }
        }
    }

    fn list(&mut self, mut call: Call) -> Term {
        let terms = std::mem::take(&mut call.arguments);
        let last = terms.last().map(|term| term.at.start);
        let mut kind = Kind::Nothing;
        let mut all = Vec::with_capacity(terms.len());
        for term in terms {
            kind = kind.join(self.entry(&term));
            all.push((self.lead(term.at.start), self.text(term)));
        }
        let tail = last.and_then(|last| self.tail(last));
        call.gives(Jinja::List(Items { all, tail }), Kind::List(Box::new(kind)))
    }

    /// What a term is as an element.
    fn entry(&mut self, term: &Term) -> Kind {
        if !term.optional {
            return term.kind.clone();
        }
        self.passes_on(term);
        Kind::Gap(Box::new(term.kind.clone()))
    }

    /// The white space before an argument that stands on a line of its own.
    pub(super) fn lead(&self, at: usize) -> Option<String> {
        let before = &self.source[self.tag.start..at];
        let space = &before[before.trim_end().len()..];
        space.rfind('\n').map(|newline| space[newline..].to_owned())
    }

    /// The white space before the bracket that closes a call, where that stands on a line of its own. `last` is
    /// where its last argument begins.
    pub(super) fn tail(&self, last: usize) -> Option<String> {
        let rest = &self.source[last..self.tag.end];
        let mut depth = 0usize;
        let mut quote = None;
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match quote {
                Some(open) => {
                    if escaped {
                        escaped = false;
                    } else if c == '\\' && open != '`' {
                        escaped = true;
                    } else if c == open {
                        quote = None;
                    }
                }
                None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
                None if c == '(' => depth += 1,
                None if c == ')' && depth > 0 => depth -= 1,
                None if c == ')' => {
                    let before = &rest[..at];
                    let space = &before[before.trim_end().len()..];
                    return space.rfind('\n').map(|newline| space[newline..].to_owned());
                }
                None => {}
            }
        }
        None
    }
}

fn numbers() -> Kind {
    Kind::List(Box::new(Kind::Int))
}

/// A list without what is missing in it, as Go makes text of its elements.
fn filled(kind: Kind, list: Jinja) -> (Kind, Jinja) {
    match kind.without_gap() {
        (kind, true) => (kind, list.filter("select", [Jinja::text("defined")])),
        (kind, false) => (kind, list),
    }
}

/// What is in a list.
fn element(list: &Term, call: &Call) -> Result<Kind> {
    match &list.kind {
        Kind::List(kind) => Ok((**kind).clone()),
        Kind::Unknown => Ok(Kind::Unknown),
        // As long as it is not known what is added to it.
        Kind::Nothing => Ok(Kind::Nothing),
        Kind::Parts if matches!(call.name, "join") => Ok(Kind::Text),
        kind => Err(call.fault(format!("`{}` of {}", call.name, kind.called())).hint("debos stops here, too")),
    }
}
