//! What the command line says of a recipe's template and of how strictly it is read.

use crate::recipe::{Dialect, Strictness};

/// How a recipe's text is read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TemplateArgs {
    /// Language of the recipe's template; debos's recipes are Go templates.
    #[arg(long, value_name = "LANGUAGE", value_enum, default_value_t)]
    pub template: Template,

    /// Make what debos takes and ignores an error, as unknown keys; in Go templates it is a warning.
    #[arg(long)]
    pub strict: bool,

    /// Make it a warning in every recipe.
    #[arg(long, conflicts_with = "strict")]
    pub lenient: bool,

    /// Let a Go template ask for the date, the environment, random numbers and hosts.
    #[arg(long)]
    pub impure: bool,
}

/// See [`TemplateArgs::template`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// What the tags of each file say
    #[default]
    Auto,
    /// Go's text/template with slim-sprig's functions
    Go,
    /// Jinja
    Jinja,
}

impl Template {
    fn dialect(self) -> Option<Dialect> {
        match self {
            Self::Auto => None,
            Self::Go => Some(Dialect::Go),
            Self::Jinja => Some(Dialect::Jinja),
        }
    }
}

impl TemplateArgs {
    /// As debos reads a recipe.
    pub fn of_debos() -> Self {
        Self { template: Template::Go, strict: false, lenient: true, impure: true }
    }

    /// The language of all templates, where it was given.
    pub fn dialect(&self) -> Option<Dialect> {
        self.template.dialect()
    }

    /// What becomes of what debos takes and ignores.
    pub fn strictness(&self) -> Strictness {
        match (self.strict, self.lenient) {
            (true, _) => Strictness::Strict,
            (false, true) => Strictness::Lenient,
            (false, false) => Strictness::ByDialect,
        }
    }

    /// The arguments that say the same again.
    pub fn again(&self) -> Vec<String> {
        let language = match self.template {
            Template::Auto => None,
            Template::Go => Some("--template=go"),
            Template::Jinja => Some("--template=jinja"),
        };
        let flags = [("--strict", self.strict), ("--lenient", self.lenient), ("--impure", self.impure)];
        let flags = flags.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag);
        language.into_iter().chain(flags).map(str::to_owned).collect()
    }
}
