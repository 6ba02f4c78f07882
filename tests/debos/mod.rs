//! Recipes of debos: as they are, read as leniently as debos reads them, and in Jinja.

mod import;
mod odd;
mod random;
mod strictness;
mod templates;
