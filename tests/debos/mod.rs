//! Recipes of debos: as they are, read as leniently as debos reads them, and in Jinja.

mod odd;
mod import;
mod random;
mod strictness;
mod templates;
