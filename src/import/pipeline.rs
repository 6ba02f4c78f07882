//! Pipelines of Go as expressions of Jinja.

use std::collections::BTreeSet;
use std::ops::Range;

use gotmpl::parse::{CommandNode, Expr, Number, PipeNode, SmolStr};

use super::jinja::{Jinja, Operator};
use super::kinds::Kind;
use super::scope::{Declared, readable};
use super::writer::Writer;

/// What cannot be said in Jinja, where, and what to do about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Untranslatable {
    pub(super) at: Range<usize>,
    pub(super) why: String,
    pub(super) hint: Option<String>,
}

impl Untranslatable {
    pub(super) fn new(at: Range<usize>, why: impl Into<String>) -> Self {
        Self { at, why: why.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

pub(super) type Result<T> = std::result::Result<T, Untranslatable>;

/// Where a value that may be missing comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Input(String),
    Variable(Declared),
}

/// A value: how Jinja has it, and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) jinja: Jinja,
    pub(super) kind: Kind,
    /// Whether debos may find nothing there.
    pub(super) optional: bool,
    /// Whether Jinja may find nothing there.
    pub(super) missing: bool,
    /// The inputs that it depends on.
    pub(super) inputs: BTreeSet<String>,
    pub(super) source: Option<Source>,
    /// Where it is written.
    pub(super) at: Range<usize>,
}

impl Term {
    pub(super) fn new(jinja: Jinja, kind: Kind, at: Range<usize>) -> Self {
        Self { jinja, kind, optional: false, missing: false, inputs: BTreeSet::new(), source: None, at }
    }

    /// All variables of the recipe.
    pub(super) fn root(at: Range<usize>) -> Self {
        Self::new(Jinja::None, Kind::Root, at)
    }

    /// A constant text that is not empty.
    fn says_something(&self) -> bool {
        match &self.jinja {
            Jinja::Text(text) => !text.is_empty(),
            Jinja::Int(_) | Jinja::Bool(_) => true,
            _ => false,
        }
    }
}

impl Writer<'_> {
    /// The value of a pipeline.
    pub(super) fn pipeline(&mut self, pipe: &PipeNode) -> Result<Term> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, value)?);
        }
        value.ok_or_else(|| Untranslatable::new(self.tag.clone(), "there is nothing in this tag"))
    }

    fn command(&mut self, command: &CommandNode, piped: Option<Term>) -> Result<Term> {
        let Some((first, rest)) = command.args.split_first() else {
            return Err(Untranslatable::new(self.tag.clone(), "there is nothing in this tag"));
        };
        let (name, fields) = match first {
            Expr::Identifier(_, name) => (name, &[][..]),
            Expr::Chain(_, inner, fields) => match &**inner {
                Expr::Identifier(_, name) => (name, fields.as_slice()),
                _ => return self.alone(first, rest, piped.as_ref()),
            },
            _ => return self.alone(first, rest, piped.as_ref()),
        };
        let at = self.place(first);
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for argument in rest {
            arguments.push(self.expression(argument)?);
        }
        arguments.extend(piped);
        let term = self.call(name, arguments, at)?;
        self.fields(term, fields)
    }

    fn alone(&mut self, value: &Expr, rest: &[Expr], piped: Option<&Term>) -> Result<Term> {
        if piped.is_some() || !rest.is_empty() {
            return Err(Untranslatable::new(self.place(value), "this is no function, and is given arguments"));
        }
        self.expression(value)
    }

    /// The value of an expression.
    pub(super) fn expression(&mut self, expression: &Expr) -> Result<Term> {
        let at = self.place(expression);
        Ok(match expression {
            Expr::Dot(_) => Term { at, ..self.dot.clone() },
            Expr::Field(_, fields) => {
                let dot = Term { at, ..self.dot.clone() };
                self.fields(dot, fields)?
            }
            Expr::Variable(_, name, fields) if name == "$" => {
                let root = Term { at, ..self.dollar.clone() };
                self.fields(root, fields)?
            }
            Expr::Variable(_, name, fields) => {
                let variable = self.variable(name, at)?;
                self.fields(variable, fields)?
            }
            Expr::String(_, text) => Term::new(Jinja::text(&**text), Kind::Text, at),
            Expr::Number(_, Number::Int(number)) => Term::new(Jinja::Int(*number), Kind::Int, at),
            Expr::Number(_, Number::Float(number)) => Term::new(Jinja::Float(format!("{number:?}")), Kind::Float, at),
            Expr::Number(_, Number::Uint(_)) => {
                return Err(Untranslatable::new(at, "this number is larger than debos can have"));
            }
            Expr::Bool(_, value) => Term::new(Jinja::Bool(*value), Kind::Bool, at),
            Expr::Nil(_) => Term::new(Jinja::None, Kind::Unknown, at),
            Expr::Pipe(_, pipe) => Term { at, ..self.pipeline(pipe)? },
            Expr::Chain(_, inner, fields) => {
                let inner = self.expression(inner)?;
                self.fields(inner, fields)?
            }
            Expr::Identifier(_, name) => self.call(name, Vec::new(), at)?,
        })
    }

    fn fields(&mut self, mut value: Term, fields: &[SmolStr]) -> Result<Term> {
        for field in fields {
            value = self.field(value, field)?;
        }
        Ok(value)
    }

    /// What stands under a name.
    pub(super) fn field(&mut self, of: Term, name: &str) -> Result<Term> {
        let at = of.at.clone();
        let (kind, always) = match &of.kind {
            Kind::Root => return self.input(name, at),
            Kind::Map(fields) => match fields.get(name) {
                Some(field) => (field.kind.clone(), field.always),
                None => (Kind::Nothing, false),
            },
            Kind::Nothing => (Kind::Nothing, false),
            Kind::OpenMap | Kind::Unknown => (Kind::Unknown, false),
            Kind::Parts => {
                let number = name.strip_prefix('_').and_then(|number| number.parse().ok());
                let number = number.ok_or_else(|| Untranslatable::new(at.clone(), "`split` gives `_0`, `_1`, …"))?;
                let jinja = Jinja::Item(Box::new(of.jinja), Box::new(Jinja::Int(number)));
                return Ok(Term { optional: number > 0, missing: number > 0, ..Term::new(jinja, Kind::Text, at) });
            }
            other => {
                let why = format!("this is {}, which has no `.{name}`", other.called());
                return Err(Untranslatable::new(at, why).hint(match of.source {
                    Some(Source::Input(_)) => "all variables of a recipe are texts; debos stops here, too",
                    _ => "debos stops here, too",
                }));
            }
        };
        Ok(Term { optional: !always, missing: !always, ..Term::new(of.jinja.under(name), kind, at) })
    }

    /// A variable of the recipe, as `-t` gives it.
    fn input(&mut self, name: &str, at: Range<usize>) -> Result<Term> {
        if !readable(name) {
            let why = format!("no variable of Jinja can be called `{name}`");
            return Err(Untranslatable::new(at, why).hint("give it another name"));
        }
        self.facts.inputs.entry(name.to_owned()).or_default().insert(at.start);
        if let Some(define) = &self.define {
            self.facts.defines.entry(define.clone()).or_default().asks = true;
        }
        let source = Source::Input(name.to_owned());
        let optional = !self.is_known(&source);
        Ok(Term {
            optional,
            missing: optional,
            inputs: [name.to_owned()].into(),
            source: Some(source),
            ..Term::new(Jinja::name(name), Kind::Text, at)
        })
    }

    fn variable(&mut self, name: &str, at: Range<usize>) -> Result<Term> {
        let bare = name.trim_start_matches('$');
        let Some(found) = self.scopes.find(bare) else {
            return Err(Untranslatable::new(at, format!("`{name}` is not declared")).hint("debos stops here, too"));
        };
        let known = self.before.variables.get(&found.declared).cloned().unwrap_or_default();
        let facts = self.facts.variables.entry(found.declared).or_default();
        facts.read_in_inner_loop |= found.loops > 0;
        let source = Source::Variable(found.declared);
        let optional = known.optional && !self.is_known(&source);
        let jinja = match self.stands_for.get(&found.declared) {
            Some(jinja) => jinja.clone(),
            None if known.assigned_in_loop => Jinja::name(found.name).under("value"),
            None => Jinja::name(found.name),
        };
        Ok(Term {
            optional,
            missing: optional && !known.defaulted(),
            inputs: known.inputs.clone(),
            source: Some(source),
            ..Term::new(jinja, known.kind, at)
        })
    }

    fn is_known(&self, source: &Source) -> bool {
        self.known.iter().any(|known| known.contains(source))
    }

    /// The value where it is printed, or handed to a function that needs one.
    pub(super) fn text(&mut self, term: Term) -> Jinja {
        if term.optional {
            self.facts.wanted.extend(term.inputs);
        }
        term.jinja
    }

    /// Whether the value is true to Go: not missing, not empty, not 0, not false.
    pub(super) fn truth(&mut self, term: Term) -> Jinja {
        self.asked(&term, false);
        if term.missing { term.jinja.filter("default", [Jinja::text("")]) } else { term.jinja }
    }

    /// The value where it is compared; a missing one is equal to none that is there.
    pub(super) fn compared(&mut self, term: Term, with: &Term) -> Jinja {
        let clear = with.says_something();
        self.asked(&term, !clear);
        match term.missing {
            true if clear => term.jinja.filter("default", [Jinja::text("")]),
            true => term.jinja.filter("default", [Jinja::None]),
            false => term.jinja,
        }
    }

    /// Notes that it matters whether a value is, begins with or contains a text.
    pub(super) fn matters(&mut self, term: &Term, text: &Term) {
        if let Jinja::Text(text) = &text.jinja {
            for input in &term.inputs {
                self.facts.compared.entry(input.clone()).or_default().insert(text.clone());
            }
        }
    }

    /// Notes that what is missing there is missing in something else, too, where an empty text is not the same.
    pub(super) fn passes_on(&mut self, term: &Term) {
        if let (true, Some(Source::Variable(declared))) = (term.optional, &term.source) {
            self.facts.variables.entry(*declared).or_default().absence_matters = true;
        }
    }

    fn asked(&mut self, term: &Term, absence_matters: bool) {
        if let (true, Some(Source::Variable(declared))) = (term.optional, &term.source) {
            let variable = self.facts.variables.entry(*declared).or_default();
            variable.asked = true;
            variable.absence_matters |= absence_matters;
        }
    }

    /// A pipeline where only its truth counts.
    pub(super) fn condition(&mut self, pipe: &PipeNode) -> Result<Jinja> {
        if let [CommandNode { args, .. }] = pipe.commands.as_slice()
            && let [Expr::Pipe(_, inner)] = args.as_slice()
        {
            return self.condition(inner);
        }
        if let [command] = pipe.commands.as_slice()
            && let Some((Expr::Identifier(_, name), rest)) = command.args.split_first()
            && !rest.is_empty()
        {
            let operator = match name.as_str() {
                "and" => Some(Operator::And),
                "or" => Some(Operator::Or),
                _ => None,
            };
            if let Some(operator) = operator {
                let mut joined: Option<Jinja> = None;
                let depth = self.known.len();
                for part in rest {
                    let right = self.condition_of(part);
                    // What stands after `and` is looked at only where what stands before it is true.
                    if operator == Operator::And {
                        let proven = self.proven_by(part);
                        self.known.push(proven);
                    }
                    joined = Some(match (joined, right) {
                        (_, Err(error)) => {
                            self.known.truncate(depth);
                            return Err(error);
                        }
                        (Some(left), Ok(right)) => left.binary(operator, right),
                        (None, Ok(right)) => right,
                    });
                }
                self.known.truncate(depth);
                return joined.ok_or_else(|| Untranslatable::new(self.tag.clone(), "there is nothing in this tag"));
            }
            if let ("not", [part]) = (name.as_str(), rest) {
                return Ok(self.condition_of(part)?.negated());
            }
        }
        let term = self.pipeline(pipe)?;
        Ok(self.truth(term))
    }

    fn condition_of(&mut self, expression: &Expr) -> Result<Jinja> {
        if let Expr::Pipe(_, pipe) = expression {
            return self.condition(pipe);
        }
        let term = self.expression(expression)?;
        Ok(self.truth(term))
    }

    /// What is there where the pipeline is true.
    pub(super) fn proven(&self, pipe: &PipeNode) -> BTreeSet<Source> {
        let [command] = pipe.commands.as_slice() else { return BTreeSet::new() };
        match command.args.as_slice() {
            [alone] => self.proven_by(alone),
            [Expr::Identifier(_, name), rest @ ..] if name == "and" => {
                rest.iter().flat_map(|part| self.proven_by(part)).collect()
            }
            [Expr::Identifier(_, name), value, Expr::String(..)] if name == "eq" => self.proven_by(value),
            _ => BTreeSet::new(),
        }
    }

    fn proven_by(&self, expression: &Expr) -> BTreeSet<Source> {
        match expression {
            Expr::Pipe(_, pipe) => self.proven(pipe),
            Expr::Field(_, fields) if fields.len() == 1 && self.dot.kind == Kind::Root => {
                [Source::Input(fields[0].to_string())].into()
            }
            Expr::Variable(_, name, fields) if fields.is_empty() => self
                .scopes
                .find(name.trim_start_matches('$'))
                .map(|it| Source::Variable(it.declared))
                .into_iter()
                .collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Where an expression is written.
    pub(super) fn place(&self, expression: &Expr) -> Range<usize> {
        let start = usize::try_from(expression.pos().offset as isize + self.delta).unwrap_or(self.tag.start);
        let fields = |fields: &[SmolStr]| fields.iter().map(|field| field.len() + 1).sum::<usize>();
        let length = match expression {
            Expr::Field(_, names) => fields(names),
            Expr::Variable(_, name, names) => name.len() + fields(names),
            Expr::Identifier(_, name) => name.len(),
            Expr::Chain(_, inner, _) => match &**inner {
                Expr::Identifier(_, name) => name.len(),
                _ => 1,
            },
            _ => 1,
        };
        let end = (start + length).min(self.tag.end);
        if start < end && self.source.is_char_boundary(start) && self.source.is_char_boundary(end) {
            start..end
        } else {
            self.tag.clone()
        }
    }
}
