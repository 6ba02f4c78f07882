//! debos's recipes: Go templates, as they are and in Jinja.

mod import;
mod random;
