//! A Go template as a tree, or all that keeps it from being one.
//!
//! gotmpl's parser reads tags. Blocks that are not closed, or were never opened, it passes over; so the tags are
//! first looked at as brackets, and each for itself, which finds every fault instead of the first.

use std::collections::{BTreeMap, BTreeSet};

use gotmpl::TemplateError;
use gotmpl::parse::{BranchNode, CommandNode, Expr, ListNode, Node, Parser, PipeNode, SmolStr, TemplateNode};

use super::lexer::{Tag, operand_end};
use super::{Fault, functions};
use crate::diagnostics::suggest;

/// A template ready to be run.
pub(super) struct Program {
    pub(super) top: ListNode,
    /// What `define` and `block` name.
    pub(super) defines: BTreeMap<String, ListNode>,
    /// Names of the fields that it asks for.
    pub(super) fields: BTreeSet<String>,
    /// Whether all data is handed to something, which may ask for any of it.
    pub(super) uses_all: bool,
}

/// Reads a template, whose tags are known. Without a program there are faults.
pub(super) fn parse(text: &str, tags: &[Tag], faults: &mut Vec<Fault>) -> Option<Program> {
    let before = faults.len();
    blocks(text, tags, faults);
    unclosed(text, tags, faults);
    let broken = faults.len() > before;
    for tag in tags.iter().filter(|tag| !tag.comment) {
        match alone(text, tag) {
            Ok(Some((list, shift))) if broken => Names::new(text, faults, shift).functions_alone(&list),
            Ok(_) => {}
            Err(fault) => faults.push(fault),
        }
    }
    if faults.len() > before {
        faults[before..].sort_by_key(|fault| fault.range.start);
        return None;
    }
    let parsed = Parser::new(&without_comments(text, tags), "{{", "}}").and_then(Parser::parse);
    let (top, defined) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            faults.push(whole_fault(text, tags, &error));
            return None;
        }
    };
    let mut defines: BTreeMap<String, ListNode> = BTreeMap::new();
    for define in defined {
        let name = define.name.to_string();
        let empty = define.body.is_empty_tree();
        match defines.get(&name) {
            Some(earlier) if !earlier.is_empty_tree() && !empty => {
                let range = tag_of(tags, define.pos.offset)
                    .map_or(define.pos.offset..define.pos.offset, |tag| tag.inner.clone());
                faults.push(Fault::new(range, format!("multiple definition of template \"{name}\"")));
            }
            Some(_) if empty => {}
            _ => {
                defines.insert(name, define.body);
            }
        }
    }
    let mut names = Names::new(text, faults, 0);
    names.body(&top);
    for body in defines.values() {
        names.inner = 1;
        names.body(body);
    }
    let Names { fields, uses_all, .. } = names;
    (faults.len() == before).then_some(Program { top, defines, fields, uses_all })
}

/// The text with tags in the place of its comments that print nothing, and are as long. gotmpl takes white space
/// away after `{{- /* … */}}`, which Go does only before it.
fn without_comments(text: &str, tags: &[Tag]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for tag in tags.iter().filter(|tag| tag.comment) {
        out.push_str(&text[at..tag.inner.start]);
        let mut blank = text[tag.inner.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
        // A comment has four signs at least.
        out.push_str("\"\"");
        out.extend(blank.by_ref().skip(2));
        at = tag.inner.end;
    }
    out + &text[at..]
}

/// The tag that a byte stands in.
pub(super) fn tag_of(tags: &[Tag], offset: usize) -> Option<&Tag> {
    let after = tags.partition_point(|tag| tag.range.start <= offset);
    tags.get(after.checked_sub(1)?).filter(|tag| offset < tag.range.end)
}

/// Checks that what is opened is closed, and the other way round.
fn blocks(text: &str, tags: &[Tag], faults: &mut Vec<Fault>) {
    struct Open<'t> {
        word: &'t str,
        tag: &'t Tag,
        has_else: bool,
    }
    let mut open: Vec<Open> = Vec::new();
    for tag in tags.iter().filter(|tag| !tag.comment) {
        let fault = |message: String| Fault::new(tag.inner.clone(), message);
        match tag.word(text) {
            word @ ("define" | "block" | "if" | "range" | "with") => {
                if word == "define"
                    && let Some(outer) = open.last()
                {
                    faults.push(fault(format!("unexpected {{{{define}}}} inside of `{}`", outer.word)));
                }
                open.push(Open { word, tag, has_else: false });
            }
            "else" => match open.last_mut() {
                None => faults
                    .push(fault("unexpected {{else}}".into()).hint("there is no `if`, `range` or `with` before it")),
                Some(outer) if matches!(outer.word, "define" | "block") => {
                    faults.push(fault(format!("unexpected {{{{else}}}} in `{}`", outer.word)));
                }
                Some(outer) if outer.has_else => {
                    faults.push(fault("expected end; found {{else}}".into()).hint("this block has its `else` already"));
                }
                Some(outer) => outer.has_else = tag.text(text).trim() == "else",
            },
            "end" if open.pop().is_none() => {
                faults.push(fault("unexpected {{end}}".into()).hint("nothing is open that it could close"));
            }
            word @ ("break" | "continue") => {
                let inside =
                    open.iter().rev().take_while(|outer| outer.word != "define").any(|outer| outer.word == "range");
                if !inside {
                    faults.push(fault(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
            }
            _ => {}
        }
    }
    for outer in open {
        let fault = Fault::new(outer.tag.inner.clone(), "unexpected EOF");
        faults.push(fault.label(format!("this `{}` has no `{{{{ end }}}}`", outer.word)));
    }
}

/// A tag that the text ends in.
fn unclosed(text: &str, tags: &[Tag], faults: &mut Vec<Fault>) {
    let after = tags.last().map_or(0, |tag| tag.range.end);
    let Some(start) = text[after..].find("{{").map(|found| after + found) else { return };
    let end = start + text[start..].lines().next().map_or(2, |line| line.trim_end().len());
    let body = text[start + 2..].trim_start_matches('-').trim_start();
    let message = if body.starts_with("/*") {
        "unclosed comment".to_owned()
    } else {
        match Parser::new(&text[start..], "{{", "}}") {
            Err(TemplateError::Lex { message, .. } | TemplateError::Parse { message, .. }) => in_go_words(&message, ""),
            _ => "unclosed action".to_owned(),
        }
    };
    let message = match message {
        message if message.contains("string") || message.contains("comment") || message.contains("character") => {
            message
        }
        _ => "unclosed action".into(),
    };
    faults.push(Fault::new(start..end, message).hint("a tag ends with `}}`, and a text in quotes on its own line"));
}

/// A tag by itself: its tree, if it has one, and how far its places are from those in the text; or what is wrong
/// inside of it.
fn alone(text: &str, tag: &Tag) -> Result<Option<(ListNode, usize)>, Fault> {
    let inner = tag.text(text);
    let (before, body, after) = match tag.word(text) {
        word @ ("end" | "else" | "break" | "continue") => {
            let rest = inner[word.len()..].trim();
            if rest.is_empty() {
                return Ok(None);
            }
            let chained = rest.starts_with("if ") || rest.starts_with("with ") || matches!(rest, "if" | "with");
            if word != "else" || !chained {
                let start = tag.inner.end - rest.len();
                let end = operand_end(text, start).max(start + 1).min(tag.inner.end);
                return Err(Fault::new(start..end, format!("unexpected \"{}\" in {word}", &text[start..end])));
            }
            ("{{", rest, "}}{{end}}")
        }
        "if" | "range" | "with" | "define" | "block" => ("{{", inner, "}}{{end}}"),
        _ => ("{{", inner, "}}"),
    };
    if inner.is_empty() {
        return Err(Fault::new(tag.range.clone(), "missing value for command"));
    }
    // White space keeps a sign before the delimiter from being taken for part of it.
    let alone = format!("{before} {body} {after}");
    let (start, skipped) = (tag.inner.end - body.len(), before.len() + 1);
    let error = match Parser::new(&alone, "{{", "}}").and_then(Parser::parse) {
        Ok((list, _)) => return Ok(Some((list, start.saturating_sub(skipped)))),
        Err(error) => error,
    };
    let mut fault = placed(text, &error, &alone, start, skipped, tag);
    let opens = matches!(tag.word(text), "if" | "range" | "with");
    if opens && body == tag.word(text) {
        fault.message = format!("missing value for {body}");
    }
    Err(fault)
}

/// A parser's error at its place, where its text started `skipped` bytes before the byte `start` of the whole.
fn placed(text: &str, error: &TemplateError, read: &str, start: usize, skipped: usize, tag: &Tag) -> Fault {
    let (line, column, message) = match error {
        TemplateError::Parse { line, col, message, .. } | TemplateError::Lex { line, col, message, .. } => {
            (*line, *col, message.clone())
        }
        other => (1, 1, other.to_string()),
    };
    let offset = byte_of(read, line, column).saturating_sub(skipped);
    let at = (start + offset).clamp(tag.inner.start, tag.inner.end);
    let mut end = operand_end(text, at).min(tag.inner.end);
    if end <= at {
        end = at + text[at..].chars().next().map_or(0, char::len_utf8);
    }
    let range = if at >= tag.inner.end { tag.inner.clone() } else { at..end.min(tag.range.end) };
    Fault::new(range.clone(), in_go_words(&message, &text[range]))
}

/// gotmpl's messages as Go has them.
fn in_go_words(message: &str, at: &str) -> String {
    if message == "empty command" {
        return "missing value for command".into();
    }
    if message.starts_with("expected closing delimiter") || message.starts_with("unexpected token") {
        return format!("unexpected \"{at}\" in operand");
    }
    if message.starts_with("expected RightParen") {
        return "unclosed left paren".into();
    }
    if message.starts_with("cannot assign") {
        return "too many declarations in command".into();
    }
    match message {
        "unterminated string" => return "unterminated quoted string".into(),
        "unterminated character literal" => return "malformed character constant".into(),
        _ => {}
    }
    message.to_owned()
}

fn whole_fault(text: &str, tags: &[Tag], error: &TemplateError) -> Fault {
    let (TemplateError::Parse { line, col, message, .. } | TemplateError::Lex { line, col, message, .. }) = error
    else {
        return Fault::new(0..0, error.to_string());
    };
    let at = byte_of(text, *line, *col);
    let range = tag_of(tags, at).map_or(at..at, |tag| tag.inner.clone());
    Fault::new(range, in_go_words(message, ""))
}

/// The byte of a line and a column, both counted from 1, the column in characters.
fn byte_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start.min(text.len())..];
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}

/// Walks the tree for names that nothing has.
struct Names<'a> {
    text: &'a str,
    faults: &'a mut Vec<Fault>,
    /// Variables in sight, without `$` itself.
    scope: Vec<SmolStr>,
    fields: BTreeSet<String>,
    uses_all: bool,
    /// How many blocks deep where `.` is something else than all data.
    inner: usize,
    /// What is added to a place of the tree.
    shift: usize,
    /// Whether variables are passed over, because what declares them is not seen.
    blind: bool,
}

impl<'a> Names<'a> {
    fn new(text: &'a str, faults: &'a mut Vec<Fault>, shift: usize) -> Self {
        let (scope, fields) = (Vec::new(), BTreeSet::new());
        Self { text, faults, scope, fields, uses_all: false, inner: 0, shift, blind: false }
    }

    /// Looks at the functions of one tag.
    fn functions_alone(mut self, list: &ListNode) {
        self.blind = true;
        self.list(list);
    }

    /// A template of its own, which sees no other's variables.
    fn body(&mut self, list: &ListNode) {
        self.scope.clear();
        self.list(list);
    }

    fn list(&mut self, list: &ListNode) {
        for node in &list.nodes {
            match node {
                Node::List(list) => self.list(list),
                Node::Action(action) => self.pipe(&action.pipe),
                Node::If(branch) => self.branch(branch, 0),
                Node::With(branch) | Node::Range(branch) => self.branch(branch, 1),
                Node::Template(TemplateNode { pipe: Some(pipe), .. }) => self.pipe(pipe),
                Node::Template(_) | Node::Text(_) | Node::Define(_) | Node::Break(_) | Node::Continue(_) => {}
            }
        }
    }

    fn branch(&mut self, branch: &BranchNode, inner: usize) {
        let mark = self.scope.len();
        self.pipe(&branch.pipe);
        let declared = self.scope.len();
        self.inner += inner;
        self.list(&branch.body);
        self.inner -= inner;
        if let Some(other) = &branch.else_body {
            self.scope.truncate(declared);
            self.list(other);
        }
        self.scope.truncate(mark);
    }

    fn pipe(&mut self, pipe: &PipeNode) {
        for (index, command) in pipe.commands.iter().enumerate() {
            self.command(command);
            let value = matches!(
                command.args.first(),
                Some(Expr::Dot(_) | Expr::Nil(_) | Expr::Bool(..) | Expr::Number(..) | Expr::String(..))
            );
            if index > 0 && value {
                let start = command.pos.offset + self.shift;
                let message = format!("non executable command in pipeline stage {}", index + 1);
                self.faults.push(Fault::new(start..operand_end(self.text, start), message));
            }
        }
        for name in &pipe.decl {
            if !pipe.is_assign {
                self.scope.push(name.clone());
            } else if !self.scope.contains(name) {
                self.undefined_variable(pipe.pos.offset, name);
            }
        }
    }

    fn command(&mut self, command: &CommandNode) {
        for expression in &command.args {
            self.expression(expression);
        }
    }

    fn expression(&mut self, expression: &Expr) {
        match expression {
            Expr::Dot(_) if self.inner == 0 => self.uses_all = true,
            Expr::Field(_, fields) => self.fields.extend(fields.first().map(ToString::to_string)),
            Expr::Variable(_, name, fields) if name == "$" => match fields.first() {
                Some(field) => {
                    self.fields.insert(field.to_string());
                }
                None => self.uses_all = true,
            },
            Expr::Variable(pos, name, _) if !self.scope.contains(name) => self.undefined_variable(pos.offset, name),
            Expr::Identifier(pos, name) => self.function(pos.offset, name),
            Expr::Pipe(_, pipe) => self.pipe(pipe),
            Expr::Chain(_, inner, _) => self.expression(inner),
            _ => {}
        }
    }

    fn undefined_variable(&mut self, offset: usize, name: &str) {
        if self.blind {
            return;
        }
        let start = self.text[offset..].find(name).map_or(offset, |found| offset + found);
        let close = suggest(name, self.scope.iter().map(SmolStr::as_str)).map(str::to_owned);
        let mut fault = Fault::new(start..start + name.len(), format!("undefined variable \"{name}\""));
        if let Some(close) = close {
            fault = fault.hint(format!("did you mean `{close}`?"));
        } else if let Some(bare) = name.strip_prefix('$') {
            fault = fault.hint(format!("what `-t {bare}:VALUE` gives is `.{bare}`; `{name} := …` declares a variable"));
        }
        self.faults.push(fault);
    }

    fn function(&mut self, offset: usize, name: &str) {
        if functions::find(name).is_some() || matches!(name, "and" | "or") {
            return;
        }
        let offset = offset + self.shift;
        let mut fault = Fault::new(offset..offset + name.len(), format!("function \"{name}\" not defined"));
        if functions::is_of_sprig(name) {
            fault = fault.hint("sprig has it, but slim-sprig, which debos uses, has not");
        } else if let Some(close) = suggest(name, functions::names()) {
            fault = fault.hint(format!("did you mean `{close}`?"));
        } else {
            fault = fault.hint(format!("a variable of `-t` is `.{name}` in a Go template"));
        }
        self.faults.push(fault);
    }
}
