//! The two front ends: a recipe's text is rendered as Jinja or as a Go template, whichever it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::dialect::{Detected, Dialect, detect};
use super::source_map::Origin;
use super::template::{self, Rendered};
use super::{Loader, Options, Strictness, go};
use crate::diagnostics::{Diagnostics, Source, Span};

/// A recipe that is to be rendered.
pub(super) struct Text<'a> {
    pub(super) path: &'a Path,
    pub(super) source: &'a Arc<Source>,
    /// As they were given.
    pub(super) variables: &'a BTreeMap<String, String>,
    /// How one came to it, innermost first.
    pub(super) included_from: &'a [Span],
    /// The language of the recipe that calls it.
    pub(super) caller: Option<Dialect>,
}

impl Text<'_> {
    /// The language that it is in. A mix of both is reported, and there is none.
    pub(super) fn dialect(&self, options: &Options, out: &mut Diagnostics) -> Option<Dialect> {
        if options.dialect.is_some() {
            return options.dialect;
        }
        let by_default = if options.debos { Dialect::Go } else { Dialect::Jinja };
        match detect(&self.source.text) {
            Detected::Sure(dialect) => Some(dialect),
            Detected::Plain => Some(self.caller.unwrap_or(by_default)),
            Detected::Mixed { go, jinja } => {
                let at = |range: &std::ops::Range<usize>| Span::new(self.source, range.start, range.end);
                let (first, second, named) = if go.start < jinja.start {
                    (at(&go), at(&jinja), ["Go's", "Jinja's"])
                } else {
                    (at(&jinja), at(&go), ["Jinja's", "Go's"])
                };
                let place = first.place();
                let origin = Origin { span: second, included_from: self.included_from.to_vec() };
                let diagnostic = origin
                    .error(format!("this tag is {}, the one on line {} is {}", named[1], place.line, named[0]))
                    .label(format!("`{}` on line {}", shown(&first), place.line))
                    .hint("a file is one or the other: in Go's `{{ .name }}` is a variable, in Jinja `{{ name }}`")
                    .hint("or say which: `--template go`, `--template jinja`");
                out.push(diagnostic);
                None
            }
        }
    }

    /// Renders it. Reports all that is wrong; the text is there unless it could not be rendered at all.
    pub(super) fn render(
        &self,
        dialect: Dialect,
        options: &Options,
        loader: &dyn Loader,
        out: &mut Diagnostics,
    ) -> Option<Rendered> {
        match dialect {
            Dialect::Jinja => {
                let variables = with_both_names(self.variables.clone());
                let dirs = &options.template_dirs;
                template::render(self.path, self.source, &variables, dirs, self.included_from, loader, out)
            }
            Dialect::Go => {
                let strict = options.strictness == Strictness::Strict;
                let settings = go::Settings { impure: options.impure, strict };
                go::render(self.path, self.source, self.variables, settings, self.included_from, out)
            }
        }
    }
}

/// Whether what debos takes and ignores is only warned of.
pub(super) fn is_lenient(dialect: Dialect, options: &Options) -> bool {
    match options.strictness {
        Strictness::ByDialect => dialect == Dialect::Go,
        Strictness::Strict => false,
        Strictness::Lenient => true,
    }
}

/// The first line of a tag.
fn shown(span: &Span) -> &str {
    span.source.text[span.start..span.end].lines().next().unwrap_or_default()
}

/// `arch` and `architecture` are one; whoever gives one of them has both.
pub(super) fn with_both_names(mut variables: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for (given, other) in [("arch", "architecture"), ("architecture", "arch")] {
        if let (Some(value), false) = (variables.get(given).cloned(), variables.contains_key(other)) {
            variables.insert(other.to_owned(), value);
        }
    }
    variables
}
