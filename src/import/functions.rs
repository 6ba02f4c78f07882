//! Functions of debos's templates (Go's own, slim-sprig's, debos's) as Jinja has them.

use std::ops::Range;

use super::jinja::{Jinja, Operator};
use super::kinds::Kind;
use super::pipeline::{Result, Term, Untranslatable};
use super::writer::Writer;

/// A call with its arguments, the piped one last.
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) arguments: Vec<Term>,
    /// Where its name is written.
    pub(super) at: Range<usize>,
}

impl Call<'_> {
    /// The arguments, where there are so many.
    pub(super) fn exactly<const N: usize>(&mut self) -> Result<[Term; N]> {
        let given = self.arguments.len();
        <[Term; N]>::try_from(std::mem::take(&mut self.arguments)).map_err(|_| self.count(given))
    }

    pub(super) fn at_least(&self, least: usize) -> Result<()> {
        let given = self.arguments.len();
        if given < least { Err(self.count(given)) } else { Ok(()) }
    }

    pub(super) fn count(&self, given: usize) -> Untranslatable {
        let number = match given {
            0 => "no argument".to_owned(),
            1 => "one argument".to_owned(),
            n => format!("{n} arguments"),
        };
        self.fault(format!("`{}` does not take {number}", self.name)).hint("debos stops here, too")
    }

    pub(super) fn fault(&self, why: impl Into<String>) -> Untranslatable {
        Untranslatable::new(self.at.clone(), why)
    }

    pub(super) fn gives(&self, jinja: Jinja, kind: Kind) -> Term {
        Term::new(jinja, kind, self.at.clone())
    }
}

/// What functions cannot be translated, why, and what to do instead.
const WITHOUT: &[(&[&str], &str, &str)] = &[
    (
        &["env", "expandenv"],
        "a recipe cannot read the environment: it has to mean the same everywhere",
        "hand it in with `-t`, and write `{{ name }}`",
    ),
    (
        &[
            "now",
            "date",
            "dateInZone",
            "dateModify",
            "ago",
            "duration",
            "durationRound",
            "htmlDate",
            "htmlDateInZone",
            "toDate",
            "mustToDate",
            "unixEpoch",
            "date_in_zone",
            "date_modify",
            "mustDateModify",
            "must_date_modify",
        ],
        "a recipe cannot know the time: it has to mean the same tomorrow",
        "hand it in: `-t date:$(date +%F)`, and write `{{ date }}`",
    ),
    (
        &["randInt", "randAlpha", "randAlphaNum", "randNumeric", "randAscii", "randBytes", "uuidv4"],
        "a recipe has no random numbers: it has to mean the same tomorrow",
        "`uuid5(\"dns\", name)` gives a UUID that depends on a name",
    ),
    (&["html", "js", "urlquery"], "Jinja's recipes are neither HTML nor JavaScript", "write the text as it has to be"),
];

impl Writer<'_> {
    /// The value of a call.
    pub(super) fn call(&mut self, name: &str, arguments: Vec<Term>, at: Range<usize>) -> Result<Term> {
        let call = Call { name, arguments, at };
        let whole = call.arguments.iter().position(|argument| argument.kind == Kind::Root);
        if let Some(position) = whole
            && !(call.name == "index" && position == 0)
        {
            return Err(call.fault(format!("`{name}` of all variables at once, which Jinja has no name for")));
        }
        match name {
            "and" | "or" | "not" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "default" | "coalesce" | "empty"
            | "ternary" | "all" | "any" | "fail" => self.logic(call),
            "printf" | "print" | "println" | "cat" => self.printing(call),
            "escape" | "uuid5" | "trim" | "upper" | "lower" | "trimAll" | "trimPrefix" | "trimSuffix" | "hasPrefix"
            | "hasSuffix" | "contains" | "replace" | "repeat" | "quote" | "squote" | "indent" | "nindent"
            | "substr" | "trunc" | "toString" | "sha256sum" | "base" | "dir" | "isAbs" | "plural" | "b64enc"
            | "b64dec" => self.texts(call),
            "sector" | "add" | "add1" | "sub" | "mul" | "div" | "mod" | "min" | "max" | "int" | "int64" | "atoi"
            | "len" => self.numbers(call),
            "until" | "untilStep" | "list" | "tuple" | "append" | "push" | "prepend" | "first" | "last" | "rest"
            | "initial" | "reverse" | "uniq" | "without" | "has" | "concat" | "compact" | "slice" | "split"
            | "splitList" | "join" | "sortAlpha" | "index" => self.lists(call),
            "dict" | "get" | "hasKey" | "keys" | "values" | "pick" => self.maps(call),
            _ => Err(unknown(&call)),
        }
    }

    fn logic(&mut self, mut call: Call) -> Result<Term> {
        match call.name {
            "not" | "empty" => {
                let [value] = call.exactly()?;
                let jinja = self.truth(value).negated();
                Ok(call.gives(jinja, Kind::Bool))
            }
            "eq" | "ne" => self.equality(call),
            "lt" | "le" | "gt" | "ge" => {
                let operator = match call.name {
                    "lt" => Operator::Less,
                    "le" => Operator::LessOrEqual,
                    "gt" => Operator::Greater,
                    _ => Operator::GreaterOrEqual,
                };
                let [left, right] = call.exactly()?;
                comparable(&left, &right, &call)?;
                let jinja = self.text(left).binary(operator, self.text(right));
                Ok(call.gives(jinja, Kind::Bool))
            }
            "or" | "coalesce" => {
                call.at_least(1)?;
                let terms = std::mem::take(&mut call.arguments).into_iter();
                let chosen = terms.reduce(|value, otherwise| self.or_else(value, otherwise));
                Ok(chosen.unwrap_or_else(|| call.gives(Jinja::None, Kind::Unknown)))
            }
            "default" => {
                let [otherwise, value] = call.exactly()?;
                Ok(self.or_else(value, otherwise))
            }
            "and" | "all" | "any" => {
                call.at_least(1)?;
                let operator = if call.name == "any" { Operator::Or } else { Operator::And };
                let mut terms = std::mem::take(&mut call.arguments);
                let last = terms.pop();
                let kind = match (&last, call.name) {
                    (Some(last), "and") => {
                        terms.iter().fold(last.kind.clone(), |kind, term| kind.join(term.kind.clone()))
                    }
                    _ => Kind::Bool,
                };
                let plain = kind == Kind::Bool && terms.iter().chain(&last).all(|term| term.kind == Kind::Bool);
                if call.name != "and" && !plain {
                    return Err(call.fault(format!("`{}` of values that are not true or false", call.name)));
                }
                let mut all: Vec<Jinja> = terms.into_iter().map(|term| self.truth(term)).collect();
                all.extend(last.map(|last| self.truth(last)));
                let jinja = all.into_iter().reduce(|left, right| left.binary(operator, right));
                Ok(call.gives(jinja.unwrap_or(Jinja::None), kind))
            }
            "ternary" => {
                let [yes, no, condition] = call.exactly()?;
                let kind = yes.kind.clone().join(no.kind.clone());
                let (optional, missing) = (yes.optional || no.optional, yes.missing || no.missing);
                let inputs = yes.inputs.union(&no.inputs).cloned().collect();
                [&yes, &no].into_iter().for_each(|branch| self.passes_on(branch));
                let (yes, no) = (self.text(yes), self.text(no));
                let condition = self.truth(condition);
                let jinja = Jinja::Ternary(Box::new(yes), Box::new(condition), Box::new(no));
                Ok(Term { optional, missing, inputs, ..call.gives(jinja, kind) })
            }
            _ => {
                let [message] = call.exactly()?;
                let message = self.text(message);
                Ok(call.gives(Jinja::Call("fail".into(), vec![message]), Kind::Text))
            }
        }
    }

    /// `eq a b c` asks whether a is b or c.
    fn equality(&mut self, mut call: Call) -> Result<Term> {
        call.at_least(2)?;
        if call.name == "ne" && call.arguments.len() > 2 {
            return Err(call.count(call.arguments.len()));
        }
        let mut arguments = std::mem::take(&mut call.arguments).into_iter();
        let Some(value) = arguments.next() else { return Err(call.count(0)) };
        let others: Vec<Term> = arguments.collect();
        for other in &others {
            comparable(&value, other, &call)?;
            self.matters(&value, other);
            self.matters(other, &value);
        }
        let jinja = match <[Term; 1]>::try_from(others) {
            Ok([other]) => {
                let left = self.compared(value.clone(), &other);
                left.binary(Operator::Equal, self.compared(other, &value))
            }
            Err(others) => {
                let weakest =
                    others.iter().find(|other| !matches!(&other.jinja, Jinja::Text(text) if !text.is_empty()));
                let against = weakest.unwrap_or(&others[0]).clone();
                let left = self.compared(value.clone(), &against);
                let others: Vec<Jinja> = others.into_iter().map(|other| self.compared(other, &value)).collect();
                left.binary(Operator::In, Jinja::list(others))
            }
        };
        let jinja = if call.name == "ne" { jinja.negated() } else { jinja };
        Ok(call.gives(jinja, Kind::Bool))
    }

    fn texts(&mut self, mut call: Call) -> Result<Term> {
        let simple = match call.name {
            "trim" => Some("trim"),
            "upper" => Some("upper"),
            "lower" => Some("lower"),
            "escape" => Some("escape"),
            "toString" => Some("string"),
            "sha256sum" => Some("sha256"),
            "base" => Some("basename"),
            "dir" => Some("dirname"),
            "b64enc" => Some("b64encode"),
            "b64dec" => Some("b64decode"),
            _ => None,
        };
        if let Some(filter) = simple {
            let [value] = call.exactly()?;
            textual(&value, &call)?;
            if matches!(call.name, "base" | "dir") {
                let note = "of a path that is empty or ends in `/`, Jinja takes another part than debos";
                self.note(call.at.clone(), note);
            }
            let jinja = self.text(value).filter(filter, []);
            return Ok(call.gives(jinja, Kind::Text));
        }
        // The value itself comes last in all of them.
        let turned = match call.name {
            "trimAll" => Some("trim"),
            "trimPrefix" => Some("removeprefix"),
            "trimSuffix" => Some("removesuffix"),
            "repeat" => Some("repeat"),
            _ => None,
        };
        if let Some(filter) = turned {
            let [argument, value] = call.exactly()?;
            let (argument, value) = (self.text(argument), self.text(value));
            return Ok(call.gives(value.filter(filter, [argument]), Kind::Text));
        }
        match call.name {
            "uuid5" => {
                let [namespace, name] = call.exactly()?;
                let jinja = Jinja::Call("uuid5".into(), vec![self.text(namespace), self.text(name)]);
                Ok(call.gives(jinja, Kind::Text))
            }
            "hasPrefix" | "hasSuffix" => {
                let test = if call.name == "hasPrefix" { "startingwith" } else { "endingwith" };
                let [part, value] = call.exactly()?;
                self.matters(&value, &part);
                let (part, value) = (self.text(part), self.text(value));
                Ok(call.gives(value.test(test, [part]), Kind::Bool))
            }
            "isAbs" => {
                let [path] = call.exactly()?;
                let jinja = self.text(path).test("startingwith", [Jinja::text("/")]);
                Ok(call.gives(jinja, Kind::Bool))
            }
            "contains" => {
                let [part, value] = call.exactly()?;
                self.matters(&value, &part);
                let (part, value) = (self.text(part), self.text(value));
                Ok(call.gives(part.binary(Operator::In, value), Kind::Bool))
            }
            "replace" => {
                let [old, new, value] = call.exactly()?;
                let (old, new, value) = (self.text(old), self.text(new), self.text(value));
                Ok(call.gives(value.filter("replace", [old, new]), Kind::Text))
            }
            "quote" | "squote" => {
                call.at_least(1)?;
                let mut all: Option<Jinja> = None;
                for value in std::mem::take(&mut call.arguments) {
                    // What is missing is left out, and an empty text is not.
                    self.passes_on(&value);
                    let value = self.text(value);
                    let quoted = match call.name {
                        "quote" => value.filter("quote", []),
                        _ => Jinja::text("'").concat(value).concat(Jinja::text("'")),
                    };
                    all = Some(match all {
                        Some(before) => before.concat(Jinja::text(" ")).concat(quoted),
                        None => quoted,
                    });
                }
                Ok(call.gives(all.unwrap_or_else(|| Jinja::text("")), Kind::Text))
            }
            "indent" | "nindent" => {
                let [width, value] = call.exactly()?;
                let Jinja::Int(width @ 0..=1000) = width.jinja else {
                    return Err(call.fault(format!("`{}` by a number that is not written here", call.name)));
                };
                let pad = format!("\n{}", " ".repeat(width as usize));
                let lead = if call.name == "nindent" { pad.clone() } else { pad[1..].to_owned() };
                // Jinja's `indent` takes the line break at the end away.
                let jinja = self.text(value).filter("replace", [Jinja::text("\n"), Jinja::text(pad)]);
                Ok(call.gives(Jinja::text(lead).concat(jinja), Kind::Text))
            }
            "substr" => {
                let [from, to, value] = call.exactly()?;
                let value = self.text(value);
                match (from.jinja, to.jinja) {
                    (Jinja::Int(from), Jinja::Int(to)) => {
                        let from = Some(from).filter(|from| *from > 0).map(|from| Box::new(Jinja::Int(from)));
                        let to = Some(to).filter(|to| *to >= 0).map(|to| Box::new(Jinja::Int(to)));
                        Ok(call.gives(Jinja::Slice(Box::new(value), from, to), Kind::Text))
                    }
                    _ => Err(call
                        .fault("`substr` between places that are not written here")
                        .hint("Jinja has `text[from:to]`")),
                }
            }
            "trunc" => {
                let [length, value] = call.exactly()?;
                let value = Box::new(self.text(value));
                match length.jinja {
                    Jinja::Int(length @ 0..) => {
                        Ok(call.gives(Jinja::Slice(value, None, Some(Box::new(Jinja::Int(length)))), Kind::Text))
                    }
                    Jinja::Int(length) => {
                        Ok(call.gives(Jinja::Slice(value, Some(Box::new(Jinja::Int(length))), None), Kind::Text))
                    }
                    _ => Err(call
                        .fault("`trunc` to a length that is not written here")
                        .hint("Jinja has `text[:length]`")),
                }
            }
            _ => {
                let [one, many, count] = call.exactly()?;
                let condition = self.text(count).binary(Operator::Equal, Jinja::Int(1));
                let (one, many) = (self.text(one), self.text(many));
                Ok(call.gives(Jinja::Ternary(Box::new(one), Box::new(condition), Box::new(many)), Kind::Text))
            }
        }
    }

    fn numbers(&mut self, mut call: Call) -> Result<Term> {
        let operator = match call.name {
            "add" => Some(Operator::Add),
            "sub" => Some(Operator::Subtract),
            "mul" => Some(Operator::Multiply),
            "div" => Some(Operator::FloorDivide),
            "mod" => Some(Operator::Remainder),
            _ => None,
        };
        if let Some(operator) = operator {
            call.at_least(2)?;
            if !matches!(operator, Operator::Add | Operator::Multiply) && call.arguments.len() > 2 {
                return Err(call.count(call.arguments.len()));
            }
            let terms = std::mem::take(&mut call.arguments);
            let mut all = Vec::with_capacity(terms.len());
            for term in terms {
                all.push(self.number(term, &call)?);
            }
            let jinja = all.into_iter().reduce(|left, right| left.binary(operator, right)).unwrap_or(Jinja::Int(0));
            return Ok(call.gives(jinja, Kind::Int));
        }
        match call.name {
            // A number of sectors, which `raw` and `image-partition` take as it is.
            "sector" => {
                let [count] = call.exactly()?;
                let jinja = match count.jinja {
                    Jinja::Int(count) => Jinja::text(count.to_string()),
                    _ => self.number(count, &call)?,
                };
                Ok(call.gives(jinja.concat(Jinja::text("s")), Kind::Text))
            }
            "min" | "max" => {
                call.at_least(1)?;
                let filter = if call.name == "min" { "min" } else { "max" };
                let terms = std::mem::take(&mut call.arguments);
                let mut all = Vec::with_capacity(terms.len());
                for term in terms {
                    all.push(self.number(term, &call)?);
                }
                Ok(call.gives(Jinja::list(all).filter(filter, []), Kind::Int))
            }
            "add1" => {
                let [value] = call.exactly()?;
                let jinja = self.number(value, &call)?.binary(Operator::Add, Jinja::Int(1));
                Ok(call.gives(jinja, Kind::Int))
            }
            "len" => {
                let [value] = call.exactly()?;
                if matches!(value.kind, Kind::Int | Kind::Bool | Kind::Float | Kind::Root) {
                    return Err(call.fault(format!("{} has no length", value.kind.called())));
                }
                let jinja = self.text(value).filter("length", []);
                Ok(call.gives(jinja, Kind::Int))
            }
            _ => {
                let [value] = call.exactly()?;
                let jinja = self.number(value, &call)?;
                Ok(call.gives(jinja, Kind::Int))
            }
        }
    }

    /// What stands for a value that is missing or empty.
    fn or_else(&mut self, value: Term, otherwise: Term) -> Term {
        self.passes_on(&otherwise);
        let kind = match value.kind.clone().join(otherwise.kind.clone()) {
            // Each of them is empty or something else; what is known of both is known of the result.
            Kind::Unknown if value.kind == Kind::Nothing => otherwise.kind.clone(),
            kind => kind,
        };
        // Jinja's `or` looks no further either, but takes nothing that is missing.
        let jinja = if !value.missing {
            value.jinja.binary(Operator::Or, otherwise.jinja)
        } else if otherwise.jinja == Jinja::text("") && value.kind == Kind::Text {
            value.jinja.filter("default", [otherwise.jinja])
        } else {
            value.jinja.filter("default", [otherwise.jinja, Jinja::Bool(true)])
        };
        let inputs = value.inputs.into_iter().chain(otherwise.inputs).collect();
        Term {
            jinja,
            kind,
            optional: otherwise.optional,
            missing: otherwise.missing,
            inputs,
            source: None,
            at: value.at,
        }
    }

    /// The value as a whole number.
    pub(super) fn number(&mut self, term: Term, call: &Call) -> Result<Jinja> {
        match term.kind {
            Kind::Int => Ok(self.text(term)),
            Kind::Text | Kind::Scalar | Kind::Unknown => {
                let note = "a text that is no decimal number is 0 to debos (and `010` is 8); Jinja stops there";
                self.note(call.at.clone(), note);
                Ok(self.text(term).filter("int", []))
            }
            Kind::Bool => Ok(self.text(term).filter("int", [])),
            kind => Err(call.fault(format!("`{}` of {}", call.name, kind.called()))),
        }
    }
}

fn textual(term: &Term, call: &Call) -> Result<()> {
    match term.kind {
        Kind::Text | Kind::Scalar | Kind::Unknown | Kind::Nothing => Ok(()),
        Kind::Int | Kind::Bool if call.name == "toString" => Ok(()),
        _ => Err(call.fault(format!("`{}` of {}", call.name, term.kind.called())).hint("debos stops here, too")),
    }
}

/// Go compares nothing but values of one kind.
fn comparable(left: &Term, right: &Term, call: &Call) -> Result<()> {
    let group = |kind: &Kind| match kind {
        Kind::Text | Kind::Parts => Some(1),
        Kind::Int => Some(2),
        Kind::Float => Some(3),
        Kind::Bool => Some(4),
        _ => None,
    };
    match (group(&left.kind), group(&right.kind)) {
        (Some(one), Some(other)) if one != other => Err(call
            .fault(format!("`{}` of {} and {}", call.name, left.kind.called(), right.kind.called()))
            .hint("debos stops here, too: values of `-t` are texts, and \"1\" is none other than \"1\"")),
        _ => Ok(()),
    }
}

fn unknown(call: &Call) -> Untranslatable {
    for (names, why, hint) in WITHOUT {
        if names.contains(&call.name) {
            return call.fault(*why).hint(*hint);
        }
    }
    let fault = call.fault(format!("Jinja has no counterpart of `{}` that means the same", call.name));
    fault.hint(format!("`{}` has to be written in other words, or its result handed in with `-t`", call.name))
}
