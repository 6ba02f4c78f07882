//! What the tags of a Go template become: settings, conditions, loops, macros.

use gotmpl::parse::{CommandNode, Expr};

use super::jinja::Jinja;
use super::kinds::Kind;
use super::pipeline::{Result, Source, Term, Untranslatable};
use super::scope::Boundary;
use super::tags::{Pipe, Tag, TagKind};
use super::writer::{BlockKind, Outside, Writer, Written};

fn statement(text: impl Into<String>) -> Written {
    Written::Statement(text.into())
}

impl Writer<'_> {
    /// The tags that one tag becomes.
    pub(super) fn translated(&mut self, tag: &Tag) -> Result<Vec<Written>> {
        match &tag.kind {
            TagKind::Comment(_) => Ok(Vec::new()),
            TagKind::Action(pipe) => self.action(pipe),
            TagKind::If(pipe) => self.condition_block(pipe, false),
            TagKind::With(pipe) => self.condition_block(pipe, true),
            TagKind::ElseIf(pipe) => self.else_block(pipe, false),
            TagKind::ElseWith(pipe) => self.else_block(pipe, true),
            TagKind::Range(pipe) => self.range(pipe),
            TagKind::Else => {
                self.restart();
                Ok(vec![statement("else")])
            }
            TagKind::End => Ok(self.end()),
            TagKind::Define(name) => self.define(name, None),
            TagKind::Block(name, pipe) => {
                let call = self.template(name, pipe.as_ref())?;
                self.define(name, Some(call))
            }
            TagKind::Template(name, pipe) => Ok(vec![Written::Expression(self.template(name, pipe.as_ref())?)]),
            TagKind::Break => self.jump("break"),
            TagKind::Continue => self.jump("continue"),
            TagKind::Bad(why) => Err(Untranslatable::new(tag.range.clone(), why.clone())),
        }
    }

    /// Where a pipeline begins, by which its variables are told apart.
    fn place_of(&mut self, pipe: &Pipe) -> usize {
        self.delta = pipe.delta;
        usize::try_from(pipe.node.pos.offset as isize + pipe.delta).unwrap_or(self.tag.start)
    }

    fn action(&mut self, pipe: &Pipe) -> Result<Vec<Written>> {
        let declared = self.place_of(pipe);
        let Some(name) = pipe.node.decl.first() else {
            let term = self.pipeline(&pipe.node)?;
            if let Kind::Root | Kind::List(_) | Kind::Parts | Kind::Map(_) | Kind::OpenMap | Kind::Float = term.kind {
                let why = format!("this prints {}, which Jinja writes in another way", term.kind.called());
                return Err(Untranslatable::new(self.tag.clone(), why).hint(match term.kind {
                    Kind::List(_) => "say how: `{{ join \" \" … }}`",
                    Kind::Float => "say how: `{{ printf \"%.2f\" … }}`",
                    _ => "print what is in it",
                }));
            }
            let jinja = self.text(term);
            if let (Jinja::Text(text), [CommandNode { args, .. }]) = (&jinja, pipe.node.commands.as_slice())
                && matches!(args.first(), Some(Expr::Identifier(_, function)) if function == "sector")
            {
                // debos has a function for what can be written down.
                return Ok(vec![Written::Plain(text.clone())]);
            }
            return Ok(vec![Written::Expression(jinja.written())]);
        };
        if let [CommandNode { args, .. }] = pipe.node.commands.as_slice()
            && let [Expr::Identifier(_, function), map, key, value] = args.as_slice()
            && function == "set"
        {
            return self.set_in_map(name, map, key, value);
        }
        let term = self.pipeline(&pipe.node)?;
        let name = name.trim_start_matches('$');
        if pipe.node.is_assign { self.assign(name, term) } else { self.declare(name, declared, term) }
    }

    /// `{{ $_ := set $map "key" value }}`.
    fn set_in_map(&mut self, result: &str, map: &Expr, key: &Expr, value: &Expr) -> Result<Vec<Written>> {
        let at = self.place(map);
        match map {
            Expr::Variable(_, name, fields) if fields.is_empty() && (result == "$_" || result == name) => {
                let (map, key, value) = (self.expression(map)?, self.expression(key)?, self.expression(value)?);
                let changed = self.changed_map(map, &key, value, at)?;
                self.assign(name.trim_start_matches('$'), changed)
            }
            _ => Err(Untranslatable::new(at, "`set` changes a map that has more than one name here")
                .hint("`{{ $_ := set $map \"key\" value }}` can be translated")),
        }
    }

    fn declare(&mut self, name: &str, declared: usize, term: Term) -> Result<Vec<Written>> {
        if term.kind == Kind::Root {
            return Err(Untranslatable::new(term.at, "Jinja has no name for all variables at once")
                .hint("read each where it is needed: `$.name` is `.name` at the top of the recipe"));
        }
        let chosen = self.scopes.declare(name, declared, self.tag.end, self.before);
        let known = self.before.variables.get(&declared).cloned().unwrap_or_default();
        let value = self.noted(declared, term);
        if known.assigned_in_loop {
            return Ok(vec![statement(format!("set {chosen} = namespace(value={})", value.written()))]);
        }
        if value == Jinja::name(chosen.as_str()) {
            // It has that name already.
            return Ok(vec![Written::Comment(format!("given: {chosen}"))]);
        }
        Ok(vec![statement(format!("set {chosen} = {}", value.written()))])
    }

    fn assign(&mut self, name: &str, term: Term) -> Result<Vec<Written>> {
        let Some(found) = self.scopes.find(name) else {
            return Err(Untranslatable::new(self.tag.clone(), format!("`${name}` is not declared"))
                .hint("debos stops here, too"));
        };
        let known = self.before.variables.get(&found.declared).cloned().unwrap_or_default();
        let value = self.noted(found.declared, term).written();
        let facts = self.facts.variables.entry(found.declared).or_default();
        facts.assigned = true;
        facts.assigned_in_loop |= found.through_loop;
        let name = found.name;
        let target = if known.assigned_in_loop { format!("{name}.value") } else { name };
        Ok(vec![statement(format!("set {target} = {value}"))])
    }

    /// Notes what a variable is set to, and gives the value as it is to be written.
    fn noted(&mut self, declared: usize, term: Term) -> Jinja {
        let defaulted = self.before.variables.get(&declared).is_some_and(|known| known.defaulted());
        let facts = self.facts.variables.entry(declared).or_default();
        facts.kind = std::mem::replace(&mut facts.kind, Kind::Nothing).join(term.kind);
        facts.optional |= term.optional;
        facts.inputs.extend(term.inputs);
        // What is missing in what another variable is set to is missing there, too.
        if let (true, Some(Source::Variable(other))) = (term.optional, &term.source)
            && self.before.variables.get(&declared).is_some_and(|known| known.absence_matters)
        {
            self.facts.variables.entry(*other).or_default().absence_matters = true;
        }
        if term.missing && defaulted { term.jinja.filter("default", [Jinja::text("")]) } else { term.jinja }
    }

    fn condition_block(&mut self, pipe: &Pipe, with: bool) -> Result<Vec<Written>> {
        let declared = self.place_of(pipe);
        let opened = self.asked_for(pipe, with)?;
        self.open_block(BlockKind::If, Boundary::None);
        let (mut written, condition) = self.named_condition(pipe, declared, opened)?;
        written.push(statement(format!("if {}", condition.written_whole())));
        Ok(written)
    }

    fn else_block(&mut self, pipe: &Pipe, with: bool) -> Result<Vec<Written>> {
        let declared = self.place_of(pipe);
        self.restart();
        let opened = self.asked_for(pipe, with)?;
        let (settings, condition) = self.named_condition(pipe, declared, opened)?;
        if settings.is_empty() {
            return Ok(vec![statement(format!("elif {}", condition.written_whole()))]);
        }
        if let Some(block) = self.open.last_mut() {
            block.more_ends += 1;
        }
        let mut written = vec![statement("else")];
        written.extend(settings);
        written.push(statement(format!("if {}", condition.written_whole())));
        Ok(written)
    }

    /// What a condition asks, before its block is open.
    fn asked_for(&mut self, pipe: &Pipe, with: bool) -> Result<Asked> {
        if pipe.node.decl.is_empty() && !with {
            let proven = self.proven(&pipe.node);
            return Ok(Asked::Condition(self.condition(&pipe.node)?, proven));
        }
        let term = self.pipeline(&pipe.node)?;
        if term.kind == Kind::Root {
            return Err(Untranslatable::new(term.at, "all variables at once are no condition"));
        }
        Ok(Asked::Value(term, with))
    }

    /// What has to be set before a condition, and the condition; its block is open.
    fn named_condition(&mut self, pipe: &Pipe, declared: usize, asked: Asked) -> Result<(Vec<Written>, Jinja)> {
        let (term, with) = match asked {
            Asked::Condition(condition, proven) => {
                if let Some(known) = self.known.last_mut() {
                    known.extend(proven);
                }
                return Ok((Vec::new(), condition));
            }
            Asked::Value(term, with) => (term, with),
        };
        let there = Term { optional: false, missing: false, ..term.clone() };
        let (settings, condition, value) = match pipe.node.decl.first() {
            Some(name) => {
                let name = name.trim_start_matches('$');
                let settings = self.declare(name, declared, term)?;
                let value = self.declared_here(name, &there);
                (settings, self.truth(value.clone()), value)
            }
            None if is_path(&term.jinja) => (Vec::new(), self.truth(term), there),
            None => {
                let name = self.scopes.fresh("it");
                let set = if term.missing { self.truth(term) } else { term.jinja };
                let value = Term { jinja: Jinja::name(name.as_str()), source: None, ..there };
                (vec![statement(format!("set {name} = {}", set.written()))], value.jinja.clone(), value)
            }
        };
        if let Some(known) = self.known.last_mut() {
            known.extend(value.source.clone());
        }
        if with {
            self.dot = Term { optional: false, missing: false, ..value };
        }
        Ok((settings, condition))
    }

    /// The variable that was just declared, as it is read.
    fn declared_here(&mut self, name: &str, value: &Term) -> Term {
        let Some(found) = self.scopes.find(name) else { return value.clone() };
        let known = self.before.variables.get(&found.declared).cloned().unwrap_or_default();
        let jinja = Jinja::name(found.name);
        Term {
            jinja: if known.assigned_in_loop { jinja.under("value") } else { jinja },
            optional: known.optional,
            missing: known.optional && !known.defaulted(),
            source: Some(Source::Variable(found.declared)),
            ..value.clone()
        }
    }

    fn range(&mut self, pipe: &Pipe) -> Result<Vec<Written>> {
        let declared = self.place_of(pipe);
        if pipe.node.is_assign {
            return Err(Untranslatable::new(self.tag.clone(), "a loop that sets variables of the template")
                .hint("declare them for the loop: `range $item := …`"));
        }
        let term = self.pipeline(&pipe.node)?;
        let over = Over::of(&term).ok_or_else(|| {
            let fault = Untranslatable::new(term.at.clone(), format!("a loop over {}", term.kind.called()));
            match (&term.kind, &term.source) {
                (Kind::Text, Some(Source::Input(name))) => fault.hint(format!(
                    "debos stops here, too, where `{name}` is given; `range split \" \" .{name}` takes it apart"
                )),
                (Kind::Text | Kind::Bool, _) => fault.hint("debos stops here, too"),
                _ => fault.hint("whether this is a list or a map is not seen from here"),
            }
        })?;
        if over == Over::Parts && pipe.node.decl.len() > 1 {
            return Err(Untranslatable::new(self.tag.clone(), "`split` with the keys `_0`, `_1`, …")
                .hint("`splitList` counts from 0"));
        }
        if over == Over::Parts {
            let note = "debos takes more than ten parts of `split` in another order: `_10` comes before `_2`";
            self.note(term.at.clone(), note);
        }
        let optional = term.missing;
        let element = over.element(&term.kind);
        let iterated = match over {
            Over::Number => Jinja::Call("range".into(), vec![self.text(term)]),
            Over::Map => {
                let exact = Jinja::Named("case_sensitive".into(), Box::new(Jinja::Bool(true)));
                let map = if optional {
                    term.jinja.filter("default", [Jinja::Map(super::jinja::Items::plain([]))])
                } else {
                    term.jinja
                };
                map.filter("dictsort", [exact])
            }
            Over::List | Over::Parts if optional => term.jinja.filter("default", [Jinja::list([])]),
            Over::List | Over::Parts => term.jinja,
        };
        self.open_block(BlockKind::Loop, Boundary::Loop);
        let names: Vec<&str> = pipe.node.decl.iter().map(|name| name.trim_start_matches('$')).collect();
        let (index, value) = match names[..] {
            [index, value] => (Some(index), Some(value)),
            [value] => (None, Some(value)),
            _ => (None, None),
        };
        let mut after = Vec::new();
        let key = match (index, over) {
            (Some(index), Over::Map) => Some(self.loop_variable(index, declared, Kind::Text, &mut after)),
            (None, Over::Map) => Some(self.scopes.fresh("key")),
            (Some(index), _) => {
                self.loop_index(index, declared, &mut after);
                None
            }
            (None, _) => None,
        };
        let (item, source) = match value {
            Some(value) => {
                let place = declared + usize::from(index.is_some());
                (self.loop_variable(value, place, element.clone(), &mut after), Some(Source::Variable(place)))
            }
            None => (self.scopes.fresh("item"), None),
        };
        let read = match value.and_then(|value| self.scopes.find(value)) {
            Some(found) if self.before.variables.get(&found.declared).is_some_and(|it| it.assigned_in_loop) => {
                Jinja::name(found.name).under("value")
            }
            _ => Jinja::name(item.as_str()),
        };
        self.dot = Term { source, ..Term::new(read, element, self.tag.clone()) };
        let targets = key.map_or_else(|| item.clone(), |key| format!("{key}, {item}"));
        let mut written = vec![statement(format!("for {targets} in {}", iterated.written_whole()))];
        written.extend(after);
        Ok(written)
    }

    /// Declares a variable of a loop; what has to be set for it comes after the loop's tag.
    fn loop_variable(&mut self, name: &str, declared: usize, kind: Kind, after: &mut Vec<Written>) -> String {
        let chosen = self.scopes.declare(name, declared, self.tag.end, self.before);
        let facts = self.facts.variables.entry(declared).or_default();
        facts.kind = std::mem::replace(&mut facts.kind, Kind::Nothing).join(kind);
        if self.before.variables.get(&declared).is_some_and(|known| known.assigned_in_loop) {
            after.push(statement(format!("set {chosen} = namespace(value={chosen})")));
        }
        chosen
    }

    /// Declares the variable that counts: Jinja has `loop.index0`, which an inner loop has for itself.
    fn loop_index(&mut self, name: &str, declared: usize, after: &mut Vec<Written>) {
        let count = Jinja::name("loop").under("index0");
        let known = self.before.variables.get(&declared).cloned().unwrap_or_default();
        let chosen = self.scopes.declare(name, declared, self.tag.end, self.before);
        self.facts.variables.entry(declared).or_default().kind = Kind::Int;
        if known.assigned_in_loop {
            after.push(statement(format!("set {chosen} = namespace(value={})", count.written())));
        } else if known.assigned || known.read_in_inner_loop {
            after.push(statement(format!("set {chosen} = {}", count.written())));
        } else {
            self.stands_for.insert(declared, count);
        }
    }

    fn jump(&mut self, word: &str) -> Result<Vec<Written>> {
        if self.scopes.in_loop() {
            Ok(vec![statement(word)])
        } else {
            Err(Untranslatable::new(self.tag.clone(), format!("`{word}` outside of a loop")))
        }
    }

    fn end(&mut self) -> Vec<Written> {
        let Some(block) = self.close() else { return Vec::new() };
        match block.kind {
            BlockKind::If | BlockKind::Left => (0..=block.more_ends).map(|_| statement("endif")).collect(),
            BlockKind::Loop => {
                let inner = (0..block.more_ends).map(|_| statement("endif"));
                inner.chain([statement("endfor")]).collect()
            }
            BlockKind::Macro(outside) => {
                self.define = outside.define;
                self.dollar = outside.dollar;
                self.known = outside.known;
                let call = outside.call.map(Written::Expression);
                std::iter::once(statement("endmacro")).chain(call).collect()
            }
        }
    }

    fn define(&mut self, name: &str, call: Option<String>) -> Result<Vec<Written>> {
        let at = self.tag.start;
        let facts = self.facts.defines.entry(name.to_owned()).or_default();
        facts.at = at;
        facts.defined = true;
        let known = self.before.defines.get(name).cloned().unwrap_or_default();
        let macro_name = self.macro_name(name);
        let parameter = match &known.given {
            Some(kind) if !known.given_root => Some((self.scopes.fresh("dot"), kind.clone())),
            _ => None,
        };
        self.open_block(BlockKind::Left, Boundary::Template);
        self.known.pop();
        let outside = Outside {
            define: self.define.replace(name.to_owned()),
            dollar: self.dollar.clone(),
            known: std::mem::take(&mut self.known),
            call,
        };
        self.known.push(Default::default());
        if let Some(block) = self.open.last_mut() {
            block.kind = BlockKind::Macro(Box::new(outside));
        }
        self.dot = match &parameter {
            Some((name, kind)) => Term::new(Jinja::name(name.as_str()), kind.clone(), at..at),
            None => Term::root(at..at),
        };
        self.dollar = self.dot.clone();
        let parameters = parameter.map_or_else(String::new, |(name, _)| name);
        Ok(vec![statement(format!("macro {macro_name}({parameters})"))])
    }

    fn macro_name(&mut self, name: &str) -> String {
        if let Some(known) = self.macros.get(name) {
            return known.clone();
        }
        let chosen = self.scopes.fresh(name);
        self.macros.insert(name.to_owned(), chosen.clone());
        chosen
    }

    /// The call of a template.
    fn template(&mut self, name: &str, pipe: Option<&Pipe>) -> Result<String> {
        let known = self.before.defines.get(name).cloned().unwrap_or_default();
        let given = match pipe {
            Some(pipe) => {
                self.place_of(pipe);
                Some(self.pipeline(&pipe.node)?)
            }
            None => None,
        };
        let facts = self.facts.defines.entry(name.to_owned()).or_default();
        match &given {
            Some(term) if term.kind == Kind::Root => facts.given_root = true,
            Some(term) => {
                let before = facts.given.take().unwrap_or(Kind::Nothing);
                facts.given = Some(before.join(term.kind.clone()));
            }
            None => facts.given_nothing = true,
        }
        if !known.defined {
            let message = Jinja::text(format!("there is no template \"{name}\""));
            return Ok(Jinja::Call("fail".into(), vec![message]).written());
        }
        let fault = |why: String, hint: &str| Err(Untranslatable::new(self.tag.clone(), why).hint(hint));
        if known.at > self.tag.start {
            return fault(
                format!("the template \"{name}\" is defined further down, a macro of Jinja has to be above"),
                "move `define` with all that is in it up",
            );
        }
        if known.given_root && known.given.is_some() {
            return fault(
                format!("the template \"{name}\" is given all variables in one place and something else in another"),
                "make two of it",
            );
        }
        if given.is_none() && known.asks {
            return fault(
                format!("the template \"{name}\" asks for variables and is given none"),
                "debos hands over what is named: `{{ template \"…\" . }}`",
            );
        }
        let arguments = given.filter(|term| term.kind != Kind::Root).map(|term| term.jinja);
        let name = self.macro_name(name);
        Ok(Jinja::Call(name, arguments.into_iter().collect()).written())
    }
}

/// What a condition asks.
enum Asked {
    /// Whether something is true, and what is there if so.
    Condition(Jinja, std::collections::BTreeSet<Source>),
    /// Whether a value is there, which is given a name, or becomes `.` with `with`.
    Value(Term, bool),
}

/// What a loop goes over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    List,
    Parts,
    Map,
    Number,
}

impl Over {
    fn of(term: &Term) -> Option<Self> {
        match term.kind {
            Kind::List(_) => Some(Self::List),
            Kind::Parts => Some(Self::Parts),
            Kind::Map(_) | Kind::OpenMap => Some(Self::Map),
            Kind::Int => Some(Self::Number),
            _ => None,
        }
    }

    fn element(self, kind: &Kind) -> Kind {
        match kind {
            Kind::List(kind) => (**kind).clone().without_gap().0,
            Kind::Parts => Kind::Text,
            Kind::Int => Kind::Int,
            Kind::Map(fields) => fields.values().fold(Kind::Nothing, |kind, field| kind.join(field.kind.clone())),
            _ => Kind::Unknown,
        }
    }
}

/// Whether an expression can be written twice without doing anything twice.
fn is_path(jinja: &Jinja) -> bool {
    match jinja {
        Jinja::Name(_) => true,
        Jinja::Attribute(of, _) => is_path(of),
        _ => false,
    }
}
