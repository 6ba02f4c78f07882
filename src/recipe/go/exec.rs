//! Runs a Go template: text/template's semantics on the tree that gotmpl parses.
//!
//! gotmpl could run it too, but its errors have no place, its output no origin, and its values not Go's types;
//! see [`super::value`]. A fault does not end the run: what it would have given is unknown, and nothing that
//! follows from it is said.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use gotmpl::parse::{BranchNode, Expr, ListNode, Node, PipeNode, SmolStr, TemplateNode, TextNode};

use super::eval::Evaluated;
use super::functions::{Context, MAX_SIZE};
use super::lexer::{Tag, operand_end};
use super::parse::{Program, tag_of};
use super::value::Value;
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

/// A template on its way.
pub(super) struct Executor<'a> {
    program: &'a Program,
    pub(super) source: &'a Arc<Source>,
    tags: &'a [Tag],
    pub(super) context: Context,
    /// Whether what has no value is an error.
    strict: bool,
    pub(super) variables: Vec<(SmolStr, Value)>,
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

    pub(super) fn spend(&mut self, offset: usize, amount: u64) -> Evaluated<()> {
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

    /// Adds a fault once: a loop says the same again.
    pub(super) fn say(&mut self, fault: Fault) {
        if self.said.insert((fault.range.clone(), fault.message.clone())) {
            self.run.faults.push((fault, self.chain));
        }
    }

    /// What stands in the tag around a byte.
    pub(super) fn tag_range(&self, offset: usize) -> Range<usize> {
        tag_of(self.tags, offset).map_or(offset..offset, |tag| tag.inner.clone())
    }

    /// A pipeline without the variables it declares.
    fn pipe_range(&self, pipe: &PipeNode) -> Range<usize> {
        let start = pipe.commands.first().map_or(pipe.pos.offset, |command| command.pos.offset);
        let end = self.tag_range(start).end;
        start..end.max(start)
    }

    pub(super) fn range_of(&self, expression: &Expr) -> Range<usize> {
        let start = expression.pos().offset;
        start..operand_end(&self.source.text, start)
    }
}

fn count(index: usize) -> Value {
    Value::Int(i64::try_from(index).unwrap_or(i64::MAX))
}
