//! Functions that make, change and read maps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::functions::Call;
use super::jinja::{Items, Jinja, Operator, is_name};
use super::kinds::{Field, Kind};
use super::pipeline::{Result, Term};
use super::writer::Writer;

impl Writer<'_> {
    /// The value of a call of a function on maps.
    pub(super) fn maps(&mut self, mut call: Call) -> Result<Term> {
        match call.name {
            "dict" => {
                let terms = std::mem::take(&mut call.arguments);
                if terms.len() % 2 == 1 {
                    return Err(call.fault("`dict` with a key that has no value"));
                }
                let mut fields = BTreeMap::new();
                let mut all = Vec::new();
                let places: Vec<usize> = terms.iter().map(|term| term.at.start).collect();
                let mut terms = terms.into_iter();
                let mut open = false;
                while let (Some(key), Some(value)) = (terms.next(), terms.next()) {
                    let field = Field { kind: value.kind.clone(), always: !value.optional };
                    match &key.jinja {
                        Jinja::Text(name) => drop(fields.insert(name.clone(), field)),
                        _ => open = true,
                    }
                    let lead = self.lead(key.at.start);
                    // What is missing is missing there, too.
                    let key = self.text(key);
                    all.push((lead, (key, value.jinja)));
                }
                let tail = places.last().and_then(|last| self.tail(*last));
                let kind = if open { Kind::OpenMap } else { Kind::Map(fields) };
                Ok(call.gives(Jinja::Map(Items { all, tail }), kind))
            }
            "get" => {
                let [map, key] = call.exactly()?;
                let value = self.under(map, key, &call)?;
                if value.optional {
                    let kind = value.kind.clone();
                    return Ok(call.gives(value.jinja.filter("default", [Jinja::text("")]), kind));
                }
                Ok(value)
            }
            "hasKey" => {
                let [map, key] = call.exactly()?;
                mapping(&map, &call)?;
                let (map, key) = (self.text(map), self.text(key));
                Ok(call.gives(key.binary(Operator::In, map), Kind::Bool))
            }
            name => Err(call
                .fault(format!("`{name}` gives the parts of a map in an order that changes"))
                .hint("Jinja has `map | dictsort`, pairs of key and value in the order of the keys")),
        }
    }

    /// What stands under a key that is computed.
    pub(super) fn under(&mut self, of: Term, key: Term, call: &Call) -> Result<Term> {
        match (&of.kind, &key.jinja) {
            (Kind::Root, Jinja::Text(name)) => {
                let input = self.field(of, &name.clone())?;
                // Go gives the empty text here, not `<no value>`.
                let source = BTreeSet::new();
                let jinja = input.jinja.filter("default", [Jinja::text("")]);
                Ok(Term { optional: false, missing: false, inputs: source, source: None, jinja, ..input })
            }
            (Kind::Root, _) => Err(call
                .fault("the name of this variable is computed, which Jinja's variables cannot be")
                .hint("write an `if` for each name that it may have")),
            (Kind::Map(_) | Kind::Parts, Jinja::Text(name)) => self.field(of, &name.clone()),
            (Kind::List(kind), _) => {
                let (kind, _) = (**kind).clone().without_gap();
                let jinja = Jinja::Item(Box::new(self.text(of)), Box::new(self.number(key, call)?));
                Ok(call.gives(jinja, kind))
            }
            (Kind::Map(_) | Kind::OpenMap | Kind::Unknown, _) => {
                let jinja = Jinja::Item(Box::new(self.text(of)), Box::new(self.text(key)));
                Ok(Term { optional: true, missing: true, ..call.gives(jinja, Kind::Unknown) })
            }
            (kind, _) => Err(call.fault(format!("{} has no parts to choose from", kind.called()))),
        }
    }

    /// `set $map "key" value`, which changes the map: the new map to set the variable to.
    pub(super) fn changed_map(&mut self, map: Term, key: &Term, value: Term, at: Range<usize>) -> Result<Term> {
        let call = Call { name: "set", arguments: Vec::new(), at };
        mapping(&map, &call)?;
        let Jinja::Text(key) = &key.jinja else {
            return Err(call.fault("`set` of a key that is not written here"));
        };
        if !is_name(key) {
            return Err(call.fault(format!("`set` of the key `{key}`, which is no name")));
        }
        let kind = match map.kind.clone() {
            Kind::Map(mut fields) => {
                fields.insert(key.clone(), Field { kind: value.kind.clone(), always: !value.optional });
                Kind::Map(fields)
            }
            kind => kind,
        };
        let value = Jinja::Named(key.clone(), Box::new(self.text(value)));
        Ok(call.gives(Jinja::Call("dict".into(), vec![self.text(map), value]), kind))
    }
}

fn mapping(term: &Term, call: &Call) -> Result<()> {
    match term.kind {
        Kind::Map(_) | Kind::OpenMap | Kind::Unknown => Ok(()),
        Kind::Root => Err(call.fault(format!("`{}` of all variables", call.name)).hint("debos stops here, too")),
        _ => Err(call.fault(format!("`{}` of {}", call.name, term.kind.called()))),
    }
}
