//! Runs a Go template: text/template's semantics on the tree that gotmpl parses.
//!
//! gotmpl could run it too, but its errors have no place, its output no origin, and its values not Go's types;
//! see [`super::value`]. A fault does not end the run: what it would have given is unknown, and nothing that
//! follows from it is said.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, Number, PipeNode, SmolStr, TemplateNode, TextNode};

use super::functions::{self, Context, Function, MAX_SIZE, Param};
use super::lexer::{Tag, operand_end};
use super::parse::{Program, tag_of};
use super::value::{Of, Value};
use super::{Fault, Settings};
use crate::diagnostics::{Source, Span};
use crate::recipe::source_map::Piece;

/// What a template may do: nodes and commands, and 64 bytes of output each.
const FUEL: u64 = 1_000_000;

/// Templates that call templates deeper than this do not end.
const MAX_DEPTH: usize = 100;

/// What came of a run.
pub(super) struct Run {
    pub(super) text: String,
    pub(super) pieces: Vec<Piece>,
    /// By [`Piece::chain`].
    pub(super) chains: Vec<Vec<Span>>,
    /// With the chain of where they are.
    pub(super) faults: Vec<(Fault, usize)>,
    /// Tags whose output is made up.
    pub(super) tainted: Vec<Range<usize>>,
}

/// Runs a program on data.
pub(super) fn run(
    program: &Program,
    source: &Arc<Source>,
    tags: &[Tag],
    data: &Value,
    settings: Settings,
    included_from: &[Span],
) -> Run {
    let mut executor = Executor {
        program,
        source,
        tags,
        context: Context { impure: settings.impure },
        strict: settings.strict,
        variables: vec![(SmolStr::new("$"), data.clone())],
        run: Run {
            text: String::new(),
            pieces: Vec::new(),
            chains: vec![included_from.to_vec()],
            faults: Vec::new(),
            tainted: Vec::new(),
        },
        said: HashSet::new(),
        chain: 0,
        depth: 0,
        fuel: FUEL,
    };
    if let Err(fault) = executor.list(&program.top, data) {
        executor.say(*fault);
    }
    executor.run
}

/// What comes after a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A value, or why there is none.
type Evaluated<T = Value> = Result<T, Box<Fault>>;

struct Executor<'a> {
    program: &'a Program,
    source: &'a Arc<Source>,
    tags: &'a [Tag],
    context: Context,
    /// Whether what has no value is an error.
    strict: bool,
    variables: Vec<(SmolStr, Value)>,
    run: Run,
    said: HashSet<(Range<usize>, String)>,
    chain: usize,
    depth: usize,
    fuel: u64,
}

impl Executor<'_> {
    /// An error here ends the run.
    fn list(&mut self, list: &ListNode, dot: &Value) -> Evaluated<Flow> {
        for node in &list.nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Evaluated<Flow> {
        match node {
            Node::Text(text) => self.text(text)?,
            Node::Action(action) => self.action(&action.pipe, dot)?,
            Node::If(branch) => return self.scoped(|it| it.if_or_with(branch, dot, false)),
            Node::With(branch) => return self.scoped(|it| it.if_or_with(branch, dot, true)),
            Node::Range(branch) => return self.scoped(|it| it.range(branch, dot)),
            Node::Template(template) => self.template(template, dot)?,
            Node::List(list) => return self.list(list, dot),
            Node::Break(_) => return Ok(Flow::Break),
            Node::Continue(_) => return Ok(Flow::Continue),
            Node::Define(_) => {}
        }
        Ok(Flow::Next)
    }

    /// Variables that are declared within are gone afterwards.
    fn scoped<T>(&mut self, within: impl FnOnce(&mut Self) -> T) -> T {
        let mark = self.variables.len();
        let result = within(self);
        self.variables.truncate(mark);
        result
    }

    fn spend(&mut self, offset: usize, amount: u64) -> Evaluated<()> {
        match self.fuel.checked_sub(amount) {
            Some(left) if self.run.text.len() <= MAX_SIZE => {
                self.fuel = left;
                Ok(())
            }
            _ => {
                let fault = Fault::new(self.tag_range(offset), "the template does too much");
                Err(Box::new(fault.hint("look for a loop that grows without end")))
            }
        }
    }

    fn text(&mut self, node: &TextNode) -> Evaluated<()> {
        let all = &self.source.text;
        // Where white space before the text was taken away, the text starts after it.
        let mut start = node.pos.offset;
        if !all[start..].starts_with(&*node.text) {
            start += all[start..].len() - all[start..].trim_start().len();
        }
        self.spend(start, 1)?;
        self.write(&node.text, start..start + node.text.len(), true);
        Ok(())
    }

    fn write(&mut self, text: &str, origin: Range<usize>, literal: bool) {
        if text.is_empty() {
            return;
        }
        let at = self.run.text.len();
        self.run.text.push_str(text);
        self.fuel = self.fuel.saturating_sub(text.len() as u64 / 64);
        let rendered = at..self.run.text.len();
        self.run.pieces.push(Piece { rendered, source: self.source.clone(), origin, literal, chain: self.chain });
    }

    fn action(&mut self, pipe: &PipeNode, dot: &Value) -> Evaluated<()> {
        self.spend(pipe.pos.offset, 1)?;
        let value = self.pipe_or_unknown(pipe, dot);
        if !pipe.decl.is_empty() {
            return Ok(());
        }
        let range = self.tag_range(pipe.pos.offset);
        if value.is_endless() {
            self.say(Fault::new(range, "this dictionary has itself in it, and cannot be printed"));
            return Ok(());
        }
        match &value {
            Value::Unknown => self.run.tainted.push(range.clone()),
            Value::Nil => {
                let written = &self.source.text[range.clone()];
                let message = format!("`{written}` has no value, and becomes `<no value>`");
                let fault = match self.strict {
                    true => Fault::new(range.clone(), message),
                    false => Fault::warning(range.clone(), message),
                };
                let name = written.strip_prefix('.').filter(|name| name.chars().all(super::lexer::is_word));
                self.say(match name {
                    Some(name) => {
                        let fault = fault.hint(format!("give it with `-t {name}:VALUE`"));
                        fault.hint(format!("or a default: `{{{{ or .{name} \"…\" }}}}`"))
                    }
                    None => fault,
                });
            }
            _ => {}
        }
        let shown = match value {
            Value::Nil => "<no value>".to_owned(),
            value => value.to_string(),
        };
        self.write(&shown, range, false);
        Ok(())
    }

    fn if_or_with(&mut self, branch: &BranchNode, dot: &Value, with: bool) -> Evaluated<Flow> {
        self.spend(branch.pos.offset, 1)?;
        let value = self.pipe_or_unknown(&branch.pipe, dot);
        if value.is_true() {
            return self.list(&branch.body, if with { &value } else { dot });
        }
        match &branch.else_body {
            Some(other) => self.list(other, dot),
            None => Ok(Flow::Next),
        }
    }

    fn range(&mut self, branch: &BranchNode, dot: &Value) -> Evaluated<Flow> {
        self.spend(branch.pos.offset, 1)?;
        let value = self.evaluate(&branch.pipe, dot).unwrap_or_else(|fault| {
            self.say(*fault);
            Value::Unknown
        });
        let items: Vec<(Value, Value)> = match &value {
            Value::List(list) => {
                list.items.iter().enumerate().map(|(index, item)| (count(index), item.clone())).collect()
            }
            Value::Map(map) => {
                map.entries.borrow().iter().map(|(key, item)| (Value::string(key), item.clone())).collect()
            }
            Value::Int(_) | Value::Int64(_) => return self.count_to(branch, &value, dot),
            Value::Nil | Value::Unknown => Vec::new(),
            other => {
                let range = self.pipe_range(&branch.pipe);
                self.say(Fault::new(range, format!("range can't iterate over {other}")));
                return Ok(Flow::Next);
            }
        };
        self.rounds(branch, items.into_iter(), dot)
    }

    fn count_to(&mut self, branch: &BranchNode, value: &Value, dot: &Value) -> Evaluated<Flow> {
        if branch.pipe.decl.len() > 1 {
            let range = self.pipe_range(&branch.pipe);
            self.say(Fault::new(range, format!("can't use {value} to iterate over more than one variable")));
            return Ok(Flow::Next);
        }
        let of_type = |index: i64| match value {
            Value::Int64(_) => Value::Int64(index),
            _ => Value::Int(index),
        };
        let items = (0..value.integer().unwrap_or(0)).map(move |index| (of_type(index), of_type(index)));
        self.rounds(branch, items, dot)
    }

    fn rounds(
        &mut self,
        branch: &BranchNode,
        items: impl Iterator<Item = (Value, Value)>,
        dot: &Value,
    ) -> Evaluated<Flow> {
        let mut any = false;
        for (index, item) in items {
            any = true;
            self.spend(branch.pos.offset, 1)?;
            let flow = self.scoped(|it| {
                let names = branch.pipe.decl.as_slice();
                let bound = match names {
                    [] => Vec::new(),
                    [only] => vec![(only, item.clone())],
                    [first, second, ..] => vec![(first, index), (second, item.clone())],
                };
                for (name, value) in bound {
                    if branch.pipe.is_assign {
                        it.assign(name, value);
                    } else {
                        it.variables.push((name.clone(), value));
                    }
                }
                it.list(&branch.body, &item)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        match &branch.else_body {
            Some(other) if !any => self.list(other, dot),
            _ => Ok(Flow::Next),
        }
    }

    fn template(&mut self, node: &TemplateNode, dot: &Value) -> Evaluated<()> {
        let offset = node.pos.offset;
        self.spend(offset, 1)?;
        let Some(body) = self.program.defines.get(node.name.as_str()) else {
            let names = self.program.defines.keys().map(String::as_str);
            let close = crate::diagnostics::suggest(&node.name, names).map(|close| format!("did you mean `{close}`?"));
            let fault = Fault::new(self.tag_range(offset), format!("template \"{}\" not defined", node.name));
            self.say(match close {
                Some(close) => fault.hint(close),
                None => fault,
            });
            return Ok(());
        };
        let data = match &node.pipe {
            Some(pipe) => self.pipe_or_unknown(pipe, dot),
            None => Value::Nil,
        };
        if self.depth >= MAX_DEPTH {
            let fault = Fault::new(self.tag_range(offset), "exceeded maximum template depth");
            return Err(Box::new(fault.hint("look for a template that calls itself")));
        }
        let tag = tag_of(self.tags, offset).map_or(offset..offset, |tag| tag.range.clone());
        let mut links = vec![Span::new(self.source, tag.start, tag.end)];
        links.extend_from_slice(&self.run.chains[self.chain]);
        self.run.chains.push(links);
        let outer_chain = std::mem::replace(&mut self.chain, self.run.chains.len() - 1);
        let outer = std::mem::replace(&mut self.variables, vec![(SmolStr::new("$"), data.clone())]);
        self.depth += 1;
        let done = self.list(body, &data);
        self.depth -= 1;
        self.variables = outer;
        self.chain = outer_chain;
        done.map(drop)
    }

    /// The value of a pipeline, which its variables get; a fault is said.
    fn pipe_or_unknown(&mut self, pipe: &PipeNode, dot: &Value) -> Value {
        let value = self.evaluate(pipe, dot).unwrap_or_else(|fault| {
            self.say(*fault);
            Value::Unknown
        });
        self.bind(pipe, &value);
        value
    }

    fn bind(&mut self, pipe: &PipeNode, value: &Value) {
        for name in &pipe.decl {
            if pipe.is_assign {
                self.assign(name, value.clone());
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
    }

    fn assign(&mut self, name: &SmolStr, value: Value) {
        if let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            slot.1 = value;
        }
    }

    fn evaluate(&mut self, pipe: &PipeNode, dot: &Value) -> Evaluated {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &CommandNode, dot: &Value, last: Option<Value>) -> Evaluated {
        self.spend(command.pos.offset, 1)?;
        let Some((first, rest)) = command.args.split_first() else { return Ok(Value::Nil) };
        match first {
            Expr::Identifier(_, name) => return self.call(first, name, rest, dot, last),
            Expr::Field(_, fields) => return self.fields(first, dot.clone(), fields, rest, dot, last),
            Expr::Variable(_, name, fields) if !fields.is_empty() => {
                return self.fields(first, self.variable(name), fields, rest, dot, last);
            }
            Expr::Chain(_, inner, fields) => {
                let value = self.operand(inner, dot)?;
                return self.fields(first, value, fields, rest, dot, last);
            }
            _ => {}
        }
        if !rest.is_empty() || last.is_some() {
            let range = self.range_of(first);
            let written = &self.source.text[range.clone()];
            return Err(Box::new(Fault::new(range.clone(), format!("can't give argument to non-function {written}"))));
        }
        match first {
            Expr::Nil(_) => Err(Box::new(Fault::new(self.range_of(first), "nil is not a command"))),
            _ => self.operand(first, dot),
        }
    }

    fn variable(&self, name: &str) -> Value {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found.map_or(Value::Unknown, |(_, value)| value.clone())
    }

    /// The value of an operand that takes no arguments.
    fn operand(&mut self, expression: &Expr, dot: &Value) -> Evaluated {
        Ok(match expression {
            Expr::Dot(_) => dot.clone(),
            Expr::Nil(_) => Value::Nil,
            Expr::Bool(_, value) => Value::Bool(*value),
            Expr::String(_, text) => Value::string(text),
            Expr::Number(_, Number::Int(value)) => Value::Int(*value),
            Expr::Number(_, Number::Float(value)) => Value::Float(*value),
            Expr::Number(_, Number::Uint(value)) => {
                return Err(Box::new(Fault::new(self.range_of(expression), format!("{value} overflows int"))));
            }
            Expr::Pipe(_, pipe) => {
                let value = self.evaluate(pipe, dot)?;
                self.bind(pipe, &value);
                value
            }
            Expr::Field(_, fields) => self.fields(expression, dot.clone(), fields, &[], dot, None)?,
            Expr::Variable(_, name, fields) => self.fields(expression, self.variable(name), fields, &[], dot, None)?,
            Expr::Identifier(_, name) => self.call(expression, name, &[], dot, None)?,
            Expr::Chain(_, inner, fields) => {
                let value = self.operand(inner, dot)?;
                self.fields(expression, value, fields, &[], dot, None)?
            }
        })
    }

    /// `.a.b`: fields of maps, and the methods of times, of which the last gets the arguments.
    fn fields(
        &mut self,
        expression: &Expr,
        from: Value,
        fields: &[SmolStr],
        rest: &[Expr],
        dot: &Value,
        last: Option<Value>,
    ) -> Evaluated {
        let mut value = from;
        let given = !rest.is_empty() || last.is_some();
        let mut of_any = false;
        for (index, field) in fields.iter().enumerate() {
            let is_last = index + 1 == fields.len();
            let was_of_any = std::mem::replace(&mut of_any, matches!(&value, Value::Map(map) if map.of == Of::Any));
            value = match &value {
                Value::Unknown => return Ok(Value::Unknown),
                Value::Nil => Value::Nil,
                Value::Map(_) if is_last && given => {
                    let message = format!("{field} is not a method but has arguments");
                    return Err(Box::new(Fault::new(self.range_of(expression), message)));
                }
                Value::Map(map) => map.get(field).unwrap_or(Value::Nil),
                Value::Time(_) => {
                    let mut arguments = Vec::new();
                    for argument in rest.iter().filter(|_| is_last) {
                        arguments.push(self.operand(argument, dot)?);
                    }
                    arguments.extend(last.clone().filter(|_| is_last));
                    match method(&value, field, &arguments) {
                        Some(value) => value,
                        None => return Err(self.no_field(expression, field, value.type_name())),
                    }
                }
                _ if was_of_any => return Err(self.no_field(expression, field, Param::Any.name())),
                other => return Err(self.no_field(expression, field, other.type_name())),
            };
        }
        Ok(value)
    }

    fn no_field(&self, expression: &Expr, field: &str, of: &str) -> Box<Fault> {
        let message = format!("can't evaluate field {field} in type {of}");
        Box::new(Fault::new(self.range_of(expression), message))
    }

    fn call(&mut self, expression: &Expr, name: &str, rest: &[Expr], dot: &Value, last: Option<Value>) -> Evaluated {
        let range = self.range_of(expression);
        let range = range.start..(range.start + name.len()).min(range.end);
        if matches!(name, "and" | "or") {
            return self.and_or(range, name, rest, dot, last);
        }
        let Some(function) = functions::find(name) else {
            return Err(Box::new(Fault::new(range, format!("function \"{name}\" not defined"))));
        };
        let count = rest.len() + usize::from(last.is_some());
        let wanted = function.params.len();
        if count < wanted || (count > wanted && function.rest.is_none()) {
            let least = if function.rest.is_some() { "at least " } else { "" };
            let message = format!("wrong number of args for {name}: want {least}{wanted} got {count}");
            return Err(Box::new(Fault::new(range, message)));
        }
        if let Some(instead) = function.deprecated {
            self.say(Fault::warning(range.clone(), format!("`{name}` is deprecated")).hint(instead));
        }
        let mut given = Vec::with_capacity(count);
        for (index, argument) in rest.iter().enumerate() {
            given.push(self.argument(argument, param(function, index), dot)?);
        }
        if let Some(last) = last {
            given.push(
                fitting(last, param(function, rest.len())).map_err(|why| Box::new(Fault::new(range.clone(), why)))?,
            );
        }
        if given.iter().any(Value::is_unknown) {
            return Ok(Value::Unknown);
        }
        (function.run)(self.context, &given).map_err(|error| Box::new(failed(name, range, error)))
    }

    fn and_or(
        &mut self,
        range: Range<usize>,
        name: &str,
        rest: &[Expr],
        dot: &Value,
        last: Option<Value>,
    ) -> Evaluated {
        if rest.is_empty() && last.is_none() {
            return Err(Box::new(Fault::new(range, format!("wrong number of args for {name}: want at least 1 got 0"))));
        }
        let mut value = Value::Nil;
        for argument in rest {
            value = self.operand(argument, dot)?;
            if value.is_unknown() || value.is_true() == (name == "or") {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// An argument, of the type that the parameter has.
    fn argument(&mut self, expression: &Expr, param: Param, dot: &Value) -> Evaluated {
        let range = self.range_of(expression);
        let written = &self.source.text[range.clone()];
        let fault = |message: String| Err(Box::new(Fault::new(range.clone(), message)));
        let expected = |wanted: &str| fault(format!("expected {wanted}; found {written}"));
        match (expression, param) {
            (Expr::Nil(_), Param::Any | Param::Dict) => Ok(Value::Nil),
            (Expr::Nil(_), _) => fault(format!("cannot assign nil to {}", param.name())),
            (Expr::Number(_, Number::Float(value)), Param::Int) if value.fract() == 0.0 && value.abs() < 9e15 => {
                #[allow(clippy::cast_possible_truncation)] // It is whole, and not as large.
                Ok(Value::Int(*value as i64))
            }
            #[allow(clippy::cast_precision_loss)] // As Go converts.
            (Expr::Number(_, Number::Int(value)), Param::Float) => Ok(Value::Float(*value as f64)),
            (Expr::Number(_, Number::Int(_)), Param::Int)
            | (Expr::Number(_, Number::Float(_)), Param::Float)
            | (Expr::String(..), Param::String)
            | (Expr::Bool(..), Param::Bool)
            | (Expr::Number(..) | Expr::String(..) | Expr::Bool(..), Param::Any) => self.operand(expression, dot),
            (Expr::Number(..) | Expr::Bool(..), Param::String) => expected("string"),
            (Expr::Number(..) | Expr::String(..) | Expr::Bool(..), Param::Int) => expected("integer"),
            (Expr::Number(..) | Expr::String(..) | Expr::Bool(..), Param::Float) => expected("float"),
            (Expr::Number(..) | Expr::String(..), Param::Bool) => expected("bool"),
            (Expr::Number(..) | Expr::String(..) | Expr::Bool(..), _) => {
                fault(format!("can't handle {written} for arg of type {}", param.name()))
            }
            _ => {
                let value = self.operand(expression, dot)?;
                let missing = matches!(value, Value::Nil);
                let unset = written.strip_prefix('.').filter(|name| name.chars().all(super::lexer::is_word));
                fitting(value, param).map_err(|why| {
                    let fault = Fault::new(range.clone(), why);
                    Box::new(match unset {
                        Some(name) if missing => fault.hint(format!("give it with `-t {name}:VALUE`")),
                        _ => fault,
                    })
                })
            }
        }
    }

    /// Adds a fault once: a loop says the same again.
    fn say(&mut self, fault: Fault) {
        if self.said.insert((fault.range.clone(), fault.message.clone())) {
            self.run.faults.push((fault, self.chain));
        }
    }

    /// What stands in the tag around a byte.
    fn tag_range(&self, offset: usize) -> Range<usize> {
        tag_of(self.tags, offset).map_or(offset..offset, |tag| tag.inner.clone())
    }

    /// A pipeline without the variables it declares.
    fn pipe_range(&self, pipe: &PipeNode) -> Range<usize> {
        let start = pipe.commands.first().map_or(pipe.pos.offset, |command| command.pos.offset);
        let end = self.tag_range(start).end;
        start..end.max(start)
    }

    fn range_of(&self, expression: &Expr) -> Range<usize> {
        let start = expression.pos().offset;
        start..operand_end(&self.source.text, start)
    }
}

fn count(index: usize) -> Value {
    Value::Int(i64::try_from(index).unwrap_or(i64::MAX))
}

fn param(function: &Function, index: usize) -> Param {
    function.params.get(index).copied().or(function.rest).unwrap_or(Param::Any)
}

/// A value for a parameter; else why Go refuses it.
fn fitting(value: Value, param: Param) -> Result<Value, String> {
    let fits = match (&value, param) {
        (Value::Unknown, _) | (_, Param::Any) => true,
        (Value::Nil, Param::Dict) => true,
        (Value::Nil, _) => return Err(format!("invalid value; expected {}", param.name())),
        (Value::String(_), Param::String)
        | (Value::Int(_), Param::Int)
        | (Value::Float(_), Param::Float)
        | (Value::Bool(_), Param::Bool)
        | (Value::Time(_), Param::Time) => true,
        (Value::Map(map), Param::Dict) => map.of != Of::String,
        _ => false,
    };
    if fits {
        return Ok(value);
    }
    Err(format!("wrong type for value; expected {}; got {}", param.name(), value.type_name()))
}

/// A fault of a function, at its name.
fn failed(name: &str, range: Range<usize>, error: functions::Error) -> Fault {
    match error {
        functions::Error::Failed(message) => Fault::new(range, format!("error calling {name}: {message}")),
        functions::Error::Author(message) => Fault::new(range, message),
        functions::Error::Impure => {
            let fault =
                Fault::new(range, format!("`{name}` would give another value on another day or another machine"));
            fault
                .hint("give the value from outside: `-t name:value`, and `.name` here")
                .hint("or allow it with `--impure`: then the same recipe may build something else tomorrow")
        }
    }
}

/// The methods of times that templates call.
fn method(value: &Value, name: &str, given: &[Value]) -> Option<Value> {
    let Value::Time(time) = value else { return None };
    match (name, given) {
        ("Format", [Value::String(layout)]) => Some(Value::string(super::time::format(time, layout))),
        ("String", []) => Some(Value::string(super::time::shown(time))),
        ("Unix", []) => Some(Value::Int64(time.timestamp().as_second())),
        ("UTC", []) => Some(Value::Time(Box::new(time.with_time_zone(jiff::tz::TimeZone::UTC)))),
        ("Year", []) => Some(Value::Int(i64::from(time.year()))),
        ("Month", []) => Some(Value::Month(time.month())),
        ("Day", []) => Some(Value::Int(i64::from(time.day()))),
        ("YearDay", []) => Some(Value::Int(i64::from(time.day_of_year()))),
        ("Hour", []) => Some(Value::Int(i64::from(time.hour()))),
        ("Minute", []) => Some(Value::Int(i64::from(time.minute()))),
        ("Second", []) => Some(Value::Int(i64::from(time.second()))),
        _ => None,
    }
}
