//! Recipes of debos as they are: Go templates, read as leniently as debos reads them.

mod odd;
mod strictness;
mod templates;
