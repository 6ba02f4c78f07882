//! Variables of a Go template: which is meant, and what it is called in Jinja.
//!
//! Go's variables end with the block that declares them; an assignment changes the variable that was declared,
//! wherever that was. Jinja's end with the loop, and `set` makes a new one there. A template is therefore walked
//! until nothing new is learned of its variables, and written by what is known then.

use std::collections::{BTreeMap, BTreeSet};

use super::kinds::Kind;

/// A declaration, by its place in the text.
pub(super) type Declared = usize;

/// What is known of a template from walking it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) variables: BTreeMap<Declared, Variable>,
    /// The recipe's variables (`.name`), and where each is read.
    pub(super) inputs: BTreeMap<String, BTreeSet<usize>>,
    /// What is defined with `define` and `block`.
    pub(super) defines: BTreeMap<String, Defined>,
    /// Inputs whose absence shows: debos writes `<no value>`.
    pub(super) wanted: BTreeSet<String>,
    /// What inputs are compared with, by their names.
    pub(super) compared: BTreeMap<String, BTreeSet<String>>,
}

/// What is known of a variable.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variable {
    pub(super) kind: Kind,
    /// Whether what it is set to may be missing.
    pub(super) optional: bool,
    /// The inputs that it depends on.
    pub(super) inputs: BTreeSet<String>,
    /// Whether it is set again.
    pub(super) assigned: bool,
    /// Whether it is set again in a loop that it is declared outside of.
    pub(super) assigned_in_loop: bool,
    /// Whether it is asked whether it is true, or what it is.
    pub(super) asked: bool,
    /// Whether missing and empty are told apart.
    pub(super) absence_matters: bool,
    /// Whether it is read in a loop within the one that it counts.
    pub(super) read_in_inner_loop: bool,
}

impl Default for Variable {
    fn default() -> Self {
        Self {
            kind: Kind::Nothing,
            optional: false,
            inputs: BTreeSet::new(),
            assigned: false,
            assigned_in_loop: false,
            asked: false,
            absence_matters: false,
            read_in_inner_loop: false,
        }
    }
}

impl Variable {
    /// Whether it is given the empty text where it would be missing.
    pub(super) fn defaulted(&self) -> bool {
        self.optional && self.asked && !self.absence_matters
    }
}

/// What is known of a `define`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Defined {
    /// What it is given, where that is not all variables.
    pub(super) given: Option<Kind>,
    /// Whether it is given all variables, with `.` or `$`.
    pub(super) given_root: bool,
    /// Whether it is given nothing.
    pub(super) given_nothing: bool,
    /// Whether it asks for anything that it is given.
    pub(super) asks: bool,
    /// Whether it is there.
    pub(super) defined: bool,
    /// Where.
    pub(super) at: usize,
}

/// What ends where variables of Jinja end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    /// Nothing in Jinja: `if`, `with`.
    None,
    /// Each turn of a loop.
    Loop,
    /// A macro, or the template.
    Template,
}

/// A block while it is open.
#[derive(Debug)]
struct Frame {
    boundary: Boundary,
    /// Where it ends in the text.
    until: usize,
    variables: Vec<(String, Declared)>,
}

/// The blocks that are open.
#[derive(Debug)]
pub(super) struct Scopes {
    frames: Vec<Frame>,
    names: BTreeMap<Declared, String>,
    /// Every word that stands in a tag.
    words: BTreeSet<String>,
    taken: BTreeSet<String>,
}

/// A variable as it is read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) declared: Declared,
    /// What it is called in Jinja.
    pub(super) name: String,
    /// Whether there is a loop between its declaration and here.
    pub(super) through_loop: bool,
    /// Loops between its declaration and here, that of the declaration itself not counted.
    pub(super) loops: usize,
}

/// Names that Jinja, or the functions that translations call, need for themselves.
const RESERVED: [&str; 24] = [
    "and",
    "dict",
    "elif",
    "else",
    "escape",
    "fail",
    "False",
    "false",
    "for",
    "if",
    "in",
    "is",
    "loop",
    "namespace",
    "none",
    "None",
    "not",
    "or",
    "range",
    "sector",
    "self",
    "True",
    "true",
    "uuid5",
];

/// Whether an input of this name can be read in Jinja.
pub(super) fn readable(name: &str) -> bool {
    super::jinja::is_name(name) && (!RESERVED.contains(&name) || ["escape", "fail", "sector", "uuid5"].contains(&name))
}

impl Scopes {
    /// A template that ends at `until`, in whose tags these words stand.
    pub(super) fn new(until: usize, words: BTreeSet<String>) -> Self {
        let frame = Frame { boundary: Boundary::Template, until, variables: Vec::new() };
        Self { frames: vec![frame], names: BTreeMap::new(), words, taken: BTreeSet::new() }
    }

    pub(super) fn open(&mut self, boundary: Boundary, until: usize) {
        self.frames.push(Frame { boundary, until, variables: Vec::new() });
    }

    pub(super) fn close(&mut self) {
        if self.frames.len() > 1 {
            self.frames.pop();
        }
    }

    /// Whether a loop is open in the template or macro that is being walked.
    pub(super) fn in_loop(&self) -> bool {
        self.frames
            .iter()
            .rev()
            .take_while(|frame| frame.boundary != Boundary::Template)
            .any(|frame| frame.boundary == Boundary::Loop)
    }

    /// Declares a variable; `from` is where its value is known from on. Gives its name in Jinja.
    pub(super) fn declare(&mut self, name: &str, declared: Declared, from: usize, facts: &Facts) -> String {
        let until = self
            .frames
            .iter()
            .rev()
            .find(|frame| frame.boundary != Boundary::None)
            .map_or(usize::MAX, |frame| frame.until);
        let read_later = facts.inputs.get(name).is_some_and(|reads| reads.range(from..until).next().is_some());
        let shadows = self.shadows(name);
        let usable = super::jinja::is_name(name) && !RESERVED.contains(&name);
        let chosen = if usable && !read_later && !shadows { name.to_owned() } else { self.fresh(name) };
        self.names.insert(declared, chosen.clone());
        if let Some(frame) = self.frames.last_mut() {
            frame.variables.push((name.to_owned(), declared));
        }
        chosen
    }

    /// Whether setting the name here would change a variable that Go keeps apart.
    fn shadows(&self, name: &str) -> bool {
        let mut frames = self.frames.iter().rev();
        // Right in a loop's block, or where the last one of the same block has the name, it is a new variable to
        // Jinja as well.
        let Some(own) = frames.next() else { return false };
        let before = own.variables.iter().rev().find(|(known, _)| known == name);
        let has_it = before.and_then(|(_, declared)| self.names.get(declared)).is_some_and(|chosen| chosen == name);
        if own.boundary != Boundary::None || has_it {
            return false;
        }
        for frame in frames {
            if frame.variables.iter().any(|(known, _)| known == name) {
                return true;
            }
            if frame.boundary != Boundary::None {
                return false;
            }
        }
        false
    }

    /// A name that nothing in the template has.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let base: String = base.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let usable = |name: &str| super::jinja::is_name(name) && !RESERVED.contains(&name);
        let candidates = std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}_{number}")));
        let free = |name: &String| usable(name) && !self.words.contains(name) && !self.taken.contains(name);
        let chosen = candidates.map(|name| if usable(&name) { name } else { format!("_{name}") }).find(free);
        let chosen = chosen.unwrap_or(base);
        self.taken.insert(chosen.clone());
        chosen
    }

    /// The variable that a name means here.
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        let mut loops = 0;
        for frame in self.frames.iter().rev() {
            if let Some((_, declared)) = frame.variables.iter().rev().find(|(known, _)| known == name) {
                let chosen = self.names.get(declared)?.clone();
                return Some(Found { declared: *declared, name: chosen, through_loop: loops > 0, loops });
            }
            match frame.boundary {
                Boundary::Template => return None,
                Boundary::Loop => loops += 1,
                Boundary::None => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes() -> Scopes {
        Scopes::new(1000, ["x", "item"].map(str::to_owned).into())
    }

    #[test]
    fn a_variable_gives_way_to_an_input_that_is_read_later() {
        let mut facts = Facts::default();
        facts.inputs.entry("x".into()).or_default().extend([5, 50]);
        assert_eq!(scopes().declare("x", 2, 10, &facts), "x_2");
        assert_eq!(scopes().declare("x", 2, 60, &facts), "x");
    }

    #[test]
    fn an_inner_variable_does_not_overwrite_an_outer_one() {
        let facts = Facts::default();
        let mut scopes = scopes();
        scopes.declare("x", 1, 1, &facts);
        scopes.open(Boundary::None, 100);
        assert_eq!(scopes.declare("x", 10, 10, &facts), "x_2");
        assert_eq!(scopes.find("x").unwrap().name, "x_2");
        assert_eq!(scopes.declare("x", 20, 20, &facts), "x_3");
        scopes.close();
        assert_eq!(scopes.find("x").unwrap().name, "x");
        scopes.open(Boundary::Loop, 200);
        assert_eq!(scopes.declare("x", 110, 110, &facts), "x");
        assert!(!scopes.find("x").unwrap().through_loop);
    }

    #[test]
    fn a_new_name_is_nobodys() {
        assert_eq!(scopes().fresh("item"), "item_2");
        assert_eq!(scopes().fresh("range"), "_range");
        assert_eq!(scopes().fresh("my-part"), "my_part");
    }
}
