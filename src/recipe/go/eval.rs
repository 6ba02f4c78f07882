//! The values of pipelines: text/template's rules for operands, fields, arguments and calls.

use std::ops::Range;

use gotmpl::parse::{CommandNode, Expr, Number, PipeNode, SmolStr};

use super::Fault;
use super::exec::Executor;
use super::functions::{self, Function, Param};
use super::lexer::is_word;
use super::value::{Of, Value};

/// A value, or why there is none.
pub(super) type Evaluated<T = Value> = Result<T, Box<Fault>>;

impl Executor<'_> {
    /// The value of a pipeline, which its variables get; a fault is said.
    pub(super) fn pipe_or_unknown(&mut self, pipe: &PipeNode, dot: &Value) -> Value {
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

    pub(super) fn assign(&mut self, name: &SmolStr, value: Value) {
        if let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            slot.1 = value;
        }
    }

    pub(super) fn evaluate(&mut self, pipe: &PipeNode, dot: &Value) -> Evaluated {
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
                let unset = written.strip_prefix('.').filter(|name| name.chars().all(is_word));
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
